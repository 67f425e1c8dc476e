package operate

import (
	"slices"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "192.0.2.0/24": "192.0.2.0/24", "192.0.2.9/24": "192.0.2.0/24",
		"2001:db8::1": "2001:db8::1/128", "[2001:db8::1]": "2001:db8::1/128",
		"2001:db8::/64": "2001:db8::/64", "192.0.2.1:587": "192.0.2.1/32", "[2001:db8::1]:587": "2001:db8::1/128",
		"fe80::1%eth0":     "fe80::1/128",
		"::ffff:192.0.2.1": "192.0.2.1/32", "anna": "", "anna@192.0.2.1": "", "192.0.2": "", "": "", "192.0.2.1/33": "",
	} {
		got, ok := parseAddress(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %s, %t", text, got, ok)
		}
	}
}

func FuzzParseAccounts(f *testing.F) {
	for _, s := range []string{"login\na\n", "login;senders\r\na;b@c d@e\r\n", "\ufefflogin,password\na,\"x\ny\"\n",
		"sep=;\nlogin;note\na;b\n", "login\tkind\na\tdevice\n", ",,,\n", "\"", "login\n\"a\nb\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, problems := parseAccounts(data)
		if len(rows) == 0 && len(problems.lines) == 0 {
			t.Fatal("nothing came of it and nothing was said")
		}
		var logins []string
		for i, r := range rows {
			if r.line < 1 || i > 0 && r.line <= rows[i-1].line {
				t.Fatalf("row %d is in line %d", i, r.line)
			}
			logins = append(logins, r.user.Login)
		}
		slices.Sort(logins)
		if len(problems.lines) == 0 && (len(slices.Compact(logins)) != len(rows) || logins[0] == "") {
			t.Fatalf("taken: %q", logins)
		}
	})
}
