package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"postern/mail"
)

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	a := &authority{pool: x509.NewCertPool()}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour)}
	a.cert, a.key = a.sign(t, c, nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(t testing.TB, c *x509.Certificate, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	wantOK(t, err)
	by, signer := c, key
	if parent != nil {
		by, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, signer)
	wantOK(t, err)
	made, err := x509.ParseCertificate(der)
	wantOK(t, err)
	return made, key
}

func (a *authority) leaf(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	change(c)
	made, _ := a.sign(t, c, a)
	return made
}

func TestCertificate(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	named := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.EmailAddresses = names }
	}
	self, _ := ours.sign(t, &x509.Certificate{SerialNumber: big.NewInt(3), NotAfter: time.Now().Add(-time.Hour)}, nil)
	for _, c := range []struct {
		name  string
		leaf  *x509.Certificate
		pin   string // login that the key is pinned to
		login string // that the client says
		roots *x509.CertPool
		code  int
		why   error
	}{
		{"pinned", self, "anna", "", nil, 235, nil},
		{"pinned and said", self, "anna", "anna", nil, 235, nil},
		{"pinned to another", self, "anna", "printer", nil, 535, ErrCertificate},
		{"pinned to one that is locked", self, "locked", "", nil, 535, ErrLocked},
		{"pinned to one that is gone", self, "gone", "", nil, 535, ErrCertificate},
		{"pinned, outside", self, "office", "", nil, 535, ErrNetwork},
		{"not pinned", self, "", "", nil, 535, ErrCertificate},
		{"self-signed, not of the authority", self, "", "", ours.pool, 535, ErrCertificate},
		{"of the authority", ours.leaf(t, named("anna")), "", "", ours.pool, 235, nil},
		{"capitals", ours.leaf(t, named("ANNA")), "", "Anna", ours.pool, 235, nil},
		{"of the authority, by host name", ours.leaf(t, func(c *x509.Certificate) {
			c.DNSNames = []string{"printer"}
		}), "", "", ours.pool, 235, nil},
		{"several, one said", ours.leaf(t, named("anna", "printer")), "", "printer", ours.pool, 235, nil},
		{"several, none said", ours.leaf(t, named("anna", "printer")), "", "", ours.pool, 535, ErrCertificate},
		{"for somebody else", ours.leaf(t, named("anna")), "", "printer", ours.pool, 535, ErrCertificate},
		{"of another authority", other.leaf(t, named("anna")), "", "", ours.pool, 535, ErrCertificate},
		{"no authority here", ours.leaf(t, named("anna")), "", "", nil, 535, ErrCertificate},
		{"nobody's name", ours.leaf(t, named("nobody")), "", "", ours.pool, 535, ErrUnknownLogin},
		{"no name", ours.leaf(t, named()), "", "", ours.pool, 535, ErrCertificate},
		{"common name only", ours.leaf(t, func(c *x509.Certificate) {
			c.Subject.CommonName = "anna"
		}), "", "", ours.pool, 535, ErrCertificate},
		{"a server's", ours.leaf(t, func(c *x509.Certificate) {
			named("anna")(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "", "", ours.pool, 535, ErrCertificate},
		{"expired", ours.leaf(t, func(c *x509.Certificate) {
			named("anna")(c)
			c.NotAfter = time.Now().Add(-time.Minute)
		}), "", "", ours.pool, 535, ErrCertificate},
		{"locked", ours.leaf(t, named("locked")), "", "", ours.pool, 535, ErrLocked},
	} {
		r, p := newScramRig(t, Options{})
		if c.pin != "" {
			p.pins[DigestOf(c.leaf)] = c.pin
		}
		x, _ := NewExchange(External, Checks{Certificate: func(ctx context.Context, login string) mail.Reply {
			_, err := r.Certificate(ctx, []*x509.Certificate{c.leaf}, c.roots, login, there)
			if c.code != 235 && !errors.Is(err, c.why) {
				t.Errorf("%s: %v", c.name, err)
			}
			reply, refused := mail.ReplyFor(err)
			if !refused {
				return replyOK
			}
			return reply
		}})
		if _, reply := x.Next(t.Context(), []byte(c.login)); reply.Code != c.code {
			t.Errorf("%s: %q", c.name, reply)
		}
	}
}

// TestCertificateOutage: a store that cannot be read is 454, and so is no certificate at all 535.
func TestCertificateOutage(t *testing.T) {
	r, p := newScramRig(t, Options{})
	ca := newAuthority(t)
	leaf := ca.leaf(t, func(c *x509.Certificate) { c.EmailAddresses = []string{"anna"} })
	p.pins[DigestOf(leaf)] = "anna"
	r.users.fail(errors.New("disk"))
	_, err := r.Certificate(t.Context(), []*x509.Certificate{leaf}, nil, "", there)
	wantRefusal(t, err, 454, nil)
	_, err = r.Certificate(t.Context(), nil, nil, "", there)
	wantRefusal(t, err, 535, ErrCertificate)
}

func FuzzExternal(f *testing.F) {
	f.Add("anna")
	f.Add("")
	f.Fuzz(func(t *testing.T, login string) {
		x, _ := NewExchange(External, Checks{Certificate: func(_ context.Context, l string) mail.Reply {
			if !printable(l) || len(l) > MaxLength {
				t.Fatalf("%q is let through", l)
			}
			return replyOK
		}})
		if _, reply := x.Next(t.Context(), []byte(login)); reply.IsZero() {
			t.Fatal("it does not end")
		}
	})
}
