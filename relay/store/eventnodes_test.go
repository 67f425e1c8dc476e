package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/privacy"
	"postern/relay/stats"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// asNode makes a store that is not a daemon's write events as a node.
func asNode(t *testing.T, url string, number int64) *Store {
	t.Helper()
	s := open(t, ofServer(t, url, "", false))
	s.engine.(*server).node.Store(number)
	testkit.SQL(t, url, fmt.Sprintf("INSERT INTO counter VALUES (%d, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING", number))
	s.engine.(*server).lapsed = true
	return s
}

// Nodes that record at one moment do not meet, though each writes many events in it.
func TestEventNumbersOfNodes(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	stores := []*Store{asNode(t, url, 1), asNode(t, url, 2), open(t, ofServer(t, url, "", false))}
	const each = 100
	for i, s := range stores {
		var events []trace.Event
		for n := range each {
			events = append(events, trace.Event{Time: eventTime.Add(time.Duration(n / 3)), Kind: trace.Delivered,
				ID: fmt.Sprint("m", i), Detail: fmt.Sprint(n)})
		}
		before := s.Commits()
		if err := s.AppendEventsNow(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		if n := s.Commits() - before; n != 1 {
			t.Errorf("store %d: %d commits", i, n)
		}
	}
	events, err := stores[0].Events(t.Context(), trace.Query{Limit: 1000})
	if err != nil || len(events) != len(stores)*each {
		t.Fatalf("%d events, %v", len(events), err)
	}
	next := map[string]int{}
	for _, e := range events {
		if e.Detail != fmt.Sprint(next[e.ID]) {
			t.Fatalf("%s: event %s after %d", e.ID, e.Detail, next[e.ID])
		}
		next[e.ID]++
		if d := e.Time.Sub(eventTime); d < 0 || d > each*nodeNumbers {
			t.Errorf("%s: %s late", e.Detail, d)
		}
	}
}

// Events of a node whose clock is wrong stand where they belong: times are by the clock of the database.
func TestEventsOfWrongClock(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	right, wrong := asNode(t, url, 1), asNode(t, url, 2)
	now := time.Now()
	for i, ahead := range []time.Duration{-time.Hour, time.Hour} {
		wrong.clock.set(now.Add(-ahead).UnixNano(), now, now)
		detail := fmt.Sprint("its clock is ahead by ", ahead)
		appendEvents(t, wrong, trace.Event{Time: now.Add(ahead + time.Duration(2*i)*time.Second), Kind: trace.Delivered,
			ID: "m", Detail: detail})
		appendEvents(t, right, trace.Event{Time: now.Add(time.Duration(2*i+1) * time.Second), Kind: trace.Delivered,
			ID: "m", Detail: "right"})
	}
	events, _, err := right.Timeline(t.Context(), "", "m")
	if err != nil || len(events) != 4 {
		t.Fatalf("%+v, %v", events, err)
	}
	for i, e := range events {
		if late := e.Time.Sub(now.Add(time.Duration(i) * time.Second)); late.Abs() > time.Second/2 {
			t.Errorf("event %d, %s: %s late", i, e.Detail, late)
		}
	}
	// A node shows times, and is asked for them, by its own clock.
	ahead := now.Add(time.Hour)
	if events, err := wrong.Events(t.Context(), trace.Query{Since: ahead.Add(-time.Minute)}); err != nil ||
		len(events) != 4 || events[0].Time.Sub(ahead).Abs() > time.Minute {
		t.Errorf("%+v, %v", events, err)
	}
	a, err := wrong.Search(t.Context(), trace.Search{Since: ahead.Add(-time.Minute)})
	if err != nil || len(a.Found) != 1 || a.Found[0].Last.Sub(ahead).Abs() > time.Minute {
		t.Errorf("%+v, %v", a, err)
	}
}

// locked waits until somebody's statement waits for a row that another transaction has.
func locked(t *testing.T, url string) {
	t.Helper()
	until(t, "somebody waits for the row", func() bool {
		return testkit.SQL(t, url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "+
			"wait_event_type = 'Lock'")[0][0] != "0"
	})
}

// A batch of another node that began before the index moved on, and is committed after it, is found.
func TestIndexWaitsForBatchesOfOthers(t *testing.T) {
	once(t)
	for name, old := range map[string]bool{"new": false, "old": true} {
		t.Run(name, func(t *testing.T) {
			url := testkit.SharedPostgreSQL(t).NewDatabase(t)
			leader, other := asNode(t, url, 1), asNode(t, url, 2)
			leader.Hurry()
			x := newTestIndexer(leader)
			var events []trace.Event
			for i := range 2 * fewEvents {
				events = append(events, trace.Event{Time: eventTime.Add(time.Duration(i) * time.Minute),
					Kind: trace.Delivered, ID: fmt.Sprint("m", i)})
			}
			appendEvents(t, leader, events...)
			if old {
				if err := leader.Reindex(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			holder := session(t, url)
			if _, err := holder.Begin(); err != nil {
				t.Fatal(err)
			}
			if err := holder.Run("SELECT 1 FROM counter WHERE k = 2 FOR UPDATE"); err != nil {
				t.Fatal(err)
			}
			written := make(chan error)
			late := trace.Event{Kind: trace.Delivered, Time: eventTime.Add(30 * time.Second), ID: "late",
				To: "late@gmail.com"}
			go func() {
				written <- other.AppendEventsNow(context.WithoutCancel(t.Context()), []trace.Event{late})
			}()
			locked(t, url)
			for range 3 {
				x.work(t, false)
			}
			if err := holder.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := findAll(t, leader, trace.Search{Words: "late@gmail.com"}); len(got) != 1 {
					t.Errorf("%d found", len(got))
				}
				x.all(t)
			}
			if state := indexed(t, leader); old && state.low > eventTime.UnixNano()+1 || state.done != state.high {
				t.Errorf("%+v", state)
			}
		})
	}
}

// An event of which it was not known whether it is written is written once, whether it was or not.
func TestEventsInDoubt(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	o := ofServer(t, gate.URL(pg.NewDatabase(t)), "a", true)
	o.limits.outcome = 1 // it is not asked what became of it
	s := open(t, o)
	twin := trace.Event{Time: eventTime, Kind: trace.Delivered, ID: "twin"}
	for name, lose := range map[string]func() <-chan struct{}{
		"answer":  func() <-chan struct{} { return gate.LoseAnswer("UPDATE counter") },
		"request": func() <-chan struct{} { return gate.CutAfter(testkit.ToServer, 1) },
	} {
		events := []trace.Event{twin, twin, {Time: eventTime, Kind: trace.Delivered, ID: name}}
		appendEvents(t, s, trace.Event{Kind: trace.Delivered}) // it knows the number of its last batch
		lost := lose()
		err := s.AppendEventsNow(t.Context(), events)
		<-lost
		if !errors.Is(err, errDoubt) {
			t.Fatalf("%s: no doubt: %v", name, err)
		}
		until(t, "it is written", func() bool {
			return s.AppendEventsNow(t.Context(), append(events, trace.Event{Kind: trace.Delivered, ID: name})) == nil
		})
		for id, want := range map[string]int{"twin": 2, name: 2} {
			got, err := s.Events(t.Context(), trace.Query{ID: id})
			if err != nil || len(got) != want {
				t.Errorf("%s: %d of %s, %v", name, len(got), id, err)
			}
		}
		twin.ID += "+"
	}
	if kept, counted := tallied(t, s); kept != counted {
		t.Errorf("%+v are there, %+v counted", kept, counted)
	}
}

// An indexer that led before, and goes on, writes nothing and sweeps nothing of what the next one has begun; it takes
// the index back only when it still leads after a while.
func TestOneIndexerKeepsTheIndex(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	former, leader := newTestIndexer(asNode(t, url, 1)), newTestIndexer(asNode(t, url, 2))
	appendEvents(t, former.s, story()...)
	if !former.work(t, false) { // it claims the index, and indexes
		t.Fatal("there was nothing to do")
	}
	begun := indexed(t, former.s)
	appendEvents(t, former.s, trace.Event{Time: eventTime.Add(time.Hour), Kind: trace.Delivered, To: "new@gmail.com"})
	if !leader.work(t, false) {
		t.Fatal("there was nothing to do")
	}
	if err := former.write(t.Context(), begun.epoch, func(*tx, searchState) error { return nil }); !errors.Is(err,
		errStale) {
		t.Errorf("it writes what it has begun: %v", err)
	}
	appendEvents(t, former.s, trace.Event{Time: eventTime.Add(2 * time.Hour), Kind: trace.Delivered,
		To: "newer@gmail.com"})
	now := former.now.Add(time.Hour)
	for _, after := range []time.Duration{0, yieldFor - 1} {
		if did, err := former.step(t.Context(), now.Add(after), false); did || err != nil {
			t.Errorf("it works %s after it has lost the index: %v", after, err)
		}
	}
	if err := leader.s.Reindex(t.Context()); err != nil { // the index is the leader's still
		t.Fatal(err)
	}
	if did, err := former.step(t.Context(), now.Add(yieldFor-1), false); did || err != nil {
		t.Errorf("it works after the index was made anew: %v", err)
	}
	leader.all(t)
	if did, err := former.step(t.Context(), now.Add(yieldFor), false); err != nil {
		t.Errorf("it does not take it back: %t, %v", did, err)
	}
	former.all(t)
	for _, words := range []string{"bob@gmail.com", "new@gmail.com", "newer@gmail.com"} {
		if got := findAll(t, leader.s, trace.Search{Words: words}); len(got) != 1 {
			t.Errorf("%s: %d found", words, len(got))
		}
	}
}

// An indexer that was late with its bounds does not take back those of the next one.
func TestBoundsOfTheIndexOnlyGrow(t *testing.T) {
	s := open(t, Options{})
	x := newTestIndexer(s)
	events := story()
	appendEvents(t, s, events...)
	state := indexed(t, s)
	behind := events[len(events)-1].Time.UnixNano() + 1

	if err := s.write(t.Context(), func(t *tx) error {
		ahead := state
		ahead.high = behind + int64(time.Hour)
		return ahead.save(t)
	}); err != nil {
		t.Fatal(err)
	}
	if err := x.raise(t.Context(), state, behind); err != nil {
		t.Fatal(err)
	}
	if now := indexed(t, s); now.high != behind+int64(time.Hour) {
		t.Errorf("%+v", now)
	}
}

// Sums of which it was not known whether they are written are added once, whether they were or not; and those of
// several nodes are added up.
func TestStatisticsInDoubt(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	url := pg.NewDatabase(t)
	o := ofServer(t, gate.URL(url), "a", true)
	o.limits.outcome = 1 // it is not asked what became of it
	s, other := open(t, o), asNode(t, url, 2)
	hour := eventTime.Unix() / 3600
	add := func(s *Store) error {
		return s.AddStatisticsNow(t.Context(), []stats.Sum{{Cell: stats.Cell{Hour: hour, By: stats.Login, Key: "anna"},
			Counts: stats.Counts{Messages: 1}}})
	}
	adds := int64(0)
	for _, lose := range []func() <-chan struct{}{
		func() <-chan struct{} { return gate.LoseAnswer("COMMIT") },
		func() <-chan struct{} { return gate.LoseAnswer("INTO stat_count") }, // it does not come to the commit
	} {
		lost := lose()
		if err := add(s); err != nil {
			t.Fatal(err)
		}
		<-lost
		if err := add(other); err != nil {
			t.Fatal(err)
		}
		until(t, "others are added", func() bool { return add(s) == nil })
		adds += 3
		table, err := other.Statistics(t.Context(), stats.Query{By: stats.Login, Since: eventTime.Add(-time.Hour),
			Until: eventTime.Add(time.Hour), Step: stats.Total}, eventTime.Add(2*time.Hour))
		if err != nil || len(table.Rows) != 1 || table.Rows[0].Messages != adds {
			t.Errorf("%d were added: %+v, %v", adds, table, err)
		}
	}
}

// An event that is written so late that the pass which hides addresses may have gone by is written without them.
func TestLateEventsAreHidden(t *testing.T) {
	once(t)
	s := asNode(t, testkit.SharedPostgreSQL(t).NewDatabase(t), 1)
	const after = 24 * time.Hour
	if err := s.UsePrivacy(t.Context(), privacy.Rules{Recipients: privacy.Cut}, after); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, test := range map[string]struct {
		age    time.Duration
		hidden bool
	}{"late": {after, true}, "in time": {time.Hour, false}} {
		appendEvents(t, s, trace.Event{Kind: trace.Delivered, ID: name, Time: now.Add(-test.age), To: "bob@gmail.com"})
		events, err := s.Events(t.Context(), trace.Query{ID: name})
		if err != nil || len(events) != 1 || strings.Contains(events[0].To, "bob") == test.hidden {
			t.Errorf("%s: %+v, %v", name, events, err)
		}
	}
}

// While two nodes write events of all times, and one of them indexes, nothing is missing from the index in the end.
func TestIndexOfBusyNodes(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	leader, other := asNode(t, url, 1), asNode(t, url, 2)
	x := newTestIndexer(leader)
	const writes, each = 60, 20
	var nodes sync.WaitGroup
	for i, s := range []*Store{leader, other} {
		nodes.Go(func() {
			for n := range writes {
				var events []trace.Event
				for k := range each {
					// It comes after what was written before, or far before.
					at := time.Duration(n*each+k*(k%3)*each) * time.Second
					events = append(events, trace.Event{Time: eventTime.Add(at), Kind: trace.Delivered,
						ID: fmt.Sprintf("word%dx%dx%d", i, n, k)})
				}
				if err := s.AppendEventsNow(context.WithoutCancel(t.Context()), events); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		nodes.Wait()
		close(done)
	}()
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
			x.work(t, false)
		}
	}
	x.all(t)
	indexed := map[int64]bool{}
	if err := other.readers.read(t.Context(), func(conn db.Conn) error {
		all, err := readSegments(conn)
		for _, s := range all {
			docs, err := readDocs(conn, s)
			if err != nil {
				return err
			}
			for _, n := range docs {
				indexed[n] = true
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, row := range testkit.SQL(t, url, "SELECT n FROM event") {
		if n, err := strconv.ParseInt(row[0], 10, 64); err != nil || !indexed[n] {
			t.Errorf("event %d is not in the index: %v", n, err)
		}
	}
	if len(indexed) != 2*writes*each {
		t.Errorf("%d events are indexed", len(indexed))
	}
}

// An answer that took long says that a clock is ahead only where it is by more than the answer may have waited.
func TestClockOfASlowAnswer(t *testing.T) {
	now := time.Now()
	for _, test := range []struct{ ahead, took, want time.Duration }{
		{90 * time.Millisecond, 200 * time.Millisecond, 0},
		{90 * time.Millisecond, 10 * time.Millisecond, 90 * time.Millisecond},
		{time.Hour, 200 * time.Millisecond, time.Hour},
	} {
		var c clock
		c.set(now.Add(test.ahead).UnixNano(), now.Add(-test.took/2), now.Add(test.took/2))
		if got := time.Duration(c.ahead()); (got - test.want).Abs() > time.Millisecond {
			t.Errorf("%s ahead, after %s: %s", test.ahead, test.took, got)
		}
	}
}
