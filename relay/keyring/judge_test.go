package keyring

import (
	"errors"
	"strings"
	"testing"

	"postern/relay/sign"
)

func newKey(t testing.TB, alg, selector string) (sign.Key, string) {
	t.Helper()
	signer, pem, err := sign.Generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	return sign.Key{Domain: "example.com", Selector: selector, Signer: signer}, string(pem)
}

func record(t testing.TB, k sign.Key) string {
	t.Helper()
	text, err := k.Record()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestJudge(t *testing.T) {
	key, _ := newKey(t, sign.RSA2048, "s")
	other, _ := newKey(t, sign.RSA2048, "s")
	good, silent := record(t, key), errors.New("timeout")
	base := strings.TrimPrefix(good, "v=DKIM1; k=rsa; ")
	one := func(texts ...string) []string { return texts }
	server := func(name string, texts ...string) Server { return Server{Name: name, Texts: texts} }
	for name, test := range map[string]struct {
		a    Answer
		want Found
		says string
	}{
		"everywhere": {Answer{Resolver: one(good), Servers: []Server{server("a", good), server("b", good)}},
			Seen, ""},
		"resolver alone": {Answer{Resolver: one(good)}, Seen, ""},
		"nowhere":        {Answer{Servers: []Server{server("a"), server("b")}}, Absent, "a has no record"},
		"not at one server": {Answer{Resolver: one(good), Servers: []Server{server("a", good), server("b")}}, Absent,
			"b has no"},
		"old at one server": {Answer{Resolver: one(good), Servers: []Server{server("a", record(t, other))}}, Differs,
			"a has another record"},
		"resolver remembers": {Answer{Servers: []Server{server("a", good)}}, Absent, "the zone has it"},
		"resolver fails":     {Answer{ResolverErr: silent, Servers: []Server{server("a", good)}}, Unknown, ""},
		"all fail":           {Answer{ResolverErr: silent, Servers: []Server{{Name: "a", Err: silent}}}, Unknown, ""},
		"one server fails": {Answer{Resolver: one(good),
			Servers: []Server{server("a", good), {Name: "b", Err: silent}}}, Seen,
			""},
		"by CNAME":       {Answer{Resolver: one(good), Servers: []Server{{Name: "a", CNAME: true}}}, Seen, ""},
		"CNAME to none":  {Answer{Servers: []Server{{Name: "a", CNAME: true}}}, Absent, "resolver has no record"},
		"two records":    {Answer{Resolver: one(good, good)}, Differs, "2 records"},
		"other order":    {Answer{Resolver: one(base + "; k=rsa; t=s")}, Seen, ""},
		"blanks inside":  {Answer{Resolver: one("v=DKIM1; k=rsa; p=" + base[2:40] + " " + base[40:])}, Seen, ""},
		"cut":            {Answer{Resolver: one(good[:255])}, Differs, "another record"},
		"revoked":        {Answer{Resolver: one("v=DKIM1; p=")}, Differs, "revoked"},
		"another key":    {Answer{Resolver: one(record(t, other))}, Differs, "another record"},
		"for SHA-1 only": {Answer{Resolver: one(good + "; h=sha1")}, Differs, "another record"},
		"hostile":        {Answer{Resolver: one("\x1b[2J" + strings.Repeat("x", 9000))}, Differs, "another record"},
		"hostile name": {Answer{Resolver: one(good),
			Servers: []Server{server("\x1b[2J" + strings.Repeat("n", 9000))}}, Absent, ""},
	} {
		got, detail := Judge(test.a, key)
		if got != test.want || !strings.Contains(detail, test.says) ||
			test.says == "" && got != Absent && detail != "" {
			t.Errorf("%s: %s, %q; want %s, %q", name, got, detail, test.want, test.says)
		}
		if len(detail) > 500 || strings.ContainsRune(detail, 0x1b) {
			t.Errorf("%s: %q", name, detail)
		}
	}
}

// Whatever stands in DNS, only a record that verifies our signatures counts as ours.
func FuzzJudge(f *testing.F) {
	key, _ := newKey(f, sign.Ed25519, "s")
	good := record(f, key)
	for _, seed := range []string{good, "", "v=DKIM1; p=", good[:30], "p=" + good, good + ";;",
		"v=DKIM1; k=rsa; p=AAAA"} {
		f.Add(seed)
	}
	p := good[strings.Index(good, "p=")+2:]
	f.Fuzz(func(t *testing.T, text string) {
		found, detail := Judge(Answer{Resolver: []string{text}}, key)
		if found == Seen && !strings.Contains(strings.Join(strings.Fields(text), ""), p) {
			t.Errorf("%q counts as the record", text)
		}
		if found != Seen && detail == "" || len(detail) > 1000 {
			t.Errorf("%q: %s, %q", text, found, detail)
		}
	})
}
