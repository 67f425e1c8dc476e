package smtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
	"postern/relay/upstream/account/accounttest"
)

// wantBrokenOff checks that the upstream does not have the message, that nobody is blamed, and that the way is free.
func wantBrokenOff(t *testing.T, what string, had int, fake *fakesmtp.Server, u *Upstream, r mail.Result) {
	t.Helper()
	if r.Class != mail.Deferral || r.Uncertain || r.Reply != upstream.ReplyLease ||
		!errors.Is(r.Err, upstream.ErrLease) {
		t.Errorf("%s: got %s uncertain=%v: %s (%v)", what, r.Class, r.Uncertain, r.Reply, r.Err)
	}
	if n := len(fake.Messages()) - had; n != 0 {
		t.Errorf("%s: %d messages were taken", what, n)
	}
	if state(u).Status != upstream.Ready {
		t.Errorf("%s: the upstream is %s", what, state(u).Status)
	}
	wantClasses(t, send(t, u, message(t)), "delivered")
	if n := len(fake.Messages()) - had; n != 1 {
		t.Errorf("%s: %d messages after the next one", what, n)
	}
}

// Whatever way a message goes, its end is not sent when the lease has run out meanwhile.
func TestNoEndWithoutLease(t *testing.T) {
	for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("CHUNKING"), fakesmtp.Without("PIPELINING")} {
		for _, size := range []int{1 << 10, 300 << 10, 3 << 20} {
			big := large(size)
			for _, content := range []mail.Content{mail.BytesContent(big), &stream{data: big, size: int64(len(big))}} {
				fc := provider()
				fc.Extensions = ext
				fake, u := start(t, fc, nil)
				wantClasses(t, send(t, u, message(t)), "delivered") // the connection is pooled
				var looks atomic.Int32
				tr := message(t)
				tr.Content = content
				tr.Left = func() time.Duration {
					if looks.Add(1) == 1 { // before anything is asked
						return 5 * time.Minute
					}
					return 59 * time.Second
				}
				wantBrokenOff(t, fmt.Sprint(size, ext), 1, fake, u, send(t, u, tr)[0])
				if looks.Load() < 2 {
					t.Error("nobody looked at the lease behind the beginning")
				}
			}
		}
	}
}

// until is a lease that ends then.
func until(end time.Time) func() time.Duration {
	return func() time.Duration { return time.Until(end) }
}

func TestLeaseRunsOutOnTheWay(t *testing.T) {
	pause := func(verb string) func(*fakesmtp.Session, string, string) fakesmtp.Action {
		var once atomic.Bool
		return func(_ *fakesmtp.Session, v, _ string) fakesmtp.Action {
			if v == verb && once.CompareAndSwap(false, true) {
				time.Sleep(100 * time.Second)
			}
			return fakesmtp.Action{}
		}
	}
	for _, verb := range []string{"EHLO", "MAIL", "RCPT", "DATA"} {
		synctest.Test(t, func(t *testing.T) {
			fc := provider()
			fc.TLS, fc.Extensions, fc.Hook = nil, fakesmtp.Without("CHUNKING"), pause(verb)
			fake, u := startPiped(t, fc, nil)
			tr := message(t)
			tr.Left = until(time.Now().Add(150 * time.Second))
			wantBrokenOff(t, verb, 0, fake, u, send(t, u, tr)[0])
		})
	}
	// with CHUNKING a message that is small goes at once, and the lease held when it went
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS, fc.Hook = nil, pause("BDAT")
		fake, u := startPiped(t, fc, nil)
		tr := message(t)
		tr.Left = until(time.Now().Add(70 * time.Second))
		wantClasses(t, send(t, u, tr), "delivered")
		if n := len(fake.Messages()); n != 1 {
			t.Errorf("%d messages", n)
		}
	})
	// one that is extended meanwhile holds
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS, fc.Extensions, fc.Hook = nil, fakesmtp.Without("CHUNKING"), pause("DATA")
		fake, u := startPiped(t, fc, nil)
		end := time.Now().Add(150 * time.Second)
		tr := message(t)
		tr.Left = func() time.Duration {
			if time.Until(end) < 2*time.Minute {
				end = time.Now().Add(5 * time.Minute)
			}
			return time.Until(end)
		}
		wantClasses(t, send(t, u, tr), "delivered")
		if n := len(fake.Messages()); n != 1 {
			t.Errorf("%d messages", n)
		}
	})
}

// A write that completes the message does not go on when the lease has run out while it waited for the upstream.
func TestLastWriteEndsWithTheLease(t *testing.T) {
	for verb, size := range map[string]int{"BDAT": 140 << 10, "DATA": 90 << 10} { // the last block is too much
		synctest.Test(t, func(t *testing.T) {
			deaf := make(chan struct{})
			fc := provider()
			fc.TLS = nil
			action := fakesmtp.Action{Deaf: deaf}
			if verb == "DATA" {
				fc.Extensions, action.Reply = fakesmtp.Without("CHUNKING"), "354 go ahead"
			}
			fc.Hook = hookOn(verb, 1, action)
			fake, u := startPiped(t, fc, nil)
			tr := message(t)
			tr.Content = mail.BytesContent("Subject: x\r\n\r\n" + strings.Repeat("line\r\n", size/6))
			tr.Left = until(time.Now().Add(90 * time.Second))
			begun := time.Now()
			r := send(t, u, tr)[0]
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("%s: it went on for %v", verb, took)
			}
			close(deaf)
			wantBrokenOff(t, verb, 0, fake, u, r)
		})
	}
}

// A network that seems to have failed while we were stopped is no reason to pause the upstream.
func TestLeaseExcusesTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped atomic.Bool
		fc := provider()
		fc.TLS = nil
		fake, u := startPiped(t, fc, func(c *Config) {
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if stopped.CompareAndSwap(false, true) {
					time.Sleep(10 * time.Minute)
					return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
				}
				return dial(ctx, network, address)
			}
		})
		tr := message(t)
		tr.Left = until(time.Now().Add(5 * time.Minute))
		wantBrokenOff(t, "dial", 0, fake, u, send(t, u, tr)[0])
	})
}

// What is written stays written: behind the end the answer counts, whatever became of the lease.
func TestLeaseBehindTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fc := provider()
		fc.TLS = nil
		fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
			if verb == fakesmtp.Chunk {
				time.Sleep(8 * time.Minute)
				return fakesmtp.Action{Drop: true}
			}
			return fakesmtp.Action{}
		}
		_, u := startPiped(t, fc, nil)
		tr := message(t)
		tr.Left = until(time.Now().Add(5 * time.Minute))
		if r := send(t, u, tr)[0]; r.Class != mail.Deferral || !r.Uncertain || errors.Is(r.Err, upstream.ErrLease) {
			t.Errorf("got %s uncertain=%v: %s (%v)", r.Class, r.Uncertain, r.Reply, r.Err)
		}
	})
}

// An upstream that is silent, or does not read, keeps no connection open behind the lease of its slot. A message that
// it has whole may have been taken.
func TestSendEndsWithTheSlot(t *testing.T) {
	for _, at := range []string{"EHLO", "AUTH", "MAIL", "RCPT", "DATA", fakesmtp.Chunk, "deaf"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fc, silent := provider(), make(chan struct{})
				fc.TLS = nil
				if at != fakesmtp.Chunk && at != "deaf" { // the message is not sent ahead
					fc.Extensions = fakesmtp.Without("CHUNKING", "PIPELINING")
				}
				database := accounttest.New(0)
				sharing := account.NewSharing(database, "a", slog.New(slog.DiscardHandler))
				go sharing.Run(t.Context())
				fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
					switch {
					case at == "deaf" && verb == "BDAT":
						database.Set(accounttest.Away)
						return fakesmtp.Action{Deaf: silent}
					case verb == at:
						database.Set(accounttest.Away)
						<-silent
					}
					return fakesmtp.Action{}
				}
				fake, u := startPiped(t, fc, func(c *Config) { c.Sharing = sharing })
				synctest.Wait()
				tr := message(t)
				if at == "deaf" {
					tr.Content = mail.BytesContent("Subject: x\r\n\r\n" + strings.Repeat("line\r\n", 1<<20))
				}
				began := time.Now()
				r := send(t, u, tr)[0]
				if took := time.Since(began); took < 20*time.Second || took > 38*time.Second {
					t.Errorf("it ended after %s, when another node may have the slot", took)
				}
				if r.Class != mail.Deferral || r.Uncertain != (at == fakesmtp.Chunk) {
					t.Errorf("got %s uncertain=%v: %s (%v)", r.Class, r.Uncertain, r.Reply, r.Err)
				}
				close(silent)
				synctest.Wait()
				if n := fake.Counts().Open; n != 0 {
					t.Errorf("%d connections are open", n)
				}
			})
		})
	}
}

// Nothing is said to the upstream any more, and above all nobody logs in, when the slot is over by the clock.
func TestNothingIsSaidWithoutSlot(t *testing.T) {
	for _, at := range []string{"", fakesmtp.Connect, "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			slept := &accounttest.Stood{Context: ctx}
			slept.Over.Store(at == "")
			fc := provider()
			fc.Extensions = fakesmtp.Without("PIPELINING", "CHUNKING")
			var said []string
			fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
				if slept.Over.Load() {
					said = append(said, verb)
				}
				if verb == at {
					slept.Over.Store(true)
				}
				return fakesmtp.Action{}
			}
			fake, u := start(t, fc, nil)
			r := sendCtx(t, slept, u, message(t))[0]
			if r.Class != mail.Deferral || r.Uncertain {
				t.Errorf("got %s uncertain=%v: %s (%v)", r.Class, r.Uncertain, r.Reply, r.Err)
			}
			if dialled := fake.Counts().Connections > 0; dialled != (at != "") {
				t.Errorf("dialled: %v", dialled)
			}
			if state(u).Status != upstream.Ready {
				t.Errorf("the upstream is %s", state(u).Status)
			}
			u.Close(t.Context())
			fake.Close()
			if len(said) > 0 {
				t.Errorf("it said %q", said)
			}
		})
	}
}

// An upstream lets go of who stood still. That is no news of the account, which other nodes go on with.
func TestNobodyIsBlamedWithoutSlot(t *testing.T) {
	for _, at := range []string{fakesmtp.Connect, "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA"} {
		for _, does := range []fakesmtp.Action{{Drop: true}, {Reply: "421 4.4.2 idle too long", Drop: true},
			{Reply: "221 2.0.0 bye", Drop: true}, {Reply: "220 what?"}} {
			t.Run(fmt.Sprintf("%s %+v", at, does), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				slept := &accounttest.Stood{Context: ctx}
				fc := provider()
				fc.Extensions = fakesmtp.Without("PIPELINING", "CHUNKING")
				fc.Hook = func(_ *fakesmtp.Session, verb, _ string) fakesmtp.Action {
					if verb != at {
						return fakesmtp.Action{}
					}
					slept.Over.Store(true)
					return does
				}
				_, u := start(t, fc, nil)
				r := sendCtx(t, slept, u, message(t))[0]
				if r.Class != mail.Deferral || r.Uncertain || state(u).Status != upstream.Ready {
					t.Errorf("got %s uncertain=%v: %s (%v); the upstream is %s", r.Class, r.Uncertain, r.Reply, r.Err,
						state(u).Status)
				}
			})
		}
	}
}
