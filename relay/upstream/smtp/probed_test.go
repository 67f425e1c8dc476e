package smtp

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/upstream"
)

// A dead upstream is probed, not hammered: in a day of constant demand it is dialled about once a quarter of an hour.
func TestDeadUpstreamIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		var wakes atomic.Int64
		u := newUpstream(t, Config{TLS: upstream.TLSNone, Settings: upstream.Settings{
			Dial: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				return nil, &net.OpError{Op: "dial", Err: errno.Refused}
			}}})
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
		if st := state(u); st.Status != upstream.BackingOff || st.Failures < 90 {
			t.Errorf("state %+v", st)
		}
	})
}
