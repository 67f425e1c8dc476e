package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// told returns n events of mail as they are, and of refusals after every rate of them.
func told(n, every int, from time.Time) (events []trace.Event) {
	for i := range n {
		now := from.Add(time.Duration(i) * time.Second)
		id := mail.NewID(now)
		events = append(events, trace.Event{Time: now, Kind: trace.Delivered, ID: id, Session: id,
			Listener: "submission", Client: "192.0.2.1",
			Login: fmt.Sprint("user", i%50, "@example.com"), From: fmt.Sprintf("u%d@example.com", i%50),
			Author: fmt.Sprintf("u%d@example.com", i%50),
			To:     fmt.Sprintf("r%d@example%d.net", i*7919%100000, i%1000), MessageID: "<" + id + "@example.com>",
			Upstream: "office", Identity: "relay@example.com",
			Class: "delivered", Stage: "dot", Reply: mail.R(250, "2.0.0", "queued as %s", id), Attempt: 1,
			Took: time.Second})
		if i%every == 0 {
			events = append(events, trace.Event{Time: now, Kind: []trace.Kind{trace.Refused, trace.AuthFail,
				trace.Rejected}[i/every%3], Session: id,
				Listener: "submission", Client: "192.0.2.7", Reply: mail.R(550, "5.7.1", "you may not send as that"),
				Detail: "the reason in some words"})
		}
	}
	return events
}

// tallied are the counters, and what they have to be.
func tallied(t *testing.T, s *Store) (kept, counted counters) {
	t.Helper()
	err := s.readers.read(t.Context(), func(conn db.Conn) (err error) {
		if kept, err = readCounters(conn, s.engine.layout()); err != nil {
			return err
		}
		counted = kept
		for query, n := range map[string]*int64{
			"SELECT count(*) FROM event":                                                     &counted.events,
			"SELECT coalesce(sum(" + eventOctets + "), 0) FROM event":                        &counted.history,
			"SELECT coalesce(sum(" + eventOctets + "), 0) FROM event WHERE " + refusals + "": &counted.refusals,
		} {
			if *n, _, err = conn.Int(query); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kept, counted
}

func kinds(t *testing.T, s *Store) map[bool]int {
	t.Helper()
	events, err := s.Events(t.Context(), trace.Query{Limit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	n := map[bool]int{}
	for _, e := range events {
		n[e.Kind.IsRefusal()]++
	}
	return n
}

// TestTrimEventsBound: the trace is bounded in octets, those that are counted and those of the file, and what is
// counted is what is there.
func TestTrimEventsBound(t *testing.T) {
	s := open(t, Options{})
	odd := trace.Event{Time: eventTime.Add(-time.Hour), Kind: trace.AuthFail, Login: "größe\u0000x",
		From: "ä@example.com", To: "no address", Detail: "ü"}
	appendEvents(t, s, append(told(9000, 9, eventTime), odd)...)
	kept, counted := tallied(t, s)
	if kept != counted {
		t.Fatalf("the counters say %+v, there is %+v", kept, counted)
	}
	fileOnly(t) // vacuum gives room back, when it comes
	used := usedOctets(t, s)
	if share := float64(used) / float64(kept.history); share > 1.3 || share < 0.7 {
		t.Errorf("%d octets are counted, the file has %d", kept.history, used)
	}
	const most = leastHistory + 1<<20
	if n, err := s.TrimEvents(t.Context(), most); err != nil || n == 0 {
		t.Fatalf("%d removed, %v", n, err)
	}
	kept, counted = tallied(t, s)
	if kept != counted || kept.history > most || kept.history < most*9/10 {
		t.Errorf("the counters say %+v, there is %+v, there may be %d", kept, counted, most)
	}
	if used := usedOctets(t, s); used > most*13/10 {
		t.Errorf("the file has %d octets in use", used)
	}
	if n, err := s.TrimEvents(t.Context(), most); err != nil || n != 0 {
		t.Errorf("again: %d removed, %v", n, err)
	}
	if problems, err := s.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%q, %v", problems, err)
	}
}

func usedOctets(t *testing.T, s *Store) (used int64) {
	t.Helper()
	err := s.readers.read(t.Context(), func(conn db.Conn) error {
		pages, _, err := conn.Int("PRAGMA page_count")
		if err != nil {
			return err
		}
		free, _, err := conn.Int("PRAGMA freelist_count")
		used = (pages - free) * pageSize
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestTrimEventsOrder: of too much, the oldest refusals go first; when hardly any are left, what is oldest.
func TestTrimEventsOrder(t *testing.T) {
	s := open(t, Options{MaxEvents: 300})
	appendEvents(t, s, told(200, 1, eventTime)...) // 200 and 200
	if _, err := s.TrimEvents(t.Context(), 1<<40); err != nil {
		t.Fatal(err)
	}
	if n := kinds(t, s); n[false] != 200 || n[true] != 100 {
		t.Errorf("%d of mail and %d refusals are left, want 200 and 100", n[false], n[true])
	}
	oldest, err := s.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Refused, trace.AuthFail, trace.Rejected},
		Limit: 1000})
	if err != nil || oldest[0].Time.Truncate(time.Second) != eventTime.Add(100*time.Second) {
		t.Errorf("the oldest refusal is of %s, %v", oldest[0].Time, err)
	}
	appendEvents(t, s, told(300, 1000, eventTime.Add(time.Hour))...)
	if _, err := s.TrimEvents(t.Context(), 1<<40); err != nil {
		t.Fatal(err)
	}
	n := kinds(t, s)
	if n[true] == 0 || n[true] > 60 || n[true]+n[false] != 300 {
		t.Errorf("%d of mail and %d refusals are left", n[false], n[true])
	}
}

// TestHistoryMakesRoomForMail: the more mail waits, the less history there is; mail is never refused for its sake.
func TestHistoryMakesRoomForMail(t *testing.T) {
	const size = 512 << 10
	s := open(t, Options{MaxBytes: 8 << 20})
	appendEvents(t, s, told(10_000, 10, eventTime)...)
	kept, _ := tallied(t, s)
	if kept.history < leastHistory+2<<20 {
		t.Fatalf("%d octets are too few to show anything", kept.history)
	}
	for n := 0; ; n++ {
		m := small("")
		m.Content = mail.BytesContent(make([]byte, size))
		if err := s.Writable(); err != nil {
			if have := int64(n) * size; have < 8<<20-size {
				t.Fatalf("with %d octets: %v", have, err)
			}
			break
		}
		if err := s.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if _, err := s.TrimEvents(t.Context(), 1<<40); err != nil {
			t.Fatal(err)
		}
		if kept, _ = tallied(t, s); kept.history > max(leastHistory, 8<<20-kept.bytes) {
			t.Fatalf("%d octets of history beside %d of mail", kept.history, kept.bytes)
		}
	}
}

// TestHistoryMakesRoomOnTheDisk: a disk that fills up takes the history first, down to the least.
func TestHistoryMakesRoomOnTheDisk(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, told(10_000, 10, eventTime)...)
	before, _ := tallied(t, s)
	if n, err := s.TrimEvents(t.Context(), 1<<40); err != nil || n != 0 {
		t.Fatalf("%d events removed from a disk with room, %v", n, err)
	}
	ofFile(t, s).space.floor = 1 << 60
	if _, err := s.TrimEvents(t.Context(), 1<<40); err != nil {
		t.Fatal(err)
	}
	after, _ := tallied(t, s)
	if after.history >= before.history || after.history > leastHistory || after.history < leastHistory*9/10 {
		t.Errorf("of %d octets %d are left", before.history, after.history)
	}
	if err := s.Writable(); err == nil {
		t.Error("a disk that is full takes mail")
	} else if _, err := s.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHistoryIsCountedByTheMigration: a store of a former version knows after it how much history it has.
func TestHistoryIsCountedByTheMigration(t *testing.T) {
	fileOnly(t)
	dir, all := t.TempDir(), migrations
	migrations = all[:slices.Index(all, migration{both: schemaHistory})]
	s, err := Open(t.Context(), at(t, Options{Dir: dir, moving: true})) // that version knew nothing of it
	migrations = all
	if err != nil {
		t.Fatal(err)
	}
	events := told(300, 3, eventTime)
	err = s.write(t.Context(), func(tx *tx) error {
		for _, e := range events {
			row, err := newEventRow(e)
			if err != nil {
				return err
			}
			if err := row.insert(tx); err != nil {
				return err
			}
		}
		return tx.Exec(fmt.Sprintf("UPDATE counter SET events = %d", len(events)))
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if s, err = Open(t.Context(), at(t, Options{Dir: dir, Daemon: true})); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if kept, counted := tallied(t, s); kept != counted || kept.history == 0 || kept.refusals == 0 ||
		kept.refusals >= kept.history {
		t.Errorf("the counters say %+v, there is %+v", kept, counted)
	}
}
