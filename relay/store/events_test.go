package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

var eventTime = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func appendEvents(t testing.TB, s *Store, events ...trace.Event) {
	t.Helper()
	if err := s.AppendEvents(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func search(t testing.TB, s *Store, q trace.Query) (details []string) {
	t.Helper()
	events, err := s.Events(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		details = append(details, e.Detail)
	}
	return details
}

func TestEventRoundTrip(t *testing.T) {
	s := open(t, Options{})
	full := trace.Event{
		Time: eventTime, Kind: trace.Deferred, ID: "id", Session: "session", Listener: "submission",
		Client: "192.0.2.1", Login: "alice",
		From: "Alice@example.com", Author: "alice@example.com", To: `"b@c"@example.net`, MessageID: "<1@example.com>",
		Size: 12, Upstream: "office",
		Identity: "relay", Class: "deferral", Stage: "rcpt", Reply: mail.R(451, "4.7.1", "line 1\nline 2"),
		Detail: "try later", Attempt: 3, Took: time.Second,
	}
	odd := trace.Event{Time: eventTime.Add(time.Second), Kind: trace.Refused, From: "no address",
		To: "UPPER@EXAMPLE.com@"}
	appendEvents(t, s, full, odd)
	got, err := s.Events(t.Context(), trace.Query{})
	if err != nil || !slices.Equal(got, []trace.Event{full, odd}) {
		t.Errorf("got  %+v\nwant %+v\n%v", got, []trace.Event{full, odd}, err)
	}
}

func TestEventQueries(t *testing.T) {
	s := open(t, Options{})
	at := func(n int) time.Time { return eventTime.Add(time.Duration(n) * time.Minute) }
	appendEvents(t, s,
		trace.Event{Time: at(1), Detail: "1", Kind: trace.Refused, Session: "s1", Client: "192.0.2.9"},
		trace.Event{Time: at(2), Detail: "2", Kind: trace.Accepted, Session: "s2", ID: "m1", Login: "alice",
			From: "alice@example.com"},
		trace.Event{Time: at(3), Detail: "3", Kind: trace.Delivered, ID: "m1", Login: "alice",
			From: "alice@example.com", To: "Bob@Example.net"},
		trace.Event{Time: at(4), Detail: "4", Kind: trace.Failed, ID: "m1", Login: "alice", From: "alice@example.com",
			To: "carol@sub.example.net"},
		trace.Event{Time: at(5), Detail: "5", Kind: trace.Accepted, Session: "s3", ID: "m2", Login: "dave",
			From: "dave@example.org"},
		trace.Event{Time: at(6), Detail: "6", Kind: trace.Delivered, ID: "m2", Login: "dave", From: "dave@example.org",
			To: "bob@example.net"},
	)
	for _, test := range []struct {
		q    trace.Query
		want []string
	}{
		{trace.Query{}, []string{"1", "2", "3", "4", "5", "6"}},
		{trace.Query{Limit: 2}, []string{"5", "6"}}, // the newest, oldest first
		{trace.Query{ID: "m1"}, []string{"2", "3", "4"}},
		{trace.Query{ID: "m1", Limit: 1}, []string{"4"}},
		{trace.Query{Session: "s2"}, []string{"2"}},
		{trace.Query{Login: "dave"}, []string{"5", "6"}},
		{trace.Query{From: "ALICE@example.com"}, []string{"2", "3", "4"}},
		{trace.Query{From: "*@example.org"}, []string{"5", "6"}},
		{trace.Query{To: "bob@example.net"}, []string{"3", "6"}},
		{trace.Query{To: "*@EXAMPLE.net"}, []string{"3", "6"}},
		{trace.Query{To: "*@net"}, nil},
		{trace.Query{To: "bob@example.net", Login: "dave"}, []string{"6"}},
		{trace.Query{To: "*@example.net", From: "*@example.com"}, []string{"3"}},
		{trace.Query{Kinds: []trace.Kind{trace.Failed, trace.Refused}}, []string{"1", "4"}},
		{trace.Query{Kinds: []trace.Kind{"accept"}}, nil},
		{trace.Query{Since: at(3), Until: at(5)}, []string{"3", "4"}}, // Until is not part of it
		{trace.Query{Login: "alice", Since: at(3)}, []string{"3", "4"}},
		{trace.Query{ID: "none"}, nil},
	} {
		if got := search(t, s, test.q); !slices.Equal(got, test.want) {
			t.Errorf("%+v: got %q, want %q", test.q, got, test.want)
		}
	}
}

// A text is looked for in what was said, in the detail and in the Message-ID, however many events lie behind; the limit
// counts what has it.
func TestEventText(t *testing.T) {
	s := open(t, Options{})
	events := []trace.Event{
		{Time: eventTime, Detail: "1", Kind: trace.Delivered,
			Reply: mail.R(250, "2.0.0", "OK <a&b@example.com> [Hostname=X]")},
		{Time: eventTime, Detail: "2", Kind: trace.Accepted, MessageID: "<a&b@example.com>"},
		{Time: eventTime, Detail: "knows it as <a&b@example.com>", Kind: trace.Delivered},
		{Time: eventTime, Detail: "4", Kind: trace.Delivered, To: "a&b@example.com"},
	}
	for n := range 2 * eventLimit {
		events = append(events, trace.Event{Time: eventTime.Add(time.Second), Kind: trace.Accepted,
			Detail: fmt.Sprint(100 + n)})
	}
	appendEvents(t, s, events...)
	for _, test := range []struct {
		q    trace.Query
		want []string
	}{
		{trace.Query{Text: "<a&b@example.com>"}, []string{"1", "2", "knows it as <a&b@example.com>"}},
		{trace.Query{Text: "a&b", Limit: 2}, []string{"2", "knows it as <a&b@example.com>"}},
		{trace.Query{Text: "250 2.0.0 OK <a", Kinds: []trace.Kind{trace.Delivered}}, []string{"1"}},
		{trace.Query{Text: "a&B"}, nil},
		{trace.Query{Text: "kind"}, nil}, // no name of a field is a text
	} {
		if got := search(t, s, test.q); !slices.Equal(got, test.want) {
			t.Errorf("%+v: got %q, want %q", test.q, got, test.want)
		}
	}
}

// TestEventsOfOneMoment: events of the same nanosecond are all kept, in their order.
func TestEventsOfOneMoment(t *testing.T) {
	s := open(t, Options{})
	var events []trace.Event
	var want []string
	for n := range 50 {
		events = append(events, trace.Event{Time: eventTime, Kind: trace.Refused, Detail: fmt.Sprint(n)})
		want = append(want, fmt.Sprint(n))
	}
	appendEvents(t, s, events[:25]...)
	appendEvents(t, s, events[25:]...)
	if got := search(t, s, trace.Query{}); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestDomainOfManyEvents(t *testing.T) {
	s := open(t, Options{})
	var events []trace.Event
	for n := range rareUpTo + 10 {
		e := trace.Event{Time: eventTime.Add(time.Duration(n) * time.Second), Kind: trace.Delivered,
			To: fmt.Sprintf("u%d@example.net", n), Detail: "many"}
		if n == 1 {
			e.To, e.Detail = "one@example.org", "few"
		}
		events = append(events, e)
	}
	appendEvents(t, s, events...)
	if got := search(t, s, trace.Query{To: "*@example.net", Limit: rareUpTo * 2}); len(got) != rareUpTo+9 {
		t.Errorf("%d of a large domain", len(got))
	}
	if got := search(t, s, trace.Query{To: "*@example.org"}); !slices.Equal(got, []string{"few"}) {
		t.Errorf("got %q of a small domain", got)
	}
}

func countEvents(t testing.TB, s *Store) (counted int64, there int) {
	t.Helper()
	if err := s.write(t.Context(), func(tx *tx) error {
		c, err := tx.count()
		counted = c.events
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return counted, len(search(t, s, trace.Query{Limit: 1 << 30}))
}

func TestPruneEvents(t *testing.T) {
	s := open(t, Options{})
	var events []trace.Event
	for n := range 3*trimBatch + 7 {
		events = append(events, trace.Event{Time: eventTime.Add(time.Duration(n) * time.Second), Kind: trace.Refused,
			ID: "x", Login: "y", To: "a@example.com"})
	}
	appendEvents(t, s, events...)
	n, err := s.PruneEvents(t.Context(), eventTime.Add(2*trimBatch*time.Second))
	if err != nil || n != 2*trimBatch {
		t.Errorf("%d events were removed: %v", n, err)
	}
	if counted, there := countEvents(t, s); counted != trimBatch+7 || there != trimBatch+7 {
		t.Errorf("%d are counted, %d there", counted, there)
	}
	if problems, err := s.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%q, %v", problems, err)
	}
}

func TestMaxEvents(t *testing.T) {
	s := open(t, Options{MaxEvents: 10})
	for batch := range 4 { // each waits for its turn
		var events []trace.Event
		for n := 8 * batch; n < 8*batch+8; n++ {
			events = append(events, trace.Event{Time: eventTime.Add(time.Duration(n) * time.Second),
				Kind: trace.Refused, Detail: fmt.Sprint(n)})
		}
		appendEvents(t, s, events...)
	}
	if n, err := s.TrimEvents(t.Context(), 1<<30); err != nil || n != 22 {
		t.Errorf("%d events were removed: %v", n, err)
	}
	if counted, there := countEvents(t, s); counted != 10 || there != 10 {
		t.Errorf("%d are counted, %d there", counted, there)
	}
	if got := search(t, s, trace.Query{Limit: 1}); got[0] != "31" {
		t.Errorf("the newest is %q", got)
	}
}

func TestSearchEnds(t *testing.T) {
	s := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Events(ctx, trace.Query{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func BenchmarkAppendEvents(b *testing.B) {
	s := open(b, Options{})
	var batch []trace.Event
	cpu := processorTime()
	for n := range b.N {
		now := eventTime.Add(time.Duration(n) * time.Millisecond)
		id := mail.NewID(now)
		batch = append(batch,
			trace.Event{Time: now, Kind: trace.Accepted, ID: id, Session: id, Login: fmt.Sprint("user", n%50),
				From: fmt.Sprintf("u%d@example.com", n%50), Client: "192.0.2.1", MessageID: "<x@example.com>"},
			trace.Event{Time: now.Add(time.Microsecond), Kind: trace.Delivered, ID: id, Session: id,
				Login: fmt.Sprint("user", n%50), From: fmt.Sprintf("u%d@example.com", n%50),
				To:    fmt.Sprintf("r%d@example%d.net", n*7919%100000, n%1000),
				Reply: mail.R(250, "2.0.0", "queued as 4711")})
		if len(batch) == 500 || n == b.N-1 {
			release := stall(b, s)
			done := make(chan error, 1)
			go func() { done <- s.AppendEvents(b.Context(), batch) }()
			waitFor(b, s, 0, 1)
			release()
			s.write(b.Context(), func(*tx) error { return nil })
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			batch = nil
		}
	}
	b.ReportMetric(float64((processorTime()-cpu).Microseconds())/float64(b.N), "µs-cpu/message")
}
