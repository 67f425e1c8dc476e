package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const fromAnna = "From: anna@example.com\r\n"

// filler is a field, and folded one more line of it.
var (
	filler = "X-Filler: " + strings.Repeat("x", 900) + "\r\n"
	folded = " " + strings.Repeat("y", 900) + "\r\n"
)

// headerBombs are messages with headers that are too much: 10 MB, 20 000 fields, one field of 1 MB.
var headerBombs = map[string]string{
	"10 MB":                fromAnna + strings.Repeat(filler, 11000) + "\r\nbody",
	"10 MB without an end": fromAnna + strings.Repeat(filler, 11000),
	"20 000 fields":        fromAnna + strings.Repeat("A: b\r\n", 20000) + "\r\nbody",
	"a field of 1 MB":      fromAnna + "Subject: x\r\n" + strings.Repeat(folded, 1100) + "\r\nbody",
	// no blank line
	"200 KB of mailboxes": "From: anna@example.com" + strings.Repeat(",\r\n anna@example.com", 10000) + "\r\nbody",
	"200 KB of quotes": "From: " + strings.Repeat(strings.Repeat(`"\"" `, 150)+"\r\n ", 260) +
		"\" <anna@example.com>\r\n\r\nbody",
	"200 KB of at signs": "From: \"" + strings.Repeat(strings.Repeat("a@b.c ", 150)+"\r\n ", 230) +
		"\" <anna@example.com>\r\n\r\nbody",
	"200 KB of parentheses": "From: anna@example.com " + strings.Repeat(strings.Repeat("(", 900)+"\r\n ", 230) +
		"\r\n\r\nbody",
}

// bomb sends one of them and wants it refused.
func (c *client) bomb(name string) {
	c.t.Helper()
	if got := c.transact("bomb@example.net", headerBombs[name]); !strings.HasPrefix(got, "550 5.") &&
		!strings.HasPrefix(got, "552 5.3.4") {
		c.t.Errorf("%s: %q", name, got)
	}
}

// costOfHeaders sends each bomb alone: none takes the relay more work than its octets are worth. Processor time is
// measured, not the clock's, for what else the machine does is not the relay's.
func costOfHeaders(t *testing.T, f *fort) {
	c := f.login(t, "submission")
	for name := range headerBombs {
		before := f.processorTime(t)
		c.bomb(name)
		took := f.processorTime(t) - before
		t.Logf("%s: %s of processor time", name, took)
		if took > 3*time.Second { // twenty times what the worst takes under the race detector
			t.Errorf("%s took %s of processor time", name, took)
		}
	}
}

// attackWithHeaders sends them one after the other, and what is too much behind and beside a header.
func attackWithHeaders(t *testing.T, f *fort) {
	c := f.login(t, "submission")
	for name := range headerBombs {
		c.bomb(name)
	}
	c.begin("line@example.net")
	c.write(fromAnna + "\r\n" + strings.Repeat("z", 4<<20) + "\r\n.\r\n") // one line, which is encoded
	c.want("250 2.0.0 ", c.reply())
	c.begin("bomb@example.net")
	c.write(fromAnna + "\r\n" + strings.Repeat("z", 4<<20) + "\x00\r\n.\r\n")
	c.want("550 5.6.0 ", c.reply())
	c.begin("bomb@example.net")
	c.write(fromAnna + "\r\n" + strings.Repeat(filler, 14000) + ".\r\n") // over max_message_size
	c.want("552 5.3.4 ", c.reply())
	f.arrives(t, "bomb@example.net", 0)
	f.arrives(t, "line@example.net", 1)
}

// attackWithRecipients names 100 000 in one transaction: 100 are taken, the others told to wait.
func attackWithRecipients(t *testing.T, f *fort) {
	c := f.login(t, "submission")
	c.want("250", c.say("MAIL FROM:<anna@example.com>"))
	const count = 100_000
	go func() {
		w := bufio.NewWriterSize(c.conn, 32<<10)
		for i := range count {
			fmt.Fprintf(w, "RCPT TO:<many%d@example.net>\r\n", i)
		}
		w.Flush()
	}()
	taken, refused := 0, 0
	for range count {
		switch got := c.reply(); {
		case strings.HasPrefix(got, "250 2.1.5"):
			taken++
		case strings.HasPrefix(got, "452 4.5.3"):
			refused++
		default:
			t.Fatalf("after %d: %q", taken+refused, got)
		}
	}
	if taken != 1000 || refused != count-1000 { // the default of max_recipients
		t.Errorf("%d taken, %d refused", taken, refused)
	}
	c.want("354", c.say("DATA"))
	c.want("250", c.say(first+"\r\n."))
	if got := f.arrives(t, "many99@example.net", 1); len(got[0].Recipients) != 100 {
		t.Errorf("for %d recipients", len(got[0].Recipients))
	}
}

// dripEvery is between two octets of a drip; never less, whatever else the machine does.
const dripEvery = 50 * time.Millisecond

// drip sends text an octet at a time, far below any rate, until the other side has had enough. What it returns ends
// that and tells how many octets were sent.
func (c *client) drip(text string) (done func() (sent int)) {
	var wg sync.WaitGroup
	stop, sent := make(chan struct{}), 0
	wg.Go(func() {
		tick := time.NewTicker(dripEvery)
		defer tick.Stop()
		for ; sent < len(text); sent++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if c.write(text[sent:sent+1]) != nil {
				return
			}
		}
	})
	return func() int { close(stop); wg.Wait(); return sent }
}

// attackSlowly sends octet by octet in every phase: nobody holds a connection that way.
func attackSlowly(t *testing.T, f *fort) {
	long := strings.Repeat("x", 500)
	for name, begin := range map[string]func(t *testing.T) (*client, string, string){
		"command before TLS": func(t *testing.T) (*client, string, string) {
			c := f.dial(t, "hasty")
			c.want("220", c.reply())
			return c, "EHLO " + long, "421 4.4.2 "
		},
		"handshake": func(t *testing.T) (*client, string, string) {
			c := f.dial(t, "hasty")
			c.want("220", c.reply())
			c.want("220", c.say("STARTTLS"))
			return c, "\x16\x03\x01\x02\x00" + long, "closed"
		},
		"handshake first": func(t *testing.T) (*client, string, string) {
			return f.dial(t, "implicit"), "\x16\x03\x01\x02\x00" + long, "closed"
		},
		"command after login": func(t *testing.T) (*client, string, string) {
			return f.login(t, "hasty"), "NOOP " + long, "421 4.4.2 "
		},
		"message": func(t *testing.T) (*client, string, string) {
			c := f.login(t, "hasty")
			c.begin("slow@example.net")
			return c, first + "\r\n" + long, "421 4.4.2 "
		},
		"chunk": func(t *testing.T) (*client, string, string) {
			c := f.login(t, "hasty")
			c.want("250", c.say("MAIL FROM:<anna@example.com>"))
			c.want("250", c.say("RCPT TO:<slow@example.net>"))
			c.write("BDAT 400 LAST\r\n")
			return c, first + "\r\n" + long, "421 4.4.2 "
		},
		"password": func(t *testing.T) (*client, string, string) {
			c := f.dial(t, "hasty")
			c.want("220", c.reply())
			c.startTLS()
			c.want("250", c.say("EHLO client.example.com"))
			c.want("334", c.say("AUTH LOGIN"))
			return c, long, "421 4.4.2 "
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, text, want := begin(t)
			stop := c.drip(text)
			got := c.reply()
			// By the octets that got through it took no more than ten seconds, and the end was not what ended it.
			if sent := stop(); !strings.HasPrefix(got, want) || sent > int(10*time.Second/dripEvery) ||
				sent == len(text) {
				t.Errorf("got %q after %d octets, want %q", got, sent, want)
			}
		})
	}
}

// attackByWaiting holds a thousand connections and does nothing with them.
func attackByWaiting(t *testing.T, f *fort) {
	const count = 1000
	before := f.memory(t, "VmRSS")
	var all sync.WaitGroup
	turn := make(chan int)
	failed := make(chan error, count)
	conns := make([]net.Conn, count)
	for range 16 {
		all.Go(func() {
			for i := range turn {
				var err error
				if conns[i], err = f.idle(); err != nil {
					failed <- err
				}
			}
		})
	}
	for i := range count {
		turn <- i
	}
	close(turn)
	all.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	if len(failed) > 0 {
		t.Fatalf("%d of %d could not wait: %v", len(failed), count, <-failed)
	}
	m := regexp.MustCompile(`postern_connections\{listener="submission"\} (\d+)`).FindStringSubmatch(f.metrics(t))
	if m == nil || len(m[1]) < 4 {
		t.Errorf("connections now: %v, want at least %d", m, count)
	}
	t.Logf("memory grew by %d KiB for each", (f.memory(t, "VmRSS")-before)>>10/count)
	// The thousand and first is served.
	f.login(t, "submission")
}

// idle opens a connection, half of the way to a login.
func (f *fort) idle() (net.Conn, error) {
	conn, err := net.Dial("tcp", f.doors["submission"])
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	in := bufio.NewReader(conn)
	if _, err = in.ReadString('\n'); err == nil {
		_, err = io.WriteString(conn, "STARTTLS\r\n")
	}
	if err == nil {
		_, err = in.ReadString('\n')
	}
	if err != nil {
		return conn, err
	}
	tc := tls.Client(conn, f.ca.Client("localhost"))
	return conn, tc.Handshake()
}

// attackConnections takes all places of an address.
func attackConnections(t *testing.T, f *fort) {
	held := []*client{f.dial(t, "narrow"), f.dial(t, "narrow")}
	for _, c := range held {
		c.want("220", c.reply())
	}
	for range 5 {
		c := f.dial(t, "narrow")
		c.want("421 4.7.0 too many connections", c.reply())
		c.want("closed", c.reply())
	}
	held[0].conn.Close()
	f.until("the place is free again", func() bool {
		c := f.dial(t, "narrow")
		return strings.HasPrefix(c.reply(), "220")
	})
}

// attackDeaf sends commands and never reads: replies are not gathered without bound.
func attackDeaf(t *testing.T, f *fort) {
	c := f.login(t, "hasty")
	c.conn.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4096)
	c.write("MAIL FROM:<anna@example.com>\r\n")
	batch := strings.Repeat("RCPT TO:<deaf@example.net>\r\n", 1000) // no other command has that many replies
	for range 2000 {
		err := c.write(batch)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Fatal("the relay waits for a client that reads nothing")
		}
		if err != nil {
			return // it has closed
		}
	}
	t.Error("2 000 000 commands were taken from a client that reads nothing")
}
