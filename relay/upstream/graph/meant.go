package graph

import (
	"slices"
	"strings"

	"postern/mail"
)

// Headers name the envelope's recipients in other words: a domain in another form, a local part alone. They are taken
// for them, and go out in full, since Exchange reads such words in its own way.

// correction writes addresses of a header field in full.
type correction struct {
	field int // in the header
	at    []span
}

// complete finds whom local parts mean, and returns what is to be written in full. A fault is that of one that cannot
// be found; it keeps the mail where we have parted the envelope.
func (who *addressees) complete(field string, recipients []mail.Recipient, whole []mail.Address) (full []span,
	parted *fault) {
	full = who.inFull()
	for _, l := range who.locals {
		a, f := meant(field, l.text, recipients, whole)
		switch {
		case f != nil && f.class.Permanent():
			return nil, f
		case f != nil:
			parted = f
		default:
			who.sure = append(who.sure, a)
			full = append(full, span{l.from, l.to, a.String()})
		}
	}
	return full, parted
}

// inFull are the addresses whose domain is not as Exchange reads it for certain: in Unicode, or with a dot behind it.
func (who *addressees) inFull() (full []span) {
	for i, a := range who.sure {
		if at := who.at[i]; strings.HasSuffix(at.text, ".") || !ascii(a.Domain) {
			a.Domain = mail.ALabels(a.Domain)
			full = append(full, span{at.from, at.to, a.String()})
		}
	}
	return full
}

// meant finds the one recipient whose local part a header gives without its domain. Exchange would look the word up in
// its address book, and may find somebody else there.
func meant(field, local string, recipients []mail.Recipient, whole []mail.Address) (mail.Address, *fault) {
	find := func(n int, address func(int) mail.Address) (found mail.Address, distinct int) {
		for i := range n {
			a := address(i)
			if strings.EqualFold(a.Local, local) && (distinct == 0 || key(a) != key(found)) {
				found = a
				distinct++
			}
		}
		return found, distinct
	}
	if a, n := find(len(recipients), func(i int) mail.Address { return recipients[i].To }); n == 1 {
		if !ascii(a.Domain) {
			a.Domain = mail.ALabels(a.Domain)
		}
		return a, nil
	} else if n > 1 {
		return a, unclear(field, local)
	}
	if a, n := find(len(whole), func(i int) mail.Address { return whole[i] }); n == 1 {
		return a, partedFault(field, a)
	}
	return mail.Address{}, unclear(field, local)
}

// write puts corrections into the header that goes out.
func (m *message) write(corrections []correction) {
	for _, c := range corrections {
		f := &m.header.Fields[c.field]
		value := f.Value()
		slices.SortFunc(c.at, func(a, b span) int { return b.from - a.from }) // from behind, so that places hold
		for _, at := range c.at {
			value = value[:at.from] + at.text + value[at.to:]
		}
		*f = mail.NewField(f.Name, value)
	}
}

// parseRooted reads an address whose domain may end with the dot of the root (RFC 1034 §3.1), which names the same.
func parseRooted(s string) (mail.Address, error) {
	a, err := mail.ParseAddress(s)
	if rest, ok := strings.CutSuffix(s, "."); err != nil && ok {
		return mail.ParseAddress(rest)
	}
	return a, err
}

// isLocal reports a dot-atom without a domain.
func isLocal(s string) bool {
	a, err := mail.ParseAddress(s + "@example.com")
	return err == nil && a.Local == s
}
