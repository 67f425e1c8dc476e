package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/bench/sink"
	"postern/internal/testkit"
)

// fort is a relay process under attack, with a listener for each kind of door and an upstream that knows
// no CHUNKING: what a message smuggles would come out of a DATA there.
type fort struct {
	*office
	sink  *sink.Sink
	p     *testkit.Process
	doors map[string]string // addresses by name of the listener
	admin string

	mu    sync.Mutex
	total map[string]int // how many messages with a text are to have arrived when all is over
}

const (
	annasPassword = "a chosen password"
	patience      = time.Minute // for whatever must come: nothing waits for its end but what fails
)

// fortConfig has one listener for each door, and the upstream follows. Time-outs are short where an attack waits for
// them.
const fortConfig = `hostname = "localhost"
data_dir = "data"
tls.cert_file = %q
tls.key_file = %q
admin.address = %q
[[listener]]
name = "submission"
address = %q
max_connections_per_ip = 1500
max_unauthenticated = 1500
max_message_size = "12MB"
auth_timeout = "30s"
hide_client = false
[[listener]]
name = "implicit"
address = %q
tls = "implicit"
auth_timeout = "1s"
[[listener]]
name = "hasty"
address = %q
auth_timeout = "2s"
idle_timeout = "1s"
data_timeout = "1s"
[[listener]]
name = "narrow"
address = %q
max_connections_per_ip = 2
[[listener]]
name = "inside"
address = %q
tls = "none"
networks = ["192.0.2.0/24"]
auth = "network"
login = "anna@example.com"
[[listener]]
name = "lan"
address = %q
tls = "none"
networks = ["127.0.0.1/32"]
[[listener]]
name = "proxied"
address = %q
networks = ["127.0.0.0/8"]
proxy_protocol = ["127.0.0.1/32"]
[[policy]]
limits = []
`

func newFort(t *testing.T) *fort {
	t.Helper()
	f := &fort{office: &office{t: t, dir: t.TempDir(), ca: testkit.NewCA(t)}, doors: map[string]string{},
		total: map[string]int{}}
	cert := f.ca.Leaf(testkit.LeafOptions{})
	var err error
	f.sink, err = sink.Start(t.Context(), sink.Options{TLS: cert.Server(), Username: "relay",
		Password: "upstream secret", Without: []string{"CHUNKING"}, Keep: 10000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.sink.Close() })
	_, port, err := net.SplitHostPort(f.sink.Addr())
	if err != nil {
		t.Fatal(err)
	}
	free := func() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }
	f.admin = free()
	args := []any{cert.CertFile, cert.KeyFile, f.admin}
	for _, name := range []string{"submission", "implicit", "hasty", "narrow", "inside", "lan", "proxied"} {
		f.doors[name] = free()
		args = append(args, f.doors[name])
	}
	f.config = filepath.Join(f.dir, "relay.toml")
	f.write("relay.toml", fmt.Sprintf(fortConfig, args...)+f.provider(port))
	f.postern(annasPassword+"\n", "user", "add", "anna@example.com", "--password-stdin")
	f.p = f.serve()
	return f
}

// client is a raw connection: it can do what no client library does.
type client struct {
	t    *testing.T
	f    *fort
	conn net.Conn
	in   *bufio.Reader
}

// dial connects to a door and says nothing.
func (f *fort) dial(t *testing.T, door string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", f.doors[door])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, f: f, conn: conn, in: bufio.NewReader(conn)}
}

// login dials the door and logs in as anna.
func (f *fort) login(t *testing.T, door string) *client {
	t.Helper()
	c := f.dial(t, door)
	c.want("220", c.reply())
	c.enter()
	return c
}

func (c *client) enter() {
	c.t.Helper()
	c.startTLS()
	c.want("250", c.say("EHLO client.example.com"))
	c.auth()
}

func (c *client) auth() {
	c.t.Helper()
	c.want("235", c.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString(
		[]byte("\x00anna@example.com\x00"+annasPassword))))
}

func (c *client) startTLS() {
	c.t.Helper()
	c.want("250", c.say("EHLO client.example.com"))
	c.want("220", c.say("STARTTLS"))
	if err := c.handshake(c.f.ca.Client("localhost")); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) handshake(config *tls.Config) error {
	tc := tls.Client(c.conn, config)
	tc.SetDeadline(time.Now().Add(patience))
	if err := tc.Handshake(); err != nil {
		return err
	}
	c.conn, c.in = tc, bufio.NewReader(tc)
	return nil
}

// write sends octets. An error is not the test's: the relay may have had enough.
func (c *client) write(s string) error {
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.conn, s)
	return err
}

// say sends a line and returns the reply.
func (c *client) say(line string) string {
	c.t.Helper()
	c.write(line + "\r\n")
	return c.reply()
}

// reply returns the next reply, its lines joined by newlines, or "closed".
func (c *client) reply() string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			c.t.Fatalf("no reply within %s", patience)
		}
		if err != nil {
			return strings.Join(append(lines, "closed"), "\n")
		}
		if !strings.HasSuffix(line, "\r\n") || len(line) < 6 {
			c.t.Fatalf("no line of a reply: %q", line)
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
		if line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

func (c *client) want(prefix, reply string) {
	c.t.Helper()
	if !strings.HasPrefix(reply, prefix) {
		c.t.Fatalf("got %q, want %q", reply, prefix)
	}
}

// begin opens a transaction up to the 354.
func (c *client) begin(to string) {
	c.t.Helper()
	c.want("250", c.say("MAIL FROM:<anna@example.com>"))
	c.want("250", c.say("RCPT TO:<"+to+">"))
	c.want("354", c.say("DATA"))
}

// transact sends a message by DATA and returns the reply to its end.
func (c *client) transact(to, message string) string {
	c.t.Helper()
	c.begin(to)
	return c.say(message + "\r\n.")
}

// arrived returns the messages at the upstream that show a text anywhere.
func (f *fort) arrived(text string) []sink.Message {
	var found []sink.Message
	for _, m := range f.sink.Messages() {
		if bytes.Contains(m.Data, []byte(text)) ||
			strings.Contains(strings.Join(m.Recipients, "\n")+m.From+m.MailParams, text) {
			found = append(found, m)
		}
	}
	return found
}

// arrives waits until n messages with a text are at the upstream; those that were handed off late come from the queue.
// That there are no more of them, settle says when nothing is under way.
func (f *fort) arrives(t *testing.T, text string, n int) []sink.Message {
	t.Helper()
	f.mu.Lock()
	f.total[text] = n
	f.mu.Unlock()
	var got []sink.Message
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for got = f.arrived(text); len(got) < n; got = f.arrived(text) {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: %d of %d messages arrived", text, len(got), n)
		}
	}
	if len(got) != n {
		t.Errorf("%s: %d messages arrived, want %d", text, len(got), n)
	}
	return got
}

// settle waits until the relay has nothing left to send, ends it, and counts once more what has arrived.
func (f *fort) settle(t *testing.T) {
	f.until("an empty queue", func() bool {
		return strings.Contains(f.postern("", "queue", "list"), "The queue is empty.")
	})
	f.p.Stop()
	if len(f.total) == 0 {
		t.Error("nothing was expected of any attack")
	}
	for text, want := range f.total {
		if got := len(f.arrived(text)); got != want {
			t.Errorf("%s: %d messages arrived in the end, want %d", text, got, want)
		}
	}
}

// attackDialogs runs testdata/attack/*.dialog. Their directives, one a line; {tag} is a word of the dialog's own:
//
//	LISTENER name      which door to dial
//	C: text            the client sends text and CRLF
//	C+ "text"          the client sends text, quoted as in Go, and nothing else
//	C* n "text"        the same n times
//	S: pattern         the next reply, its lines joined by /, is this; a * in it stands for anything
//	ANY                one more reply, or the end
//	STARTTLS, AUTH     EHLO, STARTTLS and the handshake; AUTH PLAIN as anna
//	LOGIN, RELOGIN     both, on this or on a new connection
//	CLOSED             the server closes, without another reply
//	ARRIVES n          as many messages with the tag reached the upstream
//	TO address         the last of them had this forward-path
func attackDialogs(t *testing.T, f *fort) {
	files, err := filepath.Glob("testdata/attack/*.dialog")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogs", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dialog")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &attackDialog{t: t, f: f, tag: "tag-" + name}
			for i, line := range strings.Split(string(text), "\n") {
				if line != "" && line[0] != '#' {
					d.where = fmt.Sprintf("%s:%d", file, i+1)
					d.step(strings.ReplaceAll(line, "{tag}", d.tag))
				}
			}
		})
	}
}

type attackDialog struct {
	t           *testing.T
	f           *fort
	c           *client
	door, where string
	tag         string
}

func (d *attackDialog) step(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "LISTENER":
		d.door = arg
		d.c = d.f.dial(d.t, arg)
	case "C:":
		d.c.write(arg + "\r\n")
	case "C+":
		d.c.write(d.unquote(arg))
	case "C*":
		n, text, _ := strings.Cut(arg, " ")
		count, err := strconv.Atoi(n)
		if err != nil {
			d.t.Fatalf("%s: %v", d.where, err)
		}
		d.c.write(strings.Repeat(d.unquote(text), count))
	case "S:", "CLOSED":
		d.replied(strings.TrimPrefix(strings.TrimPrefix(line, "S:"), " "))
	case "ANY":
		d.c.reply()
	case "STARTTLS":
		d.c.startTLS()
	case "AUTH":
		d.c.auth()
	case "LOGIN":
		d.c.enter()
	case "RELOGIN":
		d.c = d.f.login(d.t, d.door)
	case "ARRIVES":
		n, err := strconv.Atoi(arg)
		if err != nil {
			d.t.Fatalf("%s: %v", d.where, err)
		}
		d.f.arrives(d.t, d.tag, n)
	case "TO":
		got := d.f.arrived(d.tag)
		if len(got) == 0 || !strings.Contains("\n"+strings.Join(got[len(got)-1].Recipients, "\n")+"\n", "\n"+arg+"\n") {
			d.t.Fatalf("%s: the upstream got %+v", d.where, got)
		}
	default:
		d.t.Fatalf("%s: unknown directive %q", d.where, line)
	}
}

func (d *attackDialog) replied(pattern string) {
	d.t.Helper()
	if pattern == "CLOSED" {
		pattern = "closed"
	}
	got := strings.ReplaceAll(d.c.reply(), "\n", "/")
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	if !regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got) {
		d.t.Fatalf("%s: got %q", d.where, got)
	}
}

func (d *attackDialog) unquote(s string) string {
	u, err := strconv.Unquote(s)
	if err != nil {
		d.t.Fatalf("%s: %v", d.where, err)
	}
	return u
}
