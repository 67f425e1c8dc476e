package whytls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// authority issues certificates of any kind for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
}

func newAuthority(t *testing.T, parent *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	c := template("Example CA")
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	if change != nil {
		change(c)
	}
	a := &authority{t: t, key: key(t)}
	by := &authority{t: t, cert: c, key: a.key}
	if parent != nil {
		by = parent
	}
	a.cert = by.sign(c, a.key.Public())
	return a
}

func (a *authority) sign(c *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// leaf is a server's certificate for localhost, changed as a case wants it.
func (a *authority) leaf(change func(*x509.Certificate), chain ...*x509.Certificate) tls.Certificate {
	a.t.Helper()
	c := template("localhost")
	c.DNSNames = []string{"localhost"}
	if change != nil {
		change(c)
	}
	k := key(a.t)
	made := tls.Certificate{PrivateKey: k, Certificate: [][]byte{a.sign(c, k.Public()).Raw}}
	for _, c := range chain {
		made.Certificate = append(made.Certificate, c.Raw)
	}
	return made
}

// shake is what a client of ours meets.
func shake(t *testing.T, server *tls.Config, client *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // not net.Pipe, on which both sides may write and neither read
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		if c := tls.Server(nc, server); c.Handshake() == nil {
			c.Write([]byte("x"))
		}
	}()
	right, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer right.Close()
	right.SetDeadline(time.Now().Add(time.Minute))
	c := tls.Client(right, client)
	err = c.Handshake()
	if err == nil { // in TLS 1.3 the server judges us behind the handshake
		_, err = c.Read(make([]byte, 1))
	}
	return err
}

func roots(certs ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// TestCertificate: each fault of a server's certificate is named for what it is, with what to do.
func TestCertificate(t *testing.T) {
	ca := newAuthority(t, nil, nil)
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}
	named := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	old := newAuthority(t, ca, func(c *x509.Certificate) { c.Subject.CommonName = "Old Intermediate"; past(c) })
	narrow := newAuthority(t, nil, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.net"} })
	sub := newAuthority(t, ca, func(c *x509.Certificate) { c.Subject.CommonName = "Issuing 1" })
	notCA := newAuthority(t, ca, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = "no authority",
			false, 0
	})
	self := key(t)
	selfSigned := template("localhost")
	selfSigned.DNSNames = []string{"localhost"}
	selfMade := (&authority{t: t, cert: selfSigned, key: self}).sign(selfSigned, self.Public())
	for _, c := range []struct {
		what  string
		cert  tls.Certificate
		roots *x509.CertPool
		host  string
		want  []string
		never string
	}{
		{"a common name alone", ca.leaf(named()), roots(ca.cert), "localhost",
			[]string{"names no host in subjectAltName; its common name localhost alone does not count"},
			"not for localhost but"},
		{"mail addresses only", ca.leaf(func(c *x509.Certificate) {
			c.DNSNames, c.EmailAddresses = nil,
				[]string{"a@example.com"}
		}), roots(ca.cert), "localhost",
			[]string{"names no host in subjectAltName"}, "but for"},
		{"no name at all", ca.leaf(func(c *x509.Certificate) { c.DNSNames, c.Subject = nil, pkix.Name{} }),
			roots(ca.cert), "localhost",
			[]string{"names no host in subjectAltName:"}, "common name"},
		{"another name", ca.leaf(named("mx.example.com", "b.example.com")), roots(ca.cert), "localhost",
			[]string{"not for localhost but for mx.example.com, b.example.com", "host"}, ""},
		{"an address", ca.leaf(nil), roots(ca.cert), "127.0.0.1",
			[]string{"not for 127.0.0.1 but for localhost", "write such a name as host"}, ""},
		{"a star too short", ca.leaf(named("*.example.com")), roots(ca.cert), "a.b.example.com",
			[]string{"* stands for one label alone"}, ""},
		{"over", ca.leaf(past), roots(ca.cert), "localhost",
			[]string{"the certificate is valid from", "owner has to renew it"}, "clock"},
		{"not yet", ca.leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
			roots(ca.cert), "localhost",
			[]string{"this machine's clock says " + time.Now().UTC().Format("2006-01-02T15")}, "renew"},
		{"an intermediate that is over", old.leaf(nil, old.cert), roots(ca.cert), "localhost",
			[]string{`"Old Intermediate"`, "is valid from", "renew"}, "clock"},
		{"name constraints", narrow.leaf(nil), roots(narrow.cert), "localhost",
			[]string{"may not issue certificates for localhost (name constraints)"}, ""},
		{"not for servers", ca.leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), roots(ca.cert), "localhost",
			[]string{"not meant for servers"}, ""},
		{"issued by a server", notCA.leaf(nil, notCA.cert), roots(ca.cert), "localhost",
			[]string{"may issue none (it is no authority)"}, ""},
		{"a critical extension", ca.leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true,
				Value: []byte{5, 0}}}
		}), roots(ca.cert), "localhost", []string{"critical extension"}, ""},
		{"no intermediate", sub.leaf(nil), roots(ca.cert), "localhost",
			[]string{"not issued by an authority that we trust", `"Issuing 1"`, "sends no intermediate"}, ""},
		{"an authority of its own", ca.leaf(nil, ca.cert), roots(sub.cert), "localhost",
			[]string{"not issued by an authority that we trust", `"Example CA"`, "ca_file"}, ""},
		{"self-signed", tls.Certificate{PrivateKey: self, Certificate: [][]byte{selfMade.Raw}}, roots(ca.cert),
			"localhost",
			[]string{"not issued by an authority that we trust", "self-signed", "ca_file"}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			err := shake(t, &tls.Config{Certificates: []tls.Certificate{c.cert}},
				&tls.Config{ServerName: c.host, RootCAs: c.roots})
			e, ok := errors.AsType[*tls.CertificateVerificationError](err)
			if !ok {
				t.Fatalf("the handshake: %v", err)
			}
			got := Certificate(e, c.host, time.Now())
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q lacks %q", got, want)
				}
			}
			if c.never != "" && strings.Contains(got, c.never) {
				t.Errorf("%q has %q", got, c.never)
			}
		})
	}
}

// Go signs nothing with SHA-1 any more: the field alone is what the explanation reads.
func TestOldHash(t *testing.T) {
	leaf, ca := template("mx.example.com"), template("Old CA")
	leaf.RawSubject, leaf.RawIssuer, leaf.SignatureAlgorithm = []byte("a"), []byte("b"), x509.SHA1WithRSA
	// a root's own signature means nothing
	ca.RawSubject, ca.RawIssuer, ca.SignatureAlgorithm = []byte("b"), []byte("b"), x509.MD5WithRSA
	got := unknownAuthority([]*x509.Certificate{leaf, ca}, time.Now())
	if !strings.Contains(got, `"mx.example.com" is signed with SHA-1`) || strings.Contains(got, "MD5") {
		t.Error(got)
	}
}

// negative is a certificate whose serial number is: Go makes none, so one octet of a good one is changed. Its signature
// breaks, which nobody looks at before it is parsed.
func negative(t *testing.T, c tls.Certificate) tls.Certificate {
	t.Helper()
	der := append([]byte(nil), c.Certificate[0]...)
	at := strings.Index(string(der), "\x02\x01\x07")
	if at < 0 {
		t.Fatal("no serial number")
	}
	der[at+2] = 0x87
	return tls.Certificate{PrivateKey: c.PrivateKey, Certificate: [][]byte{der}}
}

// TestHandshake: what ends a handshake beside a certificate that does not verify.
func TestHandshake(t *testing.T) {
	ca := newAuthority(t, nil, nil)
	good := ca.leaf(nil)
	broken := tls.Certificate{PrivateKey: good.PrivateKey, Certificate: [][]byte{good.Certificate[0][:100]}}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	ours := tls.Certificate{PrivateKey: rsaKey, Certificate: [][]byte{ca.sign(template("us"), rsaKey.Public()).Raw}}
	for _, c := range []struct {
		what           string
		server, client *tls.Config
		own            bool
		want           string
	}{
		{"negative serial number", &tls.Config{Certificates: []tls.Certificate{negative(t, good)}}, &tls.Config{},
			false, "its serial number is negative, which RFC 5280 forbids"},
		{"cut", &tls.Config{Certificates: []tls.Certificate{broken}}, &tls.Config{}, false,
			"shows a certificate that cannot be read"},
		{"an old server", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10,
			MaxVersion: tls.VersionTLS11}, &tls.Config{}, false,
			"offers no TLS of version 1.2 or later (we offer TLS 1.2 and 1.3"},
		{"no cipher in common", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12,
			CipherSuites: rsaOnly}, &tls.Config{}, false,
			"has no cipher suite or key type in common with us (we offer"},
		{"it wants a certificate", &tls.Config{Certificates: []tls.Certificate{good},
			ClientAuth: tls.RequireAnyClientCert}, &tls.Config{}, false, "write cert_file and key_file"},
		{"it does not take ours", &tls.Config{Certificates: []tls.Certificate{good},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()},
			&tls.Config{Certificates: []tls.Certificate{ours}}, true, "does not take our cert_file"},
		{"nothing for the name", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config,
			error) {
			return nil, errors.New("no")
		}}, &tls.Config{}, false, "refuses TLS with us"},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.client.ServerName, c.client.RootCAs = "localhost", roots(ca.cert)
			err := shake(t, c.server, c.client)
			got, ok := Handshake(err, c.own)
			if !ok || !strings.Contains(got, c.want) {
				t.Errorf("%v: %v %q, want %q", err, ok, got, c.want)
			}
		})
	}
	for _, err := range []error{net.ErrClosed, errors.New("EOF"),
		&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}} {
		if got, ok := Handshake(err, false); ok {
			t.Errorf("%v: %q", err, got)
		}
	}
}
