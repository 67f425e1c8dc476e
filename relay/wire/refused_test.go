package wire

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"postern/mail"
)

// observingSession is a fakeSession that collects what wire itself refused.
type observingSession struct {
	*fakeSession
	mu   sync.Mutex
	seen []string
}

func (s *observingSession) Refused(command string, reply mail.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, command+" → "+reply.String()[:9])
}

func (s *observingSession) LoginRefused(mechanism, why string, reply mail.Reply) {
	s.Refused("AUTH "+mechanism+" ("+why+")", reply)
}

// TestRefusalsAreReported: each refusal that mail or a login depends on is reported once, without a password.
func TestRefusalsAreReported(t *testing.T) {
	w := &observingSession{}
	s := startServer(t, func(o *Options, b *backend) {
		openClear(o, b)
		inner := o.NewSession
		o.NewSession = func(c *Conn) (Session, mail.Reply) {
			session, reply := inner(c)
			w.fakeSession = session.(*fakeSession)
			return w, reply
		}
	})
	c := s.dial(t)
	c.expect("220 ")
	c.cmd("MAIL FROM:<ann@example.com>", "503 5.5.1 ")
	c.cmd("HELO c", "250 ")
	c.cmd("NOISE", "500 5.5.1 ")
	c.cmd("AUTH PLAIN "+strings.Repeat("c2VjcmV0", 3), "5")
	c.cmd("MAIL FROM:<ann@example.com> SIZE=999999999", "552 5.3.4 ")
	c.cmd("MAIL FROM:<ann@example.com>", "250 ")
	c.cmd("RCPT TO:<@@>", "501 ")
	for range 5 {
		c.cmd("RCPT TO:<b@example.net>", "250 ")
	}
	for range 3 {
		c.cmd("RCPT TO:<b@example.net>", "452 4.5.3 ")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	want := []string{
		"MAIL FROM:<ann@example.com> → 503 5.5.1",
		"AUTH PLAIN (this server takes no password in clear text) → 538 5.7.1",
		"MAIL FROM:<ann@example.com> SIZE=999999999 → 552 5.3.4",
		"RCPT TO:<@@> → 501 5.1.3",
		"RCPT TO:<b@example.net> → 452 4.5.3",
	}
	if !slices.Equal(w.seen, want) {
		t.Errorf("seen:\n%s\nwant:\n%s", strings.Join(w.seen, "\n"), strings.Join(want, "\n"))
	}
}
