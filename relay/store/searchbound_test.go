package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// ofOffice returns a store with so many messages of an office, and the last events that it has.
func ofOffice(t *testing.T, messages int) (s *Store, last []trace.Event) {
	t.Helper()
	s = open(t, Options{})
	s.Hurry()
	var batch []trace.Event
	for n := range messages {
		last = office(n)
		batch = append(batch, last...)
	}
	appendEvents(t, s, batch...)
	return s, last
}

// TestSearchReadsLittle: how many events a search reads depends on what it shows, not on how many there are.
func TestSearchReadsLittle(t *testing.T) {
	s, _ := ofOffice(t, 8000)
	newTestIndexer(s).all(t)
	one := office(4000)
	for _, test := range []struct {
		words string
		rows  int
		reads int // at most
	}{
		{one[0].MessageID, 1, 8},
		{one[1].To + " delivered", 1, 12},
		{one[0].ID, 1, 8},
		{"nobody@example.org", 0, 0},
		{"535 gmail.com office365", 0, 0}, // each of many events, together of none
		{"gmail.com", trace.DefaultPage, 8 * trace.DefaultPage},
		{"submission", trace.DefaultPage, 8 * trace.DefaultPage},
		{"", trace.DefaultPage, 8 * trace.DefaultPage},
	} {
		l := searching{q: trace.Search{Words: test.words}}
		if err := l.in(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if rows, reads := len(l.answer.Found), maxVisits-l.budget; rows != test.rows || reads > test.reads {
			t.Errorf("%q: %d rows, %d events read, want %d and at most %d", test.words, rows, reads, test.rows,
				test.reads)
		}
	}
}

// TestSearchWithoutIndexIsBounded: where there is no index yet a search reads so many events and no more, says how far
// back it came, and gets to the end in the end.
func TestSearchWithoutIndexIsBounded(t *testing.T) {
	s, _ := ofOffice(t, 5000)
	if err := s.Reindex(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := office(0)[0]
	q := trace.Search{Words: first.MessageID}
	pages := 0
	for before := (time.Time{}); ; pages++ {
		l := searching{q: q}
		if err := l.in(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if !l.answer.Partial {
			t.Error("it is not said that there is no index")
		}
		if reads := maxVisits - l.budget; reads > maxVisits+8 {
			t.Errorf("%d events read", reads)
		}
		if q.After = l.answer.Next; q.After == "" {
			if len(l.answer.Found) != 1 || pages < 1 {
				t.Errorf("%d rows on page %d", len(l.answer.Found), pages)
			}
			return
		}
		if at := l.answer.Reached; at.IsZero() || !before.IsZero() && !at.Before(before) {
			t.Errorf("page %d came back to %s", pages, at)
		}
		before = l.answer.Reached
	}
}

// TestSearchPlans: no query of a search or of the indexer goes through a table or sorts.
func TestSearchPlans(t *testing.T) {
	s := open(t, Options{})
	const columns = "SELECT n, kind, id, session, login, sender, rcpt, data FROM event "
	err := s.readers.read(t.Context(), func(conn db.Conn) error {
		for _, query := range []string{
			eventNumbers,
			columns + "NOT INDEXED WHERE n >= 1 AND n < 2 ORDER BY n DESC LIMIT 64",
			columns + "INDEXED BY event_id WHERE id = 'x' AND id <> '' ORDER BY n DESC LIMIT 3",
			columns + "INDEXED BY event_session WHERE session = 'x' AND session <> '' AND id = '' " +
				"ORDER BY n DESC LIMIT 3",
			"SELECT n FROM event NOT INDEXED WHERE n >= 1 AND n < 2 ORDER BY n LIMIT 1 OFFSET 3",
			"SELECT data FROM search_terms WHERE n = 1", "SELECT data FROM search_docs WHERE n = 1",
			"SELECT n FROM search_late WHERE n >= 1 AND n < 2 ORDER BY n",
			"SELECT n FROM search_terms WHERE n >= 1 AND n < 2 ORDER BY n LIMIT 3",
		} {
			fileOnly(t)
			for row, err := range conn.Rows("EXPLAIN QUERY PLAN " + query) {
				if err != nil {
					return fmt.Errorf("%s: %w", query, err)
				}
				if plan := row.Text(3); !strings.HasPrefix(plan, "SEARCH ") {
					t.Errorf("%s: %s", query, plan)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamagedIndex: a search says what to do about an index that cannot be read, never a wrong answer, and the indexer
// makes a new one.
func TestDamagedIndex(t *testing.T) {
	for _, damage := range []string{
		"DELETE FROM search_terms", "UPDATE search_terms SET data = x'ff'", "UPDATE search_terms SET data = x'0002'",
		"DELETE FROM search_docs", "UPDATE search_docs SET data = x'00'", "UPDATE search_segment SET parts = 3",
		"UPDATE search_segment SET docs = 0", "DELETE FROM search_state",
	} {
		s := open(t, Options{})
		s.Hurry()
		appendEvents(t, s, story()...)
		x := newTestIndexer(s)
		x.all(t)
		if err := s.write(t.Context(), func(tx *tx) error { return tx.Exec(damage) }); err != nil {
			t.Fatal(err)
		}
		_, err := s.Search(t.Context(), trace.Search{Words: "anna gmail"})
		if !errors.Is(err, errSearchIndex) {
			t.Errorf("%s: %v", damage, err)
		}
		appendEvents(t, s, trace.Event{Time: eventTime.Add(time.Hour), Kind: trace.Accepted, ID: "m3",
			Login: "anna gmail"})
		if err := s.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.all(t)
		if got := findAll(t, s, trace.Search{Words: "anna gmail"}); len(got) != 2 {
			t.Errorf("%s: a new index finds %d", damage, len(got))
		}
	}
}

// TestIndexIsTrimmed: with the events goes what the index has of them, and its share counts as history.
func TestIndexIsTrimmed(t *testing.T) {
	s, _ := ofOffice(t, 3000)
	x := newTestIndexer(s)
	x.all(t)
	before := octetsOfIndex(t, s)
	if before == 0 {
		t.Fatal("there is no index")
	}
	kept, _ := tallied(t, s)
	if n, err := s.TrimEvents(t.Context(), kept.history); err != nil || n == 0 {
		t.Errorf("%d events made room for the index, %v", n, err)
	}
	if _, err := s.PruneEvents(t.Context(), office(2000)[0].Time); err != nil {
		t.Fatal(err)
	}
	x.all(t)
	if after := octetsOfIndex(t, s); after > before/2 {
		t.Errorf("of %d octets %d are left for a third of the events", before, after)
	}
	if _, err := s.PruneEvents(t.Context(), office(3001)[0].Time); err != nil {
		t.Fatal(err)
	}
	x.all(t)
	if after := octetsOfIndex(t, s); after != 0 {
		t.Errorf("%d octets are left for no events", after)
	}
	if left := rowsOfNoSegment(t, s); left != 0 {
		t.Errorf("%d rows are left", left)
	}
}

func octetsOfIndex(t *testing.T, s *Store) (n int64) {
	t.Helper()
	err := s.readers.read(t.Context(), func(conn db.Conn) (err error) {
		n, err = searchOctets(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestIndexerYields: while mail is busy, only full batches are indexed and nothing is merged; what is left is found all
// the same.
func TestIndexerYields(t *testing.T) {
	s := open(t, Options{})
	x := newTestIndexer(s)
	var batch []trace.Event
	for n := range batchEvents + 100 {
		batch = append(batch, trace.Event{Time: eventTime.Add(time.Duration(n) * time.Second), Kind: trace.Accepted,
			ID: fmt.Sprint("m", n), Reply: mail.R(250, "2.0.0", "word%d", n)})
	}
	appendEvents(t, s, batch[:batchEvents-1]...)
	if x.work(t, true) {
		t.Error("part of a batch was indexed while mail was busy")
	}
	appendEvents(t, s, batch[batchEvents-1:]...)
	if !x.work(t, true) || x.work(t, true) {
		t.Error("not just a full batch was indexed")
	}
	if state := indexed(t, s); state.done != batch[batchEvents-1].Time.UnixNano()+1 {
		t.Errorf("%+v", state)
	}
	for _, word := range []string{"word7", fmt.Sprint("word", batchEvents+50)} {
		if got := findAll(t, s, trace.Search{Words: word}); len(got) != 1 {
			t.Errorf("%s: %d found", word, len(got))
		}
	}
}

// TestBusy: commits of others say that mail is busy, the indexer's own do not.
func TestBusy(t *testing.T) {
	s := open(t, Options{})
	x := s.NewIndexer()
	now := time.Now()
	commit := func(n int) {
		for range n {
			if err := s.write(t.Context(), func(t *tx) error { return bump(t.Conn, TopicQueue) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	x.busy(now)
	commit(busyCommits / 2)
	if now = now.Add(time.Second); x.busy(now) {
		t.Error("a few commits are no load")
	}
	commit(3 * busyCommits)
	if now = now.Add(time.Second); !x.busy(now) {
		t.Error("many commits are")
	}
	commit(3 * busyCommits)
	x.own = 3 * busyCommits
	if now = now.Add(time.Second); x.busy(now) {
		t.Error("its own are not")
	}
	many := make([]trace.Event, 2*busyEvents)
	for i := range many {
		many[i] = trace.Event{Time: eventTime, Kind: trace.Delivered}
	}
	appendEvents(t, s, many...)
	if now = now.Add(time.Second); !x.busy(now) {
		t.Error("many events are")
	}
}

// TestIndexerThatWasKilled: what an indexer left in the middle of its work is finished or removed by the next, and
// events that came meanwhile are not missed.
func TestIndexerThatWasKilled(t *testing.T) {
	s := open(t, Options{})
	x := newTestIndexer(s)
	events := story()
	appendEvents(t, s, events[:3]...)
	state := indexed(t, s)
	behind := events[2].Time.UnixNano() + 1
	err := x.write(t.Context(), state.epoch, func(t *tx, state searchState) error { // as addNew begins
		state.high = behind
		return state.save(t)
	})
	if err != nil {
		t.Fatal(err)
	}
	built, err := buildSegments(func(yield func(*indexedEvent, error) bool) {
		for _, e := range events[:3] {
			if !yield(&indexedEvent{e.Time.UnixNano(), e}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.writeRows(t.Context(), state.epoch, built); err != nil {
		t.Fatal(err)
	}
	late := events[1]
	late.Time, late.To = late.Time.Add(time.Second), "late@gmail.com"
	appendEvents(t, s, late)
	check := func() {
		t.Helper()
		for _, words := range []string{"bob@gmail.com", "late@gmail.com", "carol@sub.example.net"} {
			if got := findAll(t, s, trace.Search{Words: words}); len(got) != 1 {
				t.Errorf("%s: %d found", words, len(got))
			}
		}
	}
	check()
	if rowsOfNoSegment(t, s) == 0 {
		t.Fatal("nothing was left over")
	}
	newTestIndexer(s).all(t)
	check()
	if left := rowsOfNoSegment(t, s); left != 0 {
		t.Errorf("%d rows of no segment", left)
	}
	if state := indexed(t, s); state.done != state.high || state.done < behind {
		t.Errorf("%+v", state)
	}
}

// TestStaleIndexIsNotWritten: what was read before somebody was forgotten is not written after it.
func TestStaleIndexIsNotWritten(t *testing.T) {
	s := open(t, Options{})
	x := newTestIndexer(s)
	appendEvents(t, s, story()...)
	state := indexed(t, s)
	until := eventTime.Add(time.Hour).UnixNano()
	if err := s.write(t.Context(), func(tx *tx) error {
		begun := state
		begun.high = until
		return errors.Join(begun.save(tx), tx.unindex([]int64{eventTime.Add(2 * time.Minute).UnixNano()}, true))
	}); err != nil {
		t.Fatal(err)
	}
	_, err := x.add(t.Context(), state.epoch, state.done, until, func(*searchState) {})
	if !errors.Is(err, errStale) {
		t.Errorf("written all the same: %v", err)
	}
	if n := octetsOfIndex(t, s); n != 0 {
		t.Errorf("%d octets", n)
	}
	x.all(t)
	if left := rowsOfNoSegment(t, s); left != 0 || octetsOfIndex(t, s) == 0 {
		t.Errorf("%d rows of no segment", left)
	}
}
