package queue_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

var (
	lost = mail.Result{Class: mail.Deferral, Uncertain: true, Stage: mail.StageDot,
		Reply: mail.R(451, "4.4.2", "closed the connection; the message may have been sent"), Upstream: "office"}
	// on a second connection
	again = mail.Result{Class: mail.MessageFault, Uncertain: true, Stage: mail.StageDot,
		Reply: mail.R(554, "5.6.0", "no"), Upstream: "office"}
	refusal  = mail.Result{Class: mail.MessageFault, Stage: mail.StageDot, Reply: mail.R(554, "5.6.0", "no")}
	longWait = 5 * time.Minute
)

// An upstream that never says whether it has the message gets three copies, far apart, and its sender is told what is
// known.
func TestUncertainAttemptsAreBounded(t *testing.T) {
	for name, end := range map[string]mail.Result{"never": lost, "in the end": delivered} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, nil)
				var times []time.Time // of attempts, which follow each other
				w.up.setAnswer(func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result {
					if m.ID != "M1" { // the report
						return results(m, delivered)
					}
					times = append(times, time.Now())
					if len(times) == queue.MaxDoubts {
						return results(m, end)
					}
					return results(m, lost)
				})
				w.stock(message("M1", "anna"))
				w.q.Wake()
				sleep(24 * time.Hour)
				w.wantGone("M1")
				if len(times) != queue.MaxDoubts {
					t.Fatalf("%d attempts", len(times))
				}
				for i := 1; i < len(times); i++ {
					if wait := times[i].Sub(times[i-1]); wait < longWait || i > 1 &&
						wait <= times[i-1].Sub(times[i-2]) {
						t.Errorf("attempts at %v", times)
					}
				}
				kinds := w.kinds("M1")
				if want := map[string]trace.Kind{"never": trace.Unclear,
					"in the end": trace.Delivered}[name]; !slices.Contains(kinds, want) ||
					slices.Contains(kinds, trace.Failed) {
					t.Errorf("the trace has %v, want %s", kinds, want)
				}
				w.end()
			})
		})
	}
}

func TestSettleDoubts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		doubts int // before
		at     time.Duration
		bounce bool
		notify mail.Notify
		result *mail.Result
		status queue.Status
		kind   queue.NoticeKind // "": no report
	}{
		{"the first", 0, 0, false, 0, &lost, queue.Pending, ""},
		{"the second", 1, 0, false, 0, &lost, queue.Pending, ""},
		{"the last", 2, 0, false, 0, &lost, queue.Unclear, queue.Doubt},
		{"the last, for whom only failures count", 2, 0, false, mail.NotifyFailure, &lost, queue.Unclear, queue.Doubt},
		{"the last, for nobody", 2, 0, false, mail.NotifyNever, &lost, queue.Unclear, ""},
		{"a doubt, then deferrals until the time is over", 1, 48 * time.Hour, false, 0, &greylisted, queue.Unclear,
			queue.Doubt},
		{"a doubt, then a person gives up", 1, 0, true, 0, nil, queue.Unclear, queue.Doubt},
		{"a doubt, then a refusal", 1, 0, false, 0, &refusal, queue.Failed, queue.Failure},
		{"a refusal behind a doubt of the same attempt", 0, 0, false, 0, &again, queue.Failed, queue.Failure},
		{"doubts, then taken", 2, 0, false, 0, &delivered, queue.Delivered, ""},
		{"certain deferrals are no doubts", 2, 0, false, 0, &greylisted, queue.Pending, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, made := decider(0, nil)
			m := accepted(3, "a@example.net")
			m.Bounce, m.Recipients[0].Doubts, m.Recipients[0].Notify = tt.bounce, tt.doubts, tt.notify
			var rs []mail.Result
			if tt.result != nil {
				rs = results(m, *tt.result)
			}
			now := noon.Add(tt.at)
			o := q.Decide(now, m, rs)
			if got := o.Recipients[0].Status; got != tt.status || o.Remove == (got == queue.Pending) {
				t.Errorf("the recipient is %s", got)
			}
			if tt.result == &lost && tt.status == queue.Pending &&
				(o.NextAttempt.Sub(now) < longWait || o.Recipients[0].Doubts != tt.doubts+1) {
				t.Errorf("next attempt in %v, %d doubts", o.NextAttempt.Sub(now), o.Recipients[0].Doubts)
			}
			if tt.kind == "" {
				if len(*made) != 0 {
					t.Errorf("report %v", *made)
				}
				return
			}
			if len(*made) != 1 || (*made)[0].Kind != tt.kind || (*made)[0].About[0].Doubts == 0 {
				t.Fatalf("reports %+v", *made)
			}
		})
	}
}

// The long wait is not cut short by the delay report nor by the end of the message's time.
func TestDoubtsAreNotHurried(t *testing.T) {
	for _, at := range []time.Duration{4*time.Hour - time.Minute, 48*time.Hour - time.Minute} {
		q, _ := decider(0, nil)
		m := accepted(2)
		now := noon.Add(at)
		if o := q.Decide(now, m, results(m, lost)); o.NextAttempt.Sub(now) < longWait {
			t.Errorf("at %v the next attempt is in %v", at, o.NextAttempt.Sub(now))
		}
	}
}
