package relay

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"postern/relay/trace"
)

// proxied connects as a proxy does, with a header if that is not empty, and returns the client behind STARTTLS and
// EHLO, or nil where the greeting is a refusal with this prefix.
func (r *rig) proxied(header, refusal string) *lineClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Addresses()["submission"])
	if err != nil {
		r.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	c := &lineClient{t: r.t, conn: conn, in: bufio.NewReader(conn)}
	r.t.Cleanup(func() { c.conn.Close() })
	if _, err := io.WriteString(conn, header); err != nil {
		r.t.Fatal(err)
	}
	if refusal != "" {
		c.expect(refusal)
		return nil
	}
	c.expect("220 ")
	c.say("STARTTLS", "220 ")
	c.conn = tls.Client(conn, r.tls())
	c.in = bufio.NewReader(c.conn)
	c.say("EHLO client", "250 ")
	return c
}

// TestNetworksBehindAProxy: the networks are the clients', and the proxy's own address opens nothing, not even where it
// is in them.
func TestNetworksBehindAProxy(t *testing.T) {
	const local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" // version 2, LOCAL
	for _, networks := range []string{`["192.0.2.0/24"]`, `["192.0.2.0/24", "127.0.0.0/8"]`} {
		t.Run(networks, func(t *testing.T) {
			r := newRig(t, newProvider(t), fmt.Sprintf(`listener:auth = "network"
				listener:networks = %s
				listener:proxy_protocol = ["127.0.0.1"]
				listener:login = "anna@example.com"`, networks))
			c := r.proxied("PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\r\n", "")
			c.say("MAIL FROM:<anna@example.com>", "250 ")
			r.proxied("PROXY TCP4 198.51.100.7 198.51.100.1 40000 587\r\n",
				"554 5.7.1 your address 198.51.100.7 may not connect here")
			for _, header := range []string{"PROXY UNKNOWN\r\n", local} {
				c := r.proxied(header, "")
				c.say("MAIL FROM:<anna@example.com>", "530 5.7.0 the proxy in front of this server did not say")
				c.say("NOOP", "250 ")
				c.say("QUIT", "221 ")
			}
			for line := range strings.Lines(r.log.String()) { // the one that was let in had nothing to be logged
				if strings.Contains(line, "login=anna@example.com") {
					t.Errorf("somebody else got the login: %s", line)
				}
			}
		})
	}
}

// TestLoginBehindAProxyThatNamesNobody: a right password does not help where nobody can say which networks it comes
// from.
func TestLoginBehindAProxyThatNamesNobody(t *testing.T) {
	r := newRig(t, newProvider(t), `listener:proxy_protocol = ["127.0.0.1"]`)
	c := r.proxied("PROXY UNKNOWN\r\n", "")
	c.say("AUTH PLAIN "+plainOf(rigLogin, rigPassword), "530 5.7.0 the proxy in front of this server did not say")
	c = r.proxied("PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\r\n", "")
	c.say("AUTH PLAIN "+plainOf(rigLogin, rigPassword), "235 ")
}

// TestReversePathOfADevice: where the sender is rewritten, what a device has for one needs no reading.
func TestReversePathOfADevice(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `[[policy]]
		senders = ["scanner@example.com"]
		unlisted_sender = "rewrite"`)
	c := r.rawClient()
	c.say("AUTH PLAIN "+plainOf(rigLogin, rigPassword), "235 ")
	for _, path := range []string{"<root>", "root", "<scanner 2>", "<root (Cron Daemon)>", "KM_C258@printer", "<@>"} {
		c.say("MAIL FROM:"+path, "250 ")
		c.say("RCPT TO:<bob@example.net>", "250 ")
		c.say("DATA", "354 ")
		c.say("Subject: scan\r\n\r\nscan\r\n.", "250 ")
	}
	for _, m := range p.wait(6) {
		if m.from != "scanner@example.com" {
			t.Errorf("sent as %q", m.from)
		}
	}
	r = newRig(t, newProvider(t), "")
	c = r.rawClient()
	c.say("AUTH PLAIN "+plainOf(rigLogin, rigPassword), "235 ")
	c.say("MAIL FROM:<root>", "501 5.1.7 the sender is not a complete address")
}

// TestOneEventIsToldOnce: a listener without its account is told of by the session alone, not once more by wire.
func TestOneEventIsToldOnce(t *testing.T) {
	r := newRig(t, newProvider(t), `[[listener]]
name = "hall"
address = "127.0.0.1:0"
tls = "none"
auth = "network"
networks = ["127.0.0.1"]
login = "scanner"
`)
	conn, err := net.Dial("tcp", r.server.Addresses()["hall"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(reply, "421 4.7.0 the account of this listener") {
		t.Fatalf("%q, %v", reply, err)
	}
	r.stop() // whatever would come second is written then
	if n := len(r.events(trace.Refused)); n != 1 {
		t.Errorf("%d events", n)
	}
	if n := strings.Count(r.log.String(), "account of this listener cannot be used"); n != 1 {
		t.Errorf("%d lines:\n%s", n, r.log)
	}
	if strings.Count(r.log.String(), "ask the administrator") > 0 {
		t.Errorf("the log repeats what clients are told:\n%s", r.log)
	}
}
