package operate

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/store"
)

// Mechanism is a way to log in, and whether an account can.
type Mechanism struct {
	Name      string   `json:"name"`
	Listeners []string `json:"listeners"`        // that offer it
	Can       bool     `json:"can"`              //
	Why       string   `json:"why,omitempty"`    // it cannot, and what to do
	Detail    string   `json:"detail,omitempty"` // of one that it can
}

// Pinned is a public key that proves a login.
type Pinned struct {
	Key     string    `json:"key"` // SHA-256 of its SubjectPublicKeyInfo
	Subject string    `json:"subject"`
	Added   time.Time `json:"added"`
}

// Detailed is an account with the ways in which it can log in.
type Detailed struct {
	Account
	Mechanisms   []Mechanism `json:"mechanisms"`
	Certificates []Pinned    `json:"certificates,omitempty"`
}

// Show returns an account with the ways in which it can log in.
func (a Accounts) Show(ctx context.Context, by Actor, of Among, login string) (v Detailed, err error) {
	u, err := a.Get(ctx, by, of, login)
	if err != nil {
		return v, err
	}
	_, keys, err := a.Store.ScramUser(ctx, u.Login)
	if err != nil {
		return v, err
	}
	_, cram, err := a.Store.CramUser(ctx, u.Login)
	if err != nil {
		return v, err
	}
	certificates, err := a.Store.Certificates(ctx, u.Login)
	if err != nil {
		return v, err
	}
	v.Account = ShownAccount(u)
	for _, c := range certificates {
		v.Certificates = append(v.Certificates, Pinned{c.Digest.String(), c.Subject, c.Added})
	}
	v.Mechanisms = mechanismsOf(a.Config(), keys, certificates)
	for i := range v.Mechanisms {
		if m := &v.Mechanisms[i]; m.Name == auth.CramMD5 {
			m.Can, m.Why = mayCram(u, cram)
		}
	}
	return v, nil
}

// mechanismsOf are those that any listener offers.
func mechanismsOf(c *config.Config, keys auth.ScramKeys, certificates []store.Certificate) (list []Mechanism) {
	authorities := false
	for i := range c.Listeners {
		l := &c.Listeners[i]
		authorities = authorities || l.ClientCAFile != ""
		for _, name := range c.Offered(l) {
			at := slices.IndexFunc(list, func(m Mechanism) bool { return m.Name == name })
			if at < 0 {
				at, list = len(list), append(list, Mechanism{Name: name})
			}
			list[at].Listeners = append(list[at].Listeners, l.Name)
		}
	}
	for i := range list {
		m := &list[i]
		switch m.Name {
		case auth.Plain, auth.Login:
			m.Can = true
		case auth.ScramSHA256, auth.ScramPlus:
			if m.Can = !keys.IsZero(); !m.Can {
				m.Why = "its password has no SCRAM keys yet: the next login with PLAIN or LOGIN makes them, and so " +
					"does a new password"
			}
		case auth.OAuthBearer, auth.XOAuth2:
			m.Why = "tokens are for logins of the issuer, not for those of the store"
		case auth.External:
			switch m.Can = len(certificates) > 0 || authorities; {
			case len(certificates) > 0:
				m.Detail = fmt.Sprintf("%d pinned", len(certificates))
			case authorities:
				m.Detail = "with a certificate of client_ca_file that names it"
			default:
				m.Why = "it has no certificate: postern user set LOGIN --certificate FILE"
			}
		}
	}
	return list
}

// mayCram reports whether an account can log in by CRAM-MD5, or why not.
func mayCram(u auth.User, keys auth.CramKeys) (can bool, why string) {
	switch {
	case !u.Device:
		return false, "it is for devices alone: choose PLAIN or LOGIN, which TLS protects better"
	case !u.Generated:
		return false, "it needs a generated password: postern device password LOGIN"
	case keys.IsZero():
		return false, "its password has no CRAM-MD5 keys yet: the next login with PLAIN or LOGIN makes them, and so " +
			"does postern device password LOGIN"
	}
	return true, ""
}

// ClientCertificates is what may be done with the keys that prove logins.
type ClientCertificates struct{ accounts Accounts }

// Pin has the key of a certificate, in PEM, prove a login.
func (k ClientCertificates) Pin(ctx context.Context, by Actor, of Among, login string, text []byte) (
	c store.Certificate, err error) {
	a := k.accounts
	leaf, err := firstCertificate(text)
	if err != nil {
		return c, err
	}
	err = a.act(ctx, by, EditAccount, login, func(ctx context.Context, detail *string) error {
		u, err := a.Get(ctx, by, of, login)
		if err != nil {
			return err
		}
		c = store.Certificate{Digest: auth.DigestOf(leaf), Login: u.Login, Added: time.Now(),
			Subject: mail.Printable(mail.Cut(leaf.Subject.String(), 200))}
		*detail = "certificate pinned (" + c.Digest.String() + ")"
		err = a.Store.AddCertificate(ctx, c)
		if errors.Is(err, store.ErrOtherLogin) || errors.Is(err, store.ErrTooMany) {
			return fault(Conflict, "%v", err)
		}
		if err != nil {
			return err
		}
		return a.note(ctx, event(by, u.Login, *detail))
	})
	return c, err
}

// Unpin has no key prove a login any more, and returns how many did.
func (k ClientCertificates) Unpin(ctx context.Context, by Actor, of Among, login string) (n int, err error) {
	a := k.accounts
	err = a.act(ctx, by, EditAccount, login, func(ctx context.Context, detail *string) error {
		u, err := a.Get(ctx, by, of, login)
		if err != nil {
			return err
		}
		*detail = "certificates removed"
		if n, err = a.Store.RemoveCertificates(ctx, u.Login, time.Now()); err != nil || n == 0 {
			return err
		}
		return a.note(ctx, event(by, u.Login, *detail))
	})
	return n, err
}

// firstCertificate reads the certificate of a client from PEM: the first, since those of its authorities follow.
func firstCertificate(text []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, fault(Invalid, "there is no certificate in PEM form in it (-----BEGIN CERTIFICATE-----)")
		}
		if text = rest; block.Type != "CERTIFICATE" {
			continue // a private key beside it is none of our business
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault(Invalid, "its certificate is damaged: %v", err)
		}
		return c, nil
	}
}
