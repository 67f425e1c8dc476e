package smtp

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/replies"
)

func TestDeliveredByteForByte(t *testing.T) {
	prefix := []byte("DKIM-Signature: v=1; d=example.com\r\n")
	contents := map[string]mail.Content{
		"small":        mail.BytesContent(letter),
		"small stream": &stream{data: letter, size: int64(len(letter))},
		"large":        mail.BytesContent(large(700 << 10)),
	}
	big := large(1200 << 10)
	contents["large stream"] = &stream{data: big, size: int64(len(big))}
	for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING"), nil} {
		for _, mode := range []string{upstream.TLSStartTLS, upstream.TLSImplicit, upstream.TLSNone} {
			fc := provider()
			fc.Extensions = ext
			fc.Implicit = mode == upstream.TLSImplicit
			if mode == upstream.TLSNone {
				fc.TLS = nil
			}
			fake, u := start(t, fc, nil)
			for name, content := range contents {
				tr := message(t, "bob@example.net", "carol@example.net")
				tr.Content = content
				tr.Prefix = func(context.Context) ([]byte, error) { return prefix, nil }
				results := send(t, u, tr)
				if got := classes(results); got != "delivered delivered" {
					t.Fatalf("%v %s %s: %s: %v", ext, mode, name, got, results[0])
				}
				if results[0].Reply.Text != "taken" || results[0].Reply.Enhanced != "2.0.0" ||
					results[0].Stage != mail.StageDot {
					t.Errorf("%v %s %s: reply %+v", ext, mode, name, results[0])
				}
				got := fake.Messages()[len(fake.Messages())-1]
				r, _ := content.Open()
				var want bytes.Buffer
				want.Write(prefix)
				want.ReadFrom(r)
				if !bytes.Equal(got.Data, want.Bytes()) {
					t.Errorf("%v %s %s: %d octets arrived, %d were sent, or they differ", ext, mode, name,
						len(got.Data), want.Len())
				}
				if len(got.To) != 2 || !strings.HasPrefix(got.From, "FROM:<alice@example.com>") {
					t.Errorf("envelope %s -> %v", got.From, got.To)
				}
			}
			if n := fake.Counts(); n.Connections != 1 || n.Resets != 0 {
				t.Errorf("%v %s: %d connections, %d RSET for %d good messages", ext, mode, n.Connections, n.Resets,
					len(contents))
			}
		}
	}
}

// The whole transaction is one flight: the fake answers nothing before it has all of it.
func TestOneFlight(t *testing.T) {
	fake, u := start(t, provider(), nil)
	wantClasses(t, send(t, u, message(t)), "delivered")
	before := fake.Counts().Flights
	for range 5 {
		wantClasses(t, send(t, u, message(t, "bob@example.net", "carol@example.net", "dave@example.net")),
			"delivered delivered delivered")
	}
	if n := fake.Counts().Flights - before; n != 5 {
		t.Errorf("5 messages took %d flights", n)
	}
}

func TestFlightsWithoutChunking(t *testing.T) {
	for _, c := range []struct {
		ext  []string
		want int
	}{
		{fakesmtp.Without("CHUNKING"), 2},           // commands, message
		{fakesmtp.Without("PIPELINING"), 1 + 2 + 2}, // MAIL, RCPT, RCPT, DATA, message
	} {
		fc := provider()
		fc.Extensions = c.ext
		fake, u := start(t, fc, nil)
		send(t, u, message(t))
		before := fake.Counts().Flights
		wantClasses(t, send(t, u, message(t, "bob@example.net", "carol@example.net")), "delivered delivered")
		if n := fake.Counts().Flights - before; n != c.want {
			t.Errorf("%v: %d flights, want %d", c.ext, n, c.want)
		}
	}
}

// refusals is what an upstream may answer, and whose matter that is.
var refusals = []struct {
	name, verb, reply string
	class             mail.Class
	stage             mail.Stage
	status            upstream.Status
	chunkless         bool // makes sense only without CHUNKING
}{
	{"busy greeting", fakesmtp.Connect, "421 4.7.0 too many connections", mail.BackPressure, mail.StageGreeting,
		upstream.BackingOff, false},
	{"4yz greeting", fakesmtp.Connect, "450 4.3.2 not now", mail.BackPressure, mail.StageGreeting, upstream.BackingOff,
		false},
	{"5yz greeting", fakesmtp.Connect, "554 5.7.1 no service for you", mail.AccountFault, mail.StageGreeting,
		upstream.Paused, false},
	{"5yz EHLO", "EHLO", "550 5.7.1 go away", mail.AccountFault, mail.StageEHLO, upstream.Paused, false},
	{"4yz EHLO", "EHLO", "450 4.7.1 later", mail.BackPressure, mail.StageEHLO, upstream.BackingOff, false},
	{"4yz STARTTLS", "STARTTLS", "454 4.7.0 TLS not available now", mail.BackPressure, mail.StageTLS,
		upstream.BackingOff, false},
	{"5yz STARTTLS", "STARTTLS", "502 5.5.1 not implemented", mail.AccountFault, mail.StageTLS, upstream.Paused, false},
	{"4yz AUTH", "AUTH", "454 4.7.0 temporary authentication failure", mail.BackPressure, mail.StageAuth,
		upstream.BackingOff, false},
	{"5yz AUTH", "AUTH", "535 5.7.8 wrong", mail.AccountFault, mail.StageAuth, upstream.Paused, false},
	{"421 AUTH", "AUTH", "421 4.7.0 slow down", mail.BackPressure, mail.StageAuth, upstream.BackingOff, false},
	{"4yz MAIL", "MAIL", "451 4.7.1 greylisted", mail.Deferral, mail.StageMail, upstream.Ready, false},
	{"5yz MAIL", "MAIL", "550 5.1.8 bad sender", mail.MessageFault, mail.StageMail, upstream.Ready, false},
	{"421 MAIL", "MAIL", "421 4.3.2 closing", mail.BackPressure, mail.StageMail, upstream.BackingOff, false},
	{"530 MAIL", "MAIL", "530 5.7.0 authentication required", mail.AccountFault, mail.StageMail, upstream.Paused,
		false},
	{"432 MAIL", "MAIL", "432 4.3.2 sender thread limit exceeded", mail.BackPressure, mail.StageMail,
		upstream.BackingOff, false},
	{"4yz RCPT", "RCPT", "450 4.2.0 greylisted", mail.Deferral, mail.StageRcpt, upstream.Ready, false},
	{"452 RCPT alone", "RCPT", "452 4.5.3 too many recipients", mail.Deferral, mail.StageRcpt, upstream.Ready, false},
	{"5yz RCPT", "RCPT", "550 5.1.1 no such user", mail.RecipientFault, mail.StageRcpt, upstream.Ready, false},
	{"421 RCPT", "RCPT", "421 4.3.2 closing", mail.BackPressure, mail.StageRcpt, upstream.BackingOff, false},
	{"4yz DATA", "DATA", "451 4.3.0 not now", mail.Deferral, mail.StageData, upstream.Ready, true},
	{"5yz DATA", "DATA", "554 5.7.1 no", mail.MessageFault, mail.StageData, upstream.Ready, true},
	{"421 DATA", "DATA", "421 4.3.2 closing", mail.BackPressure, mail.StageData, upstream.BackingOff, true},
	{"250 DATA", "DATA", "250 2.0.0 what?", mail.Deferral, mail.StageData, upstream.Ready, true},
	{"4yz dot", fakesmtp.Content, "452 4.3.1 disk full", mail.Deferral, mail.StageDot, upstream.Ready, true},
	{"5yz dot", fakesmtp.Content, "554 5.7.1 spam", mail.MessageFault, mail.StageDot, upstream.Ready, true},
	{"4yz chunk", fakesmtp.Chunk, "452 4.3.1 disk full", mail.Deferral, mail.StageDot, upstream.Ready, false},
	{"5yz chunk", fakesmtp.Chunk, "554 5.7.1 spam", mail.MessageFault, mail.StageDot, upstream.Ready, false},
	{"552 chunk", fakesmtp.Chunk, "552 5.3.4 too big", mail.MessageFault, mail.StageDot, upstream.Ready, false},
	{"421 chunk", fakesmtp.Chunk, "421 4.3.2 closing", mail.BackPressure, mail.StageDot, upstream.BackingOff, false},
	{"354 chunk", fakesmtp.Chunk, "354 what?", mail.Deferral, mail.StageDot, upstream.Ready, false},
}

func TestRefusals(t *testing.T) {
	for _, c := range refusals {
		for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING")} {
			chunks := slices.Contains(ext, "CHUNKING") && slices.Contains(ext, "PIPELINING")
			if c.chunkless && chunks || c.verb == fakesmtp.Chunk && !chunks {
				continue
			}
			fc := provider()
			fc.Extensions = ext
			fc.Hook = hookOn(c.verb, 1, fakesmtp.Action{Reply: c.reply})
			fake, u := start(t, fc, nil)
			r := send(t, u, message(t))[0]
			if r.Class != c.class || r.Stage != c.stage || !strings.HasPrefix(r.Reply.String(), c.reply[:3]) &&
				c.reply[0] >= '4' || r.Uncertain {
				t.Errorf("%s %v: got %s at %s: %s (%v)", c.name, ext, r.Class, r.Stage, r.Reply, r.Err)
			}
			if r.Verbatim != (r.Err == nil && c.reply[0] >= '4') || r.Verbatim && r.SaidBy() != r.Host {
				t.Errorf("%s %v: the words %q are those of %q, verbatim %v", c.name, ext, r.Reply, r.SaidBy(),
					r.Verbatim)
			}
			if s := state(u); s.Status != c.status {
				t.Errorf("%s: identity is %s, want %s", c.name, s.Status, c.status)
			}
			if len(fake.Messages()) != 0 {
				t.Errorf("%s: a message was taken", c.name)
			}
			if c.status != upstream.Ready {
				continue
			}
			// The next message goes through, whatever state the connection is in.
			wantClasses(t, send(t, u, message(t)), "delivered")
			if len(fake.Messages()) != 1 {
				t.Errorf("%s: %d messages taken", c.name, len(fake.Messages()))
			}
		}
	}
}

// After a failed transaction RSET travels with the next flight.
func TestResetCostsNoFlight(t *testing.T) {
	fc := provider()
	fc.Hook = hookOn(fakesmtp.Chunk, 1, fakesmtp.Action{Reply: "451 4.3.0 later"})
	fake, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t)), "deferral")
	before := fake.Counts().Flights
	wantClasses(t, send(t, u, message(t)), "delivered")
	n := fake.Counts()
	if n.Resets != 1 || n.Connections != 1 || n.Flights-before != 1 {
		t.Errorf("%d RSET, %d connections, %d flights", n.Resets, n.Connections, n.Flights-before)
	}
}

func TestPartialRecipients(t *testing.T) {
	for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING")} {
		fc := provider()
		fc.Extensions = ext
		fc.Hook = func(_ *fakesmtp.Session, verb, line string) fakesmtp.Action {
			switch {
			case verb != "RCPT":
			case strings.Contains(line, "nobody"):
				return fakesmtp.Action{Reply: "550 5.1.1 no such user"}
			case strings.Contains(line, "grey"):
				return fakesmtp.Action{Reply: "450 4.2.0 later"}
			}
			return fakesmtp.Action{}
		}
		fake, u := start(t, fc, nil)
		r := send(t, u, message(t, "bob@example.net", "nobody@example.net", "grey@example.net", "carol@example.net"))
		wantClasses(t, r, "delivered recipient-fault deferral delivered")
		if r[1].Reply.String() != "550 5.1.1 no such user" || r[1].Stage != mail.StageRcpt {
			t.Errorf("result %+v", r[1])
		}
		wantClasses(t, send(t, u, message(t, "nobody@example.net", "nobody2@example.net")),
			"recipient-fault recipient-fault")
		wantClasses(t, send(t, u, message(t)), "delivered")
		if n := fake.Counts(); n.Connections != 1 || len(fake.Messages()) != 2 {
			t.Errorf("%v: %d connections, %d messages", ext, n.Connections, len(fake.Messages()))
		}
		if m := fake.Messages()[0]; len(m.To) != 2 {
			t.Errorf("recipients %v", m.To)
		}
	}
}

// A server that answers DATA with 354 though it took nobody gets an end of data and no message (RFC 2920 §3.1).
func TestDataWithoutRecipients(t *testing.T) {
	fc := provider()
	fc.Extensions = fakesmtp.Without("CHUNKING")
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		switch verb {
		case "RCPT":
			return fakesmtp.Action{Reply: "550 5.1.1 no such user", Also: true} // it keeps the recipient, wrongly
		case fakesmtp.Content:
			return fakesmtp.Action{Reply: "554 5.5.1 no valid recipients"}
		}
		return fakesmtp.Action{}
	}
	fake, u := start(t, fc, nil)
	fc2 := send(t, u, message(t))
	wantClasses(t, fc2, "recipient-fault")
	for _, m := range fake.Messages() {
		t.Errorf("taken: %q", m.Data)
	}
}

func TestLostConnections(t *testing.T) {
	cases := []struct {
		name      string
		verb      string
		action    fakesmtp.Action
		class     mail.Class
		uncertain bool
	}{
		{"drop at connect", fakesmtp.Connect, fakesmtp.Action{Drop: true}, mail.BackPressure, false},
		{"drop at EHLO", "EHLO", fakesmtp.Action{Drop: true}, mail.BackPressure, false},
		{"drop at STARTTLS", "STARTTLS", fakesmtp.Action{Drop: true}, mail.BackPressure, false},
		{"drop at AUTH", "AUTH", fakesmtp.Action{Drop: true}, mail.BackPressure, false},
		{"reset at AUTH", "AUTH", fakesmtp.Action{Reset: true}, mail.BackPressure, false},
		{"drop at DATA", "DATA", fakesmtp.Action{Drop: true}, mail.Deferral, false},
		{"drop after the dot", fakesmtp.Content, fakesmtp.Action{Drop: true}, mail.Deferral, true},
		{"drop after the chunk", fakesmtp.Chunk, fakesmtp.Action{Drop: true}, mail.Deferral, true},
		{"reset after the chunk", fakesmtp.Chunk, fakesmtp.Action{Reset: true}, mail.Deferral, true},
		{"garbage greeting", fakesmtp.Connect, fakesmtp.Action{Reply: "SSH-2.0-OpenSSH_9.2"}, mail.BackPressure, false},
		{"endless line", "EHLO", fakesmtp.Action{Reply: "250 " + strings.Repeat("x", 100_000)}, mail.BackPressure,
			false},
		{"endless reply", "EHLO", fakesmtp.Action{Reply: strings.Repeat("250-x\n", 5000) + "250 x"}, mail.BackPressure,
			false},
		{"codes that differ", "EHLO", fakesmtp.Action{Reply: "250-a\n251 b"}, mail.BackPressure, false},
		{"garbage after the dot", fakesmtp.Content, fakesmtp.Action{Reply: "what?"}, mail.Deferral, true},
		{"unasked reply before MAIL", "AUTH", fakesmtp.Action{Reply: "235 2.7.0 ok\n250 2.0.0 for you"}, mail.Deferral,
			false},
	}
	for _, c := range cases {
		fc := provider()
		if c.verb == "DATA" || c.verb == fakesmtp.Content {
			fc.Extensions = fakesmtp.Without("CHUNKING")
		}
		fc.Hook = hookOn(c.verb, 1, c.action)
		_, u := start(t, fc, nil)
		r := send(t, u, message(t))[0]
		if r.Class != c.class || r.Uncertain != c.uncertain || !r.Reply.Temporary() {
			t.Errorf("%s: got %s uncertain=%v: %s (%v)", c.name, r.Class, r.Uncertain, r.Reply, r.Err)
		}
		if r.Verbatim || r.SaidBy() != "" {
			t.Errorf("%s: %q passes for the upstream's words", c.name, r.Reply)
		}
		if c.class == mail.Deferral {
			wantClasses(t, send(t, u, message(t)), "delivered")
		}
	}
}

// A reply too many makes the last one worthless: it may have been meant for a command before.
func TestTooManyReplies(t *testing.T) {
	fc := provider()
	fc.Hook = hookOn("MAIL", 1, fakesmtp.Action{Reply: "250 2.1.0 ok", Also: true})
	_, u := start(t, fc, nil)
	r := send(t, u, message(t))[0]
	if r.Class != mail.Deferral || !r.Uncertain {
		t.Errorf("got %s uncertain=%v: %s", r.Class, r.Uncertain, r.Reply)
	}
	if s := state(u); s.Idle != 0 {
		t.Error("a connection out of step went back to the pool")
	}
}

func TestFewReplies(t *testing.T) {
	fc := provider()
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "RCPT" {
			return fakesmtp.Action{Flush: true, Reply: " "} // not even a code
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	wantClasses(t, send(t, u, message(t)), "deferral")
}

// Silence at any stage ends with its own time-out, and not before.
func TestStalls(t *testing.T) {
	each := timeouts(func(t *Timeouts) {
		t.TLS, t.Greeting, t.Command, t.Mail = 1*time.Second, 2*time.Second, 3*time.Second, 4*time.Second
		t.Rcpt, t.DataInit, t.DataDone = 5*time.Second, 6*time.Second, 7*time.Second
	})
	for _, c := range []struct {
		verb      string
		class     mail.Class
		stage     mail.Stage
		uncertain bool
		after     time.Duration
	}{
		{fakesmtp.Connect, mail.BackPressure, mail.StageGreeting, false, each.Greeting},
		{"EHLO", mail.BackPressure, mail.StageEHLO, false, each.Command},
		{"STARTTLS", mail.BackPressure, mail.StageTLS, false, each.Command},
		{"AUTH", mail.BackPressure, mail.StageAuth, false, each.Command},
		{"MAIL", mail.Deferral, mail.StageMail, true, each.Mail}, // the message is in the same flight
		{"RCPT", mail.Deferral, mail.StageRcpt, true, each.Rcpt},
		{fakesmtp.Chunk, mail.Deferral, mail.StageDot, true, each.DataDone},
		{"DATA", mail.Deferral, mail.StageData, false, each.DataInit},
		{fakesmtp.Content, mail.Deferral, mail.StageDot, true, each.DataDone},
	} {
		synctest.Test(t, func(t *testing.T) {
			fc := provider()
			if c.verb == "DATA" || c.verb == fakesmtp.Content {
				fc.Extensions = fakesmtp.Without("CHUNKING")
			}
			fc.Hook = hookOn(c.verb, 1, fakesmtp.Action{Stall: true})
			_, u := startPiped(t, fc, func(cfg *Config) { cfg.Timeouts = each })
			begun := time.Now()
			r := send(t, u, message(t))[0]
			if r.Class != c.class || r.Stage != c.stage || r.Uncertain != c.uncertain ||
				!strings.Contains(r.Reply.Text, "in time") {
				t.Errorf("%s: got %s at %s uncertain=%v: %s", c.verb, r.Class, r.Stage, r.Uncertain, r.Reply)
			}
			if took := time.Since(begun); took != c.after {
				t.Errorf("%s: took %v, want %v", c.verb, took, c.after)
			}
		})
	}
}

// A handshake that the upstream does not answer ends in time as well.
func TestStalledHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.Hook = hookOn("STARTTLS", 1, fakesmtp.Action{Reply: "220 2.0.0 go ahead", Stall: true})
		_, u := startPiped(t, fc, func(cfg *Config) { cfg.Timeouts.TLS = time.Second })
		begun := time.Now()
		r := send(t, u, message(t))[0]
		if r.Class != mail.BackPressure || r.Stage != mail.StageTLS || time.Since(begun) != time.Second {
			t.Errorf("got %s at %s after %v: %s", r.Class, r.Stage, time.Since(begun), r.Reply)
		}
	})
}

func TestPrefixErrorDefers(t *testing.T) {
	fake, u := start(t, provider(), nil)
	tr := message(t, "bob@example.net", "carol@example.net")
	tr.Prefix = func(context.Context) ([]byte, error) { return nil, errors.New("key cannot be read") }
	r := send(t, u, tr)
	wantClasses(t, r, "deferral deferral")
	if r[0].Stage != mail.StageSign || r[0].Err == nil || strings.Contains(r[0].Reply.Text, "key") {
		t.Errorf("result %+v", r[0])
	}
	for _, l := range fake.Log() {
		if strings.HasPrefix(l, "MAIL") {
			t.Error("MAIL was sent without a signature")
		}
	}
	if s := state(u); s.Idle != 1 || s.Status != upstream.Ready {
		t.Errorf("state %+v", s)
	}
}

// What EHLO rules out is answered without asking, with the code that says why.
func TestWhatTheUpstreamCannotTake(t *testing.T) {
	tests := []struct {
		name   string
		ext    []string
		change func(*upstream.Transaction)
		want   string
		reply  string
	}{
		{"size", append(fakesmtp.Without("SIZE"), "SIZE 20"), nil, "message-fault message-fault", "552 5.3.4"},
		{"size without number", append(fakesmtp.Without("SIZE"), "SIZE"), nil, "delivered delivered", "250"},
		{"size zero", append(fakesmtp.Without("SIZE"), "SIZE 0"), nil, "delivered delivered", "250"},
		{"eight bit", fakesmtp.Without("8BITMIME"), func(tr *upstream.Transaction) {
			tr.EightBit, tr.Content = true,
				eightBitLetter
		}, "message-fault message-fault", "554 5.6.3"},
		{"declared only", fakesmtp.Without("8BITMIME"), func(tr *upstream.Transaction) { tr.EightBit = true },
			"delivered delivered", "250"},
		{"header", fakesmtp.Without("SMTPUTF8"), func(tr *upstream.Transaction) {
			tr.EightBit, tr.Content = true,
				utf8Letter
		}, "message-fault message-fault", "550 5.6.7"},
		{"sender", fakesmtp.Without("SMTPUTF8"), func(tr *upstream.Transaction) {
			tr.From = address(t,
				"é@example.com")
		}, "message-fault message-fault", "550 5.6.7"},
		{"recipient", fakesmtp.Without("SMTPUTF8"), func(tr *upstream.Transaction) {
			tr.Recipients[0].To = address(t,
				"é@example.net")
		}, "recipient-fault delivered", "553 5.6.7"},
	}
	for _, c := range tests {
		fc := provider()
		fc.Extensions = c.ext
		_, u := start(t, fc, nil)
		tr := message(t, "bob@example.net", "carol@example.net")
		if c.change != nil {
			c.change(&tr)
		}
		r := send(t, u, tr)
		if classes(r) != c.want || !strings.HasPrefix(r[0].Reply.String(), c.reply) {
			t.Errorf("%s: got %s: %s", c.name, classes(r), r[0].Reply)
		}
		if r[0].Verbatim != (r[0].Class == mail.Delivered) {
			t.Errorf("%s: verbatim is %v of %q", c.name, r[0].Verbatim, r[0].Reply)
		}
		if s := state(u); s.Idle != 1 {
			t.Errorf("%s: the connection was lost", c.name)
		}
	}
}

func TestParameters(t *testing.T) {
	tr := message(t, "bob@example.net", "é@example.net")
	tr.Content = eightBitLetter
	tr.EightBit, tr.Ret, tr.EnvID = true, mail.RetHeaders, "a+b=c d"
	tr.Recipients[0].Notify, tr.Recipients[0].ORcpt = mail.NotifySuccess|mail.NotifyDelay, "rfc822;Bob+x@example.org"
	tr.Recipients[1].Notify, tr.Recipients[1].ORcpt = mail.NotifyNever, "utf-8;é+@example.net"

	fake, u := start(t, provider(), nil)
	r := send(t, u, tr)
	wantClasses(t, r, "delivered delivered")
	if !r[0].RelayedDSN || !r[1].RelayedDSN {
		t.Error("RelayedDSN is not set")
	}
	m := fake.Messages()[0]
	want := []string{
		"FROM:<alice@example.com> SIZE=57 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc+20d",
		"TO:<bob@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@example.org",
		`TO:<é@example.net> NOTIFY=NEVER ORCPT=utf-8;\x{E9}\x{2B}@example.net`,
	}
	if got := append([]string{m.From}, m.To...); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	fc := provider()
	fc.Extensions = []string{"PIPELINING", "8BITMIME", "SMTPUTF8"}
	fake, u = start(t, fc, nil)
	if r = send(t, u, tr); r[0].RelayedDSN {
		t.Error("RelayedDSN without DSN")
	}
	m = fake.Messages()[0]
	want = []string{"FROM:<alice@example.com> BODY=8BITMIME SMTPUTF8", "TO:<bob@example.net>", "TO:<é@example.net>"}
	if got := append([]string{m.From}, m.To...); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}

	tr = message(t)
	tr.From = mail.Address{}
	tr.Recipients[0].To = mail.Address{Local: `we"ird x`, Domain: "example.net"}
	send(t, u, tr)
	m = fake.Messages()[1]
	if m.From != "FROM:<>" || m.To[0] != `TO:<"we\"ird x"@example.net>` {
		t.Errorf("got %q %q", m.From, m.To)
	}
}

func TestCancelBeforeTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	fc := provider()
	fc.Extensions = fakesmtp.Without("CHUNKING")
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "DATA" {
			cancel()
			return fakesmtp.Action{Stall: true}
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	r := sendCtx(t, ctx, u, message(t))[0]
	if r.Class != mail.Deferral || r.Uncertain || !errors.Is(r.Err, context.Canceled) {
		t.Errorf("got %+v", r)
	}
	if s := state(u); s.Status != upstream.Ready {
		t.Errorf("our own shutting down made the identity %s", s.Status)
	}
}

func TestCancelBehindTheEndWaitsForTheReply(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fc := provider()
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == fakesmtp.Chunk {
			cancel()
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	wantClasses(t, sendCtx(t, ctx, u, message(t)), "delivered")
}

func TestCancelWhileConnecting(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	fc := provider()
	fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
		if verb == "EHLO" {
			cancel()
			return fakesmtp.Action{Stall: true}
		}
		return fakesmtp.Action{}
	}
	_, u := start(t, fc, nil)
	r := sendCtx(t, ctx, u, message(t))[0]
	if r.Class != mail.Deferral || state(u).Status != upstream.Ready {
		t.Errorf("got %s, identity %s", r.Class, state(u).Status)
	}
}

// The result names the rule that decided, and says so when there was none.
func TestResultsNameTheirRule(t *testing.T) {
	for _, c := range []struct{ reply, class, rule, note string }{
		{"571 5.0.0 not today", "message-fault", mail.RuleNone, noteNoRule},
		{"554 5.7.1 looks like spam", "message-fault", "policy", ""},
		{"451 4.3.0 later", "deferral", "later", ""},
		{"554 5.2.252 SendAsDenied; a not allowed to send as b", "account-fault", "send-as", noteSender},
	} {
		fc := provider()
		fc.Hook = hookOn(fakesmtp.Chunk, 0, fakesmtp.Action{Reply: c.reply})
		_, u := start(t, fc, func(cfg *Config) {
			cfg.Rules = []replies.Rule{{Name: "send-as", Stages: atMail, Text: "SendAsDenied", Class: mail.AccountFault,
				Scope: replies.ScopeSender, RetryAfter: time.Hour}}
		})
		r := send(t, u, message(t))
		wantClasses(t, r, c.class)
		if r[0].Rule != c.rule || r[0].Note != c.note {
			t.Errorf("%s: rule %q, note %q", c.reply, r[0].Rule, r[0].Note)
		}
		if st := state(u); st.Status != upstream.Ready {
			t.Errorf("%s: identity is %s", c.reply, st.Status)
		}
	}
	// Trouble without a reply has no rule.
	fc := provider()
	fc.Hook = hookOn(fakesmtp.Chunk, 0, fakesmtp.Action{Drop: true})
	_, u := start(t, fc, nil)
	if r := send(t, u, message(t)); r[0].Rule != "" || r[0].Note != "" {
		t.Errorf("rule %q, note %q", r[0].Rule, r[0].Note)
	}
}
