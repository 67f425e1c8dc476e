package store

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/internal/testkit"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// ofHours is a node of a database whose events have parts of an hour, also those of the past.
func ofHours(t *testing.T) (s *Store, url string) {
	t.Helper()
	url = testkit.SharedPostgreSQL(t).NewDatabase(t)
	s = open(t, ofServer(t, url, "a", true))
	testkit.SQL(t, url, "DROP TABLE "+parts(t, s)[0].table())
	return s, url
}

func parts(t *testing.T, s *Store) (all []eventPart) {
	t.Helper()
	err := s.readers.read(t.Context(), func(conn db.Conn) (err error) {
		all, err = readEventParts(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// everyMinute returns events of so many hours, and of a refusal every hour.
func everyMinute(hours int) (events []trace.Event) {
	for i := range hours * 60 {
		e := told(1, 2, eventTime.Add(time.Duration(i)*time.Minute))
		events = append(events, e[0])
		if i%60 == 30 {
			events = append(events, e[1])
		}
	}
	return events
}

const inHour = 61 // events of everyMinute

func agrees(t *testing.T, s *Store) counters {
	t.Helper()
	kept, counted := tallied(t, s)
	if kept != counted {
		t.Errorf("the counters say %+v, there is %+v", kept, counted)
	}
	return kept
}

// What is too much goes with whole parts, the oldest, and little more than that.
func TestEventPartsAreDroppedBySize(t *testing.T) {
	once(t)
	s, url := ofHours(t)
	appendEvents(t, s, everyMinute(20)...)
	before := agrees(t, s)
	if n := len(parts(t, s)); n != 20 {
		t.Fatalf("%d parts of 20 hours", n)
	}
	for _, hours := range []int64{19, 12, 11} {
		most := before.history * hours / 20
		if n, err := s.TrimEvents(t.Context(), most); err != nil || n == 0 || n%inHour != 0 {
			t.Fatalf("%d removed, %v", n, err)
		}
		now := agrees(t, s)
		if now.history > most || now.history < most-before.history/20-1 {
			t.Errorf("%d octets of %d are left", now.history, most)
		}
		if n := len(parts(t, s)); int64(n)*inHour != now.events {
			t.Errorf("%d parts have %d events", n, now.events)
		}
	}
	if n, err := s.TrimEvents(t.Context(), before.history); err != nil || n != 0 {
		t.Errorf("within its bound: %d removed, %v", n, err)
	}
	if dead := testkit.SQL(t, url, "SELECT count(*) FROM pg_stat_user_tables WHERE relname LIKE 'event%' AND "+
		"n_tup_del > 0")[0][0]; dead != "0" {
		t.Errorf("events of %s parts were removed one by one", dead)
	}
	events, err := s.Events(t.Context(), trace.Query{Limit: 1 << 20})
	if err != nil || int64(len(events)) != agrees(t, s).events {
		t.Errorf("%d events, %v", len(events), err)
	}
}

// A part in which there is more than may go at once is emptied by rows until it may.
func TestEventPartThatIsTooLarge(t *testing.T) {
	once(t)
	s, _ := ofHours(t)
	appendEvents(t, s, told(3000, 100, eventTime)...) // within an hour
	most := agrees(t, s).history
	large := parts(t, s)[0]
	for hour := 1; parts(t, s)[0].is(large); hour++ {
		if hour == 40 {
			t.Fatalf("it is still there, with %d events", agrees(t, s).events)
		}
		more := told(100, 100, eventTime.Add(time.Duration(hour)*time.Hour))
		if err := s.AppendEventsNow(t.Context(), more); err != nil {
			t.Fatal(err)
		}
		if n, err := s.TrimEvents(t.Context(), most); err != nil || n == 0 {
			t.Fatalf("%d removed, %v", n, err)
		}
		if now := agrees(t, s); now.history > most || now.history < most*(partSpare-1)/partSpare-1 {
			t.Fatalf("after %d hours %d octets of %d are left", hour, now.history, most)
		}
	}
}

// What a part has is counted before it goes: it is not dropped for what was thought of it.
func TestEventPartIsCounted(t *testing.T) {
	once(t)
	s, _ := ofHours(t)
	appendEvents(t, s, told(3000, 100, eventTime)...)
	before, d := agrees(t, s), &s.engine.(*server).dropping
	d.part = parts(t, s)[0]
	d.part.octets = 0
	if n, err := s.TrimEvents(t.Context(), before.history*99/100); err != nil || n == 0 || len(parts(t, s)) != 1 {
		t.Errorf("%d removed, %v", n, err)
	}
	if now := agrees(t, s); now.events < before.events*9/10 || d.part.octets < now.history {
		t.Errorf("%d events are left, %d octets are thought of", now.events, d.part.octets)
	}
}

// A part that has just ended is left: its last events may not be written yet.
func TestEventPartThatHasJustEnded(t *testing.T) {
	once(t)
	s, _ := ofHours(t)
	ended := time.Now().Add(-partAhead / 2)
	p := eventPart{from: ended.Add(-time.Hour).UnixNano(), until: ended.UnixNano()}
	if err := s.write(t.Context(), func(tx *tx) error { return p.make(tx.Conn) }); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, s, told(2, 2, ended.Add(-time.Minute))...)
	if n, err := s.PruneEvents(t.Context(), time.Now()); err != nil || n != 3 || !parts(t, s)[0].is(p) {
		t.Errorf("%d removed, %v, %v", n, parts(t, s), err)
	}
	agrees(t, s)
}

// Refusals that are too many go first, one by one, and no part goes for them.
func TestRefusalsGoBeforeParts(t *testing.T) {
	once(t)
	s, _ := ofHours(t)
	appendEvents(t, s, told(1000, 1, eventTime)...)
	appendEvents(t, s, told(100, 100, eventTime.Add(5*time.Hour))...)
	before := agrees(t, s)
	if _, err := s.TrimEvents(t.Context(), before.history*9/10); err != nil {
		t.Fatal(err)
	}
	agrees(t, s)
	if n := kinds(t, s); n[false] != 1100 || n[true] == 0 || n[true] > 900 {
		t.Errorf("%d of mail and %d refusals are left", n[false], n[true])
	}
}

// What is too old goes with its part, when all of it is.
func TestEventPartsAreDroppedByAge(t *testing.T) {
	once(t)
	s, _ := ofHours(t)
	appendEvents(t, s, everyMinute(10)...)
	half := eventTime.Add(5*time.Hour + 30*time.Minute)
	for _, want := range []int64{5 * inHour, 0} {
		if n, err := s.PruneEvents(t.Context(), half); err != nil || n != want {
			t.Errorf("%d removed, want %d, %v", n, want, err)
		}
	}
	if now := agrees(t, s); now.events != 5*inHour {
		t.Errorf("%d events are left", now.events)
	}
	// A part that is long beside what is kept: not all of it stays until all may go.
	if n, err := s.PruneEvents(t.Context(), time.Now().Add(-time.Hour)); err != nil || n != 5*inHour {
		t.Errorf("%d removed, %v", n, err)
	}
	soon := everyMinute(1)
	for i := range soon {
		soon[i].Time = time.Now().Add(-time.Duration(i) * time.Second)
	}
	appendEvents(t, s, soon...)
	if n, err := s.PruneEvents(t.Context(), time.Now().Add(-30*time.Second)); err != nil || n < 30 || n > 31 {
		t.Errorf("%d removed, %v", n, err)
	}
	agrees(t, s)
}

// Who reads the trace for long is not waited for, nor is mail held up for long: events go one by one meanwhile.
func TestEventPartInUse(t *testing.T) {
	once(t)
	for _, use := range []string{"SELECT 1 FROM event LIMIT 1", "INSERT INTO event SELECT n + 1, kind, id, " +
		"session, login, sender, rcpt, data FROM event ORDER BY n LIMIT 1"} {
		s, url := ofHours(t)
		appendEvents(t, s, everyMinute(10)...)
		before := agrees(t, s)
		exec := stranger(t, url)
		exec("BEGIN; " + use)
		most := before.history * 85 / 100
		if n, err := s.TrimEvents(t.Context(), most); err != nil || n == 0 {
			t.Fatalf("%d removed, %v", n, err)
		}
		if now := agrees(t, s); now.history > most || len(parts(t, s)) != 10 {
			t.Errorf("%d octets are left of %d, in %d parts", now.history, most, len(parts(t, s)))
		}
		// What is too old waits for an hour, then it goes likewise.
		old := eventTime.Add(5 * time.Hour)
		if n, err := s.PruneEvents(t.Context(), old); err != nil || n == 0 || len(parts(t, s)) != 10 {
			t.Errorf("%d removed, %v", n, err)
		}
		if events, err := s.Events(t.Context(), trace.Query{Limit: 1000}); err != nil || len(events) != 5*inHour {
			t.Errorf("%d events are left, %v", len(events), err)
		}
		exec("ROLLBACK")
		s.engine.(*server).dropping.after = time.Time{}
		if _, err := s.PruneEvents(t.Context(), old); err != nil || len(parts(t, s)) != 5 {
			t.Errorf("%d parts are left, %v", len(parts(t, s)), err)
		}
		if now := agrees(t, s); now.events != 5*inHour {
			t.Errorf("%d events are left", now.events)
		}
	}
}

// A part that has just become too old and cannot be dropped is left for an hour: it goes as a whole then, as a rule.
func TestEventPartInUseForAMoment(t *testing.T) {
	once(t)
	s, url := ofHours(t)
	appendEvents(t, s, everyMinute(2)...)
	exec := stranger(t, url)
	exec("BEGIN; SELECT 1 FROM event LIMIT 1")
	for minutes, want := range map[int]int64{90: 0, 119: 0, 121: inHour} {
		s.engine.(*server).dropping.after = time.Time{}
		n, err := s.PruneEvents(t.Context(), eventTime.Add(time.Duration(minutes)*time.Minute))
		if err != nil || n < want || want == 0 && n > inHour {
			t.Errorf("after %d minutes %d removed, want %d; %v", minutes, n, want, err)
		}
	}
	agrees(t, s)
}

// Whatever keeps a part from being dropped keeps no events in it, and no other part.
func TestEventPartThatCannotBeDropped(t *testing.T) {
	once(t)
	for _, test := range []struct {
		name         string
		prevent      func(s *Store, url string)
		size, age    int // parts that are left
		told, toldBy int // lines of the log, and those an hour later
	}{
		{"a view", func(s *Store, url string) {
			testkit.SQL(t, url, "CREATE VIEW report AS SELECT n FROM "+parts(t, s)[0].table())
		}, 9, 8, 1, 1},
		{"no connection free", func(s *Store, _ string) {
			s.engine.(*server).refused.Store(&refused{away(errors.New("too many connections")),
				time.Now().Add(time.Hour)})
		}, 10, 10, 0, 1},
	} {
		url, l := testkit.SharedPostgreSQL(t).NewDatabase(t), &logged{}
		o := ofServer(t, url, "a", true)
		o.Logger = l.logger()
		s := open(t, o)
		testkit.SQL(t, url, "DROP TABLE "+parts(t, s)[0].table())
		appendEvents(t, s, everyMinute(10)...)
		test.prevent(s, url)
		before := agrees(t, s).history
		for _, most := range []int64{before * 9 / 10, before * 8 / 10} { // it finds out, then does something else
			if _, err := s.TrimEvents(t.Context(), most); err != nil || agrees(t, s).history > most {
				t.Errorf("%s: %d octets of %d are left, %v", test.name, agrees(t, s).history, most, err)
			}
		}
		if all := parts(t, s); len(all) != test.size {
			t.Errorf("%s: %v", test.name, all)
		}
		if n := l.count("cannot be dropped"); n != test.told {
			t.Errorf("%s: %d times in the log\n%s", test.name, n, l)
		}
		d := &s.engine.(*server).dropping
		d.after, d.since = time.Time{}, d.since.Add(-partStuck)
		for range 2 {
			if _, err := s.PruneEvents(t.Context(), eventTime.Add(3*time.Hour)); err != nil {
				t.Error(err)
			}
			d.after = time.Time{}
		}
		if now := agrees(t, s); now.events != 7*inHour || len(parts(t, s)) != test.age {
			t.Errorf("%s: %d events are left, and %v", test.name, now.events, parts(t, s))
		}
		if n := l.count("cannot be dropped"); n != test.toldBy {
			t.Errorf("%s: %d times in the log\n%s", test.name, n, l)
		}
	}
}

// Events that can have no part at present keep no mail of their batch from being written.
func TestMailBesideEventsWithoutPart(t *testing.T) {
	once(t)
	s, url := ofHours(t)
	if err := s.Add(t.Context(), leased("first")); err != nil {
		t.Fatal(err)
	}
	exec := stranger(t, url)
	exec("BEGIN; LOCK TABLE event IN SHARE UPDATE EXCLUSIVE MODE") // as ANALYZE does
	release := stall(t, s)
	var all sync.WaitGroup
	var told error
	all.Go(func() { told = s.AppendEventsNow(t.Context(), everyMinute(1)) })
	all.Go(func() {
		if err := s.Add(t.Context(), leased("m1")); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, s, 2, 0)
	release()
	all.Wait()
	if !errors.Is(told, trace.ErrSinkAway) { // who tells keeps them
		t.Errorf("events without a part: %v", told)
	}
	exec("ROLLBACK")
	appendEvents(t, s, everyMinute(1)...)
	if now := agrees(t, s); now.events != inHour || now.messages != 2 {
		t.Errorf("%+v", now)
	}
}

// A step that is undone with what others wrote beside it, and is made again, passes over nothing.
func TestTrimIsUndone(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, everyMinute(5)...)
	release, fails, passed := stall(t, s), errors.New("not this time"), newPassed()
	steps := 0
	var all sync.WaitGroup
	all.Go(func() {
		n, err := s.trimRows(t.Context(), passed, math.MaxInt64, func(*counters) (int64, bool) {
			steps++
			return 100, false
		})
		if err != nil || n != 100 {
			t.Errorf("%d removed, %v", n, err)
		}
	})
	all.Go(func() {
		waitFor(t, s, 1, 0)
		err := s.write(t.Context(), func(tx *tx) error {
			if err := tx.Run("UPDATE counter SET events = 7"); err != nil {
				return err
			}
			return fails
		})
		if !errors.Is(err, fails) {
			t.Error(err)
		}
	})
	waitFor(t, s, 2, 0)
	release()
	all.Wait()
	left, err := s.Events(t.Context(), trace.Query{Limit: 1000})
	if err != nil || steps != 2 || len(left) != 5*inHour-100 || passed[false] >= s.clock.nano(left[0].Time) {
		t.Errorf("%d left after %d steps, %v", len(left), steps, err)
	}
	if n, err := s.trimRows(t.Context(), passed, s.clock.nano(left[10].Time), func(*counters) (int64, bool) {
		return 100, false
	}); n != 10 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	agrees(t, s)
}

// An event whose number is taken gets one in the next part, if need be.
func TestEventAtTheEndOfAPart(t *testing.T) {
	once(t)
	s, _ := ofHours(t)
	e := trace.Event{Time: eventTime.Add(time.Hour - 64), Kind: trace.Accepted, ID: "m1"}
	for _, id := range []string{"m1", "m2", "m3"} {
		e.ID = id
		if err := s.AppendEventsNow(t.Context(), []trace.Event{e}); err != nil {
			t.Error(err)
		}
	}
	e.Time = time.Unix(0, math.MaxInt64)
	if err := s.AppendEventsNow(t.Context(), []trace.Event{e, e}); err != nil {
		t.Error(err)
	}
	if now := agrees(t, s); now.events != 5 {
		t.Errorf("%d events", now.events)
	}
}

// What is moved here is one part, however long ago the database was made.
func TestMovedEventsAreOnePart(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	inFile := Options{Dir: t.TempDir()}
	atServer, err := toServer(inFile, url)
	if err != nil {
		t.Fatal(err)
	}
	with(t, inFile, func(s *Store) { appendEvents(t, s, everyMinute(48)...) })
	with(t, atServer, func(s *Store) {
		testkit.SQL(t, url, "DROP TABLE "+parts(t, s)[0].table())
		appendEvents(t, s, trace.Event{Time: eventTime, Kind: trace.Operator})
		testkit.SQL(t, url, "DELETE FROM event; UPDATE counter SET events = 0, history = 0")
	})
	migrateTo(t, inFile, atServer)
	with(t, atServer, func(s *Store) {
		if p := parts(t, s); !p[0].first() || len(p) > 2 {
			t.Errorf("%v", p)
		}
		if now := agrees(t, s); now.events < 48*inHour {
			t.Errorf("%d events", now.events)
		}
	})
}

// An event that comes where a part was dropped, by another node too, makes one for itself.
func TestEventWithoutPart(t *testing.T) {
	once(t)
	s, url := ofHours(t)
	other := open(t, ofServer(t, url, "b", true))
	appendEvents(t, s, everyMinute(3)...)
	appendEvents(t, other, everyMinute(3)...) // it knows the parts now
	if n, err := s.PruneEvents(t.Context(), eventTime.Add(2*time.Hour)); err != nil || n != 4*inHour {
		t.Fatalf("%d removed, %v", n, err)
	}
	late := trace.Event{Time: eventTime.Add(time.Minute), Kind: trace.Accepted, ID: "late"}
	appendEvents(t, other, late)
	later := trace.Event{Time: eventTime.Add(400 * time.Hour), Kind: trace.Accepted, ID: "later"}
	if err := s.write(t.Context(), func(tx *tx) error { // as an event that may be there already
		row, err := newEventRow(later)
		if err != nil {
			return err
		}
		return tx.insertEvents([]eventRow{row})
	}); err != nil {
		t.Fatal(err)
	}
	agrees(t, s)
	err := other.readers.read(t.Context(), func(conn db.Conn) error {
		return conn.Run("INSERT INTO event VALUES (?, '', '', '', '', '', '', '')",
			later.Time.AddDate(1, 0, 0).UnixNano())
	})
	if err == nil || !other.engine.(*server).passing(err) {
		t.Errorf("it is not tried again at once: %v", err)
	}
	for _, id := range []string{"late", "later"} {
		if events, err := other.Events(t.Context(), trace.Query{ID: id}); err != nil || len(events) != 1 {
			t.Errorf("%s: %v, %v", id, events, err)
		}
	}
}

// Nodes that come to a new hour at the same time make one part.
func TestNodesMakeOneEventPart(t *testing.T) {
	once(t)
	s, url := ofHours(t)
	nodes := []*Store{s, open(t, ofServer(t, url, "b", true)), open(t, ofServer(t, url, "c", true))}
	for hour := range 10 {
		var all sync.WaitGroup
		for n, node := range nodes {
			all.Go(func() {
				at := eventTime.Add(time.Duration(hour)*time.Hour + time.Duration(n)*time.Second)
				if err := node.AppendEventsNow(t.Context(), told(1, 2, at)); err != nil {
					t.Error(err)
				}
				if err := node.PrepareEvents(t.Context(), 30*24*time.Hour, 1<<30); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	if now := agrees(t, s); now.events != 60 || len(parts(t, s)) != 11 {
		t.Errorf("%d events, %v", now.events, parts(t, s))
	}
}

// What was in the trace before there were parts is the first one, with its indexes.
func TestEventPartsAreMadeByTheMigration(t *testing.T) {
	if onServer() {
		t.Skip("it is run once")
	}
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	o, all := ofServer(t, url, "a", true), migrations
	o.moving = true // that version knew nothing of them
	migrations = all[:slices.Index(all, migration{server: schemaEventParts})]
	s, err := Open(t.Context(), o)
	migrations = all
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	ahead := time.Now().Add(time.Hour).UnixNano() // by the clock of a former server
	testkit.SQL(t, url, fmt.Sprintf("INSERT INTO event VALUES (1000, 'accepted', 'm1', 's1', 'anna', '', '', "+
		"'{}'), (%d, 'refused', '', 's2', '', '', '', '{}')", ahead))
	testkit.SQL(t, url, "UPDATE counter SET events = 2, history = (SELECT sum("+eventOctets+") FROM event), "+
		"refusals = (SELECT sum("+eventOctets+") FROM event WHERE kind = 'refused') WHERE k = 0")
	o.moving = false
	s = open(t, o)
	agrees(t, s)
	if p := parts(t, s); len(p) != 1 || !p[0].first() || p[0].until != ahead+1 {
		t.Errorf("%v", p)
	}
	appendEvents(t, s, trace.Event{Time: time.Now().Add(3 * time.Hour), Kind: trace.Accepted, ID: "m2"},
		trace.Event{Time: time.Now(), Kind: trace.Accepted, ID: "m3"})
	for _, id := range []string{"m1", "m2", "m3"} {
		if events, err := s.Events(t.Context(), trace.Query{ID: id}); err != nil || len(events) != 1 {
			t.Errorf("%s: %v, %v", id, events, err)
		}
	}
	for _, row := range testkit.SQL(t, url, "SELECT tablename, count(*) FROM pg_indexes WHERE "+
		"tablename ~ '^event(_|$)' GROUP BY tablename") {
		if row[1] != "7" {
			t.Errorf("%s has %s indexes", row[0], row[1])
		}
	}
	if n := len(testkit.SQL(t, url, "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "+
		"WHERE NOT indisvalid")); n > 0 {
		t.Errorf("%d indexes are not valid", n)
	}
}

// The newest events are found without a look into all parts, and an event by its number in one.
func TestEventPartsArePassedOver(t *testing.T) {
	once(t)
	s, url := ofHours(t)
	appendEvents(t, s, everyMinute(20)...)
	for query, most := range map[string]int{
		"SELECT id FROM event WHERE n >= 1 ORDER BY n DESC LIMIT 1":         1,
		"SELECT max(n) FROM event":                                          1,
		"SELECT min(n) FROM event":                                          1,
		fmt.Sprint("SELECT id FROM event WHERE n = ", eventTime.UnixNano()): 1,
	} {
		read := 0
		for _, row := range testkit.SQL(t, url, "EXPLAIN (ANALYZE, TIMING OFF) "+query) {
			if strings.Contains(row[0], " on event_") && !strings.Contains(row[0], "never executed") {
				read++
			}
		}
		if read == 0 || read > most {
			t.Errorf("%s looks into %d parts", query, read)
		}
	}
}

// Whatever is there and whatever comes, each event has one part, and no two have anything in common.
func TestEventPartsCover(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		hour := int64(time.Hour)
		number := rapid.OneOf(rapid.Int64Range(0, 30*hour), rapid.Int64Range(10*hour-2, 10*hour+2), rapid.Int64())
		var all []eventPart
		for range rapid.IntRange(1, 8).Draw(rt, "batches") {
			numbers := slices.Sorted(slices.Values(rapid.SliceOfN(number, 1, 5).Draw(rt, "numbers")))
			numbers = slices.DeleteFunc(numbers, func(n int64) bool { return n == math.MaxInt64 })
			all = append(all, without(all, numbers)...)
			slices.SortFunc(all, func(a, b eventPart) int {
				if a.from < b.from {
					return -1
				}
				return 1
			})
			for i, p := range all {
				if p.from >= p.until || i > 0 && p.from < all[i-1].until || i > 0 && p.first() {
					rt.Fatalf("%v", all)
				}
				if !p.first() && p.until-p.from > hour {
					rt.Fatalf("%v is too long", p)
				}
			}
			for _, n := range numbers {
				if !slices.ContainsFunc(all, func(p eventPart) bool { return p.has(n) }) {
					rt.Fatalf("%d is in none of %v", n, all)
				}
				run := around(all, n)
				if !run.has(n) {
					rt.Fatalf("%v around %d, of %v", run, n, all)
				}
			}
			if missing := without(all, numbers); len(missing) > 0 {
				rt.Fatalf("%v are missing in %v", missing, all)
			}
			if i := rapid.IntRange(0, 3).Draw(rt, "drop"); i < len(all) {
				all = slices.Delete(all, i, i+1)
			}
		}
	})
}

// Parts are few, and none is too large to go as a whole, where what comes in a minute is not.
func TestPartWidth(t *testing.T) {
	const most, keep = int64(2500 << 20), 30 * 24 * time.Hour
	day := func(perDay float64) func(at time.Duration) float64 { // octets a second, by day
		return func(at time.Duration) float64 {
			if h := at % (24 * time.Hour); h < 8*time.Hour || h > 18*time.Hour {
				return perDay / 864000
			}
			return perDay / 36000
		}
	}
	for name, test := range map[string]struct {
		rate        func(at time.Duration) float64
		days        int
		most, fewer int     // parts of what is kept
		share       float64 // of the history that a part has at most
	}{
		"nothing":           {func(time.Duration) float64 { return 0 }, 60, 32, 30, 0},
		"an office":         {day(6 << 20), 60, 32, 30, 0.01},
		"a company":         {day(200 << 20), 60, 32, 10, 0.125},
		"as fast as can be": {func(time.Duration) float64 { return 2.5 * (1 << 20) }, 1, 26, 10, 0.125},
		"a burst every day": {func(at time.Duration) float64 {
			if at%(24*time.Hour) < time.Hour {
				return 50 << 10
			}
			return 1
		}, 60, 60, 10, 0.125},
	} {
		t.Run(name, func(t *testing.T) {
			start := int64(1_800_000_000) * int64(time.Second)
			all := []eventPart{{from: math.MinInt64, until: start}}
			seen := map[int64]bool{} // the first ones could not know
			var at time.Duration
			for ; at < time.Duration(test.days)*24*time.Hour; at += 30 * time.Second {
				now := start + int64(at)
				if next := nextPart(all, now, keep, most); next.until > 0 {
					all = append(all, next)
				}
				for i := range all {
					p := &all[i]
					if !p.has(now) {
						continue
					}
					p.octets += int64(30 * test.rate(at))
					if seen[p.from] = true; len(seen) > 3 && float64(p.octets) > test.share*float64(most) {
						t.Fatalf("after %s a part of %s has %d MB", at, time.Duration(p.until-p.from), p.octets>>20)
					}
				}
				total := int64(0)
				for i, p := range slices.Backward(all) {
					if total += p.octets; total > most && p.until > now { // events go one by one
						all[i].octets -= total - most
						total = most
					} else if total > most || p.until < now-int64(keep) {
						all = slices.Delete(all, 0, i+1)
						break
					}
				}
			}
			if len(all) > test.most || len(all) < test.fewer {
				t.Errorf("%d parts", len(all))
			}
			if last := all[len(all)-1]; !around(all, start+int64(at)).has(last.from) || last.until < start+int64(at) {
				t.Errorf("%v does not go on", last)
			}
		})
	}
}

// Parts of a time to come, as after a clock that was wrong, are no reason to make none for now.
func TestNextPartAfterAWrongClock(t *testing.T) {
	const hour, keep, most = int64(time.Hour), 30 * 24 * time.Hour, 1 << 30
	now := 1_000_000*hour + hour/2
	first, ahead := eventPart{from: math.MinInt64, until: now - hour}, eventPart{from: now + hour, until: now + 2*hour}
	past := eventPart{from: now - 2*hour, until: now - hour/4}
	for _, test := range []struct {
		name        string
		parts       []eventPart
		from, until int64
	}{
		{"nothing", nil, now - hour/2, now + hour/2},
		{"nothing of now", []eventPart{first}, now - hour/2, now + hour/2},
		{"a part that has just ended", []eventPart{first, past}, now - hour/4, now + 24*hour},
		{"one of a year ahead", []eventPart{first, {from: now + 8760*hour, until: now + 8761*hour}}, now - hour/2,
			now + hour/2},
		{"one soon", []eventPart{first, {from: now - 8*hour, until: now + 1}, ahead}, now + 1, now + hour},
		{"nothing to do", []eventPart{first, {from: now - hour, until: now + hour}, ahead}, 0, 0},
	} {
		next := nextPart(test.parts, now, keep, most)
		if next.from != test.from || next.until > test.until || test.until > 0 && next.until <= now {
			t.Errorf("%s: %v", test.name, next)
		}
		for _, p := range test.parts {
			if next.until > 0 && next.until > p.from && next.from < p.until {
				t.Errorf("%s: %v overlaps %v", test.name, next, p)
			}
		}
	}
}

// While none can be dropped, as beside somebody who reads for weeks, parts do not become many.
func TestEventPartsAreBounded(t *testing.T) {
	const keep, most = 24 * time.Hour, int64(1 << 20)
	start := int64(1_800_000_000) * int64(time.Second)
	all := []eventPart{{from: math.MinInt64, until: start}}
	for at := time.Duration(0); at < 10*24*time.Hour; at += 30 * time.Second {
		now := start + int64(at)
		if next := nextPart(all, now, keep, most); next.until > 0 {
			next.octets = most // whatever its length: a busy relay
			all = append(all, next)
		}
	}
	if n := len(all); n < partsMost || n > partsMost+10 {
		t.Errorf("%d parts after ten days", n)
	}
}
