package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
)

// TestClientsUnderAttack plays every attack that a client can make against one running process, while
// somebody else sends mail through it: nobody gets through, nobody else notices, memory and goroutines
// are bounded, and neither log nor trace shows a password or a forged line.
func TestClientsUnderAttack(t *testing.T) {
	f := newFort(t)
	n := f.startNeighbour(t)
	before, goroutines := f.memory(t, "VmRSS"), f.goroutines(t)
	t.Run("attacks", func(t *testing.T) {
		for name, attack := range map[string]func(*testing.T, *fort){
			"dialogs": attackDialogs, "smuggling by DATA": attackData, "smuggling by BDAT": attackChunks,
			"headers":      attackHeaders,
			"header bombs": attackWithHeaders, "recipients": attackWithRecipients, "slow": attackSlowly,
			"idle":        attackByWaiting,
			"connections": attackConnections, "TLS": attackTLS, "logs": attackLogs, "cut": attackByLeaving,
			"replies unread": attackDeaf,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); attack(t, f) })
		}
	})
	n.stop()
	t.Run("cost of headers", func(t *testing.T) { costOfHeaders(t, f) })
	t.Run("neighbour", func(t *testing.T) { n.check(t) })
	t.Run("memory", func(t *testing.T) {
		// 64 MiB of spooled messages, 1000 idle TLS connections, and what the collector leaves for later. The
		// race detector, with which the process is built when the tests are, takes five to ten times as much.
		most := int64(128 << 20)
		if testkit.Race {
			most *= 5
		}
		peak := f.memory(t, "VmHWM")
		t.Logf("memory grew from %d to %d MiB", before>>20, peak>>20)
		if peak-before > most {
			t.Errorf("that is more than %d MiB", most>>20)
		}
	})
	t.Run("goroutines", func(t *testing.T) {
		f.until("as many goroutines as before", func() bool { return f.goroutines(t) <= goroutines+10 })
	})
	t.Run("forged PROXY header", func(t *testing.T) {
		if log := f.p.Log(); strings.Contains(log, "client=192.0.2.1") || strings.Contains(log, "([192.0.2.1])") {
			t.Error("the address of a forged PROXY header was believed")
		}
	})
	t.Run("secrets", func(t *testing.T) { f.checkSecrets(t) })
	t.Run("in the end", func(t *testing.T) { f.settle(t) })
	t.Run("smuggled", func(t *testing.T) {
		for _, m := range f.sink.Messages() {
			if strings.Contains(strings.Join(m.Recipients, " "), "victim") {
				t.Errorf("a smuggled message arrived: %+v", m)
			}
		}
		if bare := f.sink.Stats().BareLineBreaks; bare != 0 {
			t.Errorf("%d bare line breaks left us", bare)
		}
	})
}

// neighbour is a well-behaved client that goes on sending.
type neighbour struct {
	f       *fort
	done    chan struct{}
	ended   sync.WaitGroup
	sent    int
	slowest time.Duration
	wrong   []string
}

func (f *fort) startNeighbour(t *testing.T) *neighbour {
	t.Helper()
	n := &neighbour{f: f, done: make(chan struct{})}
	c := f.login(t, "submission")
	n.ended.Go(func() {
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-n.done:
				return
			case <-tick.C:
				n.send(c)
			}
		}
	})
	return n
}

// send sends one message in one write, as a pipelining client does.
func (n *neighbour) send(c *client) {
	start := time.Now()
	c.conn.SetDeadline(start.Add(60 * time.Second))
	message := fmt.Sprintf("From: anna@example.com\r\nTo: n@example.net\r\nSubject: neighbour %d.\r\n\r\nhello\r\n",
		n.sent)
	_, err := fmt.Fprintf(c.conn, "MAIL FROM:<anna@example.com>\r\nRCPT TO:<n@example.net>\r\nBDAT %d LAST\r\n%s",
		len(message), message)
	for range 3 {
		var line string
		if err == nil {
			line, err = c.in.ReadString('\n')
		}
		if err != nil || !strings.HasPrefix(line, "250 ") {
			n.wrong = append(n.wrong, fmt.Sprintf("message %d: %q, %v", n.sent, line, err))
			return
		}
	}
	n.sent++
	n.slowest = max(n.slowest, time.Since(start))
}

func (n *neighbour) stop() {
	close(n.done)
	n.ended.Wait()
}

func (n *neighbour) check(t *testing.T) {
	if len(n.wrong) > 0 || n.sent < 20 {
		t.Fatalf("%d messages sent; %d went wrong, the first: %v", n.sent, len(n.wrong), append(n.wrong, "")[0])
	}
	t.Logf("%d messages, the slowest took %s", n.sent, n.slowest)
	if n.slowest > 10*time.Second {
		t.Errorf("the slowest message took %s", n.slowest)
	}
	for i := range n.sent {
		n.f.arrives(t, fmt.Sprintf("Subject: neighbour %d.", i), 1)
	}
	// Whatever happened to guesses from the same address, the right password opens.
	n.f.login(t, "submission")
}

// memory reads a value of /proc/PID/status, in octets.
func (f *fort) memory(t *testing.T, key string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.p.Pid()))
	if err != nil {
		t.Skip("no /proc here")
	}
	m := regexp.MustCompile(key + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no %s in\n%s", key, status)
	}
	kb, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kb << 10
}

// processorTime is what the relay has used so far, all threads together (proc(5), utime and stime in ticks of 10 ms).
func (f *fort) processorTime(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.p.Pid()))
	if err != nil {
		t.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // behind the name of the command
	fields := strings.Fields(rest)
	var ticks int64
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func (f *fort) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + f.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (f *fort) goroutines(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^go_goroutines (\d+)`).FindStringSubmatch(f.metrics(t))
	if m == nil {
		t.Fatal("no go_goroutines in /metrics")
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// checkSecrets looks for passwords wherever an operator or another user of the machine may look.
func (f *fort) checkSecrets(t *testing.T) {
	places := map[string]string{"log": f.p.Log(), "metrics": f.metrics(t),
		"trace": testkit.Run(t, "", "trace", "--json", "--limit", "100000", "--config", f.config).Text,
		"users": testkit.Run(t, "", "user", "list", "--json", "--config", f.config).Text}
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", f.p.Pid(), file))
		if err == nil {
			places[file] = string(b)
		}
	}
	for place, text := range places {
		for _, secret := range []string{annasPassword, "wrong-secret", "upstream secret",
			base64.StdEncoding.EncodeToString([]byte(annasPassword)), "AGFubmFAZXhhbXBsZS5jb20A", "$argon2"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s shows %q", place, secret)
			}
		}
	}
}

// dots are the ends of a message that are none (RFC 5321 §4.1.1.4), and what else no message may have.
var dots = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r", "\n\r.\r\n", "\r\n.\r\x00\n",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\x00\r\n.\n", "\x00", "\r", "\n",
}

// smuggled is a second message behind a false end.
const smuggled = "MAIL FROM:<anna@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nFrom: " +
	"anna@example.com\r\n\r\nsmuggled\r\n"

const first = "From: anna@example.com\r\nTo: bob@example.net\r\nSubject: first\r\n\r\nbody"

// attackData sends every false end by DATA: one clear refusal of the whole, and nothing of it is a command.
func attackData(t *testing.T, f *fort) {
	c := f.login(t, "submission")
	for i, dot := range dots {
		to := fmt.Sprintf("data%d@example.net", i)
		c.begin(to)
		c.write(first + dot + smuggled + ".\r\nNOOP\r\n")
		c.want("550 5.6.0 ", c.reply())
		c.want("250 2.0.0 OK", c.reply())
		c.want("503 5.5.1 ", c.say("RCPT TO:<victim@example.org>"))
		f.arrives(t, to, 0)
		if i%4 == 3 { // RCPT was wrong on purpose
			c = f.login(t, "submission")
		}
	}
	c = f.login(t, "submission")
	c.begin("stuffed@example.net")
	c.write(first + "\r\n..\r\n" + smuggled + ".\r\n")
	c.want("250 2.0.0 ", c.reply())
	f.arrivesWhole(t, "stuffed@example.net")
}

// arrivesWhole wants one message for an address, with the second one as text behind a dot.
func (f *fort) arrivesWhole(t *testing.T, to string) {
	t.Helper()
	if got := f.arrives(t, to, 1); !bytes.HasSuffix(got[0].Data, []byte("body\r\n.\r\n"+smuggled)) {
		t.Errorf("%s: %+v", to, got)
	}
}

// attackChunks sends the same by BDAT, whole and cut in two at every octet of the false end. In chunks
// CRLF.CRLF is text, which must not become an end on the way out.
func attackChunks(t *testing.T, f *fort) {
	c := f.login(t, "submission")
	chunk := func(last, text string) string {
		c.write(fmt.Sprintf("BDAT %d%s\r\n%s", len(text), last, text))
		return c.reply()
	}
	for i, dot := range dots {
		to := fmt.Sprintf("bdat%d@example.net", i)
		for cut := range len(dot) + 1 {
			c.want("250", c.say("MAIL FROM:<anna@example.com>"))
			c.want("250", c.say("RCPT TO:<"+to+">"))
			begun := chunk("", first+dot[:cut])
			ended := chunk(" LAST", dot[cut:]+smuggled)
			if !strings.HasPrefix(begun, "550 5.6.0") {
				c.want("250 2.0.0", begun)
				c.want("550 5.6.0", ended)
			} else {
				c.want("503 5.5.1", ended)
			}
			c.want("250 2.0.0 OK", c.say("NOOP"))
		}
		f.arrives(t, to, 0)
	}
	for cut := range len("\r\n.\r\n") + 1 {
		to := fmt.Sprintf("whole%d@example.net", cut)
		text := first + "\r\n.\r\n" + smuggled
		c.want("250", c.say("MAIL FROM:<anna@example.com>"))
		c.want("250", c.say("RCPT TO:<"+to+">"))
		c.want("250", chunk("", text[:len(first)+cut]))
		c.want("250", chunk(" LAST", text[len(first)+cut:]))
		f.arrivesWhole(t, to)
	}
}

// attackHeaders: who a message is from has one reading, and that is the login's own.
func attackHeaders(t *testing.T, f *fort) {
	own := "From: anna@example.com\r\n"
	c := f.login(t, "submission")
	for i, test := range []struct {
		name, header, want string
	}{
		{"own", own, "250"},
		{"foreign", "From: ceo@example.com\r\n", "550 5.7.1"},
		{"two From fields", own + "From: ceo@example.com\r\n", "550 5.6.0"},
		{"two From fields, the foreign one first", "FROM: ceo@example.com\r\n" + own, "550 5.6.0"},
		{"blank before the colon", own + "From : ceo@example.com\r\n", "550 5.6.0"},
		{"continuation first", " From: ceo@example.com\r\n" + own, "550 5.6.0"},
		{"blank continuation", own + "X: y\r\n \r\nFrom: ceo@example.com\r\n", "550 5.6.0"},
		{"folded in front", "From:\r\n anna@example.com\r\n", "250"},
		{"folded inside the list", "From: anna@example.com\r\n ,ceo@example.com\r\n", "550 5.7.1"},
		{"folded inside the address", "From: anna@\r\n example.com\r\n", "550 5.6.0"},
		{"folded inside the name of the field", "Fro\r\n m: ceo@example.com\r\n" + own, "550 5.6.0"},
		{"no field", "this is no field\r\n" + own, "550 5.6.0"},
		{"address in the display name", "From: \"ceo@example.net\" <anna@example.com>\r\n", "550 5.7.1"},
		{"encoded address in the display name", "From: =?utf-8?B?Y2VvQGV4YW1wbGUubmV0?= <anna@example.com>\r\n", "550"},
		{"encoded angle bracket", "From: =?utf-8?Q?ceo=40example.net=3E?= <anna@example.com>\r\n", "550"},
		{"unquoted address as name", "From: ceo@example.net <anna@example.com>\r\n", "550 5.7.1"},
		{"two addresses", "From: <anna@example.com> <ceo@example.com>\r\n", "550 5.6.0"},
		{"comment that hides", "From: anna@example.com (<ceo@example.com>)\r\n", "550 5.7.1"},
		{"empty group", "From: undisclosed recipients:;\r\n", "550 5.6.0"},
		{"group", "From: staff: anna@example.com;\r\n", "550 5.6.0"},
		{"empty", "From:\r\n", "250"},
		{"null address", "From: <>\r\n", "250"},
		{"route", "From: <@evil.example:anna@example.com>\r\n", "550 5.6.0"},
		{"foreign Sender", own + "Sender: ceo@example.com\r\n", "550 5.7.1"},
		{"two Senders", own + "Sender: anna@example.com\r\nSender: ceo@example.com\r\n", "550 5.6.0"},
		{"foreign Resent-From", own + "Resent-From: ceo@example.com\r\n", "550 5.7.1"},
		{"foreign Resent-Sender", own + "Resent-Sender: ceo@example.com\r\n", "550 5.7.1"},
		{"capitals beyond ASCII", "From: anna@EXAMPLE\u212a.com\r\n", "550 5.6.0"},
		{"wide letters", "From: anna@\uff45xample.com\r\n", "550 5.7.1"},
		{"look-alike letters", "From: \u0430nna@example.com\r\n", "550 5.7.1"},
		{"quoted part that looks like a domain", "From: \"anna@example.com\"@example.net\r\n", "550 5.6.0"},
		{"fold inside a quoted string", "From: \"x\r\n <ceo @example.net> (\"\r\n <anna@example.com>\r\n", "550 5.7.1"},
		{"missing", "To: bob@example.net\r\n", "250"},
		{"control in a field", own + "X: \x1b[2J\r\n", "550 5.6.0"},
		{"a hundred hops", own + strings.Repeat("Received: by x\r\n", 100), "250"},
		{"a hundred and one hops", own + strings.Repeat("Received: by x\r\n", 101), "554 5.4.6"},
	} {
		to := fmt.Sprintf("header%d@example.net", i)
		got := c.transact(to, test.header+"\r\nbody")
		arrives := 0
		if test.want == "250" {
			arrives = 1
		}
		if !strings.HasPrefix(got, test.want) || len(got) < 30 {
			t.Errorf("%s: got %q, want %s", test.name, got, test.want)
			continue
		}
		f.arrives(t, to, arrives)
	}
}

// attackTLS asks for less than TLS 1.2, for HTTP, and for clear text after all.
func attackTLS(t *testing.T, f *fort) {
	for name, config := range map[string]*tls.Config{
		"TLS 1.1": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, //nolint:gosec // the point
		"RC4":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}},
		"HTTP":    {NextProtos: []string{"h2", "http/1.1"}},
	} {
		for _, door := range []string{"submission", "implicit"} {
			t.Run(name+" "+door, func(t *testing.T) {
				c := f.dial(t, door)
				if door == "submission" {
					c.want("220", c.reply())
					c.want("220", c.say("STARTTLS"))
				}
				config := config.Clone()
				config.InsecureSkipVerify = true
				raw := c.conn
				if err := c.handshake(config); err == nil {
					t.Fatal("the handshake succeeded")
				}
				// No way back to clear text.
				c.conn, c.in = raw, bufio.NewReader(raw)
				if got := c.say("EHLO client.example.com"); !strings.HasSuffix(got, "closed") {
					t.Errorf("after the failed handshake: %q", got)
				}
			})
		}
	}
}

// attackLogs writes what should forge a line of the log, drive a terminal, or carry a password there.
func attackLogs(t *testing.T, f *fort) {
	plain := func(login, password string) string {
		return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+password))
	}
	c := f.dial(t, "submission")
	c.want("220", c.reply())
	c.startTLS()
	c.want("250", c.say("EHLO x\" level=ERROR msg=forged-by-helo (a; by evil"))
	c.want("501", c.say(plain("x\nlevel=ERROR msg=forged-by-login", "wrong-secret")))
	c.auth()
	c = f.dial(t, "submission")
	c.want("220", c.reply())
	c.startTLS()
	c.want("250", c.say("EHLO x\" level=ERROR msg=forged-by-helo (a; by evil"))
	c.want("501", c.say(plain("x\x1b[2J\u202e", "wrong-secret")))
	c.want("535", c.say(plain(`x" level=ERROR msg=forged-by-quote`, "wrong-secret")))
	c.auth()
	c.want("550", c.say(`MAIL FROM:<"x\" level=ERROR msg=forged-by-path"@example.com>`))
	got := c.transact("forged@example.net", "From: anna@example.com\r\nMessage-ID: <x\" level=ERROR "+
		"msg=forged-by-id>\r\n\r\nbody")
	c.want("250", got)
	c.want("550", c.transact("forged@example.net", "From: ceo@example.com\r\n\r\nbody"))
	f.p.WaitLog(`msg=accepted .*forged-by-id`)
	for line := range strings.Lines(f.p.Log()) {
		if !strings.HasPrefix(line, "time=") || strings.ContainsAny(strings.TrimSuffix(line, "\n"),
			"\x00\x1b\r\u202e") ||
			regexp.MustCompile(`^[^"]*("([^"\\]|\\.)*"[^"]*)* level=ERROR msg=forged`).MatchString(line) {
			t.Errorf("a forged line: %q", line)
		}
	}
	f.traceHas("--to forged@example.net", "forged@example.net")
	if out := testkit.Run(t, "", "trace", "--config", f.config); strings.ContainsAny(out.Text, "\x00\x1b\r\u202e") {
		t.Errorf("the trace drives a terminal: %q", out.Text)
	}
	m := f.arrives(t, "forged@example.net", 1)
	received, _, _ := strings.Cut(string(m[0].Data), "\r\nDate:")
	received = strings.ReplaceAll(received, "\r\n ", " ")
	if strings.Count(received, " by ") != 1 || strings.ContainsAny(received, "\"=") ||
		strings.Count(received, ";") != 1 {
		t.Errorf("the client wrote clauses of Received:\n%s", received)
	}
}

// attackByLeaving ends connections in the middle of transfers: nothing of them arrives.
func attackByLeaving(t *testing.T, f *fort) {
	for name, leave := range map[string]func(c *client){
		"inside DATA":                func(c *client) { c.want("354", c.say("DATA")); c.write(first) },
		"behind the false last line": func(c *client) { c.want("354", c.say("DATA")); c.write(first + "\r\n.") },
		"inside the last dot":        func(c *client) { c.want("354", c.say("DATA")); c.write(first + "\r\n.\r") },
		"inside the last chunk":      func(c *client) { c.write("BDAT 5000 LAST\r\n" + first) },
		"between chunks": func(c *client) {
			c.write(fmt.Sprintf("BDAT %d\r\n%s", len(first),
				first))
			c.want("250", c.reply())
		},
		"inside BDAT LAST": func(c *client) {
			c.write(fmt.Sprintf("BDAT %d\r\n%sBDAT 0 LA", len(first), first))
			c.want("250", c.reply())
		},
	} {
		for _, polite := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, close_notify %t", name, polite), func(t *testing.T) {
				c := f.login(t, "submission")
				raw := c.conn.(*tls.Conn).NetConn()
				c.want("250", c.say("MAIL FROM:<anna@example.com>"))
				c.want("250", c.say("RCPT TO:<left@example.net>"))
				leave(c)
				if polite {
					c.conn.(*tls.Conn).CloseWrite()
					c.want("closed", c.reply()) // the relay has seen it
				}
				raw.Close()
			})
		}
	}
	f.login(t, "submission") // and has worked on
	f.arrives(t, "left@example.net", 0)
}
