package wire

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"postern/mail"
)

func runtimeGosched() { runtime.Gosched() }

// TestDialogs runs the transcripts in testdata. A transcript has one directive a line:
//
//	# comment
//	O: option value    before anything else; see dialogOption
//	C: text            the client sends text and CRLF
//	C+ "text"          the client sends text, quoted as in Go, and nothing else
//	C* n "text"        the same n times
//	S: text            the server sends exactly this line; a * in it stands for anything
//	TLS                handshake
//	SHUT               the client ends its side
//	CLOSED             the server closes, without another line
//	M: text            the next message that the session got, see message.String
//	R: reason text     the last refusal, the beginning of its detail
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.dialog")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogs", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".dialog"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			runDialog(t, file, string(text))
		})
	}
}

type dialog struct {
	t        *testing.T
	server   *testServer
	client   *testClient
	options  []string
	messages int
	where    string
}

func runDialog(t *testing.T, file, text string) {
	d := &dialog{t: t}
	n := 0
	for line := range strings.Lines(text) {
		n++
		d.where = file + ":" + strconv.Itoa(n)
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		d.step(line)
	}
}

func (d *dialog) step(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	if verb == "O:" {
		d.options = append(d.options, arg)
		return
	}
	if d.server == nil {
		d.start()
	}
	switch verb {
	case "C:":
		d.write(arg + "\r\n")
	case "C+":
		d.write(d.unquote(arg))
	case "C*":
		n, text, _ := strings.Cut(arg, " ")
		count, err := strconv.Atoi(n)
		d.check(err)
		d.write(strings.Repeat(d.unquote(text), count))
	case "S:":
		got, err := d.client.line()
		if err != nil || !glob(arg, got) {
			d.t.Fatalf("%s: want %q, got %q, %v", d.where, arg, got, err)
		}
	case "TLS":
		tc := tls.Client(d.client.conn, clientTLS())
		d.check(tc.Handshake())
		d.client.conn, d.client.r = tc, bufio.NewReader(tc)
	case "SHUT":
		d.check(d.client.conn.(interface{ CloseWrite() error }).CloseWrite())
	case "CLOSED":
		got, err := d.client.line()
		if timeout, ok := errors.AsType[net.Error](err); err == nil || got != "" || ok && timeout.Timeout() {
			d.t.Fatalf("%s: want the connection closed, got %q, %v", d.where, got, err)
		}
	case "M:":
		d.message(arg)
	case "R:":
		eventually(d.t, d.where+" refusal", func() bool { return d.server.lastRefusal().Reason != "" })
		r := d.server.lastRefusal()
		if got := string(r.Reason) + " " + r.Detail; !glob(arg, got) {
			d.t.Fatalf("%s: want refusal %q, got %q", d.where, arg, got)
		}
	default:
		d.t.Fatalf("%s: unknown directive %q", d.where, line)
	}
}

func (d *dialog) write(s string) {
	_, err := io.WriteString(d.client.conn, s)
	d.check(err)
}

func (d *dialog) message(want string) {
	eventually(d.t, d.where+" message", func() bool { return len(d.server.taken()) > d.messages })
	if got := d.server.taken()[d.messages].String(); !glob(want, got) {
		d.t.Fatalf("%s: want message\n%s\ngot\n%s", d.where, want, got)
	}
	d.messages++
}

func (d *dialog) unquote(s string) string {
	u, err := strconv.Unquote(s)
	d.check(err)
	return u
}

func (d *dialog) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%s: %v", d.where, err)
	}
}

func (d *dialog) start() {
	d.server = startServer(d.t, func(o *Options, b *backend) {
		for _, option := range d.options {
			d.option(o, b, option)
		}
	})
	d.client = d.server.dial(d.t)
}

func (d *dialog) option(o *Options, b *backend, option string) {
	name, value, _ := strings.Cut(option, " ")
	switch name {
	case "tls":
		o.TLSMode = TLSMode(value)
	case "networks":
		o.Networks = []netip.Prefix{netip.MustParsePrefix(value)}
	case "proxies":
		o.Proxies = []netip.Prefix{netip.MustParsePrefix(value)}
	case "appliance":
		o.Appliance, o.LongLines = true, true
	case "open": // no login needed, no TLS: most of the protocol is the same
		o.TLSMode, b.open = None, true
	case "max-size":
		n, err := strconv.ParseInt(value, 10, 64)
		d.check(err)
		o.MaxMessageSize = n
	case "max-errors":
		n, err := strconv.Atoi(value)
		d.check(err)
		o.MaxErrors = n
	case "refuse-mail":
		b.onMail = func(e mail.Envelope) mail.Reply {
			if e.From.Local == value {
				return mail.R(550, "5.7.1", "not yours")
			}
			return mail.R(250, "2.1.0", "OK")
		}
	case "refuse-rcpt":
		b.onRcpt = func(r mail.Recipient) mail.Reply {
			if r.To.Local == value {
				return mail.R(550, "5.7.1", "not allowed")
			}
			return mail.R(250, "2.1.5", "OK")
		}
	case "greeting":
		b.greet = mail.R(421, "4.3.2", "%s", value)
	default:
		d.t.Fatalf("%s: unknown option %q", d.where, option)
	}
}

// glob matches text against a pattern in which * stands for anything.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	if len(parts) == 1 {
		return text == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}
