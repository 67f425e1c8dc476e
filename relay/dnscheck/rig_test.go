package dnscheck

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/internal/errno"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/finding"
	"postern/relay/sign"
)

// Keys are made once: RSA takes time.
var (
	rsaKey     = sync.OnceValue(func() sign.Key { return newKey(sign.RSA2048, "sel") })
	otherKey   = sync.OnceValue(func() sign.Key { return newKey(sign.RSA2048, "sel") })
	ed25519Key = sync.OnceValue(func() sign.Key { return newKey(sign.Ed25519, "ed") })
)

func newKey(algorithm, selector string) sign.Key {
	signer, _, err := sign.Generate(algorithm)
	if err != nil {
		panic(err)
	}
	return sign.Key{Domain: "example.com", Selector: selector, Signer: signer}
}

func record(k sign.Key) string {
	text, err := k.Record()
	if err != nil {
		panic(err)
	}
	return text
}

// txt is a TXT record as a line of a world.
func txt(name, value string) string {
	parts := sign.SplitRecord(value)
	for i, p := range parts {
		parts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p) + `"`
	}
	return name + " 300 TXT " + strings.Join(parts, " ")
}

// healthy is a world in which example.com is in order, in lines that cases replace by their first words.
func healthy() []string {
	lines := strings.Split(strings.TrimSpace(dnstest.Zone("example.com")+dnstest.Zone("provider.example")), "\n")
	return append(lines,
		"example.com 300 MX 10 mx.example.com.",
		"mx.example.com A 192.0.2.10",
		txt("example.com", "v=spf1 include:_spf.provider.example -all"),
		txt("_spf.provider.example", "v=spf1 ip4:203.0.113.0/24 ip6:2001:db8:1::/48 -all"),
		txt("_dmarc.example.com", "v=DMARC1; p=reject; rua=mailto:dmarc@example.com"),
		txt("sel._domainkey.example.com", record(rsaKey())),
	)
}

// world is healthy with lines in the place of those that begin alike (name, and type after a TTL), or added. A line
// with a minus in front only takes away.
func world(changes ...string) string {
	lines := healthy()
	key := func(line string) string {
		f := strings.Fields(line)
		return strings.ToLower(f[0] + " " + f[2])
	}
	for _, c := range changes {
		name, only := strings.CutPrefix(c, "-")
		if strings.HasPrefix(c, "!") || strings.HasPrefix(c, "+") {
			lines = append(lines, strings.TrimPrefix(c, "+"))
			continue
		}
		lines = slices.DeleteFunc(lines, func(l string) bool {
			return !strings.HasPrefix(l, "!") && len(strings.Fields(l)) > 2 && key(l) == key(name)
		})
		if !only {
			lines = append(lines, c)
		}
	}
	return strings.Join(lines, "\n")
}

func office() Sender {
	return Sender{Name: "office", Provider: "Provider", Include: "_spf.provider.example", ReturnPath: PathKept,
		Ours: true, Signs: SignsNot}
}

func options() Options {
	return Options{Domain: "example.com", Keys: []Key{{Key: rsaKey(), Signs: true}}, Senders: []Sender{office()},
		Hostname: "relay.example.com", Now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
}

// resolverOf asks a world. Silence costs no time.
func resolverOf(w *dnstest.World) *Resolver {
	r := &Resolver{Servers: []netip.AddrPort{w.Resolver}, AuthorityPort: w.Port, Timeout: time.Minute}
	r.exchange = func(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
		if !server.Addr().IsLoopback() { // nothing leaves the machine
			return nil, &net.OpError{Op: "dial", Net: network, Err: errno.NetworkUnreachable}
		}
		if w.Silent(server.String(), m.Question[0].Name) {
			return nil, os.ErrDeadlineExceeded
		}
		return r.send(ctx, network, server, m)
	}
	return r
}

func checkWorld(t *testing.T, o Options, changes ...string) Report {
	t.Helper()
	o.Resolver = resolverOf(dnstest.Start(t, world(changes...)))
	return Check(t.Context(), o)
}

// bad are the codes of what is not healthy, each once, by alphabet.
func bad(r Report) []string {
	var codes []string
	for _, f := range r.Findings {
		if f.Weight < finding.Healthy {
			codes = append(codes, f.Code)
		}
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

func show(r Report) string {
	var b strings.Builder
	for _, o := range r.Outcomes {
		fmt.Fprintf(&b, "%s: %s: %s\n", o.Upstream, o.Verdict, o.Why)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s %s: %s | %s | %s\n", f.Weight, f.Code, f.What, f.Why, f.Fix)
	}
	for _, rec := range r.Records {
		fmt.Fprintf(&b, "publish %s\n", rec.ZoneLine)
	}
	return b.String()
}

// weakKey has 1024 bits.
var weakKey = sync.OnceValue(func() sign.Key {
	signer, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return sign.Key{Domain: "example.com", Selector: "sel", Signer: signer}
})

func runBroken(t *testing.T, o Options, c broken) Report {
	t.Helper()
	o.Resolver = resolverOf(dnstest.Start(t, world(c.changes...)))
	if c.options != nil {
		c.options(&o)
	}
	return Check(t.Context(), o)
}

func TestHealthyZones(t *testing.T) {
	for name, c := range map[string]broken{
		"as it is":        {},
		"without Postern": {options: provider(Selector{Name: "sel"})},
		"provider signs where we might": {options: func(o *Options) {
			provider(Selector{Name: "sel", Usual: true})(o)
			o.Senders[0].Ours = true
		}},
		"direct": {options: direct(ourAddress), changes: named},
		"subdomain": {options: func(o *Options) { o.Domain = "sales.example.com" }, changes: []string{
			txt("sales.example.com", includes+"-all"), "sales.example.com 300 MX 10 mx.example.com."}},
		"long TXT by TCP": {changes: []string{"!resolver cut sel._domainkey.example.com",
			"!ns1 cut sel._domainkey.example.com", "!ns2 cut sel._domainkey.example.com"}},
		"key by CNAME": {changes: []string{"-sel._domainkey.example.com 300 TXT",
			"sel._domainkey.example.com 300 CNAME k.provider.example.", txt("k.provider.example", record(rsaKey()))}},
		"both keys": {options: func(o *Options) { o.Keys = append(o.Keys, Key{Key: ed25519Key(), Signs: true}) },
			changes: []string{txt("ed._domainkey.example.com", record(ed25519Key()))}},
		"key in the old form": {changes: []string{key("v=DKIM1; p=" + base64.StdEncoding.EncodeToString(
			x509.MarshalPKCS1PublicKey(rsaKey().Signer.Public().(*rsa.PublicKey))))}},
		"no way to a server": {changes: []string{"ns3.example.com 300 AAAA 2001:db8::53",
			"+example.com 300 NS ns3.example.com."}},
		"flat SPF": {changes: []string{spfText("v=spf1 ip4:203.0.113.0/24 ip6:2001:db8:1::/48 -all")}},
		"redirect": {changes: []string{spfText("v=spf1 redirect=_spf.provider.example")}},
		"reports accepted": {changes: []string{dmarcText("p=reject; rua=mailto:d@provider.example"),
			txt("example.com._report._dmarc.provider.example", "v=DMARC1")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := runBroken(t, options(), c)
			if got := bad(r); len(got) > 0 || len(r.Records) > 0 || r.Outcomes[0].Verdict != ByDKIM {
				t.Errorf("%v\n%s", got, show(r))
			}
		})
	}
}
