package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/certs/dns01"
	"postern/internal/testkit"
	"postern/relay/dnscheck/dnstest"
)

// zone is a zone that is changed while it is served.
type zone struct {
	*dnstest.World
	t     *testing.T
	mu    sync.Mutex // guards lines
	lines []string
}

const pebbleName = "relay.office.test"

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{t: t, lines: []string{dnstest.Zone("office.test"), pebbleName + " 300 A 127.0.0.1"}}
	z.World = dnstest.Start(t, strings.Join(z.lines, "\n"))
	return z
}

func (z *zone) add(line string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.lines = append(z.lines, line)
	if err := z.Set(strings.Join(z.lines, "\n")); err != nil {
		z.t.Error(err)
	}
}

func (z *zone) has(text string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return strings.Contains(strings.Join(z.lines, "\n"), text)
}

// resolver asks the zone's own resolver.
func (z *zone) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, z.Resolver.String())
	}}
}

func (z *zone) watch() *dns01.Watch {
	return &dns01.Watch{Resolver: z.resolver(), Port: fmt.Sprint(z.Port)}
}

// withPebble returns a relay's options for a real ACME server that asks z.
func withPebble(t *testing.T, z *zone, po testkit.PebbleOptions) (*testkit.Pebble, *Options, *bytes.Buffer) {
	t.Helper()
	po.DNS = z.Resolver.String()
	p := testkit.NewPebble(t, po)
	log := &bytes.Buffer{}
	return p, &Options{
		Storage: openStore(t, t.TempDir()).ACME(), Directory: p.Directory, Email: "postmaster@office.test",
		Names: []string{pebbleName}, Keys: []Key{ECDSA}, Roots: p.ServerRoots,
		HTTP: fmt.Sprintf("127.0.0.1:%d", p.HTTPPort), ALPN: fmt.Sprintf("127.0.0.1:%d", p.TLSPort),
		Logger: slog.New(slog.NewTextHandler(log, nil)), TXT: z.resolver().LookupTXT,
	}, log
}

// obtained runs one pass and returns the certificate, which clients of the CA trust.
func obtained(t *testing.T, p *testkit.Pebble, o Options, log fmt.Stringer) Certificate {
	t.Helper()
	var got []Certificate
	o.Issued = func(all []Certificate) { got = all }
	New(o).pass(t.Context())
	if len(got) != len(o.Keys) {
		t.Fatalf("%d certificates\n%s", len(got), log)
	}
	between := x509.NewCertPool()
	for _, der := range got[0].Certificate.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(c)
	}
	if _, err := got[0].Leaf.Verify(x509.VerifyOptions{DNSName: o.Names[0], Roots: p.Roots(t),
		Intermediates: between}); err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func TestPebble(t *testing.T) {
	t.Run("http-01 and tls-alpn-01", func(t *testing.T) {
		z := newZone(t)
		p, o, log := withPebble(t, z, testkit.PebbleOptions{BadNonce: 15})
		o.Order, o.Keys = []string{HTTP01}, []Key{ECDSA, RSA}
		first := obtained(t, p, *o, log)
		if err := Ask(t.Context(), o.Storage, pebbleName, time.Now()); err != nil { // a person renews
			t.Fatal(err)
		}
		o.Order, o.Keys = []string{TLSALPN01}, []Key{ECDSA}
		if second := obtained(t, p, *o, log); second.Leaf.Equal(first.Leaf) {
			t.Error("not renewed")
		}
		for _, address := range []string{o.HTTP, o.ALPN} { // nothing listens when the CA does not look
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				t.Errorf("something listens on %s", address)
			}
		}
	})
	t.Run("external account and profile", func(t *testing.T) {
		z := newZone(t)
		eab := EAB{"kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
		p, o, log := withPebble(t, z, testkit.PebbleOptions{EAB: map[string]string{eab.ID: eab.MAC}})
		o.Order, o.Profile = []string{HTTP01}, "default"
		stranger := *o
		stranger.Roots, stranger.Storage = x509.NewCertPool(), openStore(t, t.TempDir()).ACME()
		New(stranger).pass(t.Context())
		st, err := loadState(t.Context(), &stranger, pebbleName)
		if err != nil || !strings.Contains(st.Error, "is not trusted") || !strings.Contains(st.Error, "ca_file") {
			t.Errorf("%+v, %v", st, err)
		}
		New(*o).pass(t.Context())
		st, err = loadState(t.Context(), o, pebbleName)
		if err != nil || st.Failures != 1 || !strings.Contains(st.Error, "externalAccountRequired") {
			t.Fatalf("%+v, %v", st, err)
		}
		o.EAB = eab // other settings: at once
		obtained(t, p, *o, log)
	})
	t.Run("dns-persist-01", func(t *testing.T) {
		z := newZone(t)
		p, o, log := withPebble(t, z, testkit.PebbleOptions{})
		o.Order = []string{Persist01}
		New(*o).pass(t.Context())
		st, err := loadState(t.Context(), o, pebbleName)
		if err != nil || st.Failures != 1 || !strings.Contains(st.Error, "publish _validation-persist."+pebbleName) ||
			!strings.Contains(st.Error, "sees no TXT record there either") {
			t.Fatalf("%+v, %v", st, err)
		}
		records, err := PersistRecords(t.Context(), *o)
		if err != nil || len(records) != 1 {
			t.Fatal(records, err)
		}
		z.add(fmt.Sprintf("%s 300 TXT %q", records[0].Name, records[0].Value))
		if err := Ask(t.Context(), o.Storage, pebbleName, time.Now()); err != nil {
			t.Fatal(err)
		}
		obtained(t, p, *o, log)
	})
}

func TestPebbleDNS01(t *testing.T) {
	t.Run("rfc2136", func(t *testing.T) {
		z := newZone(t)
		server, secret := updates(t, z)
		p, o, log := withPebble(t, z, testkit.PebbleOptions{})
		o.Order = []string{DNS01}
		o.DNS = &dns01.RFC2136{Server: server, Key: "Postern", Secret: secret, Algorithm: "hmac-sha256",
			Watch: z.watch()}
		obtained(t, p, *o, log)
		if z.has("_acme-challenge") {
			t.Error("the record is still there")
		}
	})
	t.Run("acme-dns", func(t *testing.T) {
		z := newZone(t)
		z.add(dnstest.Zone("auth.test"))
		z.add("_acme-challenge." + pebbleName + " 300 CNAME d420c923.auth.test.")
		p, o, log := withPebble(t, z, testkit.PebbleOptions{})
		o.Order = []string{DNS01}
		o.DNS = &dns01.AcmeDNS{URL: acmeDNS(t, z), Keep: o.Storage, Watch: z.watch()}
		obtained(t, p, *o, log)
	})
	t.Run("exec", func(t *testing.T) {
		z := newZone(t)
		seen := filepath.Join(t.TempDir(), "calls")
		asked := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if err := r.ParseForm(); err == nil && r.Form.Get("verb") == "present" {
				z.add(fmt.Sprintf("%s 60 TXT %q", r.Form.Get("name"), r.Form.Get("value")))
			}
		}))
		defer asked.Close()
		script := filepath.Join(t.TempDir(), "hook")
		text := fmt.Sprintf("#!/bin/sh\nset -e\necho \"$@\" >>%s\n"+
			"%s -sf -d verb=\"$2\" -d name=\"$3\" -d value=\"$4\" %s\n", seen, testkit.Need(t, "curl"), asked.URL)
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		p, o, log := withPebble(t, z, testkit.PebbleOptions{})
		o.Order = []string{DNS01}
		o.DNS = &dns01.Exec{Command: []string{script, "first"}, Watch: z.watch()}
		obtained(t, p, *o, log)
		calls, err := os.ReadFile(seen)
		if err != nil || !strings.HasPrefix(string(calls), "first present _acme-challenge."+pebbleName+" ") ||
			!strings.Contains(string(calls), "\nfirst cleanup _acme-challenge."+pebbleName+" ") {
			t.Errorf("%q, %v", calls, err)
		}
	})
}

// updates is a primary of the zone that takes updates signed with a key (RFC 2136, RFC 8945).
func updates(t *testing.T, z *zone) (address, secret string) {
	t.Helper()
	secret = "c2VjcmV0IG9mIHRoZSB0ZXN0LCAzMiBvY3RldHMgbG9uZw=="
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, TsigSecret: map[string]string{"postern.": secret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		answer := new(dns.Msg).SetReply(m)
		switch {
		case m.IsTsig() == nil || w.TsigStatus() != nil:
			answer.Rcode = dns.RcodeNotAuth
		case m.Opcode == dns.OpcodeUpdate:
			z.update(m.Ns)
		case m.Question[0].Name == "office.test.":
			answer.Answer = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "office.test.", Rrtype: dns.TypeSOA,
				Class: dns.ClassINET}, Ns: "ns1.office.test.", Mbox: "a.office.test."}}
		}
		if key := m.IsTsig(); key != nil {
			answer.SetTsig(key.Hdr.Name, key.Algorithm, 300, time.Now().Unix())
		}
		_ = w.WriteMsg(answer)
	})
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String(), secret
}

func (z *zone) update(records []dns.RR) {
	for _, rr := range records {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		line := fmt.Sprintf("%s 60 TXT %q", strings.TrimSuffix(txt.Hdr.Name, "."), txt.Txt[0])
		if txt.Hdr.Class == dns.ClassINET {
			z.add(line)
			continue
		}
		z.mu.Lock()
		for i, have := range z.lines {
			if have == line {
				z.lines[i] = ""
			}
		}
		err := z.Set(strings.Join(z.lines, "\n"))
		z.mu.Unlock()
		if err != nil {
			z.t.Error(err)
		}
	}
}

// acmeDNS is a server of acme-dns for one account.
func acmeDNS(t *testing.T, z *zone) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /register", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"username":"u","password":"p","fulldomain":"d420c923.auth.test","subdomain":"d420c923"}`)
	})
	mux.HandleFunc("POST /update", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Subdomain, Txt string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Api-User") != "u" ||
			r.Header.Get("X-Api-Key") != "p" || in.Subdomain != "d420c923" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		z.add(fmt.Sprintf("d420c923.auth.test 1 TXT %q", in.Txt))
		fmt.Fprintf(w, `{"txt":%q}`, in.Txt)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}
