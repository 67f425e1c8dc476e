package operate

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/certs"
	"postern/mail"
	"postern/relay/clientsetup"
	"postern/relay/config"
)

// Clients is what people need to set up their mail programs and devices.
type Clients struct{ *desk }

// Card returns everything that it takes for a login.
func (s Clients) Card(ctx context.Context, by Actor, login string) (clientsetup.Card, error) {
	u, stored, err := s.account(ctx, by, login)
	if err != nil {
		return clientsetup.Card{}, err
	}
	c := s.Config()
	covers := clientsetup.Covers(c.CertOptions(slog.New(slog.DiscardHandler)), time.Now())
	card := clientsetup.Of(c).Card(u.Login, u.Senders, covers)
	card.Notes = append(card.Notes, notesOfAccount(u, stored)...)
	return card, nil
}

// Profile is Apple's profile of a login.
type Profile struct {
	Document []byte
	Signed   bool
	Why      string // it is not signed
}

// AppleProfile returns the profile with which Apple's devices set up the account of a login.
func (s Clients) AppleProfile(ctx context.Context, by Actor, login string) (p Profile, err error) {
	card, err := s.Card(ctx, by, login)
	if err != nil {
		return p, err
	}
	c := s.Config()
	setup := clientsetup.Of(c)
	address, _, err := setup.ParseAddress(card.Address)
	if err != nil {
		return p, fault(Invalid, "%s has no address of a domain in [autoconfig], which a profile is made of",
			card.Login)
	}
	if p.Document, err = setup.Apple(address); err != nil {
		return p, fault(Conflict, "%v", err)
	}
	signer := certs.Signer(c.CertOptions(slog.New(slog.DiscardHandler)), time.Now())
	if signer == nil {
		p.Why = "no certificate in [tls] comes from an authority; devices show it as not signed and install it all " +
			"the same"
		return p, nil
	}
	signed, err := clientsetup.Sign(p.Document, signer)
	if err != nil {
		p.Why = err.Error()
		return p, nil
	}
	p.Document, p.Signed = signed, true
	return p, nil
}

// account returns an account. Where passwords are kept elsewhere too, there may be none here: stored is false.
func (s Clients) account(ctx context.Context, by Actor, login string) (u auth.User, stored bool, err error) {
	u, err = Accounts(s).Get(ctx, by, Everybody, login)
	if kind, known := KindOf(err); !known || kind != NotFound || !elsewhere(s.Config()) {
		return u, err == nil, err
	}
	login, err = CheckLogin(login)
	return auth.User{Login: login}, false, err
}

// elsewhere reports that logins may be proved by others than the store.
func elsewhere(c *config.Config) bool {
	return slices.ContainsFunc(c.Auth.Sources, func(s config.AuthSource) bool { return s.Type != "store" })
}

// notesOfAccount say what keeps a mail program from logging in.
func notesOfAccount(u auth.User, stored bool) (notes []string) {
	if !stored {
		notes = append(notes, "the login is not in the store; whether another source of passwords knows it was not "+
			"asked")
	}
	if u.Locked {
		notes = append(notes, "the login is locked: "+mail.Printable(u.LockReason))
	}
	if len(u.Networks) > 0 {
		var list []string
		for _, n := range u.Networks {
			list = append(list, n.String())
		}
		notes = append(notes, fmt.Sprintf("the login works from %s alone", strings.Join(list, ", ")))
	}
	return notes
}
