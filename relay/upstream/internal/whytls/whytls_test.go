package whytls

import (
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

	"postern/internal/testkit/pki"
)

// newAuthority makes an authority under another one; under nil, a root.
func newAuthority(t *testing.T, parent *pki.CA, change func(*x509.Certificate)) *pki.CA {
	t.Helper()
	ca, err := parent.Authority(change)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// leaf is a server's certificate for localhost, changed as a case wants it.
func leaf(t *testing.T, ca *pki.CA, change func(*x509.Certificate), chain ...*pki.CA) tls.Certificate {
	t.Helper()
	made, err := ca.Leaf(pki.Options{Names: []string{"localhost"}, Change: change})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chain {
		made.TLS.Certificate = append(made.TLS.Certificate, c.Cert.Raw)
	}
	return made.TLS
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
	for _, c := range []struct {
		what  string
		cert  tls.Certificate
		roots *x509.CertPool
		host  string
		want  []string
		never string
	}{
		{"a common name alone", leaf(t, ca, named()), ca.Pool, "localhost",
			[]string{"names no host in subjectAltName; its common name localhost alone does not count"},
			"not for localhost but"},
		{"mail addresses only", leaf(t, ca, func(c *x509.Certificate) {
			c.DNSNames, c.EmailAddresses = nil,
				[]string{"a@example.com"}
		}), ca.Pool, "localhost",
			[]string{"names no host in subjectAltName"}, "but for"},
		{"no name at all", leaf(t, ca, func(c *x509.Certificate) { c.DNSNames, c.Subject = nil, pkix.Name{} }), ca.Pool,
			"localhost", []string{"names no host in subjectAltName:"}, "common name"},
		{"another name", leaf(t, ca, named("mx.example.com", "b.example.com")), ca.Pool, "localhost",
			[]string{"not for localhost but for mx.example.com, b.example.com", "host"}, ""},
		{"an address", leaf(t, ca, nil), ca.Pool, "127.0.0.1",
			[]string{"not for 127.0.0.1 but for localhost", "write such a name as host"}, ""},
		{"a star too short", leaf(t, ca, named("*.example.com")), ca.Pool, "a.b.example.com",
			[]string{"* stands for one label alone"}, ""},
		{"over", leaf(t, ca, past), ca.Pool, "localhost", []string{"the certificate is valid from",
			"owner has to renew it"}, "clock"},
		{"not yet", leaf(t, ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }), ca.Pool,
			"localhost", []string{"this machine's clock says " + time.Now().UTC().Format("2006-01-02T15")}, "renew"},
		{"an intermediate that is over", leaf(t, old, nil, old), ca.Pool, "localhost",
			[]string{`"Old Intermediate"`, "is valid from", "renew"}, "clock"},
		{"name constraints", leaf(t, narrow, nil), narrow.Pool, "localhost",
			[]string{"may not issue certificates for localhost (name constraints)"}, ""},
		{"not for servers", leaf(t, ca,
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), ca.Pool,
			"localhost",
			[]string{"not meant for servers"}, ""},
		{"issued by a server", leaf(t, notCA, nil, notCA), ca.Pool, "localhost",
			[]string{"may issue none (it is no authority)"}, ""},
		{"a critical extension", leaf(t, ca, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true,
				Value: []byte{5, 0}}}
		}), ca.Pool, "localhost", []string{"critical extension"}, ""},
		{"no intermediate", leaf(t, sub, nil), ca.Pool, "localhost",
			[]string{"not issued by an authority that we trust", `"Issuing 1"`, "sends no intermediate"}, ""},
		{"an authority of its own", leaf(t, ca, nil, ca), sub.Pool, "localhost",
			[]string{"not issued by an authority that we trust", `"Test authority"`, "ca_file"}, ""},
		{"self-signed", leaf(t, nil, nil), ca.Pool, "localhost",
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
	leaf, ca := &x509.Certificate{Subject: pkix.Name{CommonName: "mx.example.com"}}, &x509.Certificate{}
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
	good := leaf(t, ca, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })
	broken := tls.Certificate{PrivateKey: good.PrivateKey, Certificate: [][]byte{good.Certificate[0][:100]}}
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	us, err := ca.Leaf(pki.Options{Key: pki.RSA})
	if err != nil {
		t.Fatal(err)
	}
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
			&tls.Config{Certificates: []tls.Certificate{us.TLS}}, true, "does not take our cert_file"},
		{"nothing for the name", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config,
			error) {
			return nil, errors.New("no")
		}}, &tls.Config{}, false, "refuses TLS with us"},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.client.ServerName, c.client.RootCAs = "localhost", ca.Pool
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
