package fakeprovider

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit/pki"
)

var smtpTLS = sync.OnceValue(func() *tls.Config {
	made, err := pki.SelfSigned(pki.Options{})
	if err != nil {
		panic(err)
	}
	return made.Server()
})

// dialogue is one client.
type dialogue struct {
	t  *testing.T
	s  *SMTP
	rw interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
		Close() error
	}
	br *bufio.Reader
}

func newFake(t *testing.T, change func(*SMTPOptions)) *SMTP {
	o := SMTPOptions{TLS: smtpTLS(), Valid: func(token string) (string, []string, bool) {
		switch token {
		case "any":
			return AnyMailbox, []string{"send"}, true
		case "read":
			return AnyMailbox, []string{"read"}, true
		case "ann":
			return "ann@example.com", []string{"send"}, true
		}
		return "", nil, false
	}, Scope: "send", Mailboxes: []string{"ann@example.com", "ben@example.com"}}
	if change != nil {
		change(&o)
	}
	s := NewSMTP(o)
	t.Cleanup(s.Close)
	return s
}

// dial connects and turns TLS on.
func dial(t *testing.T, s *SMTP) *dialogue {
	t.Helper()
	nc, _ := s.Dial(t.Context(), "", "")
	d := &dialogue{t: t, s: s, rw: nc, br: bufio.NewReader(nc)}
	d.want("220")
	d.do("EHLO me", "250")
	d.do("AUTH XOAUTH2", "530 5.7.0")
	d.do("STARTTLS", "220")
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	d.rw, d.br = c, bufio.NewReader(c)
	t.Cleanup(func() { nc.Close() })
	return d
}

func (d *dialogue) want(prefix string) string {
	d.t.Helper()
	var all strings.Builder
	for {
		line, err := d.br.ReadString('\n')
		all.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			if !strings.HasPrefix(line, prefix) {
				d.t.Fatalf("got %q (%v), want %s", line, err, prefix)
			}
			return all.String()
		}
	}
}

func (d *dialogue) do(line, prefix string) string {
	d.t.Helper()
	fmt.Fprint(d.rw, line+"\r\n")
	return d.want(prefix)
}

func (d *dialogue) login(user, token, prefix string) {
	d.t.Helper()
	d.do("AUTH XOAUTH2", "334")
	d.do(base64.StdEncoding.EncodeToString([]byte("user="+user+"\x01auth=Bearer "+token+"\x01\x01")), prefix)
}

func (d *dialogue) send(from, prefix string) {
	d.t.Helper()
	d.do("MAIL FROM:<"+from+"> SIZE=10", "250")
	d.do("RCPT TO:<zoe@example.net>", "250")
	d.do("DATA", "354")
	d.do("Subject: x\r\n\r\n..dot\r\n.", prefix)
}

func TestSMTPSpeaksAsMicrosoft(t *testing.T) {
	s := newFake(t, nil)
	d := dial(t, s)
	offer := d.do("EHLO me", "250")
	if !strings.Contains(offer, "AUTH LOGIN XOAUTH2") || strings.Contains(offer, "PLAIN") ||
		strings.Contains(offer, "STARTTLS") {
		t.Errorf("offers %q", offer)
	}
	d.do("MAIL FROM:<ann@example.com>", "530 5.7.57")
	d.do("AUTH PLAIN", "504")
	d.do("AUTH LOGIN", "334")
	d.do("YW5u", "334")
	d.do("cGFzcw==", "535 5.7.139")
	d.do("AUTH XOAUTH2 "+strings.Repeat("x", 600), "500")
	d.do("AUTH XOAUTH2", "334")
	d.do("!", "501")
	d.login("ann@example.com", "wrong", "535 5.7.3")
	d.login("ann@example.com", "read", "535 5.7.3")
	d.login("ben@example.com", "ann", "535 5.7.3")
	d.login("nobody@example.com", "any", "535 5.7.3")
	s.Set(Regime{Explain: true})
	d.login("ann@example.com", "wrong", "334 eyJ")
	d.do("", "535 5.7.3")
	d.login("ann@example.com", "wrong", "334 eyJ")
	d.do("*", "501")
	s.Set(Regime{Login: func(string) string { return LoginDisabled }})
	d.login("Ann@example.com", "any", "535 5.7.139")
	s.Set(Regime{})
	d.login("Ann@example.com", "any", "235")
	d.do("RCPT TO:<zoe@example.net>", "503")
	d.send("ann@example.com", "250 2.0.0 OK")
	d.do("MAIL FROM:<ann@example.com>", "250")
	d.do("RCPT TO:<zoe@example.net>", "250")
	d.do("BDAT 6\r\na\r\nb", "250")
	d.do("BDAT 6 LAST\r\nb\r\n.", "250 2.0.0 OK")
	d.do("QUIT", "221")
	a := s.Arrivals()
	if len(a) != 2 || string(a[0].Data) != "Subject: x\r\n\r\n.dot\r\n" ||
		string(a[1].Data) != "a\r\nb\r\nb\r\n.\r\n" || a[0].Mailbox != "ann@example.com" ||
		a[0].To[0] != "zoe@example.net" {
		t.Errorf("%+v", a)
	}
	if c := s.Counts(); c.Logins != 1 || c.RefusedLogins != 9 || c.MostConnections["ann@example.com"] != 1 {
		t.Errorf("%+v", c)
	}
}

func TestSMTPRegimes(t *testing.T) {
	const ann, ben = "ann@example.com", "ben@example.com"
	only := func(who string) func(string) bool { return func(m string) bool { return m == who } }
	s := newFake(t, func(o *SMTPOptions) { o.Messages = 2 })
	d, other := dial(t, s), dial(t, s)
	d.login(ann, "any", "235")
	other.login(ben, "any", "235")

	d.send(ann, "250")
	d.send(ann, "250")
	d.send(ann, "432 4.3.2 STOREDRV")
	other.send(ben, "250") // limits are for each mailbox
	s.Advance(time.Minute)
	d.send(ann, "250")

	s.Advance(time.Hour)
	s.Set(Regime{Quota: 4})
	d.send(ann, "250")
	d.send(ann, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceeded")
	other.send(ben, "250")
	s.Advance(24 * time.Hour)
	d.send(ann, "250")

	s.Set(Regime{Full: only(ann)})
	d.send(ann, "554 5.2.2 mailbox full")
	other.send(ben, "250")

	s.Advance(time.Minute)
	s.Set(Regime{})
	d.send(ben, "554 5.2.252 SendAsDenied")
	s.Set(Regime{SendAs: func(m, from string) bool { return m == ann && from == ben }})
	d.send(ben, "250")
	other.send(ann, "554 5.2.252 SendAsDenied")

	s.Advance(time.Minute)
	s.Set(Regime{Silent: func(a Arrival) bool { return a.Mailbox == ben }})
	d.send(ann, "250")
	before := len(s.Arrivals())
	fmt.Fprint(other.rw, "MAIL FROM:<ben@example.com>\r\n")
	other.want("250")
	other.do("RCPT TO:<zoe@example.net>", "250")
	other.do("DATA", "354")
	fmt.Fprint(other.rw, "x\r\n.\r\n")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, err := s.Wait(ctx, before+1)
	if err != nil || !a[before].Silent {
		t.Errorf("%v, %+v", err, a[len(a)-1])
	}
	if c := s.Counts(); c.MostMessages[ann] != 3 || c.Refused["rate"] != 1 || c.Refused["quota"] != 1 ||
		c.Refused["full"] != 1 || c.Refused["send-as"] != 2 {
		t.Errorf("%+v", c)
	}
}

func TestSMTPCountsConnections(t *testing.T) {
	s := newFake(t, nil)
	var all []*dialogue
	for range 4 {
		d := dial(t, s)
		d.login("ann@example.com", "any", "235")
		all = append(all, d)
	}
	all[0].send("ann@example.com", "432 4.3.2 Concurrent connections")
	all[3].do("QUIT", "221")
	if _, err := all[3].br.ReadByte(); err == nil {
		t.Error("still there after QUIT")
	}
	if c := s.Counts(); c.MostConnections["ann@example.com"] != 4 || c.Refused["connections"] != 1 {
		t.Errorf("%+v", c)
	}
}
