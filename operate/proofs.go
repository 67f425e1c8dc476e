package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postern/auth"
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
	// AppPasswords are those beside its own password.
	AppPasswords []AppPassword `json:"app_passwords,omitempty"`
}

// Show returns an account, or a login that is Known, with the ways in which it can log in.
func (a Accounts) Show(ctx context.Context, by Actor, of Among, login string) (v Detailed, err error) {
	u, here, err := a.Known(ctx, by, of, login)
	if err != nil {
		return v, err
	}
	var keys auth.ScramKeys
	var cram auth.CramKeys
	if here {
		if _, keys, err = a.Store.ScramUser(ctx, u.Login); err != nil {
			return v, err
		}
		if _, cram, err = a.Store.CramUser(ctx, u.Login); err != nil {
			return v, err
		}
	}
	certificates, err := a.Store.Certificates(ctx, u.Login)
	if err != nil {
		return v, err
	}
	v.Account = ShownKnown(u, here)
	for _, c := range certificates {
		v.Certificates = append(v.Certificates, Pinned{c.Digest.String(), c.Subject, c.Added})
	}
	if v.AppPasswords, err = AppPasswords(a).List(ctx, by, u.Login); err != nil {
		return v, err
	}
	v.Mechanisms = mechanismsOf(a.Config(), keys, certificates)
	for i := range v.Mechanisms {
		if m := &v.Mechanisms[i]; m.Name == auth.CramMD5 {
			m.Can, m.Why = mayCram(u, cram)
		}
	}
	if !here {
		v.Mechanisms = mechanismsElsewhere(v.Mechanisms, len(v.AppPasswords))
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
