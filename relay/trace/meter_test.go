package trace

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
)

// written returns all events that a sink kept.
func (s *memorySink) written() (all []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		all = append(all, b...)
	}
	return all
}

var refusedSender = mail.R(550, "5.7.1", "you may not send as ceo@example.com")

// count returns how many events of a kind there are, and how many more the summaries of that kind speak of.
func count(t *testing.T, events []Event, of Kind, login string) (told, left int) {
	t.Helper()
	for _, e := range events {
		if e.Kind != of || e.Login != login {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(e.Detail, "and %d more", &n); err == nil {
			left += n
		} else {
			told++
		}
	}
	return told, left
}

// TestOneLoginCannotBlindTheTrace: of twenty thousand refusals of one login hardly any is written, all are counted, and
// nobody else's event is lost.
func TestOneLoginCannotBlindTheTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		logger := slog.New(slog.NewTextHandler(&log, nil))
		sink := &memorySink{slow: 5 * time.Second} // a disk that is busy
		r, end := running(sink, logger)
		const flood, accepted, others = 20_000, 1_000, 50
		tell := func(e Event) {
			if r.Refusal(e) {
				logger.Info("refused", "login", e.Login)
			}
		}
		for i := range flood {
			tell(Event{Kind: Rejected, Login: "spammer", Client: "192.0.2.1", Reply: refusedSender})
			if i%(flood/accepted) == 0 {
				r.Record(Event{Kind: Accepted, Login: "anna", ID: fmt.Sprint(i)})
				r.Record(Event{Kind: Delivered, Login: "anna", ID: fmt.Sprint(i)})
			}
			if i%(flood/others) == 0 { // the same reply, other logins; and the same login, another reply
				tell(Event{Kind: Rejected, Login: fmt.Sprint("ben", i), Client: "192.0.2.1", Reply: refusedSender})
			}
		}
		tell(Event{Kind: Rejected, Login: "spammer", Client: "192.0.2.1", Reply: mail.R(452, "4.3.1", "no room")})
		time.Sleep(2 * time.Minute)
		end()
		if err := r.Close(context.Background()); err != nil || r.Dropped() != 0 {
			t.Errorf("Close: %v, %d dropped", err, r.Dropped())
		}
		events := sink.written()
		for _, k := range []Kind{Accepted, Delivered} {
			if n, _ := count(t, events, k, "anna"); n != accepted {
				t.Errorf("%d events %s, want %d", n, k, accepted)
			}
		}
		told, left := count(t, events, Rejected, "spammer")
		if told != perKind+1 || told+left != flood+1 || r.LeftOut() != flood-perKind {
			t.Errorf("of %d refusals %d were told and %d counted", flood+1, told, left)
		}
		for i := 0; i < flood; i += flood / others {
			if n, _ := count(t, events, Rejected, fmt.Sprint("ben", i)); n != 1 {
				t.Errorf("%d refusals of another login were told", n)
			}
		}
		if n := strings.Count(log.String(), "\n"); n > perKind+1+others+1 {
			t.Errorf("%d lines in the log", n)
		}
		if !strings.Contains(log.String(), fmt.Sprintf("more=%d", flood-perKind)) {
			t.Errorf("the log does not say how many were left out: %s", log.String())
		}
	})
}

// TestStrangersShareByPlace: who has not logged in is counted by its address, whoever it claims to be.
func TestStrangersShareByPlace(t *testing.T) {
	now := time.Unix(1e9, 0)
	wrong := mail.R(535, "5.7.8", "login or password not accepted")
	for name, test := range map[string]struct {
		event func(i int) Event
		n     int
		told  int
	}{
		"one address, one login": {func(int) Event {
			return Event{Kind: AuthFail, Login: "anna", Client: "192.0.2.1",
				Reply: wrong}
		}, 5000, perKind},
		"one address, many logins": {func(i int) Event {
			return Event{Kind: AuthFail, Login: fmt.Sprint("u", i), Client: "192.0.2.1", Reply: wrong}
		}, 5000, perSubject},
		"one IPv6 network": {func(i int) Event {
			return Event{Kind: AuthFail, Login: fmt.Sprint("u", i), Client: fmt.Sprintf("2001:db8::%x", i),
				Reply: wrong}
		}, 5000, perSubject},
		"many addresses": {func(i int) Event {
			return Event{Kind: AuthFail, Login: "anna", Client: fmt.Sprintf("203.0.%d.%d", i>>8, i&255), Reply: wrong}
		}, 5000, unauthBurst},
		"connections from many networks": {func(i int) Event {
			return Event{Kind: Refused, Client: fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&255),
				Reply: mail.R(421, "4.7.0", "too many")}
		}, 50_000, unauthBurst},
		"nobody knows from where": {func(int) Event { return Event{Kind: Refused} }, 5000, perKind},
		"many logins that are real": {func(i int) Event {
			return Event{Kind: Rejected, Login: fmt.Sprint("u", i), Client: "192.0.2.1", Reply: refusedSender}
		}, 5000, 5000},
	} {
		m, told := newMeter(), 0
		for i := range test.n {
			e := test.event(i)
			if m.allow(now, &e) {
				told++
			}
		}
		left := 0
		all := m.sweep(now)
		for _, s := range all {
			left += s.left
		}
		if told != test.told || told+left != test.n || len(all) > maxSummaries+1 {
			t.Errorf("%s: %d of %d told, want %d; %d counted in %d summaries", name, told, test.n, test.told, left,
				len(all))
		}
		if more := m.sweep(now); len(more) != 0 {
			t.Errorf("%s: told again: %+v", name, more)
		}
	}
}

// TestStrangersHideNoLogin: a flood of those who cannot log in leaves room for those who can, and a place that guesses
// at many logins for a login that it did not guess at.
func TestStrangersHideNoLogin(t *testing.T) {
	now, m := time.Unix(1e9, 0), newMeter()
	for i := range 100_000 {
		m.allow(now, &Event{Kind: Refused, Client: fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&255)})
	}
	for i := range maxTallies / 2 {
		m.allow(now, &Event{Kind: AuthFail, Login: fmt.Sprint("u", i), Client: "192.0.2.1"})
	}
	if n := len(m.groups); n > maxTallies {
		t.Errorf("%d groups", n)
	}
	m.sweep(now)
	for range 5000 {
		m.allow(now, &Event{Kind: AuthFail, Login: "printer", Client: "192.0.2.1"})
	}
	now = now.Add(time.Minute)
	for _, e := range []Event{{Kind: AuthFail, Login: "anna", Client: "192.0.2.1"},
		{Kind: Rejected, Login: "anna", Client: "192.0.2.1"}} {
		if !m.allow(now, &e) {
			t.Errorf("%s of anna is hidden", e.Kind)
		}
	}
}

// TestFullMeterKeepsLogins: strangers cannot take the last place among what is counted, from which on logins would be
// left out.
func TestFullMeterKeepsLogins(t *testing.T) {
	now, m := time.Unix(1e9, 0), newMeter()
	for i := range 4 * maxTallies {
		m.allow(now, &Event{Kind: AuthFail, Login: fmt.Sprint("u", i),
			Client: fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&255)})
	}
	if !m.allow(now, &Event{Kind: Rejected, Login: "anna", Client: "192.0.2.1"}) {
		t.Error("a login is hidden by strangers")
	}
}

// TestRefusalsHaveTheirOwnBuffer: refusals that wait for a sink that hangs leave the room of mail alone.
func TestRefusalsHaveTheirOwnBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memorySink{slow: time.Hour}
		r, end := running(sink, nil)
		for range 2 * bufferSize {
			r.Record(Event{Kind: Refused})
		}
		for i := range bufferSize {
			r.Record(Event{Kind: Failed, Attempt: i})
		}
		if n := r.Dropped(); n != 2*bufferSize-refusalsSize {
			t.Errorf("%d dropped, want %d", n, 2*bufferSize-refusalsSize)
		}
		time.Sleep(100 * time.Hour)
		end()
		if n, _ := count(t, sink.written(), Failed, ""); n != bufferSize {
			t.Errorf("%d failures written, want %d", n, bufferSize)
		}
		if n, _ := count(t, sink.written(), Refused, ""); n != refusalsSize {
			t.Errorf("%d refusals written, want %d", n, refusalsSize)
		}
	})
}

// stuckSink answers nobody until its context ends, or it is let go.
type stuckSink struct {
	memorySink
	free chan struct{}
}

func (s *stuckSink) AppendEvents(ctx context.Context, events []Event) error {
	select {
	case <-s.free:
		return s.memorySink.AppendEvents(ctx, events)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestShutdownUnderLoad: a write that is under way when Run is to end is let end, or given up without a word, and Close
// writes what is left.
func TestShutdownUnderLoad(t *testing.T) {
	for name, after := range map[string]time.Duration{"it ends": lastWrite / 2, "it is given up": 2 * lastWrite} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log testkit.Log
				sink := &stuckSink{free: make(chan struct{})}
				r, end := running(sink, slog.New(slog.NewTextHandler(&log, nil)))
				for i := range 2 * batchSize {
					r.Record(Event{Kind: Delivered, Attempt: i})
				}
				synctest.Wait() // inside the sink
				time.AfterFunc(after, func() { close(sink.free) })
				start := time.Now()
				end()
				if took := time.Since(start); took > lastWrite {
					t.Errorf("Run took %s to end", took)
				}
				if err := r.Close(t.Context()); err != nil {
					t.Errorf("Close: %v", err)
				}
				wantOrder(t, sink.attempts(), 2*batchSize)
				if log.String() != "" || r.Dropped() != 0 {
					t.Errorf("%d dropped, the log says %s", r.Dropped(), log.String())
				}
			})
		})
	}
}
