package dnscheck

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/relay/dnscheck/dnstest"
)

// quiet is a server that never answers. Nobody waits for an answer, so a short timeout hides nothing.
func quiet(t *testing.T) netip.AddrPort {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return socket.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestSilentServerIsAskedTwice(t *testing.T) {
	r := &Resolver{Servers: []netip.AddrPort{quiet(t)}, Timeout: time.Millisecond}
	s := r.begin()
	for range 3 {
		if _, err := s.resolveOnce(t.Context(), "example.com.", dns.TypeTXT); kindOf(err) != Timeout {
			t.Errorf("%v", err)
		}
	}
	if s.asked != attempts {
		t.Errorf("%d questions, want %d", s.asked, attempts)
	}
}

func TestNextResolverIsAsked(t *testing.T) {
	w := dnstest.Start(t, world("!ns1 servfail *"))
	r := resolverOf(w)
	broken := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.Port)
	r.Servers = []netip.AddrPort{broken, w.Resolver}
	a, err := r.begin().resolve(t.Context(), "example.com", dns.TypeTXT)
	if err != nil || len(a.Records) != 1 || a.Server != w.Resolver.String() {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestEndedContext(t *testing.T) {
	w := dnstest.Start(t, world())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := options()
	o.Resolver = resolverOf(w)
	r := Check(ctx, o)
	if w.Asked() != 0 || r.Outcomes[0].Verdict != Unknown || !slices.Contains(bad(r), "dns-timeout") {
		t.Errorf("%d questions\n%s", w.Asked(), show(r))
	}
}

func TestCheckAsksNothingTwice(t *testing.T) {
	w := dnstest.Start(t, world())
	o := options()
	o.Resolver = resolverOf(w)
	var mu sync.Mutex
	asked := map[string]int{}
	o.Resolver.exchange = func(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg,
		error) {
		mu.Lock()
		asked[fmt.Sprint(network, server, m.Question[0])]++
		mu.Unlock()
		return o.Resolver.send(ctx, network, server, m)
	}
	Check(t.Context(), o)
	for q, n := range asked {
		if n > 1 {
			t.Errorf("%d times: %s", n, q)
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("+many.example.com 300 A 192.0.2.%d", i))
	}
	long := strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 60)
	w := dnstest.Start(t, world(append(lines, "long.example.com 300 TXT "+long)...))
	s := resolverOf(w).begin()
	a, err := s.resolve(t.Context(), "many.example.com", dns.TypeA)
	if err != nil || len(a.Records) != maxRecords {
		t.Errorf("%d records, %v", len(a.Records), err)
	}
	a, err = s.resolve(t.Context(), "long.example.com", dns.TypeTXT)
	if err != nil || len(a.Texts()) != 1 || len(a.Texts()[0]) != maxText {
		t.Errorf("%d texts, %v", len(a.Texts()), err)
	}
}

// A zone cannot send us to services of this machine.
func TestServersOnLoopbackAreNotAsked(t *testing.T) {
	w := dnstest.Start(t, world())
	o := options()
	o.Resolver = resolverOf(w)
	o.Resolver.AuthorityPort = 0
	o.Resolver.exchange = func(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg,
		error) {
		if server != w.Resolver {
			t.Errorf("%s is asked", server)
		}
		return o.Resolver.send(ctx, network, server, m)
	}
	if r := Check(t.Context(), o); !slices.Equal(bad(r), []string{"dns-authority-unreachable"}) {
		t.Errorf("%s", show(r))
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\"b`: `a"b`, `a\\b`: `a\b`, `\065\200`: "A\xc8", `a\`: `a\`,
		`\12`: "12"} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	err := &Error{Kind: Timeout, Name: "example.com.", Type: "TXT", Server: "192.0.2.1:53"}
	if err.Error() != "TXT example.com.: timeout from 192.0.2.1:53" || !err.Timeout() || !err.Temporary() {
		t.Errorf("%v", err)
	}
	if (&Error{Kind: NXDomain}).Temporary() || kindOf(context.Canceled) != Unreachable {
		t.Error("NXDOMAIN is temporary, or an unknown error no answer")
	}
}

func TestPublished(t *testing.T) {
	k := rsaKey()
	expected := record(k)
	for name, c := range map[string]struct {
		changes    []string
		everywhere bool
		servers    int
	}{
		"everywhere":           {nil, true, 2},
		"not at the resolver":  {[]string{"!resolver lacks sel._domainkey.example.com TXT"}, false, 2},
		"not at one server":    {[]string{"!ns2 lacks sel._domainkey.example.com TXT"}, false, 2},
		"another at one":       {[]string{"!ns2 has " + key(record(otherKey()))}, false, 2},
		"one server is silent": {[]string{"!ns2 silent *"}, true, 2},
		"resolver is out":      {[]string{"!resolver servfail sel._domainkey.example.com"}, false, 2},
		"by CNAME": {[]string{"-sel._domainkey.example.com 300 TXT",
			"sel._domainkey.example.com 300 CNAME k.provider.example.", txt("k.provider.example", expected)}, true, 2},
		"nowhere": {[]string{"-sel._domainkey.example.com 300 TXT"}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := resolverOf(dnstest.Start(t, world(c.changes...))).Published(t.Context(), "example.com", "sel")
			if p.Everywhere(expected) != c.everywhere || len(p.Zone) != c.servers ||
				p.Name != "sel._domainkey.example.com" {
				t.Errorf("%+v", p)
			}
		})
	}
}

// Nothing that DNS says reaches a text as more than printable characters, and texts have a bound.
func TestHostileRecordsArePrintable(t *testing.T) {
	hostile := `\027[31mred\010\013` + strings.Repeat("x", 200)
	r := checkWorld(t, options(), txt2("example.com", "v=spf1 "+hostile), txt2("_dmarc.example.com",
		"v=DMARC1; p="+hostile),
		txt2("sel._domainkey.example.com", "v=DMARC1; "+hostile), "example.com 300 MX 10 a\\027b.example.com.")
	if len(bad(r)) < 4 {
		t.Errorf("%s", show(r))
	}
	for _, f := range r.Findings {
		if strings.ContainsFunc(f.What+f.Why, func(r rune) bool { return r < ' ' || r == 127 }) ||
			len(f.What) > maxWhat+3 {
			t.Errorf("%q", f.What)
		}
	}
	for _, rec := range r.Records {
		if strings.ContainsFunc(rec.Value+rec.ZoneLine, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q", rec.Value)
		}
	}
}

// txt2 is txt with the escapes of master files left as they are.
func txt2(name, value string) string {
	return name + ` 300 TXT "` + value[:min(len(value), 100)] + `" "` + value[min(len(value), 100):] + `"`
}

// A record cannot fill the report: of findings alike the first five are told.
func TestFindingsAreBounded(t *testing.T) {
	var terms []string
	for i := range 200 {
		terms = append(terms, fmt.Sprintf("ip4:10.%d.0.0/9", i))
	}
	r := checkWorld(t, options(), spfText(includes+strings.Join(terms, " ")+" -all"))
	if n := len(r.Findings); n > 15 {
		t.Errorf("%d findings", n)
	}
}

func TestSystemResolver(t *testing.T) {
	for text, want := range map[string]string{
		"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.com\n": "[192.0.2.1:53 [2001:db8::1]:53]",
		"nameserver fe80::1%eth0\nnameserver nonsense\n":                     "[[fe80::1%eth0]:53]",
		"search example.com\n": "names no resolver",
	} {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := systemOf(file)
		if err == nil && fmt.Sprint(r.Servers) != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
	if _, err := systemOf(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(),
		"--resolver") {
		t.Errorf("%v", err)
	}
}
