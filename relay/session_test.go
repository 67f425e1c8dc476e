package relay

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/trace"
)

// rawClient says commands one by one, in the moments that a test wants.
type rawClient struct {
	t *testing.T
	*textproto.Conn
}

// raw returns a client behind STARTTLS and EHLO.
func (r *rig) raw() *rawClient {
	r.t.Helper()
	socket, err := net.Dial("tcp", r.server.Addresses()["submission"])
	if err != nil {
		r.t.Fatal(err)
	}
	c := &rawClient{r.t, textproto.NewConn(socket)}
	c.wants(220)
	c.cmd(250, "EHLO client.example.com")
	c.cmd(220, "STARTTLS")
	secure := tls.Client(socket, r.tls())
	c.Conn = textproto.NewConn(secure)
	r.t.Cleanup(func() { c.Close() })
	c.cmd(250, "EHLO client.example.com")
	return c
}

func (r *rig) rawLogin(login string) *rawClient {
	r.t.Helper()
	c := r.raw()
	c.cmd(235, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+rigPassword)))
	return c
}

func (c *rawClient) cmd(code int, line string) string {
	c.t.Helper()
	if err := c.PrintfLine("%s", line); err != nil {
		c.t.Fatal(err)
	}
	return c.wants(code)
}

func (c *rawClient) wants(code int) string {
	c.t.Helper()
	got, text, err := c.ReadResponse(0)
	if got != code {
		c.t.Fatalf("reply %d %s (%v), want %d", got, text, err, code)
	}
	return text
}

var crlfMessage = strings.ReplaceAll(plainMessage, "\n", "\r\n")

// moments are where a transaction can be when something changes: every one of them ends in a reply to the message.
var moments = map[string]func(c *rawClient, change func(), code int) string{
	"before DATA": func(c *rawClient, change func(), code int) string {
		change()
		c.cmd(354, "DATA")
		return c.cmd(code, crlfMessage+".")
	},
	"before the final dot": func(c *rawClient, change func(), code int) string {
		c.cmd(354, "DATA")
		c.PrintfLine("%s", crlfMessage)
		change()
		return c.cmd(code, ".")
	},
	"before BDAT": func(c *rawClient, change func(), code int) string {
		change()
		c.PrintfLine("BDAT %d LAST", len(crlfMessage))
		c.W.WriteString(crlfMessage)
		c.W.Flush()
		return c.wants(code)
	},
	"before the last chunk": func(c *rawClient, change func(), code int) string {
		c.PrintfLine("BDAT %d", len(crlfMessage))
		c.W.WriteString(crlfMessage)
		c.W.Flush()
		c.wants(250)
		change()
		return c.cmd(code, "BDAT 0 LAST")
	},
}

// accountChanged is what an open session hears whose account is not what it was.
const accountChanged = "the account was changed, locked or removed"

// TestOpenTransactionEndsWithItsAccount: a lock does not wait for the next MAIL.
func TestOpenTransactionEndsWithItsAccount(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, "[[policy]]\nlimits = []")
	changes := map[string]func(*auth.User){
		"locked":  func(u *auth.User) { u.Locked = true },
		"changed": func(u *auth.User) { u.Changed = time.Now() }, // a new password, mostly
		"moved":   func(u *auth.User) { u.Networks = mustPrefixes("192.0.2.0/24") },
		"removed": nil,
	}
	n := 0
	for what, change := range changes {
		for when, end := range moments {
			t.Run(what+" "+when, func(t *testing.T) {
				n++
				login := fmt.Sprintf("%s%d@example.com", what, n)
				r.addUser(auth.User{Login: login})
				c := r.rawLogin(login)
				c.t = t
				c.cmd(250, "MAIL FROM:<"+login+">")
				c.cmd(250, "RCPT TO:<bob@example.net>")
				reply := end(c, func() {
					r.change(login, change)
					r.server.usersChanged(context.Background())
				}, 421)
				if !strings.Contains(reply, accountChanged) {
					t.Errorf("the reply is %q", reply)
				}
				if _, err := c.ReadLine(); err == nil {
					t.Error("the connection is still open")
				}
			})
		}
	}
	if p.count() != 0 || len(r.queued()) != 0 {
		t.Errorf("%d messages were delivered and %d queued", p.count(), len(r.queued()))
	}
}

// TestReloadHoldsForOpenSessions: whatever a policy sets is what the configuration in force at MAIL says, also for
// those who logged in under another.
func TestReloadHoldsForOpenSessions(t *testing.T) {
	rule := func(lines string) string { return "[[policy]]\n" + lines }
	for name, test := range map[string]struct {
		before, after string
		from, to      string
		old, now      string // the last reply
		runs          int    // of the message, after the reload; 0: 1
	}{
		"senders": {before: rule(`senders = ["*@example.com"]`), after: rule(`senders = ["anna@example.com"]`),
			from: "ceo@example.com", old: "250", now: "550 5.7.1"},
		"senders, widened": {before: rule(`senders = ["anna@example.com"]`), after: rule(`senders = ["*@example.com"]`),
			from: "ceo@example.com", old: "550 5.7.1", now: "250"},
		"recipients": {after: rule(`recipients = ["!*@example.net"]`), old: "250", now: "550 5.7.1"},
		"limits":     {after: rule(`limits = ["1 messages/hour"]`), old: "250", now: "452 4.7.1", runs: 2},
		"limits, widened": {before: rule(`limits = ["1 messages/hour"]`), after: rule(`limits = ["100 messages/hour"]`),
			old: "250", now: "250", runs: 40},
		"over_limit": {before: rule("limits = [\"1 messages/hour\"]"),
			after: rule("limits = [\"1 messages/hour\"]\nover_limit = \"refuse\""),
			old:   "250", now: "550 5.7.1"},
		"max_held": {before: rule("limits = [\"1 messages/hour\"]\nover_limit = \"hold\""),
			after: rule("limits = [\"1 messages/hour\"]\nover_limit = \"hold\"\nmax_held = " +
				"1"), old: "250", now: "452 4.7.1", runs: 2},
		"unlisted_sender": {after: rule("senders = [\"anna@example.com\"]\nunlisted_sender = \"rewrite\""),
			from: "root@nas.local", old: "550 5.7.1", now: "250"},
		"unlisted_sender, no address": {after: rule("senders = [\"anna@example.com\"]\nunlisted_sender = \"rewrite\""),
			from: "root", old: "501", now: "250"},
		"unlisted_sender, taken back": {before: rule("senders = [\"anna@example.com\"]\nunlisted_sender = \"rewrite\""),
			after: rule(`senders = ["anna@example.com"]`), from: "root", old: "250", now: "501"},
		"groups": {before: "[[policy]]\ngroups = [\"staff\"]\nsenders = [\"ceo@example.com\"]",
			after: "[[policy]]\ngroups = [\"board\"]\nsenders = " +
				"[\"ceo@example.com\"]", from: "ceo@example.com", old: "250", now: "550 5.7.1"},
		"size": {after: "listener:max_message_size = \"64KB\"", old: "250", now: "552 5.3.4",
			to: "SIZE=70000"},
		"max_recipients": {after: "listener:max_recipients = 1", old: "250", now: "452 4.5.3", to: "second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newProvider(t), test.before)
			r.change(rigLogin, func(u *auth.User) { u.Groups = []string{"staff"} })
			r.server.usersChanged(t.Context())
			c := r.rawLogin(rigLogin)
			if got := c.submit(test.from, test.to); !strings.HasPrefix(got, test.old) {
				t.Fatalf("before the reload: %s, want %s", got, test.old)
			}
			r.write(test.after)
			if err := r.server.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got string
			for range max(1, test.runs) {
				got = c.submit(test.from, test.to)
			}
			if !strings.HasPrefix(got, test.now) {
				t.Errorf("after it: %s, want %s", got, test.now)
			}
		})
	}
}

// submit sends a message and returns the first reply that refuses it, or the last one.
func (c *rawClient) submit(from, extra string) string {
	c.t.Helper()
	if from == "" {
		from = rigLogin
	}
	commands := []string{"MAIL FROM:<" + from + ">", "RCPT TO:<bob@example.net>"}
	switch extra {
	case "second":
		commands = append(commands, "RCPT TO:<carol@example.net>")
	case "":
	default:
		commands[0] += " " + extra
	}
	header := "From: " + from + "\r\n"
	for _, line := range append(commands, "DATA", header+"Subject: x\r\n\r\nx\r\n.") {
		if err := c.PrintfLine("%s", line); err != nil {
			c.t.Fatal(err)
		}
		code, text, err := c.ReadResponse(0)
		if code == 0 {
			c.t.Fatal(err)
		}
		if code >= 400 {
			c.cmd(250, "RSET")
			return fmt.Sprint(code, " ", text)
		}
	}
	return "250"
}

// TestTransactionKeepsItsConfiguration: a reload in the middle of a transaction changes nothing of it, so that one
// message is judged by one configuration; the next one is judged by the new.
func TestTransactionKeepsItsConfiguration(t *testing.T) {
	for when, end := range moments {
		t.Run(when, func(t *testing.T) {
			p := newProvider(t)
			r := newRig(t, p, `[[policy]]
				senders = ["anna@example.com"]`)
			c := r.rawLogin(rigLogin)
			c.cmd(250, "MAIL FROM:<anna@example.com>")
			c.cmd(250, "RCPT TO:<bob@example.net>")
			end(c, func() {
				r.write(`[[policy]]
					senders = ["other@example.com"]`)
				if err := r.server.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
			}, 250)
			p.wait(1)
			c.cmd(550, "MAIL FROM:<anna@example.com>")
			c.cmd(250, "MAIL FROM:<other@example.com>")
		})
	}
}

// TestSessionEndsWithItsListener: a client that was let in by its network has nothing but that; a listener that would
// not let it in now lets it send no more, not even what is on its way.
func TestSessionEndsWithItsListener(t *testing.T) {
	const network = `listener:auth = "network"
		listener:networks = ["127.0.0.0/8"]
		listener:login = "anna@example.com"`
	for name, test := range map[string]struct {
		before, after string
		code          int
	}{
		"unchanged":          {network, network, 250},
		"other timeouts":     {network, network + "\nlistener:idle_timeout = \"1m\"", 250},
		"other networks":     {network, strings.Replace(network, "127.0.0.0/8", "192.0.2.0/24", 1), 421},
		"another login":      {network, strings.Replace(network, "anna@", "ben@", 1), 421},
		"passwords only":     {network, `listener:networks = ["127.0.0.0/8"]`, 421},
		"behind a proxy":     {network, network + "\nlistener:proxy_protocol = [\"192.0.2.7\"]", 421},
		"networks for users": {"", `listener:networks = ["192.0.2.0/24"]`, 421},
		"let in by network":  {`listener:networks = ["127.0.0.0/8"]`, network, 421},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, open := range []bool{false, true} {
				r := newRig(t, newProvider(t), test.before)
				r.addUser(auth.User{Login: "ben@example.com"})
				c := r.raw()
				if !strings.Contains(test.before, "network\"") {
					c = r.rawLogin(rigLogin)
				}
				reload := func() {
					r.write(test.after)
					if err := r.server.Reload(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if !open {
					reload()
					c.cmd(test.code, "MAIL FROM:<anna@example.com>")
					continue
				}
				c.cmd(250, "MAIL FROM:<anna@example.com>")
				c.cmd(250, "RCPT TO:<bob@example.net>")
				moments["before the final dot"](c, reload, test.code)
			}
		})
	}
}

// TestHistoryIsTrimmedWhileRunning: the trace keeps within [store] history_size without a restart, refusals first.
func TestHistoryIsTrimmedWhileRunning(t *testing.T) {
	r := newRig(t, newProvider(t), "[store]\nhistory_size = \"10MB\"")
	s := r.store()
	const refused, accepted = 16_000, 500
	var events []trace.Event
	for i := range refused {
		events = append(events, trace.Event{Kind: trace.Rejected, Login: "anna@example.com",
			Detail: strings.Repeat("x", 700)})
		if i%(refused/accepted) == 0 {
			events = append(events, trace.Event{Kind: trace.Delivered, Login: "ben@example.com", To: "bob@example.net"})
		}
	}
	if err := s.AppendEvents(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	r.eventually("fewer refusals", func() bool {
		told, _ := r.refusals(trace.Rejected)
		return told < refused*3/4 && strings.Contains(r.log.String(), "history_size=10MB")
	})
	if n, err := s.Events(t.Context(), trace.Query{Login: "ben@example.com", Limit: refused}); err != nil ||
		len(n) != accepted {
		t.Errorf("%d deliveries are left of %d, %v", len(n), accepted, err)
	}
}
