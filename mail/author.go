package mail

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Authorship is who the message is from according to its header. The submitter must be allowed to use each of All.
type Authorship struct {
	Authors []Address // mailboxes of the From field; none: there is no From field (RFC 6409 §8 lets us add it)
	Sender  *Address  // mailbox of the Sender field
	Resent  []Address // mailboxes of all Resent-From and Resent-Sender fields
	// Named are addresses in display names that differ from their mailbox: a person reads
	// `"ceo@example.net" <me@example.com>` as the former.
	Named []Address
	// Changes says, for the trace, which fields were rewritten or removed, and why.
	Changes []string
	// Nobody is the display name of an author without an address.
	Nobody string
}

// Missing reports whether the message has no author.
func (a Authorship) Missing() bool { return len(a.Authors) == 0 }

// All yields every address that the header claims as its origin, authors first.
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

// CanonicalAuthors parses the originator fields of a header and makes them unambiguous: a field that is not in
// canonical form is rewritten from what was parsed, so that what is checked is what is forwarded. Empty fields are
// removed. It refuses groups, routes, more than one From or Sender, and ambiguous addresses and display names with a
// *Error of 550 5.6.0, which names the line and the reason, and leaves the header unchanged.
func CanonicalAuthors(header *Header) (Authorship, error) {
	var a Authorship
	h := *header
	from, err := a.take(&h, header, "From", 1)
	if err != nil {
		return Authorship{}, err
	}
	a.Authors = from
	sender, err := a.take(&h, header, "Sender", 1)
	if err != nil {
		return Authorship{}, err
	}
	if len(sender) > 1 {
		return Authorship{}, header.refuse(header.All("Sender")[0], "Sender", errSenders) // RFC 5322 §3.6.2
	}
	if len(sender) == 1 {
		a.Sender = &sender[0]
	}
	// Each resending adds a block (RFC 5322 §3.6.6), so several are in order.
	for _, name := range []string{"Resent-From", "Resent-Sender"} {
		resent, err := a.take(&h, header, name, MaxHeaderFields)
		if err != nil {
			return Authorship{}, err
		}
		a.Resent = append(a.Resent, resent...)
	}
	*header = h
	return a, nil
}

var errSenders = errors.New("names more than one mailbox")

// take parses the fields of one name in h and makes them canonical. header is the header before any changes.
func (a *Authorship) take(h, header *Header, name string, most int) ([]Address, error) {
	var addresses []Address
	count := 0
	for i := 0; i < len(h.Fields); i++ {
		f := h.Fields[i]
		if !f.Is(name) {
			continue
		}
		boxes, err := readAuthors(f)
		if err == nil && boxes == nil || err == errListNobody && len(boxes) == 1 {
			if boxes != nil && name == "From" {
				a.Nobody = boxes[0].name
			}
			h.RemoveAt(i)
			i--
			a.Changes = append(a.Changes, "the "+name+" field is removed: it is empty")
			continue
		}
		if count++; count > most {
			err = fmt.Errorf("occurs %d times in the header but may occur only once", h.Count(name))
		}
		if err != nil {
			return nil, header.refuse(f, name, err)
		}
		for _, box := range boxes {
			addresses = append(addresses, box.address)
			a.Named = append(a.Named, box.named()...)
		}
		if reason := canonicalBreak(string(f.Body())); reason != "" {
			h.Replace(i, authorField(f.Name, boxes))
			a.Changes = append(a.Changes, "the "+name+" field is rewritten: "+reason)
		}
	}
	return addresses, nil
}

// readAuthors parses the mailboxes of a field; none if it names nobody.
func readAuthors(f Field) ([]mailbox, error) {
	value := f.Value()
	if isEmptyList(value) {
		return nil, nil
	}
	return readMailboxes(value)
}

// isEmptyList reports whether a field names nobody: it is empty, or has neither an address nor a name.
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

// refuse refuses the field f of a header from ReadHeader. It also gives the line, unless lines were mended.
func (h Header) refuse(f Field, name string, reason error) error {
	line := int64(1)
	for _, g := range h.Fields {
		if len(h.Mended) > 0 {
			break
		}
		if len(g.Raw) > 0 && len(f.Raw) > 0 && &g.Raw[0] == &f.Raw[0] {
			first, _, _ := bytes.Cut(f.Raw, crlf)
			return Refuse(R(550, "5.6.0", "%s: the %s field %s", NameLine(line, first), name, reason), nil)
		}
		line += int64(bytes.Count(g.Raw, crlf))
	}
	return Refuse(R(550, "5.6.0", "the %s field %s", name, reason), nil)
}

// SetAuthor adds a From field to a header without an author.
func SetAuthor(h *Header, to Address, name string) {
	h.Append(authorField("From", []mailbox{{address: to, name: name}}))
}

// RewriteAuthor makes `to` the only author of a message. The display name of the first From field stays, unless it
// shows an address. The original authors go into Reply-To if there is none and the From field could be parsed. A Sender
// field is removed: the one author is the sender now.
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
		if len(addressesIn(author.name)) > 0 || len(addressesIn(author.written())) > 0 {
			author.name = ""
		}
		boxes = slices.DeleteFunc(boxes, func(b mailbox) bool { return b.address == to })
		if err == nil && len(boxes) > 0 && !h.Has("Reply-To") {
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
	if text, err := decodeWords(value); err == nil {
		value = text // an encoded word may have the address in it
	}
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
	if err != nil || strings.Contains(name, "=?") {
		return ""
	}
	return name
}
