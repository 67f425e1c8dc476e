package upstream

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
)

var epoch = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// A dead upstream is probed, not hammered: in a day of constant demand it is dialled about once a quarter of an hour.
func TestDeadUpstreamIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		var wakes atomic.Int64
		u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone, Jitter: func() float64 { return 0.5 },
			Dial: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}})
		wake := make(chan struct{}, 1)
		u.OnChange(func() {
			wakes.Add(1)
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		day := time.Now().Add(24 * time.Hour)
		for time.Now().Before(day) {
			s, until := u.Reserve(time.Now(), "")
			if s == nil {
				if until.IsZero() {
					t.Fatal("busy without a probe")
				}
				<-wake // OnChange alone must bring us back
				continue
			}
			r := use(s, context.Background(), message(t))
			wantClasses(t, r, "back-pressure")
			if r[0].Stage != mail.StageConnect || r[0].Reply.Enhanced != "4.4.1" {
				t.Fatalf("result %+v", r[0])
			}
		}
		if n := dials.Load(); n < 90 || n > 110 {
			t.Errorf("%d dials in a day", n)
		}
		if st := state(u); st.Status != BackingOff || st.Failures < 90 {
			t.Errorf("state %+v", st)
		}
	})
}

func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := true
		u := newUpstream(t, Config{Name: "office", Host: "mx.example.com", TLS: TLSNone,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				if fail {
					return nil, errors.New("no route")
				}
				c, s := net.Pipe()
				go serveOne(s)
				return c, nil
			}})
		send(t, u, message(t))
		if s, until := u.Reserve(time.Now(), ""); s != nil || until.IsZero() {
			t.Fatal("admitted while backing off")
		}
		time.Sleep(6 * time.Second) // the fake clock's
		fail = false
		probe, _ := u.Reserve(time.Now(), "")
		if probe == nil {
			t.Fatal("no probe after the wait")
		}
		if s, until := u.Reserve(time.Now(), ""); s != nil || !until.IsZero() {
			t.Fatalf("a second one beside the probe: %v %v", s, until)
		}
		if st := state(u); !st.Probing {
			t.Errorf("state %+v", st)
		}
		probe.Release() // unused: another may probe
		if probe, _ = u.Reserve(time.Now(), ""); probe == nil {
			t.Fatal("a released probe blocks the next")
		}
		wantClasses(t, use(probe, context.Background(), message(t)), "delivered")
		if st := state(u); st.Status != Ready {
			t.Errorf("state %+v", st)
		}
		a, _ := u.Reserve(time.Now(), "")
		b, _ := u.Reserve(time.Now(), "")
		if a == nil || b == nil {
			t.Fatal("not open after success")
		}
		a.Release()
		b.Release()
	})
}
