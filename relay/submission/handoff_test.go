package submission

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
)

// busy is a way out whose slot gets free at a moment, or which is paused until one.
type busy struct {
	Outbound
	free, until time.Time
}

type slot struct{ queue.Slot }

func (b *busy) ReserveNow(now time.Time, _ *queue.Message) (queue.Slot, queue.Wait) {
	if now.Before(b.free) {
		return nil, queue.Wait{Until: b.until}
	}
	return slot{}, queue.Wait{}
}

// busyCase is when a slot gets free, or until when the upstream is paused, and how long a message waits for it then.
type busyCase struct {
	free, until, waits time.Duration
	got                bool
}

func (c busyCase) check(t *testing.T, name string, ask func(Outbound) queue.Slot) {
	t.Helper()
	began := time.Now()
	out := &busy{free: began.Add(c.free)}
	if c.until > 0 {
		out.until = began.Add(c.until)
	}
	got := ask(out) != nil
	if waited := time.Since(began); got != c.got || waited != c.waits {
		t.Errorf("%s: a slot %v after %s, want %v after %s", name, got, waited, c.got, c.waits)
	}
}

// A message that cannot be queued waits for a slot for as long as its client is sure to wait, if there may be one.
func TestSlotSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]busyCase{
			"free":            {got: true},
			"soon free":       {free: 3 * time.Second, waits: 3 * time.Second, got: true},
			"soon to be used": {free: 3 * time.Second, until: 3 * time.Second, waits: 3 * time.Second, got: true},
			"busy":            {free: time.Hour, waits: slotPatience + askForSlot},
			"paused":          {free: time.Hour, until: time.Hour},
		} {
			c.check(t, name, func(out Outbound) queue.Slot {
				return (&Service{Options: Options{Outbound: out}}).slotSoon(&queue.Message{})
			})
		}
		stopping := make(chan struct{})
		close(stopping)
		s := &Service{Options: Options{Stopping: stopping, Outbound: &busy{free: time.Now().Add(time.Hour)}}}
		if s.slotSoon(&queue.Message{}) != nil {
			t.Error("a slot in the shutdown")
		}
	})
}

// stuck is a slot whose upstream takes nothing in; it looks at the lease as a transport does before the final dot.
type stuck struct {
	queue.Slot
	began, ended time.Time
}

func (s *stuck) Attempt(_ context.Context, _ *queue.Message, _ mail.Content, l *queue.Lease, _ func([]mail.Result)) (
	results []mail.Result) {
	for s.began = time.Now(); l.Left() > 0; time.Sleep(time.Second) {
	}
	s.ended = time.Now()
	return []mail.Result{{Class: mail.Deferral, Reply: mail.R(451, "4.4.2", "too slow")}}
}

type open struct{}

func (open) Close() error { return nil }

// An upstream that is too slow is broken off before it has the message, so that the client's next attempt is the only
// one.
func TestHandOffOnlyIsBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for wait, want := range map[time.Duration]time.Duration{5 * time.Second: handOffFor, time.Hour: time.Hour} {
			u := &submission{message: &queue.Message{}, octets: newHolder(open{}),
				session: &session{listener: config.Listener{Handoff: config.Duration(wait)}}}
			s := &stuck{}
			if r := new(Service).await(s, u); len(r) != 1 || r[0].Class != mail.Deferral {
				t.Errorf("%+v", r)
			}
			if took := s.ended.Sub(s.began); took < want || took > want+2*time.Second {
				t.Errorf("with handoff = %s it took %s", wait, took)
			}
		}
	})
}

// parted is a way out that some messages need more than one transaction of.
type parted struct{ Outbound }

func (parted) InParts(m *queue.Message) bool { return len(m.Recipients) > 2 }

// What nobody could keep is not begun.
func TestNeedsQueue(t *testing.T) {
	sender, err := mail.ParseAddress("anna@example.com")
	if err != nil {
		t.Fatal(err)
	}
	success := queue.Recipient{Recipient: mail.Recipient{Notify: mail.NotifySuccess}}
	for want, c := range map[string]struct {
		m    queue.Message
		wait time.Duration
	}{
		"":              {queue.Message{Recipients: make([]queue.Recipient, 2)}, 5 * time.Second},
		"hands nothing": {queue.Message{}, 0},
		"held":          {queue.Message{Held: true}, 5 * time.Second},
		"transaction":   {queue.Message{Recipients: make([]queue.Recipient, 3)}, 5 * time.Second},
		"report": {queue.Message{Recipients: []queue.Recipient{success}, Envelope: mail.Envelope{From: sender}},
			5 * time.Second},
	} {
		err := (&Service{Options: Options{Outbound: parted{}}}).needsQueue(&c.m, c.wait > 0)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
