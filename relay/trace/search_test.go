package trace

import (
	"slices"
	"strings"
	"testing"

	"postern/mail"
)

func termsOf(e Event) (all []string) {
	e.Terms(func(term string) {
		if !slices.Contains(all, term) {
			all = append(all, term)
		}
	})
	return all
}

func TestTerms(t *testing.T) {
	for _, test := range []struct {
		event Event
		want  string
	}{
		{Event{From: "Anna.Berg+x@Mail.Example.COM"},
			"anna.berg+x@mail.example.com anna.berg+x mail.example.com example.com anna berg mail example com"},
		{Event{Client: "192.0.2.17"}, "192.0.2.17 192.0.2.0/24 192.0.2"},
		{Event{Client: "2001:db8::7"}, "2001:db8::7 2001:db8::/64"},
		{Event{Client: "::ffff:192.0.2.1"}, "192.0.2.1 192.0.2.0/24 192.0.2"},
		{Event{Client: "2001:db8::/64"}, "2001:db8::/64"}, // a summary
		{Event{Kind: AuthFail}, "auth-fail"},
		{Event{Reply: mail.R(550, "5.7.1", "No, (really) no: id=ab12-cd; see https://x.example/Z9")},
			"550 5.7.1 no really id=ab12-cd ab12-cd id ab12 cd see https://x.example/z9 x.example https example z9"},
		{Event{ID: "3M5X", Session: "3m5x"}, "3m5x"},
		{Event{MessageID: "<1.2@x.example>"}, "1.2@x.example 1.2 x.example example"},
		{Event{Detail: "a 12 b1 123 größe \xff\xfe"}, "b1 123 größe \ufffd\ufffd"},
		{Event{}, ""},
	} {
		if got := strings.Join(termsOf(test.event), " "); got != test.want {
			t.Errorf("%+v\ngot  %s\nwant %s", test.event, got, test.want)
		}
	}
}

func TestQueryTerms(t *testing.T) {
	for query, want := range map[string]string{
		"Anna@Example.com  550":  "anna@example.com 550",
		"<1.2@x.example>":        "1.2@x.example",
		"*@gmail.com @gmail.com": "gmail.com",
		"2001:DB8:0::0007":       "2001:db8::7",
		"[192.0.2.1]":            "192.0.2.1",
		"192.0.2.77/24":          "192.0.2.0/24",
		"\"wrong password\"":     "wrong password",
		"1 22 a -":               "",
	} {
		if got := strings.Join(queryTerms(query), " "); got != want {
			t.Errorf("%q: got %q, want %q", query, got, want)
		}
	}
}

func TestCursor(t *testing.T) {
	for _, c := range []Cursor{{1, 2}, {-1 << 63, 1<<63 - 1}, {}} {
		if got, err := ParseCursor(c.String()); err != nil || got != c {
			t.Errorf("%+v became %+v, %v", c, got, err)
		}
	}
}

// FuzzTerms: whatever a client or an upstream says, the words of it are bounded, and who types one of them finds it.
func FuzzTerms(f *testing.F) {
	f.Add("OK id=010001806b0f0f99-41060108 <a&b@example.com> [Hostname=X.example.net:25]", "anna@example.com", "::1")
	f.Add(strings.Repeat("a@b.c=", 2000), strings.Repeat(".", 300)+"@"+strings.Repeat("a.", 200), "fe80::1%eth0")
	f.Add("\xff\xfe\x00 \u0130 \u2028", "İ@İ.example", "192.0.2.0/33")
	f.Fuzz(func(t *testing.T, text, address, client string) {
		e := Event{Reply: mail.R(250, "2.0.0", "%s", text), From: address, Client: client, MessageID: text,
			Login: address}
		n := 0
		e.Terms(func(term string) {
			if n++; n > maxTerms || len(term) > maxTerm || term == "" {
				t.Fatalf("%d words, one of %d octets", n, len(term))
			}
			if n%10 != 1 || strings.ContainsAny(term, "/%") || len(term) == maxTerm {
				return // a network is written in many ways, and what was cut may have an end that is trimmed
			}
			if q := queryTerms(term); len(q) != 1 || !e.HasTerms(q) {
				t.Errorf("%q is asked for as %q and not found", term, q)
			}
		})
		q := Search{Words: text}
		if terms, err := q.Terms(); err == nil && len(terms) > MaxWords {
			t.Errorf("%d words", len(terms))
		}
	})
}
