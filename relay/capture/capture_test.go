package capture_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/internal/testkit"
	"postern/relay/capture"
)

const message = "From: ann@example.com\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\n.a dot first\r\nlast line\r\n"

func start(t *testing.T, o capture.Options) (*capture.Server, *testkit.CA) {
	t.Helper()
	ca := testkit.NewCA(t)
	o.TLS = ca.Leaf(testkit.LeafOptions{}).Server()
	o.Username, o.Password = "ann", "secret words"
	s, err := capture.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, ca
}

func wait(t *testing.T, s *capture.Server) capture.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := s.WaitMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRealClients(t *testing.T) {
	s, ca := start(t, capture.Options{})
	_, port, _ := net.SplitHostPort(s.Addr())
	for _, c := range testkit.Clients() {
		for _, mechanism := range []string{"PLAIN", "LOGIN"} {
			t.Run(c.Name+" "+mechanism, func(t *testing.T) {
				out := c.Send(t, testkit.Submission{
					Server: "localhost:" + port, TLS: testkit.StartTLS, CAFile: ca.File,
					Login: "ann", Password: "secret words", Mechanism: mechanism,
					From: "ann@example.com", To: []string{"bob@example.net", "eve@example.org"}, Message: []byte(message),
				})
				if !out.OK {
					t.Fatalf("refused:\n%s", out.Text)
				}
				m := wait(t, s)
				if m.From != "ann@example.com" || !slices.Equal(m.Recipients, []string{"bob@example.net", "eve@example.org"}) {
					t.Errorf("envelope %q %q", m.From, m.Recipients)
				}
				if m.Login != "ann" || m.TLS.Version < tls.VersionTLS12 {
					t.Errorf("login %q, TLS %x", m.Login, m.TLS.Version)
				}
				// msmtp and swaks may complete the header; the body is everybody's.
				if !bytes.HasSuffix(m.Data, []byte("\r\n\r\n.a dot first\r\nlast line\r\n")) {
					t.Errorf("data %q", m.Data)
				}
			})
		}
	}
}

func TestGoSMTPClient(t *testing.T) {
	s, ca := start(t, capture.Options{})
	c, err := smtp.DialStartTLS(s.Addr(), ca.Client("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("ann@example.com", nil); code(err) != 530 {
		t.Errorf("MAIL before AUTH: %v", err)
	}
	if err := c.Auth(sasl.NewPlainClient("", "ann", "secret words")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // two messages on one connection
		if err := c.SendMail("ann@example.com", []string{"bob@example.net"}, strings.NewReader(message)); err != nil {
			t.Fatal(err)
		}
		if m := wait(t, s); string(m.Data) != message {
			t.Errorf("data %q", m.Data)
		}
	}
	if n := len(s.Messages()); n != 2 {
		t.Errorf("%d messages kept", n)
	}
}

func code(err error) int {
	var e *smtp.SMTPError
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// peer speaks raw SMTP, so that it can do what no client library does.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, s *capture.Server) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	p := &peer{t, conn, bufio.NewReader(conn)}
	p.expect("220")
	return p
}

// login does STARTTLS and AUTH.
func (p *peer) login(ca *testkit.CA) {
	p.t.Helper()
	p.say("EHLO client.example.com", "250")
	p.say("STARTTLS", "220")
	p.conn = tls.Client(p.conn, ca.Client("localhost"))
	p.in = bufio.NewReader(p.conn)
	p.say("EHLO client.example.com", "250")
	p.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00ann\x00secret words")), "235")
}

func (p *peer) write(s string) {
	p.t.Helper()
	if _, err := p.conn.Write([]byte(s)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) say(line, want string) string {
	p.t.Helper()
	p.write(line + "\r\n")
	return p.expect(want)
}

func (p *peer) expect(want string) string {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := p.in.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			p.t.Fatalf("want %s, got %q and %v", want, all.String(), err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			p.t.Fatalf("want %s, got %q", want, all.String())
		}
		return all.String()
	}
}

// ended reads until the server closes.
func (p *peer) ended() string {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := p.in.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				p.t.Fatalf("connection stays open after %q", all.String())
			}
			return all.String()
		}
	}
}

func TestBeforeTLS(t *testing.T) {
	s, ca := start(t, capture.Options{})
	t.Run("commands", func(t *testing.T) {
		p := dial(t, s)
		if ehlo := p.say("EHLO x", "250"); strings.Contains(ehlo, "AUTH") || !strings.Contains(ehlo, "STARTTLS") {
			t.Errorf("EHLO in clear: %q", ehlo)
		}
		p.say("MAIL FROM:<ann@example.com>", "530 5.7.0")
		p.say("AUTH PLAIN AGFubgBzZWNyZXQgd29yZHM=", "530 5.7.0")
		p.login(ca)
	})
	t.Run("pipelined behind STARTTLS", func(t *testing.T) {
		p := dial(t, s)
		p.write("STARTTLS\r\nMAIL FROM:<ann@example.com>\r\n")
		if got := p.ended(); !strings.HasPrefix(got, "503") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no end of commands", func(t *testing.T) {
		p := dial(t, s)
		p.write(strings.Repeat("NOOP\r\n", 100))
		if got := p.ended(); !strings.Contains(got, "421 4.7.0") {
			t.Errorf("got %q", got)
		}
	})
}

func TestAuthFailures(t *testing.T) {
	s, ca := start(t, capture.Options{})
	c, err := smtp.DialStartTLS(s.Addr(), ca.Client("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, auth := range []sasl.Client{
		sasl.NewPlainClient("", "ann", "wrong"),
		sasl.NewPlainClient("bob", "ann", "secret words"), // for somebody else
		sasl.NewLoginClient("bob", "secret words"),
	} {
		want := 535
		if i == 2 {
			want = 421
		}
		if err := c.Auth(auth); code(err) != want {
			t.Errorf("failure %d: %v, want %d", i, err, want)
		}
	}
	if err := c.Noop(); err == nil {
		t.Error("the session goes on after three failures")
	}
}

// A cut transfer must leave no trace, however it is cut.
func TestCutTransfers(t *testing.T) {
	closing := map[string]func(*peer){
		"FIN":          func(p *peer) { p.conn.(*tls.Conn).NetConn().(*net.TCPConn).CloseWrite() },
		"close_notify": func(p *peer) { p.conn.(*tls.Conn).CloseWrite() },
	}
	transfers := map[string]func(*peer){
		"DATA":            func(p *peer) { p.say("DATA", "354"); p.write("Subject: cut\r\n\r\nhalf") },
		"DATA before dot": func(p *peer) { p.say("DATA", "354"); p.write("Subject: cut\r\n\r\nhalf\r\n.") },
		"BDAT LAST":       func(p *peer) { p.write("BDAT 1000 LAST\r\nSubject: cut\r\n\r\nhalf") },
		"BDAT":            func(p *peer) { p.write("BDAT 1000\r\nSubject: cut\r\n\r\nhalf") },
		"BDAT, no LAST":   func(p *peer) { p.write("BDAT 14\r\nSubject: cut\r\n"); p.expect("250") },
		"BDAT then RSET":  func(p *peer) { p.write("BDAT 14\r\nSubject: cut\r\n"); p.expect("250"); p.say("RSET", "250") },
	}
	for how, cut := range closing {
		for name, transfer := range transfers {
			t.Run(name+" "+how, func(t *testing.T) {
				s, ca := start(t, capture.Options{})
				p := dial(t, s)
				p.login(ca)
				p.say("MAIL FROM:<ann@example.com>", "250")
				p.say("RCPT TO:<bob@example.net>", "250")
				transfer(p)
				cut(p)
				if got := p.ended(); strings.Contains(got, "queued") {
					t.Errorf("answered %q", got)
				}
				if m := s.Messages(); len(m) != 0 {
					t.Errorf("kept %q", m[0].Data)
				}
			})
		}
	}
}

// One flight holds the whole transaction, and the chunk lies in the same read as its command.
func TestPipelinedBDAT(t *testing.T) {
	s, ca := start(t, capture.Options{})
	p := dial(t, s)
	p.login(ca)
	body := "Subject: one flight\r\n\r\n" + strings.Repeat(strings.Repeat("x", 900)+"\r\n", 20)
	flight := fmt.Sprintf("MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\nBDAT %d LAST\r\n%s", len(body), body)
	p.write(flight + flight)
	for range 2 {
		for range 3 {
			p.expect("250")
		}
		if m := wait(t, s); string(m.Data) != body {
			t.Errorf("%d octets, want %d", len(m.Data), len(body))
		}
	}
	p.say("MAIL FROM:<ann@example.com>", "250")
	p.say("MAIL FROM:<ann@example.com>", "503 5.5.1")
}

func TestBounds(t *testing.T) {
	s, ca := start(t, capture.Options{MaxMessages: 2, MaxMessageSize: 100})
	p := dial(t, s)
	p.login(ca)
	send := func(body, want string) {
		t.Helper()
		p.say("MAIL FROM:<ann@example.com>", "250")
		p.say("RCPT TO:<bob@example.net>", "250")
		p.say("DATA", "354")
		p.say(body+"\r\n.", want)
	}
	send(strings.Repeat("x", 98), "250") // exactly the size
	send(strings.Repeat("x", 99), "552 5.3.4")
	for i := range 3 {
		send(fmt.Sprintf("message %d", i), "250")
	}
	got := s.Messages()
	if len(got) != 2 || string(got[0].Data) != "message 1\r\n" || string(got[1].Data) != "message 2\r\n" {
		t.Errorf("kept %v", got)
	}
	if m := wait(t, s); string(m.Data) != "message 1\r\n" {
		t.Errorf("waited for %q", m.Data)
	}
}

func TestWaitAndClose(t *testing.T) {
	s, _ := start(t, capture.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.WaitMessage(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled wait: %v", err)
	}
	p := dial(t, s)
	got := make(chan error)
	go func() { _, err := s.WaitMessage(t.Context()); got <- err }()
	s.Close()
	if err := <-got; !errors.Is(err, capture.ErrClosed) {
		t.Errorf("wait over close: %v", err)
	}
	p.ended()
	s.Close() // again is harmless
}

func TestContextEndsServer(t *testing.T) {
	ca := testkit.NewCA(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := capture.Start(ctx, capture.Options{TLS: ca.Leaf(testkit.LeafOptions{}).Server(), Username: "a", Password: "b"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.WaitMessage(t.Context()); !errors.Is(err, capture.ErrClosed) {
		t.Errorf("after the context: %v", err)
	}
	s.Close()
}

func TestOptions(t *testing.T) {
	cert := testkit.NewCA(t).Leaf(testkit.LeafOptions{}).Server()
	for name, o := range map[string]capture.Options{
		"no TLS":      {Username: "a", Password: "b"},
		"no user":     {TLS: cert, Password: "b"},
		"no password": {TLS: cert, Username: "a"},
	} {
		if s, err := capture.Start(t.Context(), o); err == nil {
			s.Close()
			t.Errorf("%s: started", name)
		}
	}
}
