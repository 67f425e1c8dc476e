package relay

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postern/bench/sink"
	"postern/internal/testkit"
	"postern/mail"
)

// What programs and devices send, from public problem reports: field_authors_test.go, field_headers_test.go and
// field_commands_test.go have the cases, each with the report it was seen in.

// The listeners of a field rig, by what they do with what is odd.
const (
	refusing  = "refusing"  // the defaults
	rewriting = "rewriting" // unlisted_sender = "rewrite"
	strict    = "strict"    // long_lines = "refuse"
)

// fieldSenders are what the login may send as; the first one is what an author is rewritten to.
var fieldSenders = []string{"anna@example.com", "scans@example.com", "*@lists.example.com"}

type fieldRig struct {
	*rig
	sink    *sink.Sink
	records map[string]string // of DKIM
}

// newFieldRig starts a relay with three listeners before an upstream that offers neither SMTPUTF8 nor much else.
func newFieldRig(t *testing.T) *fieldRig {
	t.Helper()
	ca := testkit.NewCA(t)
	s, err := sink.Start(t.Context(), sink.Options{Mode: sink.StartTLS, TLS: ca.Leaf(testkit.LeafOptions{}).Server(),
		Username: "relay", Password: "upstream secret", Without: []string{"SMTPUTF8", "DSN", "CHUNKING"}, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p := &provider{t: t, address: s.Addr(), caFile: ca.File, changed: make(chan struct{})}
	var extra strings.Builder
	for _, name := range []string{refusing, rewriting, strict} {
		fmt.Fprintf(&extra,
			"[[listener]]\nname = %q\naddress = \"127.0.0.1:0\"\ntls = \"none\"\n"+
				"networks = [\"127.0.0.0/8\"]\nhandoff = %q\n",
			name, patience.String())
		if name == strict {
			extra.WriteString("long_lines = \"refuse\"\n")
		}
	}
	fmt.Fprintf(&extra,
		"[[policy]]\nlisteners = [%q]\nunlisted_sender = \"rewrite\"\n[[policy]]\nsenders = [\"%s\"]\nlimits = []\n",
		rewriting, strings.Join(fieldSenders, `", "`))
	r := &fieldRig{rig: newRig(t, p, extra.String()), sink: s}
	r.records = r.addKey()
	return r
}

// arrival is the newest message that the upstream took, leaving out the report that NOTIFY=SUCCESS brings at some time.
func (r *fieldRig) arrival() sink.Message {
	kept := r.sink.Messages()
	kept = slices.DeleteFunc(kept, func(m sink.Message) bool { return slices.Contains(m.Recipients, rigLogin) })
	return kept[len(kept)-1]
}

// fieldClient says what it is told to, octet by octet.
type fieldClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (r *fieldRig) dial(t *testing.T, listener string) *fieldClient {
	t.Helper()
	conn, err := net.Dial("tcp", r.server.Addresses()[listener])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &fieldClient{t: t, conn: conn, in: bufio.NewReader(conn)}
	c.expect("220 ")
	return c
}

func (c *fieldClient) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one reply, its lines joined by LF.
func (c *fieldClient) reply() string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%q: %v", lines, err)
		}
		line = strings.TrimRight(line, "\r\n")
		if lines = append(lines, line); len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

func (c *fieldClient) say(command string) string {
	c.t.Helper()
	c.write(command + "\r\n")
	return c.reply()
}

func (c *fieldClient) expect(start string) {
	c.t.Helper()
	if got := c.reply(); !strings.HasPrefix(got, start) {
		c.t.Fatalf("got %q, want %q", got, start)
	}
}

var fieldAuth = "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+rigLogin+"\x00"+rigPassword))

// fieldCase is a message as somebody's program sent it.
type fieldCase struct {
	name, seen string // where: a project and the number of its issue, or the program
	listener   string // "": refusing
	from, rcpt string // the commands' arguments, "": what is in order
	message    string // LF stands for CRLF
	refused    string // how the reply begins, "": it is taken
	has        string // header lines that it leaves with, unfolded and decoded
	hasNot     string // text that it leaves without
	otherBody  bool   // the body is written anew
}

// send sends the message of a case and returns the last reply.
func (c fieldCase) send(t *testing.T, r *fieldRig) string {
	t.Helper()
	listener, from, rcpt := c.listener, c.from, c.rcpt
	if listener == "" {
		listener = refusing
	}
	if from == "" {
		from = "FROM:<anna@example.com>"
	}
	if rcpt == "" {
		rcpt = "TO:<bob@example.net>"
	}
	x := r.dial(t, listener)
	defer x.conn.Close()
	for _, command := range []string{"EHLO [192.0.2.7]", fieldAuth, "MAIL " + from, "RCPT " + rcpt, "DATA"} {
		if reply := x.say(command); reply[0] > '3' {
			return reply
		}
	}
	x.write(crlfs(c.message))
	return x.say(".")
}

func crlfs(s string) string {
	if !strings.HasSuffix(s, "\n") && s != "" {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// runField sends each case, and looks at its reply and at what the upstream got.
func runField(t *testing.T, cases []fieldCase) {
	t.Parallel()
	r := newFieldRig(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			reply := c.send(t, r)
			if c.refused != "" {
				if !strings.HasPrefix(reply, c.refused) {
					t.Errorf("got %q, want %q (%s)", reply, c.refused, c.seen)
				}
				return
			}
			if !strings.HasPrefix(reply, "250 ") {
				t.Fatalf("got %q (%s)", reply, c.seen)
			}
			got := r.arrival()
			r.inOrder(t, got)
			c.arrived(t, string(got.Data))
		})
	}
}

// arrived compares what left with what the case says.
func (c fieldCase) arrived(t *testing.T, data string) {
	t.Helper()
	header, body, _ := strings.Cut(data, "\r\n\r\n")
	header = regexp.MustCompile(`\r\n[ \t]+`).ReplaceAllString(header, " ")
	header, err := new(mime.WordDecoder).DecodeHeader(header)
	if err != nil {
		t.Fatal(err)
	}
	header = strings.ReplaceAll(header, "\r", "") + "\n"
	for line := range strings.SplitSeq(c.has, "\n") {
		if !strings.Contains("\n"+header, "\n"+line+"\n") && line != "" {
			t.Errorf("%q is not in\n%s", line, header)
		}
	}
	if c.hasNot != "" && strings.Contains(header, c.hasNot) {
		t.Errorf("%q is in\n%s", c.hasNot, header)
	}
	_, sent, _ := strings.Cut("\r\n"+crlfs(c.message), "\r\n\r\n")
	if !c.otherBody && body != sent {
		t.Errorf("the body is %q, was %q", body, sent)
	}
}

var aMessageID = regexp.MustCompile(`^<[^<>@\s]+@[^<>@\s]+>$`)

// inOrder checks what holds for all that leaves: one author whom the login may be, a header that every server on the
// way takes, a signature that verifies.
func (r *fieldRig) inOrder(t *testing.T, m sink.Message) {
	t.Helper()
	parsed, err := netmail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatalf("%v in %q", err, m.Data)
	}
	for _, name := range []string{"From", "Date", "Message-Id", "Mime-Version"} {
		if n := len(parsed.Header[name]); n != 1 {
			t.Errorf("%d fields are %s", n, name)
		}
	}
	authors, err := parsed.Header.AddressList("From")
	if err != nil {
		t.Errorf("From: %v", err)
	}
	for _, a := range authors {
		own := strings.HasSuffix(a.Address, "@lists.example.com") ||
			slices.Contains(fieldSenders, strings.ToLower(a.Address))
		if !own {
			t.Errorf("it is from %v", a)
		}
	}
	if _, err := parsed.Header.Date(); err != nil {
		t.Errorf("Date: %v", err)
	}
	if id := parsed.Header.Get("Message-Id"); !aMessageID.MatchString(strings.TrimSpace(id)) {
		t.Errorf("Message-ID is %q", id)
	}
	header, _, _ := strings.Cut(string(m.Data), "\r\n\r\n")
	if strings.ContainsFunc(header, func(r rune) bool { return r > '~' }) {
		t.Errorf("the header needs SMTPUTF8: %q", header)
	}
	for i, line := range strings.Split(string(m.Data), "\r\n") {
		if len(line) > mail.MaxLine {
			t.Errorf("line %d has %d octets", i+1, len(line))
		}
	}
	verified, err := dkim.VerifyWithOptions(bytes.NewReader(m.Data), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return []string{r.records[name]}, nil }})
	if err != nil || len(verified) == 0 || verified[0].Err != nil {
		t.Errorf("signatures %+v, %v", verified, err)
	}
}
