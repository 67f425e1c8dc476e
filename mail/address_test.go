package mail

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Address
		out  string // "": as in
	}{
		{in: "user@example.com", want: Address{"user", "example.com"}},
		{in: "User.Name+tag@EXAMPLE.com", want: Address{"User.Name+tag", "example.com"},
			out: "User.Name+tag@example.com"},
		{in: `"a b"@example.com`, want: Address{"a b", "example.com"}},
		{in: `"plain"@example.com`, want: Address{"plain", "example.com"}, out: "plain@example.com"},
		{in: `"a\"b\\c"@example.com`, want: Address{`a"b\c`, "example.com"}},
		{in: `"me@mine"@evil.example`, want: Address{"me@mine", "evil.example"}},
		{in: `"v@x> NOTIFY=NEVER <q"@ok.example`, want: Address{"v@x> NOTIFY=NEVER <q", "ok.example"}},
		{in: "a%b!c@example.com", want: Address{"a%b!c", "example.com"}},
		{in: "user@[192.0.2.1]", want: Address{"user", "[192.0.2.1]"}},
		{in: "user@[ipv6:2001:DB8::1]", want: Address{"user", "[IPv6:2001:db8::1]"}, out: "user@[IPv6:2001:db8::1]"},
		{in: "root@localhost", want: Address{"root", "localhost"}},
		{in: "x@my_host.example.com", want: Address{"x", "my_host.example.com"}},
		{in: "jürgen@bücher.example", want: Address{"jürgen", "bücher.example"}},
		{in: "jürgen@BÜCHER.example", want: Address{"jürgen", "bücher.example"}, out: "jürgen@bücher.example"},
		{in: strings.Repeat("a", 500) + "@example.com", want: Address{strings.Repeat("a", 500), "example.com"}},
	} {
		got, err := ParseAddress(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseAddress(%q) = %#v, %v; want %#v", c.in, got, err, c.want)
			continue
		}
		out := c.out
		if out == "" {
			out = c.in
		}
		if got.String() != out || got.Path() != "<"+out+">" {
			t.Errorf("%q prints as %q and %q", c.in, got, got.Path())
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{"", ErrAddressSyntax},
		{"user", ErrAddressSyntax},
		{"user@", ErrAddressSyntax},
		{"@example.com:user@example.net", ErrAddressRoute},
		{"@example.com", ErrAddressSyntax},
		{"a@b@example.com", ErrAddressSyntax},
		{"a..b@example.com", ErrAddressSyntax},
		{".a@example.com", ErrAddressSyntax},
		{"a.@example.com", ErrAddressSyntax},
		{"a b@example.com", ErrAddressSyntax},
		{"a@example.com ", ErrAddressSyntax},
		{" a@example.com", ErrAddressSyntax},
		{"a@example.com.", ErrAddressSyntax},
		{"a@.example.com", ErrAddressSyntax},
		{"a@-example.com", ErrAddressSyntax},
		{"a@example-.com", ErrAddressSyntax},
		{"a@exam ple.com", ErrAddressSyntax},
		{"a@[1.2.3.4", ErrAddressSyntax},
		{"a@[1.2.3]", ErrAddressSyntax},
		{"a@[2001:db8::1]", ErrAddressSyntax},
		{"a@[IPv6:192.0.2.1]", ErrAddressSyntax},
		{"a@[IPv6:fe80::1%eth0]", ErrAddressSyntax},
		{"a@[x:y]", ErrAddressSyntax},
		{`""@example.com`, ErrAddressSyntax},
		{`"a@example.com`, ErrAddressSyntax},
		{`"a\`, ErrAddressSyntax},
		{"\"a\rb\"@example.com", ErrAddressSyntax},
		{"\"a\\\nb\"@example.com", ErrAddressSyntax},
		{"\"a\u0085b\"@example.com", ErrAddressSyntax},
		{"\"a\u2028b\"@example.com", ErrAddressSyntax},
		{"\"a\u202eb\"@example.com", ErrAddressSyntax},
		{"a\u0085b@example.com", ErrAddressSyntax},
		{"a\u00a0b@example.com", ErrAddressSyntax},
		{`"a"b@example.com`, ErrAddressSyntax},
		{`a"b"@example.com`, ErrAddressSyntax},
		{"a(c)@example.com", ErrAddressSyntax},
		{"a@example.com(c)", ErrAddressSyntax},
		{"a@b\x00.com", ErrAddressSyntax},
		{"a\x1b@example.com", ErrAddressSyntax},
		{"a@ex\xffample.com", ErrAddressSyntax},
		{"a@\u212aelvin.example", ErrAddressSyntax}, // the Kelvin sign is not k
		{"a@ma\u0130l.example", ErrAddressSyntax},   // the dotted capital I is not i
		{strings.Repeat("a", 501) + "@example.com", ErrAddressLength},
		{"a@" + strings.Repeat("a.", 130) + "com", ErrAddressLength},

		{"a@" + strings.Repeat("a", 64) + ".com", ErrAddressSyntax},
		{strings.Repeat("a", 1100), ErrAddressLength},
	} {
		if got, err := ParseAddress(c.in); !errors.Is(err, c.want) {
			t.Errorf("ParseAddress(%q) = %#v, %v; want %v", c.in, got, err, c.want)
		}
	}
}

func TestNullAddress(t *testing.T) {
	var null Address
	if !null.IsNull() || null.String() != "" || null.Path() != "<>" || null.NeedsUTF8() {
		t.Errorf("null address prints as %q, %q", null.String(), null.Path())
	}
	if (Address{"a", "b"}).IsNull() {
		t.Error("an address counts as null")
	}
}

func TestNeedsUTF8(t *testing.T) {
	for in, want := range map[string]bool{"a@example.com": false, "ä@example.com": true, "a@ä.example": true} {
		if a, err := ParseAddress(in); err != nil || a.NeedsUTF8() != want {
			t.Errorf("%q: NeedsUTF8 = %v, %v", in, a.NeedsUTF8(), err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":          "plain text",
		"a\r\nb":              "a??b",
		"tab\tand \x1b[31m":   "tab?and ?[31m",
		"nul\x00 del\x7f":     "nul? del?",
		"c1 \u0085 \u2028":    "c1 ? ?",
		"turn \u202e":         "turn ?",
		"grüße":               "grüße",
		"broken \xff\xfe end": "broken ?? end",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc..."}, {"aüb", 2, "a..."}, {"üb", 1, "..."}, {"", 0, ""}} {
		if got := Cut(c.in, c.n); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

// TestAddressRoundTrip: every address that can be made prints in a form that reads back as itself.
func TestAddressRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.StringMatching(`([a-zA-Z0-9!#.]{1,8}|"([ !#-\[\]-~]|\\["\\ ]){1,8}")`+
			`@[A-Za-z0-9ÄöÅ.-]{1,12}`).Draw(t, "address")
		checkRoundTrip(t, in)
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"user@example.com", `"a b"@example.com`, `"a\"b\\"@[192.0.2.1]`, "x@[IPv6:::1]", "@a:b@c", "ä@ö.example",
		"a@\u212a",
		`"v@x> NOTIFY=NEVER <q"@ok.com`, "a@\u023a\u023a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkRoundTrip(t, s) })
}

type failer interface{ Fatalf(string, ...any) }

func checkRoundTrip(t failer, s string) {
	a, err := ParseAddress(s)
	if err != nil {
		return
	}
	out := a.String()
	again, err := ParseAddress(out)
	if err != nil || again != a {
		t.Fatalf("%q -> %#v -> %q -> %#v, %v", s, a, out, again, err)
	}
	if a.IsNull() || len(a.Domain) > 255 || len(a.Local) > 64 || !utf8.ValidString(out) || Printable(out) != out {
		t.Fatalf("%q accepted as %#v", s, a)
	}
	if strings.Count(a.Domain, "@") > 0 || strings.ContainsAny(a.Domain, " <>\"\\,;") {
		t.Fatalf("%q accepted with domain %q", s, a.Domain)
	}
}
