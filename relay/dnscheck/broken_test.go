package dnscheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"postern/relay/finding"
)

// broken is a world with something wrong, and all that is to be said of it.
type broken struct {
	name    string
	changes []string
	options func(*Options)
	want    string // codes, by alphabet
	says    string // in the sentence of one of them
	verdict Verdict
}

// provider takes our signature away, so that the provider's counts.
func provider(selectors ...Selector) func(*Options) {
	return func(o *Options) {
		o.Keys = nil
		o.Senders[0].Ours, o.Senders[0].Signs, o.Senders[0].Selectors = false, SignsDomain, selectors
	}
}

func direct(addresses ...string) func(*Options) {
	return func(o *Options) {
		s := &o.Senders[0]
		s.Direct, s.Include = true, ""
		for _, a := range addresses {
			s.Addresses = append(s.Addresses, netip.MustParseAddr(a))
		}
		s.Own = s.Addresses
	}
}

const ourAddress = "203.0.113.7"

// named are the records of an address that is in order.
var named = []string{"7.113.0.203.in-addr.arpa 300 PTR relay.example.com.", "relay.example.com 300 A " + ourAddress}

func with(more ...string) []string { return append(slices.Clone(named), more...) }

func spfText(value string) string  { return txt("example.com", value) }
func key(value string) string      { return txt("sel._domainkey.example.com", value) }
func dmarcText(more string) string { return txt("_dmarc.example.com", "v=DMARC1; "+more) }

const includes = "v=spf1 include:_spf.provider.example "

var dnsCases = []broken{
	{name: "no such domain", changes: []string{"!resolver nxdomain example.com", "!ns1 nxdomain example.com",
		"!ns2 nxdomain example.com"}, want: "dns-nxdomain", says: "no domain example.com",
		verdict: Fails},
	{name: "broken DNSSEC", changes: []string{"!resolver servfail example.com"},
		want: "dns-servfail outcome-unknown", says: "SERVFAIL", verdict: Unknown},
	{name: "resolver refuses", changes: []string{"!resolver refused *"}, want: "dns-refused outcome-unknown",
		says: "refuses to look up example.com", verdict: Unknown},
	{name: "resolver is silent", changes: []string{"!resolver silent *"}, want: "dns-timeout outcome-unknown",
		says: "does not answer", verdict: Unknown},
	{name: "resolver is silent about one name", changes: []string{"!resolver silent sel._domainkey.example.com"},
		want: "dns-timeout outcome-spf", says: "sel._domainkey.example.com", verdict: BySPF},
	{name: "garbage", changes: []string{"!resolver garbage *"}, want: "dns-malformed outcome-unknown",
		says: "not DNS", verdict: Unknown},
	{name: "no resolver", options: func(o *Options) { o.Resolver.Servers = nil },
		want: "dns-unreachable outcome-unknown", says: "No resolver", verdict: Unknown},
	{name: "no TCP", changes: []string{"!resolver truncate sel._domainkey.example.com",
		"!ns1 silent *", "!ns2 silent *"}, want: "dns-authority-unreachable dns-truncated outcome-spf",
		says: "too long for one packet", verdict: BySPF},
	{name: "one server is lame", changes: []string{"!ns2 lame *"}, want: "dns-lame", says: "ns2.example.com is named",
		verdict: ByDKIM},
	{name: "one server has no authority", changes: []string{"!ns1 noaa *"}, want: "dns-lame",
		says: "ns1.example.com is named", verdict: ByDKIM},
	{name: "all servers are lame", changes: []string{"example.com 300 NS ns2.example.com.", "!ns2 lame *",
		"com 300 SOA ns1.com. admin.com. 1 7200 600 86400 300", "com 300 NS ns1.com.", "ns1.com 300 A 127.0.0.2",
		"!resolver servfail example.com"}, want: "dns-lame-all dns-servfail",
		says: "knows the domain: ns2.example.com", verdict: Fails},
	{name: "one server is silent", changes: []string{"!ns1 silent *"}, want: "dns-server-silent",
		says: "ns1.example.com, a name server", verdict: ByDKIM},
	{name: "servers cannot be asked", changes: []string{"!ns1 silent *", "!ns2 silent *"},
		want: "dns-authority-unreachable", says: "could not be asked from here", verdict: ByDKIM},
	{name: "servers differ", changes: []string{"!ns2 has " + dmarcText("p=none; rua=mailto:dmarc@example.com")},
		want: "dns-servers-differ", says: "differ about _dmarc.example.com", verdict: ByDKIM},
	{name: "stale", changes: []string{"!resolver has " + dmarcText("p=none; rua=mailto:a@example.com")},
		want: "dns-stale", says: "for another 5m0s", verdict: ByDKIM},
	{name: "key not at the resolver yet", changes: []string{"!resolver lacks sel._domainkey.example.com TXT"},
		want: "dns-stale", says: "sel._domainkey.example.com was changed", verdict: ByDKIM},
	{name: "split horizon", changes: []string{"!resolver authoritative *", "!resolver lacks _dmarc.example.com TXT"},
		want: "dns-split-horizon", says: "_dmarc.example.com differently", verdict: ByDKIM},
	{name: "CNAME loop", changes: []string{"-sel._domainkey.example.com 300 TXT",
		"sel._domainkey.example.com 300 CNAME a.example.com.",
		"a.example.com 300 CNAME sel._domainkey.example.com."}, want: "dns-cname-loop outcome-spf",
		says: "sel._domainkey.example.com lead in a circle", verdict: BySPF},
	{name: "long CNAME", changes: longChain(), want: "dns-cname-long outcome-spf", says: "More than 8 CNAME",
		verdict: BySPF},
	{name: "dangling DMARC", changes: []string{"-_dmarc.example.com 300 TXT",
		"_dmarc.example.com 300 CNAME gone.provider.example."}, want: "dmarc-none dns-dangling",
		says: "gone.provider.example, which does not exist", verdict: ByDKIM},
	{name: "too many questions", options: func(o *Options) {
		for i := range 150 {
			k := ed25519Key()
			k.Selector = fmt.Sprint("k", i)
			o.Keys = append(o.Keys, Key{Key: k})
		}
	}, want: "dns-exhausted", says: "more than 300 questions", verdict: ByDKIM},
}

func longChain() []string {
	changes := []string{"-sel._domainkey.example.com 300 TXT", "sel._domainkey.example.com 300 CNAME c0.example.com."}
	for i := range 9 {
		changes = append(changes, fmt.Sprintf("c%d.example.com 300 CNAME c%d.example.com.", i, i+1))
	}
	return append(changes, txt("c9.example.com", record(rsaKey())))
}

var spfCases = []broken{
	{name: "none", changes: []string{"-example.com 300 TXT"}, want: "spf-none", says: "has no SPF record",
		verdict: ByDKIM},
	{name: "none, and none is needed", changes: []string{"-example.com 300 TXT"}, want: "spf-absent",
		options: func(o *Options) { o.Senders[0].ReturnPath = PathReplaced }, says: "passes without one",
		verdict: ByDKIM},
	{name: "several", changes: []string{"+" + spfText("v=spf1 ip4:192.0.2.1 ~all")}, want: "spf-several",
		says: "2 SPF records", verdict: ByDKIM},
	{name: "unknown word", changes: []string{spfText(includes + "ipv4:192.0.2.1 -all")}, want: "spf-syntax",
		says: `"ipv4:192.0.2.1" is not known`, verdict: ByDKIM},
	{name: "bad address", changes: []string{spfText(includes + "ip4:192.0.2.300 -all")}, want: "spf-syntax",
		says: "no valid network", verdict: ByDKIM},
	{name: "quotes", changes: []string{spfText(`"v=spf1 include:_spf.provider.example -all"`)},
		want: "spf-none spf-unreadable", says: "looks like SPF", verdict: ByDKIM},
	{name: "eleven look-ups", changes: []string{spfText(includes + strings.Repeat("a:mx.example.com ", 10) + "-all")},
		want: "spf-lookups", says: "needs 11 DNS look-ups; 10 are allowed", verdict: ByDKIM},
	{name: "ten look-ups", changes: []string{spfText(includes + strings.Repeat("a:mx.example.com ", 9) + "-all")},
		want: "spf-lookups-near", says: "all 10", verdict: ByDKIM},
	{name: "void", changes: []string{spfText(includes + "a:x.example.com a:y.example.com mx:z.example.com -all")},
		want: "spf-void", says: "a:x.example.com, a:y.example.com, mx:z.example.com", verdict: ByDKIM},
	{name: "long", changes: []string{spfText(includes + strings.Repeat("ip4:198.51.100.123 ", 30) + "-all")},
		want: "spf-long", says: "more than 512", verdict: ByDKIM},
	{name: "provider is missing", changes: []string{spfText("v=spf1 ip4:192.0.2.1 -all")}, want: "spf-include-missing",
		says: "does not let Provider send", verdict: ByDKIM},
	{name: "plus all", changes: []string{spfText(includes + "+all")}, want: "spf-plus-all", says: `"+all"`,
		verdict: ByDKIM},
	{name: "bare all", changes: []string{spfText(includes + "all")}, want: "spf-plus-all", says: `"all"`,
		verdict: ByDKIM},
	{name: "neutral all", changes: []string{spfText(includes + "?all")}, want: "spf-neutral-all", says: `"?all"`,
		verdict: ByDKIM},
	{name: "no all", changes: []string{spfText(includes)}, want: "spf-no-all", says: "does not end with",
		verdict: ByDKIM},
	{name: "after all", changes: []string{spfText("v=spf1 -all include:_spf.provider.example")},
		want: "spf-after-all spf-include-missing", says: `stands behind "-all"`, verdict: ByDKIM},
	{name: "redirect beside all", changes: []string{spfText(includes + "-all redirect=_spf.provider.example")},
		want: "spf-redirect-ignored", says: "redirect= beside", verdict: ByDKIM},
	{name: "ptr", changes: []string{spfText(includes + "ptr -all")}, want: "spf-ptr", says: `uses "ptr"`,
		verdict: ByDKIM},
	{name: "wide", changes: []string{spfText(includes + "ip4:10.0.0.0/2 -all")}, want: "spf-wide",
		says: "ip4:10.0.0.0/2", verdict: ByDKIM},
	{name: "loop", changes: []string{spfText(includes + "include:example.com -all")}, want: "spf-loop",
		says: "comes back to example.com", verdict: ByDKIM},
	{name: "include without record", changes: []string{spfText(includes + "include:mx.example.com -all")},
		want: "spf-include-none", says: "mx.example.com has no SPF record", verdict: ByDKIM},
	{name: "broken include", changes: []string{txt("_spf.provider.example", "v=spf1 ip4:x -all")},
		want: "spf-include-broken", says: "whose own record is broken", verdict: ByDKIM},
	{name: "include of several", changes: []string{"+" + txt("_spf.provider.example", "v=spf1 -all")},
		want: "spf-include-broken", says: "several SPF records", verdict: ByDKIM},
	{name: "many mail servers", changes: manyMX(), want: "spf-mx-many", says: `"mx:many.example.com"`,
		verdict: ByDKIM},
	{name: "include is out", changes: []string{"!resolver servfail _spf.provider.example"},
		want: "spf-unavailable", says: "could not be looked up: servfail", verdict: ByDKIM},
	{name: "address is missing", options: direct("198.51.100.9"), changes: []string{
		"9.100.51.198.in-addr.arpa 300 PTR relay.example.com.", "relay.example.com 300 A 198.51.100.9"},
		want: "spf-address-missing", says: "does not let 198.51.100.9 send", verdict: ByDKIM},
}

func manyMX() []string {
	changes := []string{spfText(includes + "mx:many.example.com -all")}
	for i := range 11 {
		changes = append(changes, "+many.example.com 300 MX "+string(rune('1'+i%9))+" h"+string(rune('a'+i))+
			".example.com.")
	}
	return changes
}

// weak is a record of an RSA key with 512 bits, which Go does not make any more.
const weak = "v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL51cE3JqU2qX2H4b6lrkHnhGLNrWbyPJ3pVDwA0jPJ+yM3Rj+ZlQ" +
	"Dm3Uj0bKYbDfJ8l8p0DqUZT8rY8Ck0e8w0CAwEAAQ=="

var dkimCases = []broken{
	{name: "no key", options: func(o *Options) { o.Keys = nil }, want: "dkim-none outcome-spf",
		says: "no DKIM key for example.com", verdict: BySPF},
	{name: "waiting", options: func(o *Options) { o.Keys[0].Signs, o.Keys[0].Waits = false, true },
		changes: []string{"-sel._domainkey.example.com 300 TXT"}, want: "dkim-waiting outcome-spf",
		says: "wait until the world sees", verdict: BySPF},
	{name: "missing", changes: []string{"-sel._domainkey.example.com 300 TXT"}, want: "dkim-missing outcome-spf",
		says: "sel._domainkey.example.com is not published", verdict: BySPF},
	{name: "doubled", changes: []string{"-sel._domainkey.example.com 300 TXT",
		txt("sel._domainkey.example.com.example.com", record(rsaKey()))}, want: "dkim-doubled outcome-spf",
		says: "the domain is there twice", verdict: BySPF},
	{name: "revoked", changes: []string{key("v=DKIM1; k=rsa; p=")}, want: "dkim-revoked outcome-spf",
		says: "empty p=", verdict: BySPF},
	{name: "another key", changes: []string{key(record(otherKey()))}, want: "dkim-other-key outcome-spf",
		says: "another key", verdict: BySPF},
	{name: "another type", changes: []string{key(record(ed25519Key()))}, want: "dkim-wrong-type outcome-spf",
		says: "says k=ed25519", verdict: BySPF},
	{name: "testing", changes: []string{key(record(rsaKey()) + "; t=y")}, want: "dkim-testing", says: "t=y",
		verdict: ByDKIM},
	{name: "quotes", changes: []string{key(strings.Replace(record(rsaKey()), "p=MIIB", `p="MIIB`, 1) + `"`)},
		want: "dkim-quoted outcome-spf", says: "quotes or backslashes", verdict: BySPF},
	{name: "cut", changes: []string{key(record(rsaKey())[:255])}, want: "dkim-cut outcome-spf", says: "ends after 255",
		verdict: BySPF},
	{name: "no base64", changes: []string{key("v=DKIM1; k=rsa; p=-----BEGIN")}, want: "dkim-syntax outcome-spf",
		says: "not a whole key", verdict: BySPF},
	{name: "read otherwise by others",
		changes: []string{key(strings.Replace(record(rsaKey()), "p=MIIB", "p=MIIB\t", 1))},
		want:    "dkim-sample outcome-spf", says: "does not verify by its record", verdict: BySPF},
	{name: "dangling CNAME", changes: []string{"-sel._domainkey.example.com 300 TXT",
		"sel._domainkey.example.com 300 CNAME gone.provider.example."}, want: "dkim-cname-dangling outcome-spf",
		says: "CNAME to gone.provider.example", verdict: BySPF},
	{name: "several", changes: []string{"+" + key("v=DKIM1; p=")}, want: "dkim-several outcome-spf",
		says: "2 TXT records", verdict: BySPF},
	{name: "hash", changes: []string{key(record(rsaKey()) + "; h=sha1")}, want: "dkim-hash outcome-spf",
		says: "excludes sha256", verdict: BySPF},
	{name: "service", changes: []string{key(record(rsaKey()) + "; s=tlsrpt")}, want: "dkim-service outcome-spf",
		says: "excludes mail", verdict: BySPF},
	{name: "short", changes: []string{key(weak)}, want: "dkim-short outcome-spf", says: "512 bits", verdict: BySPF},
	{name: "Ed25519 alone", options: func(o *Options) { o.Keys = []Key{{Key: ed25519Key(), Signs: true}} },
		changes: []string{txt("ed._domainkey.example.com", record(ed25519Key()))}, want: "dkim-ed25519-only",
		says: "All DKIM keys of example.com are Ed25519", verdict: ByDKIM},
	{name: "unused", options: func(o *Options) { o.Senders[0].Ours = false }, want: "dkim-unused outcome-spf",
		says: "no upstream lets it sign", verdict: BySPF},
	{name: "provider's is missing", options: provider(Selector{Name: "s1", Target: "s1.dkim.provider.example"}),
		want: "dkim-provider-missing outcome-spf", says: "missing or broken: s1", verdict: BySPF},
	{name: "provider's is revoked", options: provider(Selector{Name: "sel"}), changes: []string{key("v=DKIM1; p=")},
		want: "dkim-provider-broken dkim-provider-missing outcome-spf", says: "is not usable", verdict: BySPF},
	{name: "provider's are there in part", options: provider(Selector{Name: "sel"}, Selector{Name: "s2"}),
		want: "dkim-provider-partly", says: "missing or broken: s2", verdict: ByDKIM},
	{name: "provider's have another name", options: provider(Selector{Name: "google", Usual: true}),
		want: "outcome-spf",
		says: "under its usual name", verdict: BySPF},
	{name: "neither SPF nor DKIM, and DMARC refuses", changes: []string{"-sel._domainkey.example.com 300 TXT",
		spfText("v=spf1 -all")}, want: "dkim-missing outcome-refused spf-include-missing",
		says: "Receivers do not take mail of example.com through office for genuine", verdict: Fails},
	{name: "neither SPF nor DKIM", changes: []string{"-sel._domainkey.example.com 300 TXT",
		spfText("v=spf1 -all"), dmarcText("p=none; rua=mailto:d@example.com")},
		want: "dkim-missing dmarc-monitor outcome-fails spf-include-missing", verdict: Fails},
	{name: "nobody can tell", options: func(o *Options) {
		o.Senders[0] = Sender{Name: "office", Provider: "Provider", ReturnPath: PathReplaced, Signs: SignsDomain}
		o.Keys = nil
	}, want: "outcome-unknown", says: "cannot be told", verdict: Unknown},
	{name: "weak", options: func(o *Options) { o.Keys = []Key{{Key: weakKey(), Signs: true}} },
		changes: []string{key(record(weakKey()))}, want: "dkim-weak", says: "1024 bits", verdict: ByDKIM},
}

var dmarcCases = []broken{
	{name: "none", changes: []string{"-_dmarc.example.com 300 TXT"}, want: "dmarc-none", says: "has no DMARC record",
		verdict: ByDKIM},
	{name: "several", changes: []string{"+" + dmarcText("p=none")}, want: "dmarc-several", says: "2 DMARC records",
		verdict: ByDKIM},
	{name: "wrong policy", changes: []string{dmarcText("p=block; rua=mailto:d@example.com")}, want: "dmarc-syntax",
		says: "invalid policy", verdict: ByDKIM},
	{name: "wrong np", changes: []string{dmarcText("p=reject; np=all; rua=mailto:d@example.com")},
		want: "dmarc-syntax", says: "np=all", verdict: ByDKIM},
	{name: "misspelt", changes: []string{txt("_dmarc.example.com", "v=DMARC; p=none")}, want: "dmarc-unreadable",
		says: "looks like DMARC", verdict: ByDKIM},
	{name: "no policy", changes: []string{dmarcText("rua=mailto:d@example.com")},
		want: "dmarc-monitor dmarc-no-policy", says: "has no p=", verdict: ByDKIM},
	{name: "misplaced", changes: []string{"-_dmarc.example.com 300 TXT",
		"+" + txt("example.com", "v=DMARC1; p=reject; rua=mailto:d@example.com")}, want: "dmarc-misplaced dmarc-none",
		says: "instead of at _dmarc.example.com", verdict: ByDKIM},
	{name: "monitor", changes: []string{dmarcText("p=none; rua=mailto:d@example.com")}, want: "dmarc-monitor",
		says: "only watches", verdict: ByDKIM},
	{name: "testing", changes: []string{dmarcText("p=reject; t=y; rua=mailto:d@example.com")}, want: "dmarc-testing",
		says: "t=y", verdict: ByDKIM},
	{name: "subdomains", changes: []string{dmarcText("p=reject; np=none; rua=mailto:d@example.com")},
		want: "dmarc-subdomains", says: "np=none", verdict: ByDKIM},
	{name: "psd", changes: []string{dmarcText("p=reject; psd=y; rua=mailto:d@example.com")}, want: "dmarc-psd",
		says: "psd=y", verdict: ByDKIM},
	{name: "old tags", changes: []string{dmarcText("p=reject; pct=50; ri=3600; rua=mailto:d@example.com")},
		want: "dmarc-old-tags", says: "pct, ri", verdict: ByDKIM},
	{name: "no reports", changes: []string{dmarcText("p=reject")}, want: "dmarc-no-reports",
		says: "does not ask for reports", verdict: ByDKIM},
	{name: "reports to nowhere", changes: []string{dmarcText("p=reject; rua=d@example.com")},
		want: "dmarc-report-address", says: `"d@example.com"`, verdict: ByDKIM},
	{name: "reports to a stranger", changes: []string{dmarcText("p=reject; rua=mailto:d@provider.example")},
		want: "dmarc-report-denied", says: "provider.example, which has not agreed", verdict: ByDKIM},
	{name: "strict", options: func(o *Options) { o.Domain = "sales.example.com" }, changes: []string{
		txt("sales.example.com", includes+"-all"), "sales.example.com 300 MX 10 mx.example.com.",
		dmarcText("p=reject; adkim=s; rua=mailto:d@example.com")}, want: "dmarc-strict-dkim outcome-spf",
		says: "accepts only sales.example.com itself", verdict: BySPF},
}

var hostCases = []broken{
	{name: "no MX", changes: []string{"-example.com 300 MX"}, want: "mx-none", says: "no MX record", verdict: ByDKIM},
	{name: "web server", changes: []string{"-example.com 300 MX", "example.com 300 A 192.0.2.80"}, want: "mx-implicit",
		says: "web site", verdict: ByDKIM},
	{name: "null MX", changes: []string{"example.com 300 MX 0 ."}, want: "mx-null", says: "takes no mail",
		verdict: ByDKIM},
	{name: "null MX beside others", changes: []string{"+example.com 300 MX 0 ."}, want: "mx-null-mixed",
		says: "beside others", verdict: ByDKIM},
	{name: "MX is gone", changes: []string{"example.com 300 MX 10 gone.example.com."}, want: "mx-dead mx-unresolvable",
		says: "gone.example.com of example.com has no address", verdict: ByDKIM},
	{name: "MX is an address", changes: []string{"+example.com 300 MX 20 192.0.2.1."}, want: "mx-address",
		says: "192.0.2.1", verdict: ByDKIM},
	{name: "MX is a CNAME", changes: []string{"+example.com 300 MX 20 alias.example.com.",
		"alias.example.com 300 CNAME mx.example.com."}, want: "mx-cname", says: "alias.example.com", verdict: ByDKIM},
	{name: "no PTR", options: direct(ourAddress), want: "ptr-missing", says: "no name in DNS", verdict: ByDKIM},
	{name: "PTR leads elsewhere", options: direct(ourAddress), changes: with("relay.example.com 300 A 203.0.113.8"),
		want: "ptr-unconfirmed", says: "does not lead back", verdict: ByDKIM},
	{name: "other name", options: direct(ourAddress), changes: with("7.113.0.203.in-addr.arpa 300 PTR h.example.com.",
		"h.example.com 300 A "+ourAddress), want: "ptr-hostname", says: "is called h.example.com", verdict: ByDKIM},
	{name: "address is not known", options: direct(), want: "address-unknown", says: "not known", verdict: ByDKIM},
	{name: "listed", options: direct(ourAddress), changes: with("7.113.0.203.zen.spamhaus.org 300 A 127.0.0.4"),
		want: "dnsbl-listed", says: "127.0.0.4", verdict: ByDKIM},
	{name: "dynamic", options: direct(ourAddress), changes: with("7.113.0.203.zen.spamhaus.org 300 A 127.0.0.10"),
		want: "dnsbl-policy", says: "should not send mail themselves", verdict: ByDKIM},
	{name: "public resolver", options: direct(ourAddress),
		changes: with("7.113.0.203.zen.spamhaus.org 300 A 127.255.255.254"), want: "dnsbl-refused",
		says: "public resolver", verdict: ByDKIM},
	{name: "too many questions to a list", options: direct(ourAddress),
		changes: with("7.113.0.203.zen.spamhaus.org 300 A 127.255.255.255"), want: "dnsbl-refused",
		says: "too many questions", verdict: ByDKIM},
	{name: "answers are changed", options: direct(ourAddress),
		changes: with("7.113.0.203.zen.spamhaus.org 300 A 198.51.100.1"), want: "dnsbl-broken",
		says: "changes DNS answers", verdict: ByDKIM},
	{name: "list is out", options: direct(ourAddress),
		changes: with("!resolver servfail 7.113.0.203.zen.spamhaus.org"), want: "dnsbl-unavailable",
		says: "could not be asked", verdict: ByDKIM},
}

func allCases() []broken {
	return slices.Concat(dnsCases, spfCases, dkimCases, dmarcCases, hostCases, clientCases)
}

func TestBrokenZones(t *testing.T) {
	for _, group := range []struct {
		name  string
		cases []broken
	}{{"dns", dnsCases}, {"spf", spfCases}, {"dkim", dkimCases}, {"dmarc", dmarcCases}, {"host", hostCases},
		{"clients", clientCases}} {
		for _, c := range group.cases {
			t.Run(group.name+"/"+c.name, func(t *testing.T) { checkBroken(t, c) })
		}
	}
}

func checkBroken(t *testing.T, c broken) {
	o := options()
	r := runBroken(t, o, c)
	if got := strings.Join(bad(r), " "); got != c.want {
		t.Errorf("found %s\nwant  %s\n%s", got, c.want, show(r))
	}
	says := func(f finding.Finding) bool { return strings.Contains(f.What, c.says) }
	if !slices.ContainsFunc(r.Findings, says) {
		t.Errorf("nothing says %q:\n%s", c.says, show(r))
	}
	if len(r.Outcomes) != 1 || r.Outcomes[0].Verdict != c.verdict || r.Outcomes[0].Why == "" {
		t.Errorf("outcome %+v, want %s\n%s", r.Outcomes, c.verdict, show(r))
	}
	if r.Fails() != (c.verdict == Fails) {
		t.Error("Fails says otherwise")
	}
	for _, f := range r.Findings {
		if f.Weight < finding.Healthy && (f.Why == "" || f.Fix == "" || f.What == "") {
			t.Errorf("%s lacks a text: %+v", f.Code, f)
		}
	}
}

// Every code that is not healthy has a zone that is broken so, and texts of its own.
func TestEveryCodeIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range allCases() {
		for code := range strings.FieldsSeq(c.want) {
			tested[code] = true
		}
	}
	texts := map[string]string{}
	for code, a := range advices {
		if a.weight == finding.Healthy {
			continue
		}
		if !tested[code] {
			t.Errorf("no zone is broken as %s", code)
		}
		if other, ok := texts[a.why+a.fix]; ok {
			t.Errorf("%s and %s say the same", code, other)
		}
		texts[a.why+a.fix] = code
	}
	if n := len(allCases()); n < 40 {
		t.Errorf("%d broken zones", n)
	}
}
