package policy

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postern/mail"
)

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	if s == "" {
		return mail.Address{}
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return a
}

func TestSenderPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, login string
		yes, no        []string
	}{
		{"anna@example.com", "anna", []string{"anna@example.com", "Anna@Example.COM", `"anna"@example.com`},
			[]string{"", "anna@example.net", "ann@example.com", "anna@sub.example.com", "anna@example.com.evil.example",
				"xanna@example.com", `"anna@example.com"@evil.example`}},
		{"Anna.Berg@Example.com", "anna", []string{"anna.berg@example.com", "ANNA.BERG@EXAMPLE.COM"},
			[]string{"annaxberg@example.com"}},
		{"*@example.com", "anna", []string{"x@example.com", `"a b"@example.com`, `"x@evil.example"@example.com`},
			[]string{"", "x@sub.example.com", "x@notexample.com", "x@example.com.evil.example",
				`"x@example.com"@evil.example`}},
		{"*@*.example.com", "anna", []string{"x@sub.example.com", "x@a.b.example.com"},
			[]string{"x@example.com", "x@notexample.com", "x@subexample.com"}},
		{"news-*@example.com", "anna", []string{"news-@example.com", "NEWS-42@example.com"},
			[]string{"news@example.com", "xnews-1@example.com", "news-1@example.net"}},
		{"anna+*@example.com", "anna", []string{"anna+x@example.com"}, []string{"anna@example.com"}},
		{"{login}", "anna@example.com", []string{"anna@example.com", "Anna@EXAMPLE.com"},
			[]string{"", "bob@example.com", "anna@example.net"}},
		{"{login}", "Anna@Example.com", []string{"anna@example.com"}, nil},
		{"{login}", "anna", nil, []string{"anna@example.com", ""}},
		{"{login}", "*@example.com", []string{"*@example.com"}, []string{"anna@example.com"}}, // a login is no pattern
		{"{login}@example.com", "anna", []string{"anna@example.com", "ANNA@example.com"},
			[]string{"bob@example.com", "anna@example.net"}},
		{"{login}@example.com", "*", nil, []string{"anna@example.com"}},
		{"{login}@*.example.com", "anna", []string{"anna@a.example.com"},
			[]string{"anna@example.com", "bob@a.example.com"}},
		{"{login}@example.com", "anna@evil.example", nil, []string{"anna@example.com", "anna@evil.example"}},
		{"x@bücher.example", "anna",
			[]string{"x@bücher.example", "x@BÜCHER.example", "x@xn--bcher-kva.example", "x@XN--BCHER-KVA.example"},
			[]string{"x@bucher.example"}},
		{"x@xn--bcher-kva.example", "anna", []string{"x@bücher.example"}, nil},
		{"jörg@example.com", "anna", []string{"jörg@example.com", "Jörg@example.com"},
			[]string{"JÖRG@example.com", "jorg@example.com"}},
		{"kim@example.com", "anna", nil, []string{"\u212aim@example.com"}}, // the Kelvin sign is no k
		{`"a b"@example.com`, "anna", []string{`"a b"@example.com`, `"A\ b"@example.com`}, []string{"ab@example.com"}},
		{"x@[192.0.2.1]", "anna", []string{"x@[192.0.2.1]"}, []string{"x@[192.0.2.2]"}},
		{"x@[IPv6:2001:DB8::1]", "anna", []string{"x@[ipv6:2001:db8:0::1]"}, nil},
	} {
		p, err := parseSender(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		for _, s := range c.yes {
			if !p.matches(folded(address(t, s)), c.login) {
				t.Errorf("%q (login %q) does not match %q", c.pattern, c.login, s)
			}
		}
		for _, s := range c.no {
			if p.matches(folded(address(t, s)), c.login) {
				t.Errorf("%q (login %q) matches %q", c.pattern, c.login, s)
			}
		}
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	for pattern, hint := range map[string]string{
		"":                          "not an address",
		"*":                         `"*@example.com"`,
		"example.com":               `"*@example.com"`,
		"@example.com":              `"*@example.com"`,
		"@":                         "name of a group",
		"@a b":                      "name of a group",
		"@{login}":                  "name of a group",
		"!anna@example.com":         "only ever allowed",
		"anna":                      "not an address",
		"anna@":                     "not a domain",
		"anna@*":                    "not a domain",
		"anna@*.*.example":          "not a domain",
		"anna@example.*":            "not a domain",
		"*@*":                       "not a domain",
		"*@*.[192.0.2.1]":           "nothing below",
		"*@*.[IPv6:2001:db8::1]":    "nothing below",
		"anna@exa mple.com":         "not a domain",
		"an na@example.com":         "not an address",
		"a..b@example.com":          "not an address",
		"anna@evil@example.com":     "not an address",
		`"*"@example.com`:           "only letters",
		"{login@example.com":        "braces",
		"{user}@example.com":        "braces",
		"x{login}@example.com":      "braces",
		"<anna@example.com>":        "not a domain",
		"anna@example.com\r\nRCPT ": "not a domain",
	} {
		err := CheckSenderPattern(pattern)
		if err == nil {
			t.Errorf("%q was accepted", pattern)
			continue
		}
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v; the hint %q is missing", pattern, err, hint)
		}
	}
}

func TestRecipients(t *testing.T) {
	for _, c := range []struct {
		list []string
		yes  []string
		no   []string
	}{
		{[]string{"*"}, []string{"x@example.com", "y@example.net"}, []string{""}},
		{[]string{"*@example.com"}, []string{"x@example.com"}, []string{"y@example.net", ""}},
		{[]string{"*", "!*@example.net"}, []string{"x@example.com"}, []string{"y@example.net"}},
		{[]string{"!*@example.net", "*"}, []string{"x@example.com"}, []string{"y@example.net"}},
		{[]string{"!*@example.net"}, []string{"x@example.com", "x@sub.example.net"},
			[]string{"y@example.net", "Y@EXAMPLE.NET"}},
		{[]string{"!*@example.net", "!*@*.example.net"}, []string{"x@example.com"},
			[]string{"y@example.net", "y@a.example.net"}},
		{[]string{"!boss@example.com", "*@example.com"}, []string{"x@example.com"},
			[]string{"boss@example.com", "BOSS@example.com", `"boss"@example.com`}},
		{[]string{"!*@bücher.example"}, []string{"x@example.com"},
			[]string{"x@xn--bcher-kva.example", "x@bücher.example"}},
		{[]string{"!*"}, nil, []string{"x@example.com"}},
		{[]string{"{login}"}, []string{"anna@example.com"}, []string{"bob@example.com"}},
	} {
		p, err := New([]Rule{{Recipients: c.list}, standard})
		if err != nil {
			t.Errorf("%q: %v", c.list, err)
			continue
		}
		e := p.For(Subject{Login: "anna@example.com"})
		for _, s := range c.yes {
			if !e.RecipientAllowed(address(t, s)) {
				t.Errorf("%q does not allow %q", c.list, s)
			}
		}
		for _, s := range c.no {
			if e.RecipientAllowed(address(t, s)) {
				t.Errorf("%q allows %q", c.list, s)
			}
		}
	}
	for _, bad := range [][]string{{}, {""}, {"!"}, {"!!*"}, {"@example.com"}, {"!@example.com"}, {"example.com"},
		{"boss@example.net", "!*@example.net"}, {"x@example.com", "!*"}} {
		if Check(Rule{Recipients: bad}) == nil {
			t.Errorf("recipients %q were accepted", bad)
		}
	}
	if CheckRecipientPattern("!*@example.com") != nil || CheckRecipientPattern("@example.com") == nil {
		t.Error("CheckRecipientPattern judges otherwise")
	}
}

func TestGlob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*")), 0, 8, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("ab")), 0, 12, -1).Draw(t, "s")
		re := regexp.MustCompile("^" + strings.ReplaceAll(pattern, "*", ".*") + "$")
		if got := glob(pattern, s); got != re.MatchString(s) {
			t.Fatalf("glob(%q, %q) = %v", pattern, s, got)
		}
	})
	if glob(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 5000)) {
		t.Error("matched")
	}
}

// FuzzSenderPattern: no pattern panics, matches the null address, or matches outside the domain that
// it names.
func FuzzSenderPattern(f *testing.F) {
	for _, s := range []string{"*@example.com", "{login}", "@staff", "x@*.example.com", "a*b@example.com",
		`"a b"@example.com`, "*", "!x@y"} {
		f.Add(s, "anna@example.com", "x@example.com")
	}
	f.Fuzz(func(t *testing.T, text, login, addr string) {
		p, err := parseSender(text)
		a, addrErr := mail.ParseAddress(addr)
		if err != nil || addrErr != nil {
			return
		}
		if p.matches(mail.Address{}, login) {
			t.Fatalf("%q matches nobody", text)
		}
		if !p.matches(folded(a), login) {
			return
		}
		domain := text[strings.LastIndexByte(text, '@')+1:]
		if p.login && p.domain == "" {
			domain = login[strings.LastIndexByte(login, '@')+1:]
		}
		domain, err = mail.ParseDomain(strings.TrimPrefix(domain, "*."))
		if err != nil || !strings.HasSuffix(mail.ALabels(a.Domain), mail.ALabels(domain)) {
			t.Fatalf("%q (login %q) matches %q", text, login, addr)
		}
	})
}
