package submission

import (
	"context"
	"fmt"

	"postern/mail"
	"postern/policy"
)

// checkAuthors takes the header as far as it may name its authors, and in the form in which all readers see the same.
func (u *submission) checkAuthors(context.Context) error {
	check := CheckAuthors
	if u.session.listener.IsAppliance() {
		check = CheckDeviceAuthors
	}
	checked, err := check(&u.session.effective, u.envelope.From, u.header)
	if err != nil {
		return err
	}
	u.header, u.author = checked.Header, checked.Author
	u.notes = append(u.notes, checked.Notes...)
	return nil
}

// CheckedAuthors is a header that names nobody whom its login may not be.
type CheckedAuthors struct {
	Header mail.Header
	Author mail.Address // the first one
	Notes  []string     // what was changed and why, one sentence each
}

// CheckAuthors lets a header pass if the login may use every mailbox that it names as an author or sender (RFC 6409
// §6.1), also the resent ones, and returns it with these fields in canonical form. A message without an author gets
// its reverse-path as one. With unlisted_sender = "rewrite" a Sender that may not be goes, and an author that
// may not be, or that cannot be read, becomes the first sender of the login.
func CheckAuthors(e *policy.Effective, reversePath mail.Address, h mail.Header) (CheckedAuthors, error) {
	c := CheckedAuthors{Header: h}
	err := c.check(e, reversePath)
	if err == nil || !e.Rewrites() {
		return c, err
	}
	if c.withoutSender(e, reversePath) {
		return c, nil
	}
	first := e.FirstSender()
	mail.RewriteAuthor(&c.Header, first)
	c.Notes = append(c.Notes, fmt.Sprintf("the author is now %s", first.Path()))
	return c, c.check(e, first) // what is left is foreign Resent-From and Resent-Sender fields: a third person sends
}

// withoutSender takes the Sender fields out if nothing else is wrong: the author may stay who he is.
func (c *CheckedAuthors) withoutSender(e *policy.Effective, reversePath mail.Address) bool {
	if !c.Header.Has("Sender") {
		return false
	}
	without := CheckedAuthors{Header: c.Header,
		Notes: []string{"the Sender field is removed: it names nobody whom the login may be"}}
	without.Header.Remove("Sender")
	if without.check(e, reversePath) != nil {
		return false
	}
	*c = without
	return true
}

// check changes nothing but where it succeeds.
func (c *CheckedAuthors) check(e *policy.Effective, reversePath mail.Address) error {
	h := c.Header
	claimed, err := mail.CanonicalAuthors(&h)
	if err != nil {
		return err
	}
	if claimed.Missing() && e.MaySend(reversePath) {
		mail.SetAuthor(&h, reversePath, claimed.Nobody)
		added, err := mail.CanonicalAuthors(&h)
		if err != nil {
			return err
		}
		claimed.Authors, claimed.Named = added.Authors, added.Named
		claimed.Changes = append(claimed.Changes, "the From field is added: the message had no author")
	}
	for a := range claimed.All() {
		if !e.MaySend(a) {
			return mail.Refuse(e.AuthorRefusal(a), nil)
		}
	}
	if claimed.Missing() {
		return mail.Refuse(replyNoAuthor, nil)
	}
	c.Header, c.Author = h, claimed.Authors[0]
	c.Notes = append(c.Notes, claimed.Changes...)
	return nil
}
