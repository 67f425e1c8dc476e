package wire

import (
	"bufio"
	"crypto/tls"
	"strings"
	"testing"
)

// TestHandshakeFailuresInPlainWords: what a person at the other end needs to know reaches the hook.
func TestHandshakeFailuresInPlainWords(t *testing.T) {
	for name, c := range map[string]struct {
		client func(*tls.Config)
		want   []string
	}{
		"old client": {func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
			[]string{"offers only TLS 1.1, TLS 1.0", "wants TLS 1.2 or newer", "min_version"}},
		"no trust": {func(c *tls.Config) { c.RootCAs = nil },
			[]string{"may not know its authority", `it sent "bad certificate"`}},
		"another name": {func(c *tls.Config) { c.ServerName = "mail.example.com" },
			[]string{"connects by another name",
				"it asked for mail.example.com, and the certificate covers relay.example.com"}},
		"RSA only": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12,
				[]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}, []string{"the client knows RSA certificates only", "presents an ECDSA one", "get an RSA certificate",
			"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA"}},
		"no suite": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
		}, []string{"no cipher suite in common",
			"the client offers TLS 1.2 with TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", `tls = "none"`}},
		"RSA key exchange": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}, []string{"no cipher suite in common", "TLS_RSA_WITH_AES_128_CBC_SHA", `profile = "appliance"`}},
		"web browser": {func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} },
			[]string{"asked for HTTP on a mail port"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, func(o *Options, b *backend) { o.TLSMode = Implicit })
			conf := clientTLS()
			c.client(conf)
			client := s.dial(t)
			if err := tls.Client(client.conn, conf).Handshake(); err == nil {
				// In TLS 1.3 the server may learn of it later.
				client.conn.Close()
			}
			eventually(t, "refusal", func() bool { return s.lastRefusal().Reason != "" })
			r := s.lastRefusal()
			for _, want := range c.want {
				if r.Reason != ReasonTLS || !strings.Contains(r.Detail, want) {
					t.Errorf("refusal %s %q (%v), want %q", r.Reason, r.Detail, r.Err, want)
				}
			}
		})
	}
}

// TestPortCheckIsNoRefusal: somebody who connects and leaves is not worth a line.
func TestPortCheckIsNoRefusal(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) { o.TLSMode = Implicit })
	s.dial(t).conn.Close()
	eventually(t, "connection over", func() bool { st := s.Stats(); return st.Accepted == 1 && st.Connections == 0 })
	if r := s.lastRefusal(); r.Reason != "" {
		t.Errorf("refusal %+v", r)
	}
}

// TestNoTickets: a client gets no session ticket to resume with.
func TestNoTickets(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) { o.TLSMode = Implicit })
	conf := clientTLS()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 {
		c := s.dial(t)
		tc := tls.Client(c.conn, conf)
		c.conn, c.r = tc, bufio.NewReader(tc)
		c.expect("220 ")
		if tc.ConnectionState().DidResume {
			t.Error("resumed")
		}
		c.cmd("QUIT", "221 ")
	}
}

// TestEarlyInput: octets before the greeting are seen without waiting for them, in clear and in TLS.
func TestEarlyInput(t *testing.T) {
	client, server := tcpPair(t)
	s := newSocket(server)
	s.nowait = true
	var b [8]byte
	if n, err := s.Read(b[:]); n != 0 || !isTimeout(err) {
		t.Fatalf("nothing there: %d, %v", n, err)
	}
	client.Write([]byte("EHLO"))
	eventually(t, "input seen", func() bool { n, err := s.Read(b[:]); return n == 4 && err == nil })
	client.Close()
	eventually(t, "end seen", func() bool { n, err := s.Read(b[:]); return n == 0 && err != nil && !isTimeout(err) })

	// A read that finds nothing leaves TLS usable.
	client, server = tcpPair(t)
	s = newSocket(server)
	tc, ts := tls.Client(client, clientTLS()), tls.Server(s, testServerTLS())
	done := make(chan error)
	go func() { done <- tc.Handshake() }()
	if err := ts.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.nowait = true
	if n, err := ts.Read(b[:]); n != 0 || !isTimeout(err) {
		t.Fatalf("nothing there: %d, %v", n, err)
	}
	tc.Write([]byte("EHLO"))
	eventually(t, "input seen", func() bool { n, err := ts.Read(b[:]); return n == 4 && err == nil })
}

// TestTLSBeforeTheGreeting: where nothing was said in clear yet, the client gets an alert that it understands.
func TestTLSBeforeTheGreeting(t *testing.T) {
	client, server := tcpPair(t)
	b := &backend{}
	o := testOptions(b)
	tc := tls.Client(client, clientTLS())
	failed := make(chan error)
	go func() { failed <- tc.Handshake() }()
	s := newSocket(server)
	first := make([]byte, 1)
	if _, err := s.Read(first); err != nil { // it has come
		t.Fatal(err)
	}
	c := acceptedConn(NewServer(o), server)
	c.io.sock.unread(first)
	c.serve()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "unexpected message") {
		t.Errorf("the client saw %v", err)
	}
	if r := b.lastRefusal(); r.Reason != ReasonTLS || !strings.Contains(r.Detail, "began TLS without STARTTLS") {
		t.Errorf("refusal %+v", r)
	}
}

// TestAlertsExplained: each alert by which a client refuses has words of its own, and one that we do not know has its
// number.
func TestAlertsExplained(t *testing.T) {
	h := handshakeFault{config: &tls.Config{}, hello: &tls.ClientHelloInfo{ServerName: "relay.example.com",
		SupportedVersions: []uint16{0x2a2a, tls.VersionTLS12, tls.VersionTLS13}}}
	for alert, want := range map[uint8]string{
		42: `it may not know its authority`, 45: "look at its dates and at the client's clock",
		46: "connects by another name",
		48: "give it the authority's certificate", 70: "see min_version", 99: `it sent "alert 99"`,
	} {
		if got := h.alertDetail(alert); !strings.Contains(got, want) ||
			!strings.HasSuffix(got, "; it offered TLS 1.3, TLS 1.2 with no cipher suite, "+
				"this listener wants TLS 1.2 or newer") {
			t.Errorf("%d: %s", alert, got)
		}
	}
}

// TestAlertInClear: OpenSSL says in clear what it has against a certificate of TLS 1.3, behind a record for
// middleboxes.
func TestAlertInClear(t *testing.T) {
	for _, before := range []string{"", "\x14\x03\x03\x00\x01\x01"} {
		s := startServer(t, func(o *Options, b *backend) { o.TLSMode = Implicit })
		client := s.dial(t)
		conf := clientTLS()
		conf.VerifyConnection = func(tls.ConnectionState) error {
			client.send(before + "\x15\x03\x03\x00\x02\x02\x30") // unknown_ca
			return errGone
		}
		if err := tls.Client(client.conn, conf).Handshake(); err == nil {
			t.Error("no failure")
		}
		eventually(t, "refusal", func() bool { return s.lastRefusal().Reason != "" })
		if r := s.lastRefusal(); r.Reason != ReasonTLS ||
			!strings.Contains(r.Detail, "does not know the authority of this certificate") {
			t.Errorf("refusal %s %q (%v)", r.Reason, r.Detail, r.Err)
		}
	}
}
