package graph

import (
	"strings"
	"testing"

	"postern/mail"
	"postern/relay/fakeprovider"
)

// A header that names the envelope's recipients in other words names them.
func TestRecipientsInOtherWords(t *testing.T) {
	for name, c := range map[string]struct {
		header     string
		recipients []string
		field      string // as it goes out; "": as it came
	}{
		"no domain": {"To: zoe\r\n", []string{"zoe@example.net"}, "To: zoe@example.net\r\n"},
		"no domain, in brackets": {"To: Zoe Miller <zoe>\r\n", []string{"zoe@example.net"},
			"To: Zoe Miller <zoe@example.net>\r\n"},
		"no domain, comment": {"To: zoe (Zoe Miller), max\r\n", []string{"zoe@example.net", "max@example.org"},
			"To: zoe@example.net, max@example.org\r\n"},
		"no domain, case": {"To: Root, a@example.org\r\n", []string{"root@example.net", "a@example.org"},
			"To: root@example.net, a@example.org\r\n"},
		"no domain, and in full": {"To: zoe, zoe@example.net\r\n", []string{"zoe@example.net"},
			"To: zoe@example.net, zoe@example.net\r\n"},
		"no domain, group": {"To: all: zoe, max@example.org;\r\n", []string{"zoe@example.net", "max@example.org"},
			"To: all: zoe@example.net, max@example.org;\r\n"},
		"no domain, folded": {"To: \"Doe, J\" <j@example.org>,\r\n zoe\r\n",
			[]string{"zoe@example.net", "j@example.org"}, "To: \"Doe, J\" <j@example.org>, zoe@example.net\r\n"},
		"Unicode and punycode": {"To: Z <zoe@Bücher.example>\r\n", []string{"zoe@xn--bcher-kva.example"},
			"To: Z <zoe@xn--bcher-kva.example>\r\n"},
		"punycode and Unicode": {"To: zoe@XN--bcher-kva.example\r\n", []string{"zoe@bücher.example"}, ""},
		"a dot behind": {"Cc: zoe@example.net., a@example.org\r\n",
			[]string{"zoe@example.net", "a@example.org"}, "Cc: zoe@example.net, a@example.org\r\n"},
		"a dot in brackets": {"To: Zoe <zoe@Example.net.>\r\n", []string{"zoe@example.net"},
			"To: Zoe <zoe@example.net>\r\n"},
		"quotes without need": {"To: \"zoe\"@example.net\r\n", []string{"zoe@example.net"}, ""},
		"case":                {"To: ZOE@EXAMPLE.NET\r\n", []string{"zoe@example.net"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, _ := connected(t, fake, nil)
			r := only(t, send(t, u, to(t, c.header, c.recipients...)))
			if r.Class != mail.Delivered {
				t.Fatalf("%s: %s", r.Class, r.Reply)
			}
			octets := string(fake.Arrivals()[0].MIME)
			want := c.field
			if want == "" {
				want = c.header
			}
			if !strings.Contains(octets, want) || strings.Contains(octets, "Bcc:") {
				t.Errorf("it went out as\n%s", octets)
			}
			if got := len(fake.Arrivals()[0].Recipients); got != len(c.recipients) {
				t.Errorf("it reached %v", fake.Arrivals()[0].Recipients)
			}
		})
	}
}

// A word that does not say for certain whom it means is not sent to Exchange's address book.
func TestWordsThatMeanNobody(t *testing.T) {
	for name, c := range map[string]struct {
		header     string
		recipients []string
	}{
		"another":      {"To: max\r\n", []string{"zoe@example.net"}},
		"two of them":  {"To: zoe\r\n", []string{"zoe@example.net", "zoe@example.org"}},
		"two words":    {"To: zoe miller\r\n", []string{"zoe@example.net", "miller@example.net"}},
		"quoted":       {"To: \"zoe\"\r\n", []string{"zoe@example.net"}},
		"another host": {"To: zoe@localhost\r\n", []string{"zoe@example.net"}},
		"two dots":     {"To: zoe@example.net..\r\n", []string{"zoe@example.net"}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, _ := connected(t, fake, nil)
			if r := only(t, send(t, u, to(t, c.header, c.recipients...))); r.Class != mail.MessageFault ||
				r.Reply.Enhanced != "5.3.3" || fake.Requests() != 0 {
				t.Errorf("%s after %d requests: %s", r.Class, fake.Requests(), r.Reply)
			}
		})
	}
}

// Who was parted from the envelope is kept for another upstream, also where the header gives a local part alone.
func TestPartedLocalPart(t *testing.T) {
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), nil)
	s := reserve(t, u)
	tx := to(t, "To: a@example.org, zoe\r\n", "a@example.org")
	tx.Envelope = []mail.Address{address(t, "a@example.org"), address(t, "zoe@example.net")}
	if r := s.Send(t.Context(), tx)[0]; r.Class != mail.BackPressure ||
		!strings.Contains(r.Reply.Text, "zoe@example.net") {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
}

// A rebuilt message has them in the field where they stood.
func TestRecipientsInOtherWordsOfADraft(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, nil)
	r := only(t, send(t, u, largeMail(t, "To: Zoe <zoe>, max@Bücher.example\r\n",
		[]string{"zoe@example.net", "max@bücher.example"},
		textPart("text/plain", "hello"), file8("application/pdf", "scan.pdf", octets(3_000_001)))))
	if r.Class != mail.Delivered {
		t.Fatal(r.Reply)
	}
	d := fake.Arrivals()[0].Draft
	if len(d.ToRecipients) != 2 || len(d.CcRecipients)+len(d.BccRecipients) != 0 ||
		d.ToRecipients[0].EmailAddress.Name != "Zoe" {
		t.Errorf("to %v, cc %v, bcc %v", d.ToRecipients, d.CcRecipients, d.BccRecipients)
	}
}
