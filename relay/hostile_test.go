package relay

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
	"postern/relay/wire"
)

// TestRewriteLeavesNoForeignAuthor: with unlisted_sender = "rewrite" nobody is somebody else either, in
// whatever field the claim stands.
func TestRewriteLeavesNoForeignAuthor(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `[[policy]]
		senders = ["scans@example.com"]
		unlisted_sender = "rewrite"
		limits = []`)
	for _, test := range []struct {
		name, header string
		code         int
	}{
		{"foreign From", "From: ceo@example.com\n", 250},
		{"no From, foreign Sender", "Sender: ceo@example.com\n", 250},
		{"foreign Sender", "From: ceo@example.com\nSender: ceo@example.com\n", 250},
		{"own From, foreign Sender", "From: \"ceo\" <scans@example.com>\nSender: ceo@example.com\n", 250},
		{"foreign Resent-From", "From: ceo@example.com\nResent-From: ceo@example.com\n", 550},
		{"own From, foreign Resent-Sender", "From: scans@example.com\nResent-Sender: ceo@example.com\n", 550},
		{"address in the display name of a Resent-From", "From: ceo@example.com\nResent-From: \"ceo@example.com\" " +
			"<scans@example.com>\n", 550},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := p.count()
			_, err := r.send("mfp@printer.local", []string{"bob@example.net"}, test.header+"\nscan\n")
			if code(err) != test.code {
				t.Fatalf("got %v, want %d", err, test.code)
			}
			if test.code != 250 {
				return
			}
			got := p.wait(before + 1)[before]
			m, err := netmail.ReadMessage(strings.NewReader(got.data))
			if err != nil {
				t.Fatal(err)
			}
			m.Header["Reply-To"] = nil // names whom an answer goes to, not who sends
			for name, values := range m.Header {
				if strings.Contains(strings.Join(values, " "), "ceo@example.com") {
					t.Errorf("%s still says %q", name, values)
				}
			}
			want := "<scans@example.com>"
			if strings.HasPrefix(test.name, "own From") { // who he was he may stay
				want = `"ceo" <scans@example.com>`
			}
			if got.from != "scans@example.com" || m.Header.Get("From") != want {
				t.Errorf("reverse-path %q, From %q", got.from, m.Header.Get("From"))
			}
		})
	}
}

// TestRewriteWithoutAnAddressRefuses: where no sender is one address there is nothing to become, and the
// null reverse-path is not the next best.
func TestRewriteWithoutAnAddressRefuses(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		senders = ["*@example.com"]
		unlisted_sender = "rewrite"`)
	if _, err := r.send("mfp@printer.local", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Errorf("got %v, want 550", err)
	}
}

// TestOpenSessionsEndWithTheirAccount: who was locked, removed, moved, or got a new password does not go
// on sending over a connection that is logged in.
func TestOpenSessionsEndWithTheirAccount(t *testing.T) {
	r := newRig(t, newProvider(t), "[[policy]]\nlimits = []")
	other := r.client(rigLogin)
	for login, change := range map[string]func(*auth.User){
		"locked@example.com":  func(u *auth.User) { u.Locked = true },
		"changed@example.com": func(u *auth.User) { u.Changed = time.Now() }, // a new password, mostly
		"moved@example.com":   func(u *auth.User) { u.Networks = mustPrefixes("192.0.2.0/24") },
		"removed@example.com": nil,
	} {
		r.addUser(auth.User{Login: login})
		c := r.client(login)
		r.change(login, change)
		var end error
		r.eventually("the end of the session of "+login, func() bool {
			if end = c.Mail(login, nil); end == nil {
				_ = c.Reset()
			}
			return end != nil
		})
		// Whoever only goes on for long enough is sent away too, in other words.
		if e := new(smtp.SMTPError); !errors.As(end, &e) || e.Code != 421 ||
			!strings.Contains(e.Message, accountChanged) {
			t.Errorf("%s: the session ended with %v", login, end)
		}
		if err := c.Noop(); err == nil {
			t.Errorf("%s: the connection is still open", login)
		}
	}
	if _, err := sendOn(other, rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Errorf("another session was hurt: %v", err)
	}
}

// TestOpenSessionsLearnWhoTheyAre: a sender that is taken away is gone for open sessions too.
func TestOpenSessionsLearnWhoTheyAre(t *testing.T) {
	r := newRig(t, newProvider(t), "[[policy]]\nlimits = []")
	r.change(rigLogin, func(u *auth.User) { u.Senders = []string{rigLogin, "sales@example.com"} })
	c := r.client(rigLogin)
	r.eventually("the sender is allowed", func() bool {
		if err := c.Mail("sales@example.com", nil); err != nil {
			c = r.client(rigLogin)
			return false
		}
		return c.Reset() == nil
	})
	r.change(rigLogin, func(u *auth.User) { u.Senders = []string{rigLogin} })
	r.eventually("the sender is refused", func() bool {
		if err := c.Mail("sales@example.com", nil); err == nil {
			_ = c.Reset()
			return false
		}
		return true
	})
}

// TestLockEndsAllSessionsOfTheLogin: over_limit = "lock" would be no lock if other connections of the same
// login went on.
func TestLockEndsAllSessionsOfTheLogin(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		limits = ["1 messages/day"]
		over_limit = "lock"`)
	c, other := r.client(rigLogin), r.client(rigLogin)
	for range 2 {
		_, _ = sendOn(c, rigLogin, []string{"bob@example.net"}, plainMessage)
	}
	if err := other.Mail(rigLogin, nil); code(err) != 421 {
		t.Errorf("the other session: %v, want 421", err)
	}
}

// change changes an account as the command line does; nil removes it.
func (r *rig) change(login string, f func(*auth.User)) {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	var err error
	if f == nil {
		err = s.DeleteUser(r.t.Context(), login, nil)
	} else {
		err = s.UpdateUser(r.t.Context(), login, func(u *auth.User) error { f(u); return nil })
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestReservationsCostNoRate: a place that was reserved and given back counts as nothing sent.
func TestReservationsCostNoRate(t *testing.T) {
	r := newRig(t, newProvider(t), `upstream:rate = ["1 messages/hour"]`)
	m := &queue.Message{ID: "x", Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "bob",
		Domain: "example.net"}}, Status: queue.Pending}}}
	for range 3 {
		slot, wait := r.server.outbound.Reserve(time.Now(), m)
		if slot == nil {
			t.Fatalf("no place: %+v", wait)
		}
		slot.Release()
	}
	if _, err := r.send(rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	r.provider.wait(1)
	if slot, wait := r.server.outbound.Reserve(time.Now(), m); slot != nil || wait.Until.IsZero() {
		t.Errorf("a message that was sent cost nothing: %+v", wait)
	}
}

func TestNoReloadWhileStopping(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	r.server.stopReloads()
	before := r.server.state.Load()
	if err := r.server.Reload(t.Context()); !errors.Is(err, errStopping) || r.server.state.Load() != before {
		t.Errorf("got %v", err)
	}
}

// TestShutdownAnswersWaitingHandOffs: a client that waits for a verdict gets its durable 250 when the
// relay goes down, however long the hand-off might last.
func TestShutdownAnswersWaitingHandOffs(t *testing.T) {
	p := newProvider(t)
	offered, release := make(chan struct{}), make(chan struct{})
	p.onData = func(received) error { close(offered); <-release; return nil }
	r := newRig(t, p, `listener:handoff = "5m"`)
	type outcome struct {
		reply string
		err   error
	}
	answered := make(chan outcome, 1)
	c := r.client(rigLogin)
	go func() {
		reply, err := sendOn(c, rigLogin, []string{"bob@example.net"}, plainMessage)
		answered <- outcome{reply, err}
	}()
	<-offered
	r.stop()
	select {
	case got := <-answered:
		if got.err != nil || !strings.Contains(got.reply, "queued as") {
			t.Errorf("the client got %q, %v", got.reply, got.err)
		}
	case <-time.After(patience):
		t.Error("the client got no answer")
	}
	close(release)
	r.close()
	if n := len(r.queued()); n != 0 || p.count() != 1 {
		t.Errorf("%d messages wait, %d were delivered", n, p.count())
	}
}

// TestFloodOfRefusalsLeavesTheTraceAlone: whoever can connect can be refused, as often as he likes.
func TestFloodOfRefusalsLeavesTheTraceAlone(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	const flood = 5000
	for range flood {
		r.server.submission.Refused("submission", wire.Refusal{Reason: wire.ReasonProtocol,
			Client: netip.MustParseAddrPort("192.0.2.1:4000")})
	}
	if _, err := r.send(rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	r.events(trace.Accepted)
	r.close()
	told, left := r.refusals(trace.Refused)
	if told == 0 || told > 100 || told+left != flood {
		t.Errorf("of %d refusals %d are in the trace and %d are counted", flood, told, left)
	}
	if n := strings.Count(r.log.String(), "session refused"); n != told {
		t.Errorf("%d lines in the log, want %d", n, told)
	}
}

// refusals counts the refusals of a kind in the trace, and those that it only counts.
func (r *rig) refusals(kind trace.Kind) (told, left int) {
	r.t.Helper()
	events, err := r.store().Events(r.t.Context(), trace.Query{Kinds: []trace.Kind{kind}, Limit: 1e6})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		var n int
		if _, err := fmt.Sscanf(e.Detail, "and %d more", &n); err == nil {
			left += n
		} else {
			told++
		}
	}
	return told, left
}

// TestOneLoginCannotBlindTheTrace: a login that is refused again and again fills neither log nor trace, and its own
// mail and that of others is told as ever.
func TestOneLoginCannotBlindTheTrace(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	r.addUser(auth.User{Login: "ben@example.com"})
	const flood = 900 // more end the connection
	for range 2 {
		c := r.rawLogin(rigLogin)
		for range flood / 2 {
			c.cmd(550, "MAIL FROM:<ceo@example.org>")
		}
		if got := c.submit(rigLogin, ""); got != "250" {
			t.Fatalf("mail of that login: %s", got)
		}
		if got := c.submit("ceo@example.org", ""); !strings.HasPrefix(got, "550") {
			t.Fatal(got)
		}
		c.Close()
	}
	if got := r.rawLogin("ben@example.com").submit("ceo@example.org", ""); !strings.HasPrefix(got, "550") {
		t.Fatalf("another login: %s", got)
	}
	r.close()
	if n := len(r.events(trace.Accepted)); n != 2 {
		t.Errorf("%d messages in the trace, want 2", n)
	}
	told, left := r.refusals(trace.Rejected)
	if told == 0 || told > 100 || told+left != flood+3 {
		t.Errorf("of %d refusals %d are in the trace and %d are counted", flood+3, told, left)
	}
	if n := strings.Count(r.log.String(), "msg=refused "); n != told {
		t.Errorf("%d lines in the log, want %d", n, told)
	}
	if !strings.Contains(r.log.String(), "refusals left out") ||
		!strings.Contains(r.log.String(), "login=ben@example.com") {
		t.Error("the log says nothing of the rest, or of the other login")
	}
}
