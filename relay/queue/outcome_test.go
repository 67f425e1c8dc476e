package queue_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

// decider is a Queue for Decide alone; it collects the notices.
func decider(jitter float64, reportErr error) (*queue.Queue, *[]queue.Notice) {
	var made []queue.Notice
	q := queue.New(queue.Options{
		Schedule: usual, Logger: slog.New(slog.DiscardHandler), Jitter: func() float64 { return jitter },
		Report: func(n queue.Notice) (*queue.NewMessage, error) {
			made = append(made, n)
			if reportErr != nil {
				return nil, reportErr
			}
			return reportAbout(n), nil
		},
	})
	return q, &made
}

// accepted is a message as it looks in its n-th attempt, accepted at noon.
func accepted(n int, to ...string) *queue.Message {
	m := message("M1", "anna", to...)
	for i := range m.Recipients {
		m.Recipients[i].Status = queue.Pending
	}
	m.Received, m.Expires, m.Attempts = noon, noon.Add(48*time.Hour), n
	return m
}

func TestDecideRetryTimes(t *testing.T) {
	after := func(r mail.Result, d time.Duration) mail.Result { r.RetryAfter = d; return r }
	for _, tt := range []struct {
		name   string
		n      int
		jitter float64
		at     time.Duration // since acceptance
		warned bool
		result mail.Result
		want   time.Duration // from at
	}{
		{"first of the table", 1, 0.5, 0, false, greylisted, time.Minute},
		{"second", 2, 0.5, time.Minute, false, greylisted, 5 * time.Minute},
		{"the last repeats", 40, 0.5, 20 * time.Hour, true, greylisted, 4 * time.Hour},
		{"jitter down", 2, 0, time.Minute, false, greylisted, 4*time.Minute + 30*time.Second},
		{"jitter up", 2, 1, time.Minute, false, greylisted, 5*time.Minute + 30*time.Second},
		{"what was asked for", 1, 0, 0, false, after(greylisted, 20*time.Minute), 20 * time.Minute},
		{"is never cut short", 1, 0, 0, true, after(greylisted, 24*time.Hour), 24 * time.Hour},
		{"a moment is believed at first", 3, 0, 0, true, after(greylisted, time.Second), time.Second},
		{"and not for ever", 4, 0.5, time.Minute, true, after(greylisted, time.Millisecond), time.Minute},
		{"what is longer still counts", 4, 0, time.Minute, true, after(greylisted, 2*time.Minute), 2 * time.Minute},
		{"a place that is busy is asked for soon", 40, 0, time.Hour, true, after(unreached, time.Second), time.Second},
		{"nor for the delay report", 1, 0, 0, false, after(greylisted, 24*time.Hour), 24 * time.Hour},
		{"account fault does not advance in the table", 7, 0.5, 20 * time.Hour, true, badLogin, time.Minute},
		{"nor back-pressure", 7, 0.5, 20 * time.Hour, true, unreached, time.Minute},
		{"an attempt falls on the delay report", 6, 0.5, 3 * time.Hour, false, greylisted, time.Hour},
		{"and on the end", 9, 0.5, 47 * time.Hour, true, greylisted, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, _ := decider(tt.jitter, nil)
			m := accepted(tt.n)
			m.Warned = tt.warned
			now := noon.Add(tt.at)
			o := q.Decide(now, m, results(m, tt.result))
			if got := o.NextAttempt.Sub(now); got != tt.want || o.Remove {
				t.Errorf("next attempt in %v (remove %v), want %v", got, o.Remove, tt.want)
			}
		})
	}
}

func TestDecideOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		at      time.Duration
		bounce  bool
		results []mail.Result
		want    []queue.Status
		reports []queue.NoticeKind
		reply   int // code of the first report's first recipient
		expired bool
	}{
		{"all taken", 0, false, []mail.Result{delivered, delivered}, []queue.Status{queue.Delivered, queue.Delivered},
			nil, 0, false},
		{"one refused, one deferred", 0, false, []mail.Result{unknown, greylisted},
			[]queue.Status{queue.Failed, queue.Pending}, []queue.NoticeKind{queue.Failure}, 550, false},
		{"account fault bounces nobody", 47 * time.Hour, false, []mail.Result{badLogin, badLogin},
			[]queue.Status{queue.Pending, queue.Pending}, []queue.NoticeKind{queue.Delay}, 535, false},
		{"delay report", 4 * time.Hour, false, []mail.Result{greylisted, delivered},
			[]queue.Status{queue.Pending, queue.Delivered}, []queue.NoticeKind{queue.Delay}, 451, false},
		{"time over", 48 * time.Hour, false, []mail.Result{greylisted, delivered},
			[]queue.Status{queue.Failed, queue.Delivered}, []queue.NoticeKind{queue.Failure}, 451, true},
		{"time over without an attempt", 49 * time.Hour, false, nil, []queue.Status{queue.Failed, queue.Failed},
			[]queue.NoticeKind{queue.Failure}, 450, true},
		{"given up by a person", 0, true, nil, []queue.Status{queue.Failed, queue.Failed},
			[]queue.NoticeKind{queue.Failure}, 550, false},
		{"a look before its time", time.Hour, false, nil, []queue.Status{queue.Pending, queue.Pending}, nil, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, made := decider(0.5, nil)
			m := accepted(3, "a@example.net", "b@example.net")
			m.Bounce = tt.bounce
			for i := range tt.results {
				tt.results[i].Recipient = i
			}
			o := q.Decide(noon.Add(tt.at), m, tt.results)
			pending := false
			for i, want := range tt.want {
				pending = pending || want == queue.Pending
				if o.Recipients[i].Status != want {
					t.Errorf("recipient %d is %s, want %s", i, o.Recipients[i].Status, want)
				}
			}
			if o.Remove == pending {
				t.Errorf("remove is %v with pending %v", o.Remove, pending)
			}
			if m.Recipients[0].Status != queue.Pending {
				t.Error("Decide changed the message")
			}
			if len(*made) != len(tt.reports) || len(o.Reports) != len(tt.reports) {
				t.Fatalf("%d reports made, %d in the outcome, want %d", len(*made), len(o.Reports), len(tt.reports))
			}
			for i, n := range *made {
				if n.Kind != tt.reports[i] || n.About[0].Expired != tt.expired || n.About[0].Reply.Code != tt.reply {
					t.Errorf("report %s %+v, want %s %d, expired %v", n.Kind, n.About[0], tt.reports[i], tt.reply,
						tt.expired)
				}
			}
		})
	}
}

// Only what the peer said is told as its words (RFC 3464 §2.3.5, §2.3.6), also when the report comes long after.
func TestReportsSayWhoSpoke(t *testing.T) {
	lost := mail.Result{Class: mail.Deferral, Stage: mail.StageDot, Upstream: "office", Host: "mx.example.net",
		Reply: mail.R(451, "4.4.2", "mx.example.net closed the connection"), Err: errors.New("EOF")}
	for _, tt := range []struct {
		name   string
		bounce bool
		result mail.Result
		want   string
	}{
		{"the peer's deferral", false, greylisted, "mx.example.net"},
		{"a lost connection", false, lost, ""},
		{"no connection", false, unreached, ""},
		{"given up by a person", true, greylisted, ""},
	} {
		q, made := decider(0.5, nil)
		m := accepted(3)
		m.Recipients = q.Decide(noon, m, results(m, tt.result)).Recipients
		m.Bounce = tt.bounce
		q.Decide(noon.Add(5*time.Hour), m, nil)
		m.Warned = true
		q.Decide(noon.Add(49*time.Hour), m, nil) // no attempt was made meanwhile
		for _, n := range *made {
			if n.About[0].Host != tt.want {
				t.Errorf("%s: the %s report says that %q spoke, want %q", tt.name, n.Kind, n.About[0].Host, tt.want)
			}
		}
		if len(*made) != 2 {
			t.Errorf("%s: %d reports", tt.name, len(*made))
		}
	}
}

// RFC 3461 §4.1, and the default for an absent NOTIFY.
func TestDecideNotify(t *testing.T) {
	const later = 5 * time.Hour
	handedOn := delivered
	handedOn.RelayedDSN = true
	for _, tt := range []struct {
		name   string
		notify mail.Notify
		at     time.Duration
		result mail.Result
		want   []queue.NoticeKind
	}{
		{"absent, failure", 0, 0, unknown, []queue.NoticeKind{queue.Failure}},
		{"absent, delay", 0, later, greylisted, []queue.NoticeKind{queue.Delay}},
		{"absent, success", 0, 0, delivered, nil},
		{"never, failure", mail.NotifyNever, 0, unknown, nil},
		{"never, delay", mail.NotifyNever, later, greylisted, nil},
		{"success, failure", mail.NotifySuccess, 0, unknown, nil},
		{"success, success", mail.NotifySuccess, 0, delivered, []queue.NoticeKind{queue.Success}},
		{"success, the upstream reports itself", mail.NotifySuccess, 0, handedOn, nil},
		{"failure, delay", mail.NotifyFailure, later, greylisted, nil},
		{"failure, failure", mail.NotifyFailure, 0, unknown, []queue.NoticeKind{queue.Failure}},
		{"delay, delay", mail.NotifyDelay, later, greylisted, []queue.NoticeKind{queue.Delay}},
		{"delay, failure", mail.NotifyDelay, 0, unknown, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, made := decider(0.5, nil)
			m := accepted(1)
			m.Recipients[0].Notify = tt.notify
			o := q.Decide(noon.Add(tt.at), m, results(m, tt.result))
			if len(*made) != len(tt.want) || len(*made) > 0 && (*made)[0].Kind != tt.want[0] {
				t.Errorf("reports %v, want %v", *made, tt.want)
			}
			if tt.at == later && !o.Warned {
				t.Error("the time of the delay report passed unnoticed")
			}
		})
	}
}

func TestDecideWarnsOnce(t *testing.T) {
	q, made := decider(0.5, nil)
	m := accepted(8)
	m.Warned = true
	o := q.Decide(noon.Add(10*time.Hour), m, results(m, greylisted))
	if len(*made) != 0 || !o.Warned {
		t.Errorf("%d reports, warned %v", len(*made), o.Warned)
	}
}

// A failure that nobody can be told of is none yet.
func TestDecideReportNotMade(t *testing.T) {
	q, _ := decider(0.5, errors.New("header unreadable"))
	m := accepted(1, "a@example.net", "b@example.net")
	m.Recipients[1].Notify = mail.NotifySuccess
	o := q.Decide(noon, m, []mail.Result{{Recipient: 0, Class: mail.MessageFault, Reply: unknown.Reply},
		{Recipient: 1, Class: mail.Delivered}})
	if o.Recipients[0].Status != queue.Pending || o.Remove || o.Recipients[1].Status != queue.Delivered {
		t.Errorf("outcome %+v", o)
	}
	m = accepted(5)
	if o = q.Decide(noon.Add(5*time.Hour), m, results(m, greylisted)); o.Warned {
		t.Error("warned without a report")
	}
}

func TestNullReversePathGetsNoReport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up.setAnswer(always(unknown))
		m := message("M1", "anna")
		m.Envelope.From = mail.Address{}
		w.submit(m)
		wait()
		w.wantGone("M1")
		w.wantKinds("M1", trace.Failed, trace.Report)
		if e := w.events[1]; e.Detail != "failure report withheld: the reverse-path is null" {
			t.Errorf("the trace says %q", e.Detail)
		}
		if len(w.made) != 0 {
			t.Error("a report was made")
		}
		w.end()
	})
}
