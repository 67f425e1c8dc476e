package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/internal/testkit"
	"postern/relay/config"
	"postern/relay/finding"
	"postern/relay/trace"
)

// hook takes TLS connections and counts what it is told in them.
type hook struct {
	addr   string
	octets atomic.Int64
}

func startHook(t *testing.T, c testkit.Cert) *hook {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.Server())
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{addr: l.Addr().String()}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, conn)
			h.octets.Add(n)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return h
}

// submissionServer is one that stands where a listener should.
func submissionServer(t *testing.T, c fakesmtp.Config) string {
	t.Helper()
	s := fakesmtp.New(c)
	if _, err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Addr()
}

func listenerAt(address, mode, more string) string {
	return fmt.Sprintf("[[listener]]\nname = \"submission\"\naddress = %q\ntls = %q\n%s", address, mode, more)
}

func TestListenerFindings(t *testing.T) {
	ca := testkit.NewCA(t)
	ours, other := ca.Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}}), ca.Leaf(testkit.LeafOptions{})
	good := fakesmtp.Config{TLS: ours.Server(), Mechanisms: []string{"PLAIN"}}
	for _, c := range []struct {
		name, mode, more string
		server           func(fakesmtp.Config) fakesmtp.Config
		code             string
		weight           finding.Weight
		word             string
	}{
		{"good", "starttls", "", nil, codeListenerOK, finding.Healthy, "answers as it should"},
		{"implicit", "implicit", "", func(c fakesmtp.Config) fakesmtp.Config { c.Implicit = true; return c },
			codeListenerOK, finding.Healthy, "answers as it should"},
		{"outside", "starttls", "networks = [\"192.0.2.0/24\"]\n", nil, codeListenerOK, finding.Healthy,
			"networks of this listener leave"},
		{"other certificate", "starttls", "",
			func(c fakesmtp.Config) fakesmtp.Config { c.TLS = other.Server(); return c },
			codeListenerCertificate, finding.Fault, "not the one on the disk"},
		{"no STARTTLS", "starttls", "", func(c fakesmtp.Config) fakesmtp.Config { c.TLS = nil; return c },
			codeListenerNoStartTLS, finding.Danger, "mail inspection"},
		{"no login", "starttls", "", func(c fakesmtp.Config) fakesmtp.Config { c.Mechanisms = nil; return c },
			codeListenerNoAuth, finding.Danger, "mechanisms in [auth]"},
		{"login in clear", "starttls", "", func(c fakesmtp.Config) fakesmtp.Config {
			c.Extensions = []string{"AUTH PLAIN"}
			return c
		}, codeListenerAuthClear, finding.Fault, "another program answers there"},
		{"421", "starttls", "", func(c fakesmtp.Config) fakesmtp.Config {
			c.Hook = func(*fakesmtp.Session, string, string) fakesmtp.Action {
				return fakesmtp.Action{Reply: "421 4.3.2 too many \x1b[31mconnections"}
			}
			return c
		}, codeListenerRefuses, finding.Danger, "max_connections"},
		{"no TLS there", "implicit", "", nil, codeListenerTLS, finding.Danger, "No TLS connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := good
			if c.server != nil {
				server = c.server(good)
			}
			w := newWard(t, listenerAt(submissionServer(t, server), c.mode, c.more)+certified(ours)+plainUpstream)
			w.daemon(nil)
			want(t, w.examine("listeners"), c.code, c.weight, c.word)
		})
	}
	t.Run("closed", func(t *testing.T) {
		w := newWard(t, listenerAt("127.0.0.1:1", "starttls", "")+certified(ours)+plainUpstream)
		w.daemon(nil)
		want(t, w.examine("listeners"), codeListenerClosed, finding.Danger, "sport = :1", "refused")
	})
	t.Run("without a daemon", func(t *testing.T) {
		w := newWard(t, listenerAt("127.0.0.1:1", "starttls", "")+certified(ours)+plainUpstream)
		want(t, w.examine("listeners"), codeNotExamined, finding.Advice, "not tried")
	})
}

// A listener that takes the connection and never speaks is left when the time is over.
func TestASilentListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, _ = conn.Read(make([]byte, 1)) // of the ClientHello
			accepted <- conn
		}
		cancel() // as the deadline would
	}()
	v := visitListener(ctx, l.Addr().String(), &config.Listener{TLS: config.Implicit})
	(<-accepted).Close()
	if v.stage != "tls" || v.err == nil || !strings.Contains(v.err.Error(), "no answer within 10s") {
		t.Errorf("%+v", v)
	}
}

// The names that clients use lead to this machine, to another one, or nowhere; and a listener may not be where they
// lead.
func TestListenersByName(t *testing.T) {
	ca := testkit.NewCA(t)
	ours := ca.Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}})
	address := submissionServer(t, fakesmtp.Config{TLS: ours.Server(), Mechanisms: []string{"PLAIN"}})
	_, port, _ := net.SplitHostPort(address)
	w := newWard(t, listenerAt(":"+port, "starttls", "")+certified(ours)+plainUpstream)
	w.daemon(nil)
	lookup := func(addr string, err error) {
		w.o.machine.lookup = func(context.Context, string) ([]netip.Addr, error) {
			if err != nil {
				return nil, err
			}
			return []netip.Addr{netip.MustParseAddr(addr)}, nil
		}
	}
	list := w.examine("listeners")
	want(t, list, codeNameOK, finding.Healthy, "leads to this machine")
	want(t, list, codeListenerOK, finding.Healthy)
	not(t, list, codeListenerByName)
	lookup("", &net.DNSError{IsNotFound: true, Err: "no such host"})
	want(t, w.examine("listeners"), codeNameUnknown, finding.Fault, "no name server knows it", "Add an A record")
	lookup("", errors.New("the name server is silent"))
	want(t, w.examine("listeners"), codeNameUnknown, finding.Fault, "is silent.")
	lookup("127.0.0.99", nil) // ours as all of 127.0.0.0/8, and nothing listens there
	want(t, w.examine("listeners"), codeListenerByName, finding.Fault, "127.0.0.99", "firewall")
	w.o.machine.own = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.10")}, nil }
	lookup("240.0.0.1", nil) // nobody's
	list = w.examine("listeners")
	want(t, list, codeNameElsewhere, finding.Advice, "240.0.0.1", "192.0.2.10")
	want(t, list, codeListenerByName, finding.Advice, "from another computer")
}

func TestCertificateFindings(t *testing.T) {
	ca := testkit.NewCA(t)
	now := time.Now()
	leaf := func(change func(*x509.Certificate), o testkit.LeafOptions) testkit.Cert {
		if o.Names == nil {
			o.Names = []string{"relay.example.com"}
		}
		o.Change = change
		return ca.Leaf(o)
	}
	for _, c := range []struct {
		name   string
		cert   testkit.Cert
		code   string
		weight finding.Weight
		word   string
	}{
		{"good", leaf(nil, testkit.LeafOptions{Key: testkit.RSA}), codeCertificateOK, finding.Healthy, "RSA 2048"},
		{"expired", leaf(nil, testkit.LeafOptions{NotAfter: now.Add(-time.Hour)}), codeCertificateBroken,
			finding.Danger,
			"expired on"},
		{"days", leaf(nil, testkit.LeafOptions{NotAfter: now.Add(72 * time.Hour)}), codeCertificateEnds, finding.Danger,
			"in 2 days"},
		{"weeks", leaf(nil, testkit.LeafOptions{NotAfter: now.Add(20*24*time.Hour + time.Hour)}), codeCertificateEnds,
			finding.Fault, "in 20 days"},
		{"name", ca.WrongName(), codeCertificateName, finding.Danger, "not the host name relay.example.com"},
		{"usage", leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			testkit.LeafOptions{}), codeCertificateUsage, finding.Danger, "not meant for servers"},
		{"old devices", leaf(nil, testkit.LeafOptions{}), codeCertificateECDSA, finding.Advice, "RSA key of 2048"},
		{"chain", leaf(func(c *x509.Certificate) {
			c.Policies = []x509.OID{mustOID(t, 2, 23, 140, 1, 2, 1)}
		}, testkit.LeafOptions{}), codeCertificateChain, finding.Danger, "fullchain.pem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWard(t, certified(c.cert)+plainUpstream)
			w.o.machine.roots = ca.Pool
			list := w.examine("certificates")
			want(t, list, c.code, c.weight, c.word)
			if c.name == "good" && finding.Worst(list) != finding.Healthy {
				t.Errorf("a good one has faults:\n%s", text(list))
			}
		})
	}
	w := newWard(t, certified(leaf(nil, testkit.LeafOptions{}))+plainUpstream)
	w.o.machine.roots = testkit.NewCA(t).Pool
	want(t, w.examine("certificates"), codeCertificateAuthority, finding.Advice, "Test authority", "fullchain.pem")
	w = newWard(t, plainUpstream)
	startedOnce(t, w)
	list := w.examine("certificates")
	want(t, list, codeCertificateSelfSigned, finding.Advice, "RSA 2048", "ECDSA P-256")
	not(t, list, codeCertificateECDSA, codeCertificateAuthority)
}

// What package certs has no file for: weak keys, weak signatures, authorities that have ended.
func TestCertificatesOfOld(t *testing.T) {
	ca := testkit.NewCA(t)
	c := ca.Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}})
	w := newWard(t, certified(c)+plainUpstream)
	x := certificateExam{newExam(t.Context(), w.o)}
	info := certsOf(t, w)
	info.Warnings, info.Kinds = []string{"its key is too short"}, info.Kinds[:0]
	info.Kinds = append(info.Kinds, "key")
	want(t, x.certificate(info), codeCertificateKey, finding.Fault, "too short.")
	leaf, authority := *info.Chain[0], *ca.Cert
	leaf.SignatureAlgorithm = x509.SHA1WithRSA
	authority.NotAfter = time.Now().Add(-time.Hour)
	info.Chain = []*x509.Certificate{&leaf, &authority}
	list := x.chain(info)
	want(t, list, codeCertificateSHA1, finding.Danger, "signed with SHA-1")
	want(t, list, codeCertificateChainEnded, finding.Fault, "old devices")
}

// What clients failed with is read from the trace, each client once.
func TestHandshakeFindings(t *testing.T) {
	w := newWard(t, plainUpstream)
	s := w.daemon(nil)
	event := func(client, detail string) trace.Event {
		return trace.Event{Time: time.Now(), Kind: trace.Refused, Listener: "submission", Client: client,
			Detail: detail}
	}
	if err := s.AppendEventsNow(t.Context(), []trace.Event{
		event("192.0.2.1", "handshake failed: the client offers only TLS 1.0, this listener wants TLS 1.2 or newer"),
		event("192.0.2.1", "handshake failed: the client offers only TLS 1.1, this listener wants TLS 1.2 or newer"),
		event("192.0.2.2", "TLS handshake failed: the client knows RSA certificates only, and this listener presents"),
		event("192.0.2.3", `TLS handshake failed: the client does not know the authority of this certificate`),
		event("192.0.2.4", "192.0.2.4 is not in the networks of listener submission"),
	}); err != nil {
		t.Fatal(err)
	}
	list := w.examine("certificates")
	want(t, list, codeDeviceOldTLS, finding.Fault, "192.0.2.1", "TLS 1.1", "new firmware")
	want(t, list, codeDeviceOldKey, finding.Fault, "192.0.2.2", "RSA key")
	want(t, list, codeDeviceDistrusts, finding.Fault, "192.0.2.3", "authority's certificate")
	devices := 0
	for _, f := range list {
		if f.Code == codeDeviceOldTLS {
			devices++
		}
	}
	if devices != 1 {
		t.Errorf("one client is told %d times", devices)
	}
}

func mustOID(t *testing.T, parts ...uint64) x509.OID {
	t.Helper()
	oid, err := x509.OIDFromInts(parts)
	if err != nil {
		t.Fatal(err)
	}
	return oid
}
