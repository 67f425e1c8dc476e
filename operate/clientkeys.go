package operate

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/store"
)

// ClientCertificates is what may be done with the keys that prove logins.
type ClientCertificates struct{ accounts Accounts }

// Pin has a key prove a login. text is a certificate in PEM or a public key in PEM, of which the first counts, or the
// SHA-256 of the public key (SubjectPublicKeyInfo) in hexadecimal digits, with or without colons.
func (k ClientCertificates) Pin(ctx context.Context, by Actor, of Among, login string, text []byte) (
	c store.Certificate, err error) {
	a := k.accounts
	digest, subject, err := keyIn(text)
	if err != nil {
		return c, err
	}
	err = a.act(ctx, by, EditAccount, login, func(ctx context.Context, detail *string) error {
		u, err := a.Get(ctx, by, of, login)
		if err != nil {
			return err
		}
		c = store.Certificate{Digest: digest, Login: u.Login, Added: time.Now(), Subject: subject}
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

// UnpinKey has one key prove a login no more. key is its SHA-256 in hexadecimal digits.
func (k ClientCertificates) UnpinKey(ctx context.Context, by Actor, of Among, login, key string) error {
	a := k.accounts
	digest, ok := parseDigest(key)
	if !ok {
		return fault(Invalid, "%q is no key: write its SHA-256, 64 hexadecimal digits",
			mail.Printable(mail.Cut(key, maxNamed)))
	}
	return a.act(ctx, by, EditAccount, login, func(ctx context.Context, detail *string) error {
		u, err := a.Get(ctx, by, of, login)
		if err != nil {
			return err
		}
		*detail = "certificate removed (" + digest.String() + ")"
		had, err := a.Store.RemoveCertificate(ctx, u.Login, digest, time.Now())
		if err != nil {
			return err
		}
		if !had {
			return fault(NotFound, "the key %s does not prove %s", digest, u.Login)
		}
		return a.note(ctx, event(by, u.Login, *detail))
	})
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

// MaxPin bounds what is pinned, in octets: a certificate with its authorities.
const MaxPin = 64 << 10

// keyIn reads which key a text means, and what it is called.
func keyIn(text []byte) (d auth.KeyDigest, subject string, err error) {
	if len(text) > MaxPin {
		return d, "", fault(Invalid, "it has more than %d octets: that is no certificate", MaxPin)
	}
	if d, ok := parseDigest(string(text)); ok {
		return d, "only its fingerprint is known", nil
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return d, "", fault(Invalid, "there is neither a certificate in PEM form in it (-----BEGIN "+
				"CERTIFICATE-----), nor a public key (-----BEGIN PUBLIC KEY-----), nor the SHA-256 of one (64 "+
				"hexadecimal digits)")
		}
		switch block.Type { // a private key beside it is none of our business
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return d, "", fault(Invalid, "its certificate is damaged: %v", err)
			}
			return auth.DigestOf(c), mail.Printable(mail.Cut(c.Subject.String(), 200)), nil
		case "PUBLIC KEY":
			if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
				return d, "", fault(Invalid, "its public key is damaged: %v", err)
			}
			return sha256.Sum256(block.Bytes), "a public key without a certificate", nil
		}
	}
}

// parseDigest reads a SHA-256 as people copy it: in either case, with colons and white space.
func parseDigest(text string) (d auth.KeyDigest, ok bool) {
	const most = 400 // octets that are looked at: 64 digits with what stands between
	if len(text) > most {
		return d, false
	}
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune(": \t\r\n", r) {
			return -1
		}
		return r
	}, text)
	if len(digits) != hex.EncodedLen(len(d)) {
		return d, false
	}
	_, err := hex.Decode(d[:], []byte(digits))
	return d, err == nil
}
