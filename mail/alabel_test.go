package mail

import (
	"strings"
	"testing"

	"golang.org/x/net/idna"
)

// TestALabels has the examples of RFC 3492 §7.1 that lower case leaves as they are, and domains seen in
// the wild.
func TestALabels(t *testing.T) {
	for in, want := range map[string]string{
		"ليهمابتكلموشعربي؟":            "xn--egbpdaj6bu4bxfgehfvwxn",
		"他们为什么不说中文":                    "xn--ihqwcrb4cv8a8dqg056pqjye",
		"почемужеонинеговорятпорусски": "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l",
		"bücher":              "xn--bcher-kva",
		"münchen-ost.example": "xn--mnchen-ost-9db.example",
		"straße.example":      "xn--strae-oqa.example",
		"пример.испытание":    "xn--e1afmkfd.xn--80akhbyknj4f",
		"3年b組金八先生":            "xn--3b-ww4c5e180e575a65lsy2b",
		"münchen.例え.test":     "xn--mnchen-3ya.xn--r8jz45g.test",
		"ü.example":           "xn--tda.example",
		"למההםפשוטלאמדבריםעברית": "xn--4dbcagdahymbxekheh6e0a7fei0b",
		"":            "",
		"example.com": "example.com",
		"[192.0.2.1]": "[192.0.2.1]",
	} {
		if got := ALabels(in); got != want {
			t.Errorf("ALabels(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestASCIIAddress(t *testing.T) {
	long := strings.Repeat("ü", 60) + ".example"
	for in, want := range map[Address]string{
		{"anna", "example.com"}:    "anna@example.com",
		{"anna", "bücher.example"}: "anna@xn--bcher-kva.example",
		{"a b", "bücher.example"}:  `"a b"@xn--bcher-kva.example`,
		{"anna", "[192.0.2.1]"}:    "anna@[192.0.2.1]",
		{}:                         "",
		{"änna", "example.com"}:    "",
		{"änna", "bücher.example"}: "",
		{"anna", long}:             "", // no such label can be registered
		{"anna", strings.Repeat("ü.", 50) + "example"}: "",
	} {
		got, ok := in.ASCII()
		switch {
		case !ok && (want != "" || in.IsNull() || got != in):
			t.Errorf("%s: needs SMTPUTF8, %s", in, got)
		case ok && got.String() != want:
			t.Errorf("%s: %s, want %q", in, got, want)
		}
	}
}

// Whatever parses as a domain has one form in ASCII, and nothing else has the same.
func FuzzALabels(f *testing.F) {
	for _, s := range []string{"bücher.example", "xn--bücher.example", "ü.xn--bcher-kva", "xn--a-ü",
		"\U00020000\U00010280.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDomain(s)
		if err != nil {
			return
		}
		a := ALabels(d)
		if !IsASCII(a) || ALabels(a) != a {
			t.Fatalf("%q becomes %q", d, a)
		}
		if back, err := idna.Punycode.ToUnicode(a); !strings.Contains(d, "xn--") && (err != nil || back != d) {
			t.Errorf("%q becomes %q and back %q, %v", d, a, back, err)
		}
	})
}
