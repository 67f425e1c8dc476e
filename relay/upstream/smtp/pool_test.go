package smtp

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// serveOne speaks the least of SMTP, for tests with a fake clock, where only pipes will do.
func serveOne(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReader(nc)
	io.WriteString(nc, "220 fake\r\n")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		switch strings.ToUpper(line[:4]) {
		case "DATA":
			io.WriteString(nc, "354 go\r\n")
			for line != ".\r\n" {
				if line, err = br.ReadString('\n'); err != nil {
					return
				}
			}
		case "QUIT":
			io.WriteString(nc, "221 bye\r\n")
			return
		}
		io.WriteString(nc, "250 ok\r\n")
	}
}

// pipes makes an Upstream whose connections are pipes to serve.
func pipes(t *testing.T, serve func(net.Conn), change func(*Config)) *Upstream {
	cfg := whole(Config{TLS: upstream.TLSNone, Settings: upstream.Settings{
		Dial: func(context.Context, string, string) (net.Conn, error) {
			c, s := net.Pipe()
			go serve(s)
			return c, nil
		}}})
	if change != nil {
		change(&cfg)
	}
	return newUpstream(t, cfg)
}

func TestMaxConnections(t *testing.T) {
	fake, u := start(t, provider(), func(cfg *Config) { cfg.MaxConnections, cfg.MessagesPerConnection = 3, 7 })
	var wg sync.WaitGroup
	wake := make(chan struct{}, 100)
	u.OnChange(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	const messages = 200
	for sent := 0; sent < messages; {
		s, until := u.Reserve(time.Now(), "")
		if s == nil {
			if !until.IsZero() {
				t.Fatalf("waits until %v", until)
			}
			<-wake
			continue
		}
		sent++
		wg.Go(func() { wantClasses(t, use(s, context.Background(), message(t)), "delivered") })
	}
	wg.Wait()
	n := fake.Counts()
	if n.MostOpen > 3 {
		t.Errorf("%d connections at once", n.MostOpen)
	}
	perConn := map[int]int{}
	for _, m := range fake.Messages() {
		if perConn[m.Conn]++; perConn[m.Conn] > 7 {
			t.Fatalf("connection %d carried more than 7 messages", m.Conn)
		}
	}
	if len(fake.Messages()) != messages || n.Connections < messages/7 || n.Quits < n.Connections-3 {
		t.Errorf("%d messages, %d connections, %d QUIT", len(fake.Messages()), n.Connections, n.Quits)
	}
}

func TestIdleConnectionsSayGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quits := make(chan time.Time, 10)
		begun := time.Now()
		u := pipes(t, func(nc net.Conn) { serveOne(nc); quits <- time.Now() },
			func(cfg *Config) { cfg.IdleClose = 20 * time.Second })
		a, _ := u.Reserve(time.Now(), "")
		wantClasses(t, send(t, u, message(t)), "delivered")
		time.Sleep(10 * time.Second)
		wantClasses(t, use(a, context.Background(), message(t)), "delivered") // a second connection, ten seconds later
		if st := state(u); st.Idle != 2 {
			t.Fatalf("state %+v", st)
		}
		if at := (<-quits).Sub(begun); at != 20*time.Second {
			t.Errorf("the first was closed after %v", at)
		}
		if at := (<-quits).Sub(begun); at != 30*time.Second {
			t.Errorf("the second was closed after %v", at)
		}
		synctest.Wait()
		if st := state(u); st.Idle != 0 || st.Closing != 0 {
			t.Errorf("state %+v", st)
		}
		wantClasses(t, send(t, u, message(t)), "delivered")
	})
}

func TestOldConnectionsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		served := 0
		u := pipes(t, func(nc net.Conn) { served++; serveOne(nc) },
			func(cfg *Config) { cfg.MaxAge, cfg.IdleClose = time.Minute, time.Hour })
		for range 4 {
			wantClasses(t, send(t, u, message(t)), "delivered")
			time.Sleep(25 * time.Second)
		}
		synctest.Wait()
		if served != 2 {
			t.Errorf("%d connections in 75 s with an age of 60 s", served)
		}
	})
}

// A connection that has carried its share does not lie about until it is idle for long.
func TestSpentConnectionsAreClosedAtOnce(t *testing.T) {
	_, u := start(t, provider(), func(cfg *Config) { cfg.MessagesPerConnection = 2 })
	send(t, u, message(t))
	if st := state(u); st.Idle != 1 {
		t.Errorf("state %+v", st)
	}
	send(t, u, message(t))
	if st := state(u); st.Idle != 0 {
		t.Errorf("state %+v", st)
	}
}

// The newest connection is used first, so that those that are not needed get idle and close.
func TestPoolIsAStack(t *testing.T) {
	fake, u := start(t, provider(), nil)
	a, _ := u.Reserve(time.Now(), "")
	b, _ := u.Reserve(time.Now(), "")
	use(a, t.Context(), message(t))
	use(b, t.Context(), message(t))
	for range 5 {
		send(t, u, message(t))
	}
	for _, m := range fake.Messages()[2:] {
		if m.Conn != 2 {
			t.Errorf("message on connection %d", m.Conn)
		}
	}
}

// A pooled connection that ended while it was idle is replaced and nobody's fault.
func TestStaleConnections(t *testing.T) {
	for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING")} {
		// Closed while idle, found out before anything is sent.
		fc := provider()
		fc.Extensions = ext
		fake, u := start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		fake.DropAll()
		r := send(t, u, message(t))
		wantClasses(t, r, "delivered")
		if r[0].Uncertain || len(fake.Messages()) != 2 {
			t.Errorf("%v: uncertain=%v, %d messages", ext, r[0].Uncertain, len(fake.Messages()))
		}

		// Says 421 in answer to MAIL: it did not look at the message.
		fc.Hook = hookOn("MAIL", 2, fakesmtp.Action{Reply: "421 4.4.2 idle for too long"})
		fake, u = start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		r = send(t, u, message(t))
		wantClasses(t, r, "delivered")
		if r[0].Uncertain || fake.Counts().Connections != 2 || len(fake.Messages()) != 2 {
			t.Errorf("%v: uncertain=%v, %+v", ext, r[0].Uncertain, fake.Counts())
		}

		// Has forgotten that we are logged in.
		fc.Hook = hookOn("MAIL", 2, fakesmtp.Action{Reply: "530 5.7.0 authentication required"})
		fake, u = start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		wantClasses(t, send(t, u, message(t)), "delivered")
		if fake.Counts().Logins != 2 || len(fake.Messages()) != 2 {
			t.Errorf("%v: %d logins, %d messages", ext, fake.Counts().Logins, len(fake.Messages()))
		}

		// Ends between our look and our flight. With the whole message on its way that is not certain.
		fc.Hook = hookOn("MAIL", 2, fakesmtp.Action{Drop: true})
		fake, u = start(t, fc, nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		r = send(t, u, message(t))
		wantClasses(t, r, "delivered")
		if whole := len(ext) == len(fakesmtp.Full); r[0].Uncertain != whole || len(fake.Messages()) != 2 {
			t.Errorf("%v: uncertain=%v, %d messages", ext, r[0].Uncertain, len(fake.Messages()))
		}
		if st := state(u); st.Status != upstream.Ready {
			t.Errorf("%v: identity is %s", ext, st.Status)
		}
	}
}

func TestFarewellWhileIdle(t *testing.T) {
	var mu sync.Mutex
	var idle *fakesmtp.Session
	fc := provider()
	fc.Hook = func(s *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		mu.Lock()
		defer mu.Unlock()
		if verb == fakesmtp.Chunk && idle == nil {
			idle = s
			return fakesmtp.Action{Reply: "250 2.0.0 taken", Flush: true}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t)), "delivered")
	mu.Lock()
	idle.Say("421 4.4.2 idle for too long")
	mu.Unlock()
	r := send(t, u, message(t))
	wantClasses(t, r, "delivered")
	if r[0].Uncertain || fake.Counts().Connections != 2 {
		t.Errorf("uncertain=%v, %d connections", r[0].Uncertain, fake.Counts().Connections)
	}
}

// A fresh connection that breaks is not replaced: that would be hammering.
func TestFreshConnectionIsNotRetried(t *testing.T) {
	fc := provider()
	fc.Hook = hookOn("MAIL", 0, fakesmtp.Action{Drop: true})
	fake, u := start(t, fc, nil)
	r := send(t, u, message(t))[0]
	if r.Class.Permanent() || !r.Uncertain || fake.Counts().Connections != 1 {
		t.Errorf("got %s uncertain=%v, %d connections", r.Class, r.Uncertain, fake.Counts().Connections)
	}
}

// A message that cannot be written is not with the upstream, and that is certain.
func TestWriteFails(t *testing.T) {
	for verb, reply := range map[string]string{"RCPT": "250 ok\r\n", "DATA": "354 go\r\n"} {
		u := pipes(t, func(nc net.Conn) {
			br := bufio.NewReader(nc)
			io.WriteString(nc, "220 fake\r\n")
			for {
				line, err := br.ReadString('\n')
				if err != nil || strings.HasPrefix(line, verb) {
					io.WriteString(nc, reply)
					nc.Close()
					return
				}
				io.WriteString(nc, "250 ok\r\n")
			}
		}, nil)
		r := send(t, u, message(t))[0]
		if r.Class != mail.Deferral || r.Uncertain || !strings.Contains(r.Reply.Text, "closed the connection") {
			t.Errorf("%s: got %s uncertain=%v: %s (%v)", verb, r.Class, r.Uncertain, r.Reply, r.Err)
		}
	}
}

func TestCloseWaitsAndSaysGoodbye(t *testing.T) {
	fake, u := start(t, provider(), nil)
	a, _ := u.Reserve(time.Now(), "")
	send(t, u, message(t)) // leaves one idle
	done := make(chan error)
	go func() { done <- u.Close(context.Background()) }()
	for state := u.States(); len(state) > 0 && state[0].Idle > 0; state = u.States() {
	}
	if s, until := u.Reserve(time.Now(), ""); s != nil || !until.IsZero() {
		t.Error("a place after Close")
	}
	select {
	case <-done:
		t.Fatal("Close did not wait for a send")
	default:
	}
	wantClasses(t, use(a, t.Context(), message(t)), "delivered")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := fake.Counts(); n.Quits != 2 {
		t.Errorf("%d QUIT of 2 connections", n.Quits)
	}
}

func TestCloseCutsOffAtTheDeadline(t *testing.T) {
	fc := provider()
	stalled := make(chan struct{})
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == fakesmtp.Chunk {
			close(stalled)
			return fakesmtp.Action{Stall: true}
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	sent := make(chan string)
	s, _ := u.Reserve(time.Now(), "")
	go func() { sent <- classes(use(s, context.Background(), message(t))) }()
	<-stalled
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := u.Close(ctx); err == nil {
		t.Error("no error though a send was cut off")
	}
	if got := <-sent; got != "deferral" {
		t.Errorf("got %s", got)
	}
}

// A connection that waits in its slot, while the store does not answer, is closed when another node may have the slot;
// one that is used is not.
func TestWaitingConnectionEndsWithItsSlot(t *testing.T) {
	for _, used := range []bool{false, true} {
		fake, u := start(t, provider(), nil)
		wantClasses(t, send(t, u, message(t)), "delivered")
		reserved, _ := u.Reserve(time.Now(), "")
		s := reserved.(*slot)
		term, over := context.WithCancel(t.Context())
		s.waits(func(f func()) func() bool { return context.AfterFunc(term, f) })
		if used {
			s.hold()
			over()
		} else {
			over()
			s.left.Wait()
		}
		if open := fake.Counts().Open; (open == 1) != used {
			t.Errorf("used: %v, %d connections are open", used, open)
		}
		wantClasses(t, s.Send(t.Context(), message(t)), "delivered")
		s.Release()
		want := 2
		if used {
			want = 1
		}
		if n := fake.Counts().Connections; n != want {
			t.Errorf("used: %v, %d connections, want %d", used, n, want)
		}
	}
}
