package submission

import (
	"fmt"
	"slices"
	"strings"

	"postern/mail"
	"postern/policy"
)

// repairs is what a listener for old devices has mended in the envelope of a transaction, one sentence each.
type repairs struct {
	replaced string // of a reverse-path that ReplaceSender has just replaced
	made     []string
}

// begin starts those of a new transaction.
func (r *repairs) begin() {
	r.made = nil
	if r.replaced != "" {
		r.made = append(r.made, r.replaced)
	}
	r.replaced = ""
}

// Repaired implements wire.RepairObserver.
func (r *repairs) Repaired(what string) { r.made = append(r.made, what) }

// unreadable gives a device that writes no address into MAIL its own one.
func (r *repairs) unreadable(path string, own mail.Address) (mail.Address, bool) {
	if own.IsNull() {
		return own, false
	}
	r.replaced = fmt.Sprintf("the reverse-path %s is no address and becomes %s", shown(path), own.Path())
	return own, true
}

// local gives a device its own address for a reverse-path that has no domain of the Internet, such as root@localhost.
func (r *repairs) local(from, own mail.Address) (mail.Address, bool) {
	if own.IsNull() || !isLocal(from) {
		return from, false
	}
	r.made = append(r.made,
		fmt.Sprintf("the reverse-path %s has no full domain and becomes %s", from.Path(), own.Path()))
	return own, true
}

// isLocal reports an address whose domain is a single word: it names a machine, and nobody on the Internet.
func isLocal(a mail.Address) bool {
	return !a.IsNull() && !strings.ContainsAny(a.Domain, ".[")
}

func shown(s string) string { return `"` + mail.Printable(mail.Cut(s, 80)) + `"` }

// CheckDeviceAuthors is CheckAuthors for old devices: a From field that cannot be read, has no domain of the Internet,
// or occurs more than once, a Sender that may not be, and an address in a display name are mended first, so that the
// author is one whom the login may be. Whoever names an address in full that it may not use is refused as anywhere.
func CheckDeviceAuthors(e *policy.Effective, reversePath mail.Address, h mail.Header) (CheckedAuthors, error) {
	c, err := CheckAuthors(e, reversePath, h)
	if err == nil || e.Rewrites() { // which mends all of these
		return c, err
	}
	own := reversePath
	if !e.MaySend(own) {
		own = e.FirstSender()
	}
	if own.IsNull() {
		return c, err
	}
	r := authorRepair{effective: e, own: own}
	steps := []func(CheckedAuthors) (CheckedAuthors, bool){r.oneField, r.withoutSender, r.plainName, r.ownAddress}
	for _, mend := range steps {
		if mended, changed := mend(c); changed {
			if c = mended; c.check(e, own) == nil {
				return c, nil
			}
		}
	}
	return c, err
}

// authorRepair mends the author fields of one message. Each step takes the header as the one before left it.
type authorRepair struct {
	effective *policy.Effective
	own       mail.Address // of the device
}

// oneField keeps of several From fields the first that may be, or else the first.
func (r authorRepair) oneField(c CheckedAuthors) (CheckedAuthors, bool) {
	if c.Header.Count("From") < 2 {
		return c, false
	}
	keep := c.Header.Index("From")
	for i, f := range c.Header.Fields {
		alone := CheckedAuthors{Header: mail.Header{Fields: []mail.Field{f}}}
		if f.Is("From") && alone.check(r.effective, mail.Address{}) == nil {
			keep = i
			break
		}
	}
	c.note("of %d From fields one is kept", c.Header.Count("From"))
	mail.OneAuthorField(&c.Header, keep)
	return c, true
}

// withoutSender takes Sender fields out that may not be: one author is left, who then is the sender too.
func (r authorRepair) withoutSender(c CheckedAuthors) (CheckedAuthors, bool) {
	alone := CheckedAuthors{}
	for _, f := range c.Header.All("Sender") {
		alone.Header.Fields = append(alone.Header.Fields, mail.Field{Name: "From", Raw: append([]byte("From"),
			f.Raw[len(f.Name):]...)})
	}
	if len(alone.Header.Fields) == 0 || alone.check(r.effective, mail.Address{}) == nil {
		return c, false
	}
	c.note("the Sender field is removed: it names nobody whom the login may be")
	c.Header.Remove("Sender")
	return c, true
}

// plainName takes a display name out that shows an address.
func (r authorRepair) plainName(c CheckedAuthors) (CheckedAuthors, bool) {
	before := c.Header.Get("From")
	if !mail.WithoutNamed(&c.Header) {
		return c, false
	}
	c.note("the display name of the From field is removed: it shows an address (it was %s)", shown(before))
	return c, true
}

// ownAddress makes the device's own address the author where the From field names nobody who could be one.
func (r authorRepair) ownAddress(c CheckedAuthors) (CheckedAuthors, bool) {
	alone := mail.Header{Fields: c.Header.All("From")}
	claimed, err := mail.CanonicalAuthors(&alone)
	if err == nil && len(claimed.Authors) > 0 {
		for _, a := range claimed.Authors {
			if !isLocal(a) && !r.effective.MaySend(a) {
				return c, false // a third person, in full
			}
		}
	}
	c.note("the author becomes %s: the From field is missing or names no address (it was %s)", r.own.Path(),
		shown(c.Header.Get("From")))
	answers := c.Header.Count("Reply-To")
	mail.RewriteAuthor(&c.Header, r.own)
	if answers == 0 && slices.ContainsFunc(claimed.Authors, isLocal) {
		c.Header.Remove("Reply-To") // nobody can answer there
	}
	return c, true
}

// deviceNotes say what complete adds and removes. Of other mail that is not remarked: most programs leave fields to the
// server, but whoever sets up a device wants to know what it does not do.
func deviceNotes(h mail.Header) (notes []string) {
	note := func(what string, names []string) {
		if len(names) > 0 {
			notes = append(notes, what+": "+strings.Join(names, ", "))
		}
	}
	absent := func(name string) bool { return !h.Has(name) }
	note("added", slices.DeleteFunc([]string{"Date", "Message-ID", "MIME-Version"}, h.Has))
	note("removed", slices.DeleteFunc([]string{"Bcc", "Resent-Bcc", "Return-Path"}, absent))
	return notes
}

func (c *CheckedAuthors) note(format string, args ...any) {
	c.Notes = append(c.Notes[:len(c.Notes):len(c.Notes)], fmt.Sprintf(format, args...))
}
