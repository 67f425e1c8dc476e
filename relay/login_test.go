package relay

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"

	"postern/relay/trace"
)

// lineClient speaks SMTP octet by octet, for what no library sends.
type lineClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// rawClient is behind STARTTLS and EHLO.
func (r *rig) rawClient() *lineClient { return r.proxied("", "") }

// expect reads one reply, whose last line begins with prefix.
func (c *lineClient) expect(prefix string) string {
	c.t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("want %q: %v", prefix, err)
		}
		if len(line) > 3 && line[3] == ' ' {
			if !strings.HasPrefix(line, prefix) {
				c.t.Fatalf("want %q, got %q", prefix, line)
			}
			return strings.TrimSpace(line)
		}
	}
}

func (c *lineClient) say(line, prefix string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.expect(prefix)
}

func plainOf(login, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
}

// TestEveryRefusedLoginIsToldOf: whatever way a login goes wrong, log and trace have who, from where and why, and never
// a password.
func TestEveryRefusedLoginIsToldOf(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	told := newAuthFailures()
	name := base64.StdEncoding.EncodeToString([]byte(rigLogin))
	for _, c := range []struct {
		what    string
		lines   []string // command and reply in turn; "" leaves
		login   string
		code    int
		because string
	}{
		{"wrong password", []string{"AUTH PLAIN " + plainOf(rigLogin, "hunter2"), "535 "}, rigLogin, 535, "wrong"},
		{"empty password", []string{"AUTH PLAIN " + plainOf(rigLogin, ""), "535 5.7.8 the password is empty"}, rigLogin,
			535, "password is empty"},
		{"empty password by LOGIN", []string{"AUTH LOGIN " + name, "334 ", "", "535 5.7.8 the password is empty"},
			rigLogin, 535, "password is empty"},
		{"empty name", []string{"AUTH PLAIN " + plainOf("", "hunter2"), "535 5.7.8 the user name is empty"}, "", 535,
			"login is empty"},
		{"Latin-1 password", []string{"AUTH PLAIN " + plainOf(rigLogin, "hunter\xe4"), "501 5.5.2 "}, rigLogin, 501,
			"not UTF-8"},
		{"line end in the password", []string{"AUTH PLAIN " + plainOf(rigLogin, "hunter\r\n"), "501 5.5.2 "}, rigLogin,
			501, "line end"},
		{"two parts", []string{"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("anna\x00hunter")),
			"501 5.5.2 "}, "", 501, "three parts"},
		{"no base64", []string{"AUTH PLAIN hunter§", "501 5.5.2 "}, "", 501,
			"PLAIN: the login is malformed: it is not base64"},
		{"no base64 in a response", []string{"AUTH LOGIN " + name, "334 ", "hunter?", "501 5.5.2 "}, rigLogin, 501,
			"LOGIN: the login is malformed: it is not base64"},
		{"given up", []string{"AUTH LOGIN " + name, "334 ", "*", "501 5.5.2 "}, rigLogin, 501,
			"LOGIN: authentication cancelled"},
		{"left in the middle", []string{"AUTH LOGIN " + name, "334 ", "LEAVE"}, rigLogin, 0,
			"LOGIN: the connection ended in the middle"},
		{"unknown mechanism", []string{"AUTH CRAM-MD5", "504 5.5.4 "}, "", 504,
			"CRAM-MD5: this authentication method is not offered"},
		{"a password for a mechanism", []string{"AUTH hunter2", "504 5.5.4 "}, "", 504,
			"this authentication method is not offered"},
		{"no mechanism", []string{"AUTH", "501 5.5.4 "}, "", 501, "needs a mechanism"},
	} {
		t.Run(c.what, func(t *testing.T) {
			client := r.rawClient()
			for i := 0; i+1 < len(c.lines); i += 2 {
				client.say(c.lines[i], c.lines[i+1])
			}
			client.conn.Close()
			e := told(t, r)
			if e.Login != c.login || e.Reply.Code != c.code || !strings.Contains(e.Detail, c.because) ||
				e.Client != "127.0.0.1" {
				t.Errorf("traced %+v", e)
			}
			mechanism, why, ok := strings.Cut(c.because, ": ")
			if !ok {
				mechanism, why = "", c.because
			}
			for line := range strings.Lines(r.log.String()) {
				if strings.Contains(line, `"login refused" session=`+e.Session) &&
					strings.Contains(line, "client=127.0.0.1") &&
					strings.Contains(line, why) && (mechanism == "" ||
					strings.Contains(line, " mechanism="+mechanism+" ")) {
					return
				}
			}
			t.Errorf("not in the log:\n%s", r.log)
		})
	}
	if log := r.log.String(); strings.Contains(log, "hunter") {
		t.Errorf("a password is in the log:\n%s", log)
	}
}

// newAuthFailures returns what waits for the one refused login that was not seen before.
func newAuthFailures() func(*testing.T, *rig) trace.Event {
	seen := make(map[string]bool)
	return func(t *testing.T, r *rig) (found trace.Event) {
		t.Helper()
		r.eventually("a trace of the refused login", func() bool {
			for _, e := range r.events(trace.AuthFail) {
				if !seen[e.Session] {
					found, seen[e.Session] = e, true
					return true
				}
			}
			return false
		})
		return found
	}
}
