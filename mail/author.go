package mail

import (
	"fmt"
	"iter"
	netmail "net/mail"
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

// JudgeAuthors reads the originator fields of a header so strictly that no other reader can see other
// mailboxes in them. It accepts mailbox lists of `addr-spec`, `Display Name <addr-spec>` and the old
// `addr-spec (Name)`; groups, routes, comments elsewhere, an unquoted "@" in a display name, encoded
// words that hide addresses, more than one From or Sender, and whatever net/mail reads otherwise, are
// refused with a *Error of 550 5.6.0 that says why.
func JudgeAuthors(h Header) (Authorship, error) {
	var a Authorship
	from, err := judgeField(h, "From", 1, &a)
	if err != nil {
		return Authorship{}, err
	}
	a.Authors = from
	sender, err := judgeField(h, "Sender", 1, &a)
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
		resent, err := judgeField(h, name, MaxHeaderFields, &a)
		if err != nil {
			return Authorship{}, err
		}
		a.Resent = append(a.Resent, resent...)
	}
	return a, nil
}

func judgeField(h Header, name string, most int, a *Authorship) ([]Address, error) {
	fields := h.All(name)
	if len(fields) > most {
		return nil, refuseField(name, fmt.Sprintf("stands %d times in the header and may be there once", len(fields)))
	}
	var addresses []Address
	for _, f := range fields {
		boxes, err := parseMailboxes(f.Value())
		if err != nil {
			return nil, refuseField(name, err.Error())
		}
		for _, box := range boxes {
			addresses = append(addresses, box.address)
			a.Named = append(a.Named, box.named()...)
		}
	}
	return addresses, nil
}

func refuseField(name, reason string) error {
	return Refuse(R(550, "5.6.0", "the %s field %s", name, reason), nil)
}

// agrees reports whether net/mail, the reader most unlike ours, finds the same mailboxes in the same
// order.
func agrees(value string, boxes []mailbox) bool {
	parser := netmail.AddressParser{WordDecoder: wordDecoder}
	list, err := parser.ParseList(value)
	if err != nil || len(list) != len(boxes) {
		return false
	}
	for i, box := range boxes {
		at := strings.LastIndexByte(list[i].Address, '@')
		if at < 0 || list[i].Address[:at] != box.address.Local {
			return false
		}
		domain, err := ParseDomain(list[i].Address[at+1:])
		if err != nil || domain != box.address.Domain {
			return false
		}
	}
	return true
}

// RewriteAuthor makes `to` the only author of a message that JudgeAuthors accepted: the From field keeps
// the first author's display name, unless that shows an address, and its old body becomes the
// Reply-To field where there is none. A Sender field goes, since the one author is the sender now.
func RewriteAuthor(h *Header, to Address) error {
	i := h.Index("From")
	if i < 0 {
		h.Append(NewField("From", to.Path()))
		return nil
	}
	old := strings.ReplaceAll(h.Fields[i].Value(), "\t", " ")
	boxes, err := parseMailboxes(old)
	if err != nil {
		return refuseField("From", err.Error())
	}
	value := to.Path()
	if phrase := boxes[0].phrase; phrase != "" && len(addressesIn(boxes[0].text)) == 0 {
		value = phrase + " " + value
	}
	h.Replace(i, foldField("From", value))
	if !h.Has("Reply-To") {
		h.Append(foldField("Reply-To", old))
	}
	h.Remove("Sender")
	return nil
}
