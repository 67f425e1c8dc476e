package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/mail"
)

// KeyDigest names a public key: SHA-256 of its SubjectPublicKeyInfo.
type KeyDigest [sha256.Size]byte

// DigestOf returns the digest of a certificate's key.
func DigestOf(c *x509.Certificate) KeyDigest { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// String writes it in hexadecimal digits.
func (d KeyDigest) String() string { return hex.EncodeToString(d[:]) }

// keySource is a Source that keeps keys which prove a login.
type keySource interface {
	// LoginOfKey returns whose key it is; ErrUnknownLogin if nobody's.
	LoginOfKey(ctx context.Context, d KeyDigest) (string, error)
}

// ErrCertificate is a certificate that proves no login. It is wrapped, with the reason for the log.
var ErrCertificate = errors.New("the client's certificate is not accepted")

var replyCertificate = mail.R(535, "5.7.8", "the certificate of this program is not accepted; ask the administrator "+
	"which one is")

// Certificate returns who has the certificate that a client has shown in TLS, which proves that it has the key: chain
// is that certificate and what came with it. It is the login that the key is pinned to, or, for a certificate of one of
// the authorities in roots, the address or name in it. login is what the client calls itself, or "". Its errors are
// *mail.Error.
func (a *Authenticator) Certificate(ctx context.Context, chain []*x509.Certificate, roots *x509.CertPool, login string,
	client netip.Addr) (Identity, error) {
	if until := a.LockedUntil("", client); !until.IsZero() {
		return a.answer(Identity{}, fmt.Errorf("%w until %s", ErrLockedOut, until.UTC().Format(time.RFC3339)))
	}
	id, err := a.certified(ctx, chain, roots, mail.LowerASCII(login))
	if err == nil && !id.Allows(client) {
		err = fmt.Errorf("%w: the certificate is right, but %s is not in %v", ErrNetwork, client, id.Networks)
	}
	id, err = a.answer(id, err)
	if reply, refused := mail.ReplyFor(err); refused && reply.Permanent() {
		proof := ""
		if len(chain) > 0 {
			proof = DigestOf(chain[0]).String()
		}
		a.failed(time.Now(), "", proof, client)
		err = mail.Refuse(replyCertificate, err)
	}
	return id, err
}

func (a *Authenticator) certified(ctx context.Context, chain []*x509.Certificate, roots *x509.CertPool, login string) (
	Identity, error) {
	if len(chain) == 0 {
		return Identity{}, fmt.Errorf("%w: it has shown none", ErrCertificate)
	}
	id, err := a.pinned(ctx, DigestOf(chain[0]), login)
	if !errors.Is(err, ErrUnknownLogin) {
		return id, err
	}
	names, err := namesOf(chain, roots)
	if err != nil {
		return Identity{}, err
	}
	switch {
	case login != "" && !slices.Contains(names, login):
		return Identity{}, fmt.Errorf("%w: it is for %s, and the client says %s", ErrCertificate,
			strings.Join(names, ", "), mail.Printable(login))
	case login == "" && len(names) > 1:
		return Identity{}, fmt.Errorf("%w: it is for %s, and the client does not say which", ErrCertificate,
			strings.Join(names, ", "))
	case login == "":
		login = names[0]
	}
	return a.lookup(ctx, login)
}

// pinned looks for the account that has a key; ErrUnknownLogin if none has.
func (a *Authenticator) pinned(ctx context.Context, d KeyDigest, login string) (Identity, error) {
	members := a.roster.Load().members
	for i, m := range members {
		keys, can := m.Source.(keySource)
		if !can || m.lookup == nil {
			continue
		}
		owner, err := keys.LoginOfKey(ctx, d)
		switch {
		case errors.Is(err, ErrUnknownLogin):
			continue
		case err != nil:
			return Identity{}, m.down(err)
		case login != "" && login != owner:
			return Identity{}, fmt.Errorf("%w: its key is that of %s, and the client says %s", ErrCertificate, owner,
				mail.Printable(login))
		}
		if err := a.ownedBy(ctx, members[:i], owner); err != nil {
			return Identity{}, err
		}
		id, err := a.lookupIn(ctx, []*member{m}, owner)
		if errors.Is(err, ErrUnknownLogin) {
			err = fmt.Errorf("%w: the login of its key is gone", ErrCertificate)
		}
		return id, err
	}
	return Identity{}, ErrUnknownLogin
}

// namesOf verifies a chain and returns the logins that its certificate may stand for: its addresses and host names.
func namesOf(chain []*x509.Certificate, roots *x509.CertPool) (names []string, err error) {
	leaf := chain[0]
	if roots == nil {
		return nil, fmt.Errorf("%w: no account has its key %s, and the listener has no client_ca_file", ErrCertificate,
			DigestOf(leaf))
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: others,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, fmt.Errorf("%w: no account has its key %s, and %s", ErrCertificate, DigestOf(leaf),
			mail.Printable(mail.Cut(err.Error(), 300)))
	}
	for _, n := range slices.Concat(leaf.EmailAddresses, leaf.DNSNames) {
		if name, ok := NormalizeLogin(n); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: it has neither an address nor a host name in its subjectAltName", ErrCertificate)
	}
	if len(names) > maxNames {
		return nil, fmt.Errorf("%w: it has %d names, and %d are enough", ErrCertificate, len(names), maxNames)
	}
	return names, nil
}

// maxNames bounds the names in a certificate.
const maxNames = 20
