package sink_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/bench/ledger"
	"postern/bench/load"
	"postern/bench/sink"
	"postern/internal/testkit"
)

const message = "From: ann@example.com\r\nSubject: hello\r\n\r\n.a dot first\r\n\r\n..\r\nlast line\r\n"

func start(t *testing.T, o sink.Options) *sink.Sink {
	t.Helper()
	s, err := sink.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// peer speaks raw SMTP.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, s *sink.Sink) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{t, conn, bufio.NewReader(conn)}
}

// open goes as far as a recipient.
func (p *peer) open() *peer {
	p.t.Helper()
	p.expect("220")
	p.say("EHLO client.example.com", "250")
	p.say("MAIL FROM:<ann@example.com>", "250")
	p.say("RCPT TO:<bob@example.net>", "250")
	return p
}

func (p *peer) write(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, s); err != nil {
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

func (p *peer) rest() string {
	p.t.Helper()
	data, err := io.ReadAll(p.in)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		p.t.Fatalf("connection stays open after %q", data)
	}
	return string(data)
}

func TestIndependentClient(t *testing.T) {
	ca := testkit.NewCA(t)
	for _, mode := range []sink.TLSMode{sink.StartTLS, sink.Implicit} {
		t.Run(string(mode), func(t *testing.T) {
			s := start(t, sink.Options{Mode: mode, TLS: ca.Leaf(testkit.LeafOptions{}).Server(), Username: "u",
				Password: "p", Keep: 10})
			dial := smtp.DialStartTLS
			if mode == sink.Implicit {
				dial = smtp.DialTLS
			}
			c, err := dial(s.Addr(), ca.Client("localhost"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Mail("ann@example.com", nil); err == nil || !strings.Contains(err.Error(), "530") {
				t.Errorf("MAIL without AUTH: %v", err)
			}
			if err := c.Auth(sasl.NewPlainClient("", "u", "wrong")); err == nil {
				t.Error("wrong password is taken")
			}
			if err := c.Auth(sasl.NewLoginClient("u", "p")); err != nil {
				t.Fatal(err)
			}
			if err := c.SendMail("ann@example.com", []string{"bob@example.net", "eve@example.org"},
				strings.NewReader(message)); err != nil {
				t.Fatal(err)
			}
			got := s.Messages()
			if len(got) != 1 || string(got[0].Data) != message ||
				!slices.Equal(got[0].Recipients, []string{"bob@example.net", "eve@example.org"}) ||
				got[0].Login != "u" {
				t.Errorf("kept %+v", got)
			}
		})
	}
}

func TestBeforeTLS(t *testing.T) {
	s := start(t, sink.Options{TLS: testkit.NewCA(t).Leaf(testkit.LeafOptions{}).Server(), Username: "u",
		Password: "p"})
	p := dial(t, s)
	p.expect("220")
	if got := p.say("EHLO x", "250"); strings.Contains(got, "AUTH") {
		t.Errorf("AUTH is offered in clear: %q", got)
	}
	p.say("MAIL FROM:<ann@example.com>", "530")
	p.write("STARTTLS\r\nMAIL FROM:<ann@example.com>\r\n")
	if got := p.rest(); !strings.HasPrefix(got, "503") {
		t.Errorf("octets behind STARTTLS: %q", got)
	}
}

func TestTransfers(t *testing.T) {
	long := "Subject: long\r\n\r\n" + strings.Repeat("y", 70000) + "\r\n"
	for name, tt := range map[string]struct {
		wire, want string
	}{
		"dots": {"DATA\r\n|Subject: d\r\n\r\n..one\r\n...two\r\nno.dot\r\n.\r\n",
			"Subject: d\r\n\r\n.one\r\n..two\r\nno.dot\r\n"},
		"empty":               {"DATA\r\n|.\r\n", ""},
		"long line":           {"DATA\r\n|" + long + ".\r\n", long},
		"not the end":         {"DATA\r\n|a\n.\r\nb\n.\nc\r.\rd\r\n.\r\n", "a\n.\r\nb\n.\nc\r.\rd\r\n"},
		"one chunk":           {"BDAT 9 LAST\r\na\r\n.\r\nb\r\n", "a\r\n.\r\nb\r\n"},
		"chunks":              {"BDAT 3\r\na\r\n|BDAT 3\r\n.\r\n|BDAT 0 LAST\r\n", "a\r\n.\r\n"},
		"chunk over a buffer": {fmt.Sprintf("BDAT %d LAST\r\n%s", len(long), long), long},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, sink.Options{Keep: 1})
			p := dial(t, s).open()
			steps := strings.Split(tt.wire, "|")
			for i, step := range steps {
				p.write(step)
				want := "250"
				if i < len(steps)-1 && strings.HasPrefix(step, "DATA") {
					want = "354"
				}
				p.expect(want)
			}
			if got := s.Messages(); len(got) != 1 || string(got[0].Data) != tt.want {
				t.Errorf("kept %d messages", len(got))
				if len(got) == 1 && len(got[0].Data) < 1000 {
					t.Errorf("%q, want %q", got[0].Data, tt.want)
				}
			}
		})
	}
}

// Octet by octet the same dialogue gives the same message.
func TestSplitReads(t *testing.T) {
	s := start(t, sink.Options{Keep: 1})
	p := dial(t, s).open()
	p.conn.(*net.TCPConn).SetNoDelay(true)
	p.say("DATA", "354")
	for _, b := range []byte("Subject: s\r\n\r\n..x\r\n\r\ny\r\n.\r\n") {
		p.write(string(b))
	}
	p.expect("250")
	if got := string(s.Messages()[0].Data); got != "Subject: s\r\n\r\n.x\r\n\r\ny\r\n" {
		t.Errorf("%q", got)
	}
}

// What is counted for a recipient was meant for it from the first octet on.
func TestNoRecipientWithinATransfer(t *testing.T) {
	s := start(t, sink.Options{Keep: 1})
	p := dial(t, s).open()
	p.write("BDAT 5\r\na: b\n")
	p.expect("250")
	p.say("RCPT TO:<eve@example.org>", "503")
	p.say("MAIL FROM:<eve@example.org>", "503")
	p.say("BDAT 0 LAST", "250")
	if got := s.Messages(); len(got) != 1 || len(got[0].Recipients) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestCutTransfers(t *testing.T) {
	for name, wire := range map[string]string{
		"DATA":          "DATA\r\nSubject: x\r\n\r\nhalf\r\n",
		"DATA, dot":     "DATA\r\nSubject: x\r\n\r\nhalf\r\n.\r",
		"BDAT":          "BDAT 100 LAST\r\nSubject: x\r\n",
		"BDAT, no LAST": "BDAT 12\r\nSubject: x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, sink.Options{Keep: 1})
			p := dial(t, s).open()
			p.write(wire)
			p.conn.(*net.TCPConn).CloseWrite()
			p.rest()
			if st := s.Stats(); st.Messages != 0 {
				t.Errorf("taken: %+v", st)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	whole := func(p *peer) { p.say("DATA", "354"); p.write("Subject: x\r\n\r\ny\r\n.\r\n") }
	for _, tt := range []struct {
		name  string
		fault sink.Fault
		play  func(p *peer)
		taken int64
	}{
		{"connect", sink.Fault{Stage: sink.AtConnect, Reply: "421 4.3.2 closed"},
			func(p *peer) { p.expect("421"); p.rest() }, 0},
		{"ehlo", sink.Fault{Stage: sink.AtEHLO, Reply: "550 5.7.1 go away"},
			func(p *peer) { p.expect("220"); p.say("EHLO x", "550") }, 0},
		{"mail", sink.Fault{Stage: sink.AtMail, Reply: "451 4.3.0 later"},
			func(p *peer) { p.expect("220"); p.say("EHLO x", "250"); p.say("MAIL FROM:<>", "451") }, 0},
		{"one recipient", sink.Fault{Stage: sink.AtRcpt, Reply: "550 5.1.1 unknown", Recipient: "nobody@*"},
			func(p *peer) {
				p.open().say("RCPT TO:<nobody@example.net>", "550")
				whole(p)
				p.expect("250")
			}, 1},
		{"data", sink.Fault{Stage: sink.AtData, Reply: "452 4.3.1 full"},
			func(p *peer) { p.open().say("DATA", "452") }, 0},
		{"bdat", sink.Fault{Stage: sink.AtData, Reply: "452 4.3.1 full"}, func(p *peer) {
			p.open()
			p.write("BDAT 5 LAST\r\nx\r\n\r\nNOOP\r\n")
			p.expect("452")
			p.expect("250")
		}, 0},
		{"body", sink.Fault{Stage: sink.AtBody, Action: sink.Hangup}, func(p *peer) { whole(p.open()); p.rest() }, 0},
		{"dot 5yz", sink.Fault{Stage: sink.AtDot, Reply: "554 5.7.1 content"},
			func(p *peer) { whole(p.open()); p.expect("554") }, 0},
		{"dot, closed", sink.Fault{Stage: sink.AtDot, Action: sink.Hangup},
			func(p *peer) { whole(p.open()); p.rest() }, 0},
		{"dot, taken", sink.Fault{Stage: sink.AtDot, Action: sink.Taken}, func(p *peer) {
			whole(p.open())
			if got := p.rest(); got != "" {
				p.t.Errorf("answered %q", got)
			}
		}, 1},
		{"421 closes", sink.Fault{Stage: sink.AtMail, Reply: "421 4.7.0 too fast"}, func(p *peer) {
			p.expect("220")
			p.say("EHLO x", "250")
			p.say("MAIL FROM:<>", "421")
			p.rest()
		}, 0},
		{"once", sink.Fault{Stage: sink.AtMail, Reply: "451 4.3.0 later", Times: 1}, func(p *peer) {
			p.expect("220")
			p.say("EHLO x", "250")
			p.say("MAIL FROM:<>", "451")
			p.say("MAIL FROM:<>", "250")
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, sink.Options{Faults: []sink.Fault{tt.fault}})
			tt.play(dial(t, s))
			if st := s.Stats(); st.Messages != tt.taken || st.Faults != 1 {
				t.Errorf("%+v, want %d messages", st, tt.taken)
			}
		})
	}
}

func TestStall(t *testing.T) {
	s := start(t, sink.Options{Faults: []sink.Fault{{Stage: sink.AtDot, Action: sink.Stall}}})
	p := dial(t, s).open()
	p.say("DATA", "354")
	p.write("x\r\n.\r\nNOOP\r\n")
	p.conn.(*net.TCPConn).CloseWrite() // it reads to our end: whatever it had to say is said before its own
	if got := p.rest(); got != "" {
		t.Errorf("answered %q", got)
	}
	if st := s.Stats(); st.Messages != 0 || st.Faults != 1 {
		t.Errorf("%+v", st)
	}
}

func TestProbability(t *testing.T) {
	s := start(t, sink.Options{Seed: 7, Faults: []sink.Fault{{Stage: sink.AtMail, Reply: "451 4.3.0 later",
		Probability: 0.5}}})
	p := dial(t, s)
	p.expect("220")
	p.say("EHLO x", "250")
	const n = 400
	p.write(strings.Repeat("MAIL FROM:<>\r\nRSET\r\n", n/2))
	refused := 0
	for range n / 2 {
		line, err := p.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "451") {
			refused++
		}
		p.expect("250")
	}
	if refused < n/8 || refused > 3*n/8 {
		t.Errorf("%d of %d refused", refused, n/2)
	}
}

func TestBadFaults(t *testing.T) {
	for _, f := range []sink.Fault{
		{Stage: "nowhere", Reply: "451 x"},
		{Stage: sink.AtMail, Reply: "hello"},
		{Stage: sink.AtMail, Reply: "451 x\r\n250 y"},
		{Stage: sink.AtMail, Action: sink.Taken},
		{Stage: sink.AtMail, Action: "explode"},
		{Stage: sink.AtMail, Reply: "451 x", Probability: 2},
		{Stage: sink.AtRcpt, Reply: "451 x", Recipient: "["},
	} {
		if s, err := sink.Start(t.Context(), sink.Options{Faults: []sink.Fault{f}}); err == nil {
			s.Close()
			t.Errorf("%+v is accepted", f)
		}
	}
}

// The delay is paid once for a flight, however many commands it has.
func TestDelay(t *testing.T) {
	const delay = 100 * time.Millisecond
	s := start(t, sink.Options{})
	p := dial(t, s)
	p.expect("220")
	p.say("EHLO x", "250")
	s.SetDelay(delay)
	before, begin := s.Stats().Flights, time.Now()
	p.write("MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\nBDAT 5 LAST\r\nx\r\n\r\n")
	for range 3 {
		p.expect("250")
	}
	if took, flights := time.Since(begin), s.Stats().Flights-before; took < delay || flights != 1 {
		t.Errorf("took %v in %d flights", took, flights)
	}
}

func TestExtensions(t *testing.T) {
	s := start(t, sink.Options{Size: 1000, Without: []string{"CHUNKING", "PIPELINING"}})
	p := dial(t, s)
	p.expect("220")
	got := p.say("EHLO x", "250")
	if strings.Contains(got, "CHUNKING") || strings.Contains(got, "PIPELINING") ||
		!strings.Contains(got, "SIZE 1000") || !strings.Contains(got, "DSN") {
		t.Errorf("EHLO %q", got)
	}
	p.say("MAIL FROM:<ann@example.com> SIZE=1001", "552")
	p.say("MAIL FROM:<ann@example.com> SIZE=1000 BODY=8BITMIME", "250")
	p.say("RCPT TO:<bob@example.net> NOTIFY=NEVER", "250")
	p.say("DATA", "354")
	p.say(strings.Repeat("x", 1000)+"\r\n.", "552")
}

func TestOptions(t *testing.T) {
	if s, err := sink.Start(t.Context(), sink.Options{Mode: sink.StartTLS}); err == nil {
		s.Close()
		t.Error("TLS without a certificate")
	}
}

func TestControl(t *testing.T) {
	s := start(t, sink.Options{})
	h := httptest.NewServer(s.Control())
	defer h.Close()
	report, err := load.Run(t.Context(), load.Config{Addr: s.Addr(), Mode: load.None, Run: "r", From: "ann@example.com",
		To: []string{"bob@example.net", "eve@example.org"}, Size: 1000, Count: 50, Connections: 3})
	if err != nil {
		t.Fatal(err)
	}
	claim := report.Claim()
	ask := func(method, path string, body any, want int) []byte {
		t.Helper()
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%s %s: %s %v\n%s", method, path, resp.Status, err, out)
		}
		return out
	}
	ask("POST", "/check", claim, 200)
	claim.Accepted.Add(50) // was never sent
	var proof ledger.Proof
	if err := json.Unmarshal(ask("POST", "/check", claim, 409), &proof); err != nil || proof.Missing != 2 {
		t.Errorf("%+v %v", proof, err)
	}
	if out := ask("GET", "/ledger", nil, 200); !bytes.Contains(out, []byte(`"arrived":[[0,49]]`)) {
		t.Errorf("ledger %s", out)
	}
	if out := ask("GET", "/status", nil, 200); !bytes.Contains(out, []byte(`"deliveries": 100`)) {
		t.Errorf("status %s", out)
	}
	ask("PUT", "/faults", []sink.Fault{{Stage: sink.AtConnect, Reply: "421 4.3.2 closed"}}, 204)
	dial(t, s).expect("421")
	ask("PUT", "/faults", []sink.Fault{{Stage: "nowhere"}}, 400)
	ask("PUT", "/delay", map[string]string{"delay": "1ms"}, 204)
	ask("PUT", "/delay", map[string]string{"delay": "-1s"}, 400)
	ask("POST", "/check", "what", 400)
	ask("POST", "/reset", nil, 204)
	ask("POST", "/check", claim, 409)
	ask("POST", "/drop", nil, 204)
}

func TestCloseEndsConnections(t *testing.T) {
	s := start(t, sink.Options{})
	p := dial(t, s).open()
	s.Close()
	p.rest()
	if c, err := net.Dial("tcp", s.Addr()); err == nil {
		c.Close()
		t.Error("still listens")
	}
}
