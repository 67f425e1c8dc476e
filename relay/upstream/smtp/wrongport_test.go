package smtp

import (
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

// TestWrongPort: a port and tls that do not fit are told with what to write, in a test within seconds.
func TestWrongPort(t *testing.T) {
	trial := upstream.Trial{Limit: 10 * time.Second, Total: 30 * time.Second}
	run := func(fc fakesmtp.Config, mode string) upstream.Step {
		t.Helper()
		_, u := start(t, fc, func(cfg *Config) { cfg.TLS, cfg.Timeouts.Silence = mode, time.Millisecond })
		steps := u.TestSenders(t.Context(), trial)
		return steps[len(steps)-1]
	}
	implicit := provider()
	implicit.Implicit = true
	for _, mode := range []string{upstream.TLSStartTLS, upstream.TLSNone} {
		s := run(implicit, mode)
		if s.OK || s.Name != "greeting" || !strings.Contains(s.Cause,
			`this port speaks TLS from the first byte: write tls = "implicit"`) {
			t.Errorf("%s against an implicit port: %+v", mode, s)
		}
	}
	if s := run(provider(), upstream.TLSImplicit); s.OK || s.Name != "tls" ||
		!strings.Contains(s.Cause, `greets in clear text: write tls = "starttls"`) {
		t.Errorf("implicit against STARTTLS: %+v", s)
	}
	for greeting, want := range map[string]string{
		"* OK IMAP4rev1 ready": "speaks IMAP on port", "+OK POP3": "speaks POP3 on port",
		"SSH-2.0-OpenSSH_9.2": "speaks SSH on port",
	} {
		for _, mode := range []string{upstream.TLSStartTLS, upstream.TLSImplicit} {
			fc := provider()
			fc.Hook = hookOn(fakesmtp.Connect, 0, fakesmtp.Action{Reply: greeting})
			if s := run(fc, mode); s.OK || !strings.Contains(s.Cause, want) {
				t.Errorf("%q with tls = %s: %+v", greeting, mode, s)
			}
		}
	}
}

// A delivery finds it out as well, and waits for a person: nobody would know from a server that is silent for five
// minutes.
func TestWrongPortPauses(t *testing.T) {
	fc := provider()
	fc.Implicit = true
	fake, u := start(t, fc, func(cfg *Config) {
		cfg.TLS, cfg.Timeouts.Silence = upstream.TLSStartTLS,
			time.Millisecond
	})
	r := send(t, u, message(t))[0]
	if r.Class != mail.AccountFault || !strings.Contains(r.Reply.Text, `write tls = "implicit"`) ||
		state(u).Status != upstream.Paused {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
	noSecret(t, fake)
}

// A server that is silent and speaks no TLS either has its full time.
func TestSlowGreeting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan struct{}, 8)
	go func() {
		first, err := l.Accept()
		if err != nil {
			return
		}
		defer first.Close()
		second, err := l.Accept() // the question whether TLS is spoken: it is not
		if err != nil {
			return
		}
		second.Close()
		asked <- struct{}{}
		first.Write([]byte("220 late\r\n"))
		buf := make([]byte, 100)
		first.Read(buf) // EHLO
	}()
	address := l.Addr().(*net.TCPAddr)
	u := newUpstream(t, Config{Host: "127.0.0.1", Port: address.Port, TLS: upstream.TLSNone,
		Timeouts: timeouts(func(t *Timeouts) { t.Silence = time.Millisecond })})
	var seen []string
	trial := upstream.Trial{Begin: func(name string) { seen = append(seen, "begin "+name) },
		Done: func(s upstream.Step) { seen = append(seen, s.Name) }}
	steps := u.TestSenders(t.Context(), trial)
	<-asked
	if len(steps) < 4 || !steps[2].OK || steps[2].Seen != "late" {
		t.Errorf("%+v", steps)
	}
	if got := strings.Join(seen, ", "); !strings.HasPrefix(got,
		"begin resolve, resolve, begin connect, connect, begin greeting, greeting, begin ehlo") {
		t.Errorf("told: %s", got)
	}
}
