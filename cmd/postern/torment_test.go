package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/smtp"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/internal/periodic"
	"postern/internal/testkit"
)

// tormentor is an upstream that offers more than it takes and breaks off where that hurts. It never refuses mail for
// good, but the null reverse-path.
type tormentor struct {
	mu         sync.Mutex
	rnd        *rand.Rand
	unanswered map[string]bool // recipients of messages that were taken without a word: once for each
	calm       bool
}

func (u *tormentor) hook(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.rnd.IntN(100)
	switch {
	case strings.HasPrefix(line, "MAIL FROM:<>"):
		return fakesmtp.Action{Reply: "550 5.7.1 who are you?"}
	case verb == "RCPT" && n < 5 && !u.calm:
		return fakesmtp.Action{Reply: "451 4.3.0 not now"}
	case verb == "BDAT" && n < 50:
		return fakesmtp.Action{Reply: "502 5.5.1 not implemented"}
	case verb == fakesmtp.Content, verb == fakesmtp.Chunk && strings.HasSuffix(line, " LAST"):
		return u.end(s, n)
	}
	return fakesmtp.Action{}
}

func (u *tormentor) end(s *fakesmtp.Session, n int) fakesmtp.Action {
	var to []string
	for _, line := range s.Message().To { // none where the transaction was refused
		to = append(to, pathOf(line))
	}
	switch {
	case u.calm || len(to) == 0:
	case n < 10 && !slices.ContainsFunc(to, func(r string) bool { return u.unanswered[r] }):
		for _, r := range to {
			u.unanswered[r] = true
		}
		s.Take()
		return fakesmtp.Action{Drop: true}
	case n < 20:
		s.Take()
		return fakesmtp.Action{Reply: "250 2.0.0 taken\n421 4.3.2 enough for today", Drop: true}
	case n < 30:
		return fakesmtp.Action{Reply: "451 4.3.0 later"}
	case n < 35:
		return fakesmtp.Action{Drop: true}
	}
	return fakesmtp.Action{}
}

// pathOf is the address between < and >.
func pathOf(line string) string {
	_, path, _ := strings.Cut(line, "<")
	path, _, _ = strings.Cut(path, ">")
	return path
}

// claimed is what a client was told.
type claimed struct {
	mu       sync.Mutex
	seq      int
	accepted map[string]string // body by recipient
	refused  []string
	wait     func() // before each message; nil: nobody waits
}

// body of every third message is one long line.
func (c *claimed) next() (to []string, from, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	to = []string{fmt.Sprintf("n%d-a@example.net", c.seq)}
	if c.seq%4 == 0 {
		to = append(to, fmt.Sprintf("n%d-b@example.net", c.seq))
	}
	if from = "anna@example.com"; c.seq%5 == 0 {
		from = ""
	}
	if body = fmt.Sprintf("number %d\r\n", c.seq); c.seq%3 == 0 {
		body = strings.Repeat("=.x ", 600+c.seq) + body
	}
	return to, from, body
}

// login opens a session.
func (o *office) login() (*smtp.Client, error) {
	conn, err := net.Dial("tcp", o.address)
	if err != nil {
		return nil, err
	}
	client, err := smtp.NewClient(conn, "localhost")
	if err == nil {
		err = client.StartTLS(o.ca.Client("localhost"))
	}
	if err == nil {
		err = client.Auth(smtp.PlainAuth("", "anna@example.com", "a chosen password", "localhost"))
	}
	if err != nil {
		conn.Close()
	}
	return client, err
}

// torment sends until the connection breaks, or until it is enough.
func (c *claimed) torment(o *office, enough context.Context) {
	client, err := o.login()
	if err != nil {
		return
	}
	defer client.Close()
	for enough.Err() == nil {
		if c.wait != nil {
			c.wait()
		}
		to, from, body := c.next()
		err := submit(client, from, to, "From: anna@example.com\r\nSubject: x\r\n\r\n"+body)
		reply, answered := errors.AsType[*textproto.Error](err)
		c.mu.Lock()
		switch {
		case err == nil:
			for _, r := range to {
				c.accepted[r] = body
			}
		case answered && reply.Code >= 500:
			c.refused = append(c.refused, err.Error())
		}
		c.mu.Unlock()
		if err != nil && !answered || answered && client.Reset() != nil {
			return
		}
		if answered { // it is to come later
			_ = periodic.Sleep(enough, 10*time.Millisecond)
		}
	}
}

func submit(c *smtp.Client, from string, to []string, message string) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, r := range to {
		if err := c.Rcpt(r); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, message); err != nil {
		return err
	}
	return w.Close()
}

// TestTormentedAndKilled: promises 1 and 2 against everything at once, with mail that has to be changed on its way.
func TestTormentedAndKilled(t *testing.T) {
	const kills, connections = 10, 4
	o := &office{t: t, dir: t.TempDir(), ca: testkit.NewCA(t)}
	cert := o.ca.Leaf(testkit.LeafOptions{})
	u := &tormentor{rnd: rand.New(rand.NewPCG(1, 2)), unanswered: map[string]bool{}}
	fake := fakesmtp.New(fakesmtp.Config{TLS: cert.Server(), Extensions: fakesmtp.Full, Mechanisms: []string{"PLAIN"},
		Users: map[string]string{"relay": "upstream secret"}, Hook: u.hook})
	port, err := fake.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	o.open(cert, "1s", strconv.Itoa(port), fmt.Sprintf("max_connections = %d\n", connections))
	s := &siege{office: o}
	c := &claimed{accepted: map[string]string{}}
	p := s.start()
	for i := range kills {
		killed, kill := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range connections {
			clients.Go(func() {
				for killed.Err() == nil {
					c.torment(o, killed)
				}
			})
		}
		until := len(fake.Messages()) + 10 + 7*i%30
		o.until(fmt.Sprintf("the upstream has %d messages", until),
			func() bool { return len(fake.Messages()) >= until })
		kill()
		p.Kill()
		clients.Wait()
		p = s.start()
	}
	u.mu.Lock()
	u.calm = true
	u.mu.Unlock()
	o.until("an empty queue", func() bool {
		testkit.Run(t, "", "queue", "retry", "--all", "--config", o.config)
		return strings.Contains(testkit.Run(t, "", "queue", "list", "--config", o.config).Text, "The queue is empty.")
	})
	p.Stop()
	u.judge(t, c, fake.Messages(), kills*connections)
}

// judge compares what came with what was accepted. Beside what was taken without a word, so many may have come twice as
// were under way at a kill.
func (u *tormentor) judge(t *testing.T, c *claimed, came []fakesmtp.Message, most int) {
	t.Helper()
	arrived := map[string]int{}
	for _, m := range came {
		body := bodyOf(t, m.Data)
		for _, line := range m.To {
			to := pathOf(line)
			arrived[to]++
			if want, ok := c.accepted[to]; ok && body != want {
				t.Errorf("%s got %.100q", to, body)
			}
			if !strings.HasPrefix(to, "n") {
				t.Errorf("a report that nobody is owed: %s", m.Data)
			}
		}
	}
	twice := map[string]bool{}
	for to, n := range arrived {
		if n > 1 && !u.unanswered[to] {
			message, _, _ := strings.Cut(to, "-")
			twice[message] = true
		}
	}
	for to := range c.accepted {
		if arrived[to] == 0 {
			t.Errorf("%s is lost", to)
		}
	}
	t.Logf("%d messages, %d recipients accepted, %d arrived, %d taken without a word, %d twice by kills", c.seq,
		len(c.accepted), len(arrived), len(u.unanswered), len(twice))
	if len(c.accepted) < 50 || len(c.refused) > 0 || len(twice) > most {
		t.Errorf("%d accepted; refused: %v; twice, of which %d may be: %v", len(c.accepted), c.refused, most, twice)
	}
}

func bodyOf(t *testing.T, data []byte) string {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v: %.200q", err, data)
	}
	r := m.Body
	if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		r = quotedprintable.NewReader(r)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
