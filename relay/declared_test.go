package relay

import (
	"crypto/tls"
	netsmtp "net/smtp"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
)

// rigBefore is a rig before a scripted upstream, reached in clear.
func rigBefore(t *testing.T, fc fakesmtp.Config, extra string) (*fakesmtp.Server, *rig) {
	t.Helper()
	fc.Mechanisms, fc.Users = []string{"PLAIN"}, map[string]string{"relay": "upstream secret"}
	fake := fakesmtp.New(fc)
	if _, err := fake.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	p := newProvider(t)
	p.address = fake.Addr()
	return fake, newRig(t, p, "upstream:tls = \"none\"\n"+extra)
}

// Programs built on Go's net/smtp say SMTPUTF8 and BODY=8BITMIME with every message, because it is offered to them.
func TestDeclaredWithoutNeed(t *testing.T) {
	fake, r := rigBefore(t, fakesmtp.Config{Extensions: []string{"PIPELINING"}}, "")
	c, err := netsmtp.Dial(r.server.Addresses()["submission"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{ServerName: "localhost", RootCAs: r.roots}); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(netsmtp.PlainAuth("", rigLogin, rigPassword, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.Mail(rigLogin), c.Rcpt("bob@bücher.example")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("From: <" + rigLogin + ">\r\nSubject: all ASCII\r\n\r\nhello\r\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := fake.Messages()
	if len(m) != 1 || m[0].From != "FROM:<"+rigLogin+">" || m[0].To[0] != "TO:<bob@xn--bcher-kva.example>" {
		t.Errorf("the upstream got %+v", m)
	}
}

// A message that needs it without its client's word is declared as what it is.
func TestNeededWithoutDeclaration(t *testing.T) {
	fake, r := rigBefore(t, fakesmtp.Config{Extensions: fakesmtp.Full}, "")
	for content, want := range map[string]string{
		"Subject: ASCII\n\nGrüße\n":    " BODY=8BITMIME",
		"Subject: ASCII\n\nhello\n":    "",
		"Subject: Grüße\n\nhello\n":    "", // it leaves as encoded words
		"Subject: Gr\xfc\xdfe\n\nhi\n": "",

		"Content-Disposition: inline; filename=\"Grüße\"\n\nhello\n": "",
		"Cc: grüße@example.net\n\nhello\n":                           " BODY=8BITMIME SMTPUTF8",
		"Cc: gr\xfc\xdfe@example.net\n\nhi\n":                        " BODY=8BITMIME",

		"Subject: =?utf-8?q?x?=\n\nhi\n": "",
	} {
		if _, err := r.send(rigLogin, []string{"bob@example.net"}, "From: <"+rigLogin+">\n"+content); err != nil {
			t.Errorf("%q: %v", content, err)
			continue
		}
		m := fake.Messages()
		_, parameters, _ := strings.Cut(m[len(m)-1].From, "> ")
		if _, got, _ := strings.Cut(parameters+" ", " "); strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%q: %s", content, m[len(m)-1].From)
		}
	}
}
