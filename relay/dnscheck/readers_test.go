package dnscheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postern/relay/dnscheck/dnstest"
)

func TestParseSPF(t *testing.T) {
	for text, want := range map[string]string{
		"v=spf1": "", "V=SPF1 -all": "", "v=spf1  a  mx  -all ": "",
		"v=spf1 a:example.com/24//64 mx/30 a//64 -all":                                    "",
		"v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ?all":                                  "",
		"v=spf1 exists:%{i}._spf.%{d2} include:%{l1r-}.example.com redirect=%{d}.example": "",
		"v=spf1 exp=explain._spf.%{d} unknown=%%%_%- -all":                                "",
		"v=spf1 A MX PTR:example.com Include:_spf.example.com -ALL":                       "",
		"v=spf10 -all": "does not begin", "spf1 -all": "does not begin",
		"v=spf1 all:x":                                 "must stand alone",
		"v=spf1 include":                               "names no domain",
		"v=spf1 include:":                              "no valid domain",
		"v=spf1 include:localhost":                     "no valid domain",
		"v=spf1 include:a.example mple":                "is not known",
		"v=spf1 ip4":                                   "names no network",
		"v=spf1 ip4:2001:db8::1":                       "other kind",
		"v=spf1 ip6:192.0.2.1":                         "other kind",
		"v=spf1 ip4:192.0.2.0/33":                      "no valid network",
		"v=spf1 ip6:fe80::1%eth0":                      "no valid network",
		"v=spf1 a:example.com/33":                      "length",
		"v=spf1 a//129":                                "length",
		"v=spf1 a/024":                                 "length",
		"v=spf1 a/":                                    "length",
		"v=spf1 mxx":                                   "is not known",
		"v=spf1 mx.example.com":                        "is not known",
		"v=spf1 ptr/24":                                "something else",
		"v=spf1 +":                                     "is not known",
		"v=spf1 exists:%{x}.example.com":               "no macro",
		"v=spf1 exists:%{i.example.com":                "no macro",
		"v=spf1 exists:%i.example.com":                 "no macro",
		"v=spf1 redirect=a.example redirect=b.example": "stands twice",
		"v=spf1 include:\u00e4.example.com":            "not allowed",
		"v=spf1 a:[192.0.2.1]":                         "no valid domain",
	} {
		_, err := parseSPF(text)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestParseKey(t *testing.T) {
	good := record(rsaKey())
	for text, want := range map[string]string{
		good: "", "p=" + strings.SplitN(good, "p=", 2)[1]: "", strings.ReplaceAll(good, "; ", ";"): "",
		good + ";": "", "v=DKIM1; p=": "", record(ed25519Key()): "",
		"k=rsa; v=DKIM1; p=": "begin with v=DKIM1", "v=DKIM2; p=": "begin with v=DKIM1", "v=DKIM1": "no p=",
		"v=DKIM1 p=": "begin with v=DKIM1", "v=DKIM1; p=AAAA": "not a whole RSA key", "v=DKIM1; x": "has no =",
		"v=DKIM1; p=; p=": "stands twice", "v=DKIM1; \"p=": "not the name of a tag", "": "no p=",
	} {
		_, err := parseKey(text)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", clean(text), err, want)
		}
	}
	r, err := parseKey(strings.Replace(good, "p=MIIB", "p= M I\tIB", 1) + "; t=s:y; s=email:x; h=sha1:sha256")
	if err != nil || r.bits != 2048 || !r.testing || r.noHash || r.notMail || r.stripped {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestParseDMARC(t *testing.T) {
	r, err := parseDMARC("v=DMARC1;p=reject;sp=quarantine;np=none;psd=n;t=y;adkim=s;pct=10;rua=mailto:a@b.example, " +
		"mailto:c@d.example")
	if err != nil || r.policy != "reject" || r.subdomains != "quarantine" || r.missing != "none" || r.psd != "n" ||
		!r.testing || !r.strictDKIM || len(r.reports) != 2 || !slices.Equal(r.old, []string{"pct"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = parseDMARC("v=DMARC1; p=quarantine"); err != nil || r.subdomains != "quarantine" ||
		r.missing != "quarantine" || r.psd != "u" || r.testing || r.strictDKIM {
		t.Errorf("%+v, %v", r, err)
	}
	for text, want := range map[string]string{
		"v=DMARC1": "no p=", "v=DMARC1; p=x": "invalid policy", "v=DMARC1; p=none; adkim=x": "alignment",
		"p=none; v=DMARC1": "does not begin", "v=DMARC1; p=none; p=none": "stands twice", "v=DMARC1; p": "has no =",
		"v=DMARC1; p=none; t=x": "y or n", "v=DMARC1; p=none; psd=x": "one of y, n, u",
		"v=DMARC1; p=none; np=x": "one of none", "v=DMARC1; p=none; pct=200": "pct",
	} {
		if _, err := parseDMARC(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestTreeWalk(t *testing.T) {
	step := func(domain, psd string) walkStep { return walkStep{domain, dmarcRecord{psd: psd}} }
	for _, c := range []struct {
		domain string
		found  []walkStep
		want   string
	}{
		{"a.b.example.com", nil, "a.b.example.com"},
		{"example.com", []walkStep{step("example.com", "u")}, "example.com"},
		{"a.b.example.com", []walkStep{step("a.b.example.com", "u"), step("example.com", "u")}, "example.com"},
		{"a.b.example.com", []walkStep{step("b.example.com", "n")}, "b.example.com"},
		{"a.example.co.uk", []walkStep{step("co.uk", "y")}, "example.co.uk"},
		{"a.example.co.uk", []walkStep{step("a.example.co.uk", "u"), step("co.uk", "y")}, "example.co.uk"},
		{"giant.bank.example", []walkStep{step("giant.bank.example", "u"), step("bank.example", "y")},
			"giant.bank.example"},
		{"bank.example", []walkStep{step("bank.example", "y")}, "bank.example"},
	} {
		if got := organization(c.domain, c.found); got != c.want {
			t.Errorf("%s with %v: %s, want %s", c.domain, c.found, got, c.want)
		}
	}
}

// A walk asks for the domain, and then for at most seven labels (RFC 9989 §4.10).
func TestTreeWalkIsBounded(t *testing.T) {
	w := dnstest.Start(t, "")
	var asked []string
	r := resolverOf(w)
	r.exchange = func(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
		asked = append(asked, bare(m.Question[0].Name))
		return r.send(ctx, network, server, m)
	}
	o := &Options{Resolver: r, Domain: "example.com"}
	c := newCheck(t.Context(), o)
	if found, err := c.dmarc.treeWalk("a.b.c.d.e.f.g.h.i.example.com"); err != nil || found != nil {
		t.Errorf("%v, %v", found, err)
	}
	want := []string{"_dmarc.a.b.c.d.e.f.g.h.i.example.com", "_dmarc.e.f.g.h.i.example.com",
		"_dmarc.f.g.h.i.example.com", "_dmarc.g.h.i.example.com", "_dmarc.h.i.example.com", "_dmarc.i.example.com"}
	if len(asked) < len(want) || !slices.Equal(asked[:len(want)], want) || asked[len(asked)-1] != "_dmarc.com" {
		t.Errorf("asked %v", asked)
	}
}

// Of a subdomain the policy of its organization holds, sp= if there is one.
func TestInheritedPolicy(t *testing.T) {
	o := options()
	o.Domain = "sales.example.com"
	mx := []string{txt("sales.example.com", includes+"-all"), "sales.example.com 300 MX 10 mx.example.com."}
	r := checkWorld(t, o, append(mx, dmarcText("p=reject; sp=none; rua=mailto:d@example.com"))...)
	if !slices.Equal(bad(r), []string{"dmarc-monitor"}) {
		t.Errorf("%s", show(r))
	}
	// psd=n below ends the walk: the key of the parent is no longer aligned.
	r = checkWorld(t, o, append(mx, txt("_dmarc.sales.example.com", "v=DMARC1; p=reject; psd=n; rua=mailto:d@sales."+
		"example.com"))...)
	if r.Outcomes[0].Verdict != BySPF {
		t.Errorf("%s", show(r))
	}
}

func TestMergeSPF(t *testing.T) {
	for _, c := range []struct {
		records, missing []string
		want             string
	}{
		{nil, []string{"include:a.example"}, "v=spf1 include:a.example ~all"},
		{[]string{"v=spf1 mx -all"}, []string{"include:a.example"}, "v=spf1 mx include:a.example -all"},
		{[]string{"v=spf1 mx ?all", "v=spf1 mx ip4:192.0.2.1 -all"}, nil, "v=spf1 mx ip4:192.0.2.1 ~all"},
		{[]string{"v=spf1 +all include:b.example"}, nil, "v=spf1 include:b.example ~all"},
		{[]string{"v=spf1 ipv4:192.0.2.1 mx -all"}, nil, "v=spf1 mx -all"},
		{[]string{"v=spf1 redirect=a.example"}, []string{"ip4:192.0.2.1"}, "v=spf1 ip4:192.0.2.1 redirect=a.example"},
		{[]string{"v=spf1"}, nil, "v=spf1 ~all"},
	} {
		if got := mergeSPF(c.records, c.missing); got != c.want {
			t.Errorf("%v and %v: %s, want %s", c.records, c.missing, got, c.want)
		}
	}
}

// What is suggested lets mail through: published, it leaves nothing to find.
func TestSuggestedRecordsMend(t *testing.T) {
	changes := []string{"-sel._domainkey.example.com 300 TXT", "-_dmarc.example.com 300 TXT",
		spfText("v=spf1 ip4:192.0.2.1 +all"), "+" + spfText("v=spf1 mx -all")}
	broken := checkWorld(t, options(), changes...)
	if len(broken.Records) != 3 {
		t.Fatalf("%s", show(broken))
	}
	mended := []string{"-example.com 300 TXT"}
	for _, r := range broken.Records {
		mended = append(mended, txt(r.Name, r.Value))
		zoneLine := strings.NewReplacer("( ", "", " )", "", ". IN ", " 300 ").Replace(r.ZoneLine)
		if zoneLine != txt(r.Name, r.Value) {
			t.Errorf("zone line %s", r.ZoneLine)
		}
	}
	r := checkWorld(t, options(), mended...)
	if !slices.Equal(bad(r), []string{"dmarc-monitor"}) || r.Outcomes[0].Verdict != ByDKIM {
		t.Errorf("%s", show(r))
	}
}

func TestProvidersOwnDomain(t *testing.T) {
	o := options()
	o.Senders[0].OwnDomains = []string{"example.com"}
	r := checkWorld(t, o, "-example.com 300 TXT")
	if len(bad(r)) > 0 || r.Outcomes[0].Verdict != ByDKIM || len(r.Records) > 0 {
		t.Errorf("%s", show(r))
	}
}

func FuzzSPF(f *testing.F) {
	for _, seed := range []string{"v=spf1 include:a.example -all", "v=spf1 a:%{d} exists:%{ir}.x.example " +
		"redirect=b.example",
		"v=spf1 mx/24//64 ip6:2001:db8::/32 ptr ?all", strings.Repeat("v=spf1 ", 99)} {
		f.Add(seed, "v=spf1 include:b.example a mx -all")
	}
	f.Fuzz(func(t *testing.T, text, other string) {
		r, err := parseSPF(text)
		if err != nil {
			return
		}
		w := &spfWalk{
			fetch: func(domain string) ([]string, error) {
				if strings.HasPrefix(domain, "x") {
					return nil, &Error{Kind: NXDomain}
				}
				return []string{other, text}[len(domain)%2 : len(domain)%2+1], nil
			},
			resolve: func(string, uint16) (Answer, error) { return Answer{}, nil },
		}
		w.walk("example.com", r, nil)
		if w.lookups > walkLookups || len(w.visited) > walkLookups+1 {
			t.Errorf("%d look-ups, %d records", w.lookups, len(w.visited))
		}
		merged := mergeSPF([]string{text}, []string{"include:c.example"})
		if _, err := parseSPF(merged); err != nil {
			t.Errorf("%q becomes %q: %v", text, merged, err)
		}
	})
}

func FuzzKeyRecord(f *testing.F) {
	for _, seed := range []string{"v=DKIM1; k=rsa; p=" + weak, "v=DKIM1; p=", "k=ed25519;p=AAAA;t=y:s", `p="a\"b"`} {
		f.Add(seed)
	}
	expected := record(ed25519Key())
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseKey(text)
		if code, _ := judgeKey(text, expected); code == "" && (err != nil || r.revoked || r.kind != "ed25519") {
			t.Errorf("%q passes for our key", text)
		}
	})
}

func FuzzDMARC(f *testing.F) {
	for _, seed := range []string{"v=DMARC1; p=none; np=reject; psd=y; t=n", "v=DMARC1;rua=mailto:a@b.example",
		"v=DMARC1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseDMARC(text)
		if err == nil && (!isDMARC(text) || !slices.Contains([]string{"none", "quarantine", "reject"}, r.policy) ||
			!slices.Contains([]string{"y", "n", "u"}, r.psd) || r.subdomains == "" || r.missing == "") {
			t.Errorf("%q: %+v", text, r)
		}
		if _, ok := onlyDMARC([]string{text, text}); ok {
			t.Errorf("two of %q count as one", text)
		}
	})
}

func ExampleHasKey() {
	fmt.Println(HasKey([]string{"v=DKIM1; k=ed25519; p="}, "v=DKIM1; k=ed25519; p=AAAA"))
	// Output: false
}
