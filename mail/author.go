package mail

import (
	"fmt"
	"iter"
	"strings"
)

// Authorship is who a header says that the message is from. Whoever submits it must be allowed to be
// every one of All.
type Authorship struct {
	Authors []Address // mailboxes of the From field; none: there is no From field (RFC 6409 §8 lets us add it)
	Sender  *Address  // mailbox of the Sender field
	Resent  []Address // mailboxes of all Resent-From and Resent-Sender fields
	// Named is addresses that display names show and that are not the mailbox behind them: a person
	// reads `"ceo@example.net" <me@example.com>` as the former.
	Named []Address
	// Changes says for each field that was written anew or taken out which and why, for the trace.
	Changes []string
}

// Missing reports that the message has no author.
func (a Authorship) Missing() bool { return len(a.Authors) == 0 }

// All yields every address that the header claims to be from, beginning with the authors.
func (a Authorship) All() iter.Seq[Address] {
	return func(yield func(Address) bool) {
		for _, list := range [][]Address{a.Authors, a.Resent, a.Named} {
			for _, address := range list {
				if !yield(address) {
					return
				}
			}
		}
		if a.Sender != nil {
			yield(*a.Sender)
		}
	}
}

// CanonicalAuthors reads the originator fields of a header and leaves none in it that a reader could take for
// something else: a field that is not in canonical form already is written anew from what was read, so that what is
// judged is what is forwarded. Empty fields go. Groups, routes, more than one From or Sender, addresses and display
// names that cannot be told apart from their neighbours are refused with a *Error of 550 5.6.0 that says why, and
// the header stays as it was.
func CanonicalAuthors(header *Header) (Authorship, error) {
	var a Authorship
	h := *header
	from, err := a.take(&h, "From", 1)
	if err != nil {
		return Authorship{}, err
	}
	a.Authors = from
	sender, err := a.take(&h, "Sender", 1)
	if err != nil {
		return Authorship{}, err
	}
	if len(sender) > 1 {
		return Authorship{}, refuseField("Sender", "names more than one mailbox") // RFC 5322 §3.6.2
	}
	if len(sender) == 1 {
		a.Sender = &sender[0]
	}
	// Each resending adds its own block (RFC 5322 §3.6.6), so that several of them are in order.
	for _, name := range []string{"Resent-From", "Resent-Sender"} {
		resent, err := a.take(&h, name, MaxHeaderFields)
		if err != nil {
			return Authorship{}, err
		}
		a.Resent = append(a.Resent, resent...)
	}
	*header = h
	return a, nil
}

// take reads the fields of one name and makes them canonical.
func (a *Authorship) take(h *Header, name string, most int) ([]Address, error) {
	var addresses []Address
	count := 0
	for i := 0; i < len(h.Fields); i++ {
		f := h.Fields[i]
		if !f.Is(name) {
			continue
		}
		value := f.Value()
		if isEmptyList(value) {
			h.RemoveAt(i)
			i--
			a.Changes = append(a.Changes, "the "+name+" field is removed: it is empty")
			continue
		}
		if count++; count > most {
			return nil, refuseField(name, fmt.Sprintf("stands %d times in the header and may be there once", h.Count(name)))
		}
		boxes, err := readMailboxes(value)
		if err != nil {
			return nil, refuseField(name, err.Error())
		}
		for _, box := range boxes {
			addresses = append(addresses, box.address)
			a.Named = append(a.Named, box.named()...)
		}
		if reason := canonicalBreak(string(f.Body())); reason != "" {
			h.Replace(i, authorField(f.Name, boxes))
			a.Changes = append(a.Changes, "the "+name+" field is written anew: "+reason)
		}
	}
	return addresses, nil
}

// isEmptyList reports a field that says nobody: nothing, or no address and no name.
func isEmptyList(value string) bool {
	if len(value) > 8 {
		return false
	}
	switch strings.Join(strings.Fields(value), "") {
	case "", "<>", `""`, `""<>`:
		return true
	}
	return false
}

func refuseField(name, reason string) error {
	return Refuse(R(550, "5.6.0", "the %s field %s", name, reason), nil)
}

// SetAuthor gives a header without an author its From field.
func SetAuthor(h *Header, to Address) { h.Append(authorField("From", []mailbox{{address: to}})) }

// RewriteAuthor makes `to` the only author of a message, whatever its From fields say. The display name that the first
// of them shows stays, unless it shows an address; what it says becomes the Reply-To field where there is none and
// where it is a list of mailboxes. A Sender field goes, since the one author is the sender now.
func RewriteAuthor(h *Header, to Address) {
	author := mailbox{address: to}
	i := h.Index("From")
	if i < 0 {
		i = len(h.Fields)
		h.Append(Field{})
	} else {
		value := h.Fields[i].Value()
		boxes, err := readMailboxes(value)
		if err == nil {
			author.name = boxes[0].name
		} else {
			author.name = salvagedName(value)
		}
		if len(addressesIn(author.name)) > 0 {
			author.name = ""
		}
		if err == nil && !h.Has("Reply-To") {
			for j := range boxes {
				if len(boxes[j].named()) > 0 {
					boxes[j].name = ""
				}
			}
			h.Append(authorField("Reply-To", boxes))
		}
	}
	field := authorField("From", []mailbox{author})
	h.Replace(i, field)
	kept := make([]Field, 0, len(h.Fields))
	for j, f := range h.Fields {
		if j == i || !f.Is("From") && !f.Is("Sender") {
			kept = append(kept, f)
		}
	}
	h.Fields = kept
}

// salvagedName finds a display name in a field that is no list of mailboxes: what stands in front of an angle
// bracket, else the comment, which is how `root (Cron Daemon)` and `<scanner> (NAS)` name who they are.
func salvagedName(value string) string {
	value = decodeRaw(value)
	name, _, _ := strings.Cut(value, "<")
	if open := strings.IndexByte(value, '('); strings.Trim(name, " \t\"") == "" || name == value {
		if name = ""; open >= 0 {
			name = value[open+1:]
			if end := strings.LastIndexByte(name, ')'); end >= 0 {
				name = name[:end]
			}
		}
	}
	name, err := shownName(strings.Trim(name, " \t\""))
	if err != nil {
		return ""
	}
	return name
}
