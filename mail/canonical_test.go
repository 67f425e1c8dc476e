package mail

import (
	"strings"
	"testing"
)

// TestCanonicalStays: what mail programs write keeps its octets, so that a client's own signature survives.
func TestCanonicalStays(t *testing.T) {
	for _, field := range []string{
		"From: ann@example.com",
		"FROM:ann@example.com",
		"From: <ann@example.com>",
		"From: Ann Other <ann@example.com>",
		"From: \"Other, Ann\" <ann@example.com>",
		"From: \"Ann \\\"A\\\" Other\" <ann@Example.COM>",
		"From: \"ann@example.com\" <ann@example.com>",
		"From: \"\" <ann@example.com>",
		"From: \"Ann O'Neill (Sales) [x]; y: z\" <ann@example.com>",
		"From: =?UTF-8?Q?J=C3=BCrgen_M=C3=BCller?= <ann@example.com>",
		"From: =?UTF-8?Q?M=C3=BCller=2C_J=C3=BCrgen?= <ann@example.com>",
		"From: =?utf-8?B?SsO8cmdlbg==?=\r\n\t=?utf-8?B?IE3DvGxsZXI=?= <ann@example.com>",
		"From: =?utf-8?q?J=C3=BCrgen?= Other\r\n <ann@example.com>",
		"From: =?iso-8859-1?Q?J=FCrgen?= <ann@example.com>",
		"From: =?Windows-1252?Q?J=FCrgen?= <ann@example.com>",
		"From: =?ISO-2022-JP?B?GyRCO1tAPBsoQg==?= <ann@example.com>",
		"From: =?shift_jis?B?jo4=?= <ann@example.com>",
		"From: =?gb2312?B?zfU=?= <ann@example.com>",
		"From: =?koi8-r?B?4c7OwQ==?= <ann@example.com>",
		"From:\r\n ann@example.com",
		"From: Ann\r\n <ann@example.com>",
		"From: ann@example.com, \"B, b\" <b@example.com>,\r\n c@example.com",
		"From: ann@[192.0.2.1]",
		"From: ann@[IPv6:2001:db8::1]",
		"From: Ann <\"a..b\"@example.com>",
		"From: J <j\u00fcrgen@b\u00fccher.example>",
	} {
		checkRewritten(t, field, field)
	}
}

// TestCanonicalForm is what becomes of the other forms.
func TestCanonicalForm(t *testing.T) {
	long := strings.Repeat("abcdefghi ", 40)
	for _, c := range []struct{ in, want string }{
		{"From: \"x\r\n y\" <ann@example.com>", "From: x y <ann@example.com>"},
		{"From: \"Ann,\r\n Other\" <ann@example.com>", "From: \"Ann, Other\" <ann@example.com>"},
		{"From: John Q. Public <ann@example.com>", "From: \"John Q. Public\" <ann@example.com>"},
		{"From: [A1] Scanner <ann@example.com>", "From: \"[A1] Scanner\" <ann@example.com>"},
		{"From: DOM\\ann <ann@example.com>", "From: \"DOM\\\\ann\" <ann@example.com>"},
		{"From: Ann<ann@example.com>", "From: Ann <ann@example.com>"},
		{"From: Ann < ann@example.com >", "From: Ann <ann@example.com>"},
		{"From: \"ann\"@example.com", "From: <ann@example.com>"},
		{"From: \"a..b\"@example.com", "From: <\"a..b\"@example.com>"},
		{"From: a..b@example.com", "From: <\"a..b\"@example.com>"},
		{"From: ann@example.com (Ann Other)", "From: Ann Other <ann@example.com>"},
		{"From: Ann (Sales) <ann@example.com> (x)", "From: \"Ann (Sales)\" <ann@example.com>"},
		{"From: Other, Ann <ann@example.com>", "From: \"Other, Ann\" <ann@example.com>"},
		{"From: J\xfcrgen <ann@example.com>", "From: =?utf-8?q?J=C3=BCrgen?= <ann@example.com>"},
		{"From: \"J\u00fcrgen\" <ann@example.com>", "From: =?utf-8?q?J=C3=BCrgen?= <ann@example.com>"},
		{"From: \"=?utf-8?q?J=C3=BCrgen?=\" <ann@example.com>", "From: =?utf-8?q?J=C3=BCrgen?= <ann@example.com>"},
		{"From: =?iso-8859-1?Q?M=FCller,J=FCrgen?= <ann@example.com>",
			"From: =?utf-8?b?TcO8bGxlcixKw7xyZ2Vu?= <ann@example.com>"},
		{"From: =?utf-8?q?J=C3?= =?utf-8?q?=BCrgen?= <ann@example.com>",
			"From: =?utf-8?q?J=C3=BCrgen?= <ann@example.com>"},
		{"From: =?utf-8?q?J=C3=BC_=22x=22_=3Cy=3E_=5C_=40_(z?= <ann@example.com>",
			"From: =?utf-8?b?SsO8ICd4JyDigLl54oC6IC8gYXQgeg==?= <ann@example.com>"},
		{"From: =?utf-8?q?ann=40example.com?= <ann@example.com>", "From: \"ann@example.com\" <ann@example.com>"},
		{"From: \u738b\u5c0f\u660e <ann@example.com>", "From: =?utf-8?b?546L5bCP5piO?= <ann@example.com>"},
		{"From: \"a\tb\" <ann@example.com>", "From: a b <ann@example.com>"},
		{"Sender: \"A\u200bnn\" <ann@example.com>", "Sender: =?utf-8?b?QeKAi25u?= <ann@example.com>"},
		{"Resent-From: (x) ann@example.com", "Resent-From: x <ann@example.com>"},
		{"Resent-Sender: ann@example.com (x)", "Resent-Sender: x <ann@example.com>"},
		{"From: \"" + long + "x.\" <ann@example.com>", ""},
		{"From: " + strings.Repeat("\u738b", 300) + " <ann@example.com>", ""},
		{"From: " + strings.Repeat("a", 950) + " <ann@example.com>", ""},
	} {
		checkRewritten(t, c.in, c.want)
	}
}

// checkRewritten compares what becomes of a field; with "" any form that is proven canonical will do.
func checkRewritten(t *testing.T, field, want string) {
	t.Helper()
	h, _, err := ReadHeader([]byte(field + "\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := CanonicalAuthors(&h)
	if err != nil {
		t.Errorf("%q: %v", field, err)
		return
	}
	provenCanonical(t, h, a)
	got := strings.TrimSuffix(string(h.Bytes()), "\r\n\r\n")
	if want != "" && got != want {
		t.Errorf("%q\n got %q\nwant %q", field, got, want)
	}
	if (len(a.Changes) > 0) != (got != field) {
		t.Errorf("%q: %q", field, a.Changes)
	}
}

func TestEmptyAuthorFieldsGo(t *testing.T) {
	h := header(t, "From: <>\nSender:\nSubject: x\nResent-From: \nResent-Sender: \"\" <>\n\n")
	a, err := CanonicalAuthors(&h)
	if err != nil || !a.Missing() || a.Sender != nil || len(a.Changes) != 4 ||
		string(h.Bytes()) != "Subject: x\r\n\r\n" {
		t.Errorf("%q, %+v, %v", h.Bytes(), a, err)
	}
}
