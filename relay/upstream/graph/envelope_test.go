package graph

import (
	netmail "net/mail"
	"slices"
	"strings"
	"testing"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// Whatever the header says, the mail reaches the envelope and nobody else.
func TestEnvelopeIsTheAuthority(t *testing.T) {
	for name, c := range map[string]struct {
		header     string
		recipients []string
	}{
		"in the header": {"To: a@example.org\r\nCc: B <b@example.net>\r\n",
			[]string{"a@example.org", "b@example.net"}},
		"blind":               {"To: a@example.org\r\n", []string{"a@example.org", "blind@example.net"}},
		"no fields":           {"", []string{"a@example.org", "b@example.net"}},
		"undisclosed":         {"To: undisclosed-recipients:;\r\n", []string{"a@example.org"}},
		"undisclosed, sloppy": {"To: Undisclosed recipients\r\n", []string{"a@example.org"}},
		"empty":               {"To:\r\nCc: \r\n", []string{"a@example.org"}},
		"a Bcc that came": {"To: a@example.org\r\nBcc: b@example.net\r\n",
			[]string{"a@example.org", "b@example.net"}},
		"group": {"To: staff: a@example.org, B <b@example.net>;\r\n",
			[]string{"a@example.org", "b@example.net"}},
		"case": {"To: Anna.Bell@Example.ORG\r\n", []string{"anna.bell@example.org"}},
		"quotes and comments": {"To: \"Doe, (x@y.example) \\\" J\" <a@example.org> (home, <z@w.example>)\r\n",
			[]string{"a@example.org"}},
		"Outlook's quotes": {"To: 'a@example.org' <a@example.org>\r\n", []string{"a@example.org"}},
		"folded": {"To: Anna\r\n <a@example.org>,\r\n\tb@example.net\r\n",
			[]string{"a@example.org", "b@example.net"}},
		"quoted local part": {"To: \"x y\"@example.org\r\n", []string{`"x y"@example.org`, `"p q"@example.net`}},
		"address as name":   {"To: a@example.org <a@example.org>\r\n", []string{"a@example.org"}},
		"twice the field": {"To: a@example.org\r\nTo: b@example.net\r\n",
			[]string{"a@example.org", "b@example.net"}},
		"resent to the envelope": {"Resent-To: a@example.org\r\n", []string{"a@example.org"}},
		"trailing comma":         {"To: a@example.org,\r\n", []string{"a@example.org"}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, _ := connected(t, fake, nil)
			r := only(t, send(t, u, to(t, c.header, c.recipients...)))
			if r.Class != mail.Delivered {
				t.Fatalf("%s: %s", r.Class, r.Reply)
			}
			arrivals := fake.Arrivals()
			if len(arrivals) != 1 {
				t.Fatalf("%d arrivals", len(arrivals))
			}
			// net/mail, which the fake reads with, gives quoted local parts without quotes, and one field of two.
			got := strings.Join(sorted(arrivals[0].Recipients), " ")
			want := strings.ReplaceAll(strings.Join(sorted(c.recipients), " "), `"`, "")
			if got != want {
				t.Errorf("reached %s, want %s in\n%s", got, want, arrivals[0].MIME)
			}
			if n := strings.Count(string(arrivals[0].MIME), "\r\nBcc:"); n > 1 {
				t.Errorf("%d Bcc fields", n)
			}
			_, body, _ := strings.Cut(string(arrivals[0].MIME), "\r\n\r\n")
			if body != bodyText {
				t.Errorf("the body changed: %q", body)
			}
		})
	}
}

// A header that Graph would follow to somebody outside the envelope is refused, and Graph is not asked.
func TestHeaderStrangersAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ header, says string }{
		"To":                       {"To: a@example.org, old@example.net\r\n", "old@example.net"},
		"Cc":                       {"To: a@example.org\r\nCc: old@example.net\r\n", "Cc field names old@example.net"},
		"Bcc":                      {"Bcc: old@example.net\r\n", "old@example.net"},
		"redirected":               {"To: old@example.net\r\nResent-To: a@example.org\r\n", "old@example.net"},
		"resent to a stranger":     {"To: a@example.org\r\nResent-Cc: old@example.net\r\n", "old@example.net"},
		"second field":             {"To: a@example.org\r\nto: old@example.net\r\n", "old@example.net"},
		"in a group":               {"To: all: a@example.org, old@example.net;\r\n", "old@example.net"},
		"semicolon":                {"To: a@example.org; old@example.net\r\n", "old@example.net"},
		"blank":                    {"To: a@example.org old@example.net\r\n", "old@example.net"},
		"in an unquoted name":      {"To: old@example.net <a@example.org>\r\n", "old@example.net"},
		"behind the address":       {"To: <a@example.org> old@example.net\r\n", "old@example.net"},
		"two angles":               {"To: <a@example.org> <old@example.net>\r\n", "old@example.net"},
		"quote without end":        {"To: a@example.org, \"x <old@example.net>\r\n", "old@example.net"},
		"quoted in an angle":       {"To: <\"a@example.org>, <old@example.net>\"@example.org>\r\n", ""},
		"comment without end":      {"To: a@example.org (, old@example.net\r\n", "of which nobody can tell"},
		"angle without end":        {"To: a@example.org, <old@example.net\r\n", "of which nobody can tell"},
		"route":                    {"To: <@old.example:a@example.org>\r\n", "of which nobody can tell"},
		"a name of the directory":  {"To: a@example.org, Managing Director\r\n", "Managing Director"},
		"group name is an address": {"To: old@example.net: a@example.org;\r\n", "old@example.net"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, _ := connected(t, fake, nil)
			r := only(t, send(t, u, to(t, c.header, "a@example.org", "b@example.org")))
			if r.Class != mail.MessageFault || r.Reply.Code != 554 || r.Reply.Enhanced != "5.3.3" ||
				!strings.Contains(r.Reply.Text, c.says) {
				t.Errorf("%s: %s", r.Class, r.Reply)
			}
			if fake.Requests() != 0 || status(u) != upstreamReady {
				t.Errorf("%d requests, %s", fake.Requests(), status(u))
			}
		})
	}
}

// What we have parted ourselves is not the sender's fault: the mail stays, and another upstream may try.
func TestPartedEnvelopeIsKept(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, nil)
	tx := to(t, "To: a@example.org, other@example.net\r\n", "a@example.org")
	s := reserve(t, u)
	tx.Envelope = []mail.Address{address(t, "a@example.org"), address(t, "other@example.net")}
	r := s.Send(t.Context(), tx)[0]
	if r.Class != mail.BackPressure || r.Uncertain || !strings.Contains(r.Reply.Text, "other@example.net") {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
	if status(u) != upstreamReady || fake.Requests() != 0 {
		t.Errorf("the mailbox is %s after %d requests", status(u), fake.Requests())
	}
}

func TestManyRecipients(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := connected(t, fake, func(o *Options) { o.MaxRecipients = 2 })
	five := []string{"a@example.org", "b@example.org", "c@example.org", "d@example.org", "e@example.org"}

	if r := only(t, send(t, u, to(t, "To: a@example.org\r\n", five...))); r.Class != mail.MessageFault ||
		r.Reply.Enhanced != "5.5.3" {
		t.Errorf("with a name in the header: %s %s", r.Class, r.Reply)
	}
	for _, r := range send(t, u, to(t, "To: undisclosed-recipients:;\r\n", five...)) {
		if r.Class != mail.Delivered {
			t.Errorf("all blind: %s %s", r.Class, r.Reply)
		}
	}
	var got []string
	for _, a := range fake.Arrivals() {
		if len(a.Recipients) > 2 {
			t.Errorf("%d recipients at once", len(a.Recipients))
		}
		got = append(got, a.Recipients...)
	}
	if strings.Join(got, " ") != strings.Join(five, " ") {
		t.Errorf("reached %v", got)
	}
}

// A request that fails in the middle leaves what was sent sent, and the rest waiting.
func TestManyRecipientsFailInTheMiddle(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{PerMinute: 1})
	u, _ := connected(t, fake, func(o *Options) { o.MaxRecipients = 1 })
	results := send(t, u, to(t, "", "a@example.org", "b@example.org", "c@example.org"))
	for i, want := range []mail.Class{mail.Delivered, mail.BackPressure, mail.BackPressure} {
		if results[i].Class != want {
			t.Errorf("recipient %d: %s", i, results[i].Class)
		}
	}
	if status(u) != upstreamBackingOff {
		t.Errorf("the mailbox is %s", status(u))
	}
}

func FuzzReadAddressees(f *testing.F) {
	for _, s := range []string{
		"a@example.org", "A <a@example.org>, b@example.net", `"x, y" <a@b.example>(c)`, "g: a@b.example;",
		"<@r.example:a@b.example>",
		`"a@x.example"@b.example`, "a@b.example c@d.example", `"`, "((", `\`, "=?utf-8?q?a=40b.example?= <c@d.example>",
		"a@b.example <c@d.example>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if strings.ContainsAny(value, "\r\n") {
			return
		}
		who := readAddressees(value)
		if who.unclear != "" {
			return
		}
		for _, at := range slices.Concat(who.at, who.locals) {
			if at.from < 0 || at.to > len(value) || !strings.Contains(value, "(") && value[at.from:at.to] != at.text {
				t.Fatalf("%+v in %q", at, value)
			}
		}
		list, err := netmail.ParseAddressList(value)
		if err != nil {
			return
		}
		known := map[string]bool{}
		for _, a := range append(who.sure, who.possible...) {
			known[strings.ToLower(a.Local+"@"+a.Domain)] = true
		}
		for _, a := range list {
			if !known[strings.ToLower(a.Address)] {
				t.Errorf("net/mail finds %q in %q, we find %v and %v", a.Address, value, who.sure, who.possible)
			}
		}
	})
}
