package store

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/mail"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// testIndexer is an indexer whose time goes on by an hour with each step, so that nothing has to wait.
type testIndexer struct {
	*Indexer
	now time.Time
}

func newTestIndexer(s *Store) *testIndexer {
	s.Hurry()
	return &testIndexer{s.NewIndexer(), eventTime.Add(1000 * 24 * time.Hour)}
}

func (x *testIndexer) work(t testing.TB, busy bool) bool {
	t.Helper()
	x.now = x.now.Add(time.Hour)
	did, err := x.step(t.Context(), x.now, busy)
	if err != nil {
		t.Fatal(err)
	}
	return did
}

// all works until there is nothing to do, which has to come.
func (x *testIndexer) all(t testing.TB) {
	t.Helper()
	for n, idle := 0, 0; idle < 2; n++ { // what is to be written anew is seen once before
		if idle++; x.work(t, false) {
			idle = 0
		}
		if n > 100_000 {
			t.Fatal("the indexer has always more to do")
		}
	}
}

// findAll reads all pages of a search.
func findAll(t testing.TB, s *Store, q trace.Search) (all []trace.Found) {
	t.Helper()
	for {
		a, err := s.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, a.Found...); a.Next == "" {
			return all
		}
		q.After = a.Next
	}
}

func label(f trace.Found) string {
	switch {
	case f.ID != "":
		return "message " + f.ID
	case f.Session != "":
		return "session " + f.Session
	}
	return fmt.Sprint("event ", f.Time.UnixNano())
}

func labels(all []trace.Found) (names []string) {
	for _, f := range all {
		names = append(names, label(f))
	}
	return names
}

// story is a few messages and refusals as they are.
func story() []trace.Event {
	at := func(minute int) time.Time { return eventTime.Add(time.Duration(minute) * time.Minute) }
	accepted := trace.Event{Time: at(1), Kind: trace.Accepted, ID: "m1", Session: "s1", Listener: "submission",
		Client: "192.0.2.17", Login: "anna@example.com", From: "Anna@example.com", Author: "anna@example.com",
		MessageID: "<2026.1128@mail.example.com>", Reply: mail.R(250, "2.0.0", "queued as m1")}
	result := accepted
	result.Client, result.Upstream = "", "google"
	bob, carol := result, result
	bob.Time, bob.Kind, bob.To, bob.Class = at(2), trace.Failed, "bob@gmail.com", "recipient-fault"
	bob.Reply = mail.R(550, "5.1.1", "The email account that you tried to reach does not exist. gsmtp-99ab12")
	carol.Time, carol.Kind, carol.To = at(3), trace.Delivered, "carol@sub.example.net"
	carol.Reply = mail.R(250, "2.0.0", "OK id=010001806b0f0f99-41060108 <a&b@amazonses.com>")
	return []trace.Event{accepted, bob, carol,
		{Time: at(4), Kind: trace.AuthFail, Session: "s2", Client: "2001:db8::7", Login: "scanner@example.com",
			Reply: mail.R(535, "5.7.8", "login or password not accepted"), Detail: "PLAIN: wrong password"},
		{Time: at(5), Kind: trace.AuthFail, Session: "s2", Client: "2001:db8::7", Login: "scanner@example.com",
			Reply: mail.R(535, "5.7.8", "login or password not accepted"), Detail: "LOGIN: wrong password"},
		{Time: at(6), Kind: trace.Accepted, ID: "m2", Session: "s3", Client: "192.0.2.18", Login: "dave",
			From: "dave@example.org", MessageID: "<second@example.org>"},
		{Time: at(7), Kind: trace.Operator, Login: "dave", Detail: "locked from the command line"},
	}
}

func TestSearchFinds(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, story()...)
	operator := fmt.Sprint("event ", eventTime.Add(7*time.Minute).UnixNano())
	check := func(when string) {
		t.Helper()
		for words, want := range map[string][]string{
			"anna@example.com":                  {"message m1"},
			"ANNA":                              {"message m1"},
			"anna gmail 550":                    {"message m1"},
			"anna gmail 250":                    nil, // no one event has all
			"*@gmail.com":                       {"message m1"},
			"example.net":                       {"message m1"}, // of sub.example.net
			"sub.example.net":                   {"message m1"},
			"<2026.1128@mail.example.com>":      {"message m1"},
			"2026.1128@mail.example.com":        {"message m1"},
			"010001806b0f0f99-41060108":         {"message m1"},
			"id=010001806b0f0f99-41060108":      {"message m1"},
			"41060108":                          {"message m1"},
			"a&b@amazonses.com":                 {"message m1"},
			"gsmtp-99ab12":                      {"message m1"},
			"5.1.1":                             {"message m1"},
			"account exist":                     {"message m1"},
			"192.0.2.17":                        {"message m1"},
			"192.0.2.0/24":                      {"message m2", "message m1"},
			"192.0.2":                           {"message m2", "message m1"},
			"2001:DB8:0:0::7":                   {"session s2"},
			"2001:db8::/64":                     {"session s2"},
			"scanner":                           {"session s2"},
			"wrong plain":                       {"session s2"},
			"s2":                                {"session s2"},
			"m1":                                {"message m1"},
			"queued":                            {"message m1"},
			"failed":                            {"message m1"},
			"submission google":                 {"message m1"},
			"dave":                              {operator, "message m2"},
			"":                                  {operator, "message m2", "session s2", "message m1"},
			"nobody":                            nil,
			"example.com":                       {"session s2", "message m1"},
			"ex":                                nil, // no word
			"recipient-fault":                   {"message m1"},
			"fault":                             {"message m1"},
			strings.Repeat("x", trace.MaxQuery): nil,
		} {
			for _, limit := range []int{0, 1} {
				if got := labels(findAll(t, s, trace.Search{Words: words, Limit: limit})); !slices.Equal(got, want) {
					t.Errorf("%s, %q: got %q, want %q", when, words, got, want)
				}
			}
		}
	}
	check("without index")
	x := newTestIndexer(s)
	x.all(t)
	if tail := indexed(t, s); tail.done <= eventTime.Add(7*time.Minute).UnixNano() {
		t.Fatalf("%+v: not all is indexed", tail)
	}
	check("with an index")
	if err := s.Reindex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Search(t.Context(), trace.Search{Words: "anna"}); err != nil || !a.Partial {
		t.Errorf("an index that begins anew is not partial: %v", err)
	}
	check("with an index that begins anew")
	x.all(t)
	if a, err := s.Search(t.Context(), trace.Search{Words: "anna"}); err != nil || a.Partial {
		t.Errorf("still partial: %v", err)
	}
	check("with a new index")
}

// TestSearchAboutOneThing: mail, refusals and changes of accounts can be looked for alone, with words and without, and
// a page that ends between them goes on.
func TestSearchAboutOneThing(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, story()...)
	operator := fmt.Sprint("event ", eventTime.Add(7*time.Minute).UnixNano())
	check := func() {
		t.Helper()
		for _, test := range []struct {
			about trace.Subject
			words string
			want  []string
		}{
			{trace.Mail, "", []string{"message m2", "message m1"}}, {trace.Mail, "dave", []string{"message m2"}},
			{trace.Mail, "scanner", nil}, {trace.Refusals, "", []string{"session s2"}},
			{trace.Refusals, "anna", nil}, {trace.Changes, "", []string{operator}},
			{trace.Changes, "dave", []string{operator}},
		} {
			for _, limit := range []int{0, 1} {
				got := labels(findAll(t, s, trace.Search{Words: test.words, About: test.about, Limit: limit}))
				if !slices.Equal(got, test.want) {
					t.Errorf("%s, %q: got %q, want %q", test.about, test.words, got, test.want)
				}
			}
		}
	}
	check()
	newTestIndexer(s).all(t)
	check()
}

func indexed(t testing.TB, s *Store) (state searchState) {
	t.Helper()
	err := s.readers.read(t.Context(), func(conn db.Conn) (err error) {
		state, err = readSearchState(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestSearchSumsUp(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, story()...)
	got := findAll(t, s, trace.Search{Words: "gmail.com"})
	want := trace.Found{ID: "m1", Session: "s1", Time: eventTime.Add(2 * time.Minute),
		First: eventTime.Add(time.Minute), Last: eventTime.Add(3 * time.Minute), State: trace.Delivered,
		Login: "anna@example.com", Client: "192.0.2.17",
		Listener: "submission", From: "Anna@example.com", To: "bob@gmail.com", Upstream: "google",
		Reply:  mail.R(250, "2.0.0", "OK id=010001806b0f0f99-41060108 <a&b@amazonses.com>"),
		Events: 3, Recipients: 2, Delivered: 1, Failed: 1}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSearchRefuses(t *testing.T) {
	s := open(t, Options{})
	for _, q := range []trace.Search{
		{Words: "x"}, {Words: "<> -"}, {Words: strings.Repeat("x", trace.MaxQuery+1)},
		{Words: "aa bb cc dd ee ff gg hh ii"}, {After: "x"}, {After: "1.?"}, {After: "."},
	} {
		if _, err := s.Search(t.Context(), q); err == nil || !strings.Contains(err.Error(), trace.ErrQuery.Error()) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestSearchPeriod(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, story()...)
	x := newTestIndexer(s)
	for range 2 {
		for _, test := range []struct {
			since, until int
			want         []string
		}{
			{0, 10, []string{"session s2", "message m1"}},
			{3, 10, []string{"session s2", "message m1"}},
			{4, 10, []string{"session s2"}},
			{0, 4, []string{"message m1"}},
			{8, 10, nil},
		} {
			q := trace.Search{Words: "example.com", Since: eventTime.Add(time.Duration(test.since) * time.Minute),
				Until: eventTime.Add(time.Duration(test.until) * time.Minute)}
			if got := labels(findAll(t, s, q)); !slices.Equal(got, test.want) {
				t.Errorf("%+v: %q", test, got)
			}
		}
		x.all(t)
	}
}

func TestTimeline(t *testing.T) {
	s := open(t, Options{})
	events := story()
	before := trace.Event{Time: eventTime, Kind: trace.Rejected, Session: "s1", Detail: "first try"}
	other := trace.Event{Time: eventTime.Add(time.Second), Kind: trace.Accepted, Session: "s1", ID: "other"}
	appendEvents(t, s, append(slices.Clone(events), before, other)...)
	for id, want := range map[string][]trace.Event{
		"m1":    {before, events[0], events[1], events[2]},
		"other": {before, other},
		"s1":    {before, other, events[0], events[1], events[2]},
		"s2":    {events[3], events[4]},
		"none":  nil, "": nil,
	} {
		got, more, err := s.Timeline(t.Context(), "anna", id)
		if err != nil || more || !slices.Equal(got, want) {
			t.Errorf("%s: %v, got %+v", id, err, got)
		}
	}
}

// TestSearchPagesAreStable: what comes between two pages neither moves nor hides what is on the second.
func TestSearchPagesAreStable(t *testing.T) {
	s := open(t, Options{})
	for n := range 10 {
		appendEvents(t, s, trace.Event{Time: eventTime.Add(time.Duration(n) * time.Second), Kind: trace.Accepted,
			ID: fmt.Sprint("m", n), Login: "anna"})
	}
	a, err := s.Search(t.Context(), trace.Search{Words: "anna", Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		appendEvents(t, s, trace.Event{Time: eventTime.Add(time.Hour), Kind: trace.Delivered, ID: fmt.Sprint("m", n),
			Login: "anna"})
	}
	newTestIndexer(s).all(t)
	b, err := s.Search(t.Context(), trace.Search{Words: "anna", Limit: 100, After: a.Next})
	got := labels(append(a.Found, b.Found...))
	want := []string{"m9", "m8", "m7", "m6", "m5", "m4", "m3", "m2", "m1", "m0"}
	if err != nil || strings.ReplaceAll(strings.Join(got, " "), "message ", "") != strings.Join(want, " ") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSearchForgets: what was taken out of an event is not in the index any more, also where it was in a batch that
// was being indexed at that moment.
func TestSearchForgets(t *testing.T) {
	s := open(t, Options{})
	appendEvents(t, s, story()...)
	x := newTestIndexer(s)
	x.all(t)
	there := func() (n int) {
		t.Helper()
		err := s.readers.read(t.Context(), func(conn db.Conn) error {
			c, err := newCandidates(conn, []string{"bob@gmail.com"}, math.MinInt64, math.MaxInt64)
			if err != nil {
				return err
			}
			for {
				_, ok, err := c.next()
				if err != nil || !ok {
					return err
				}
				n++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if there() != 1 {
		t.Fatal("the index does not know the address")
	}
	number := eventTime.Add(2 * time.Minute).UnixNano()
	err := s.write(t.Context(), func(tx *tx) error {
		if err := tx.Run("UPDATE event SET rcpt = 'removed' WHERE n = ?", number); err != nil {
			return err
		}
		return tx.unindex([]int64{number}, true)
	})
	if err != nil {
		t.Fatal(err)
	}
	x.all(t)
	if n := there(); n != 0 {
		t.Errorf("the index still knows the address, %d times", n)
	}
	if got := labels(findAll(t, s, trace.Search{Words: "removed"})); !slices.Equal(got, []string{"message m1"}) {
		t.Errorf("the changed event is not found: %q", got)
	}
	if left := rowsOfNoSegment(t, s); left != 0 {
		t.Errorf("%d rows of the old segment are left", left)
	}
}

func rowsOfNoSegment(t testing.TB, s *Store) (n int) {
	t.Helper()
	err := s.readers.read(t.Context(), func(conn db.Conn) error {
		left, err := leftovers(conn)
		n = len(left)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// vocabulary makes words meet, by ones that many events have and ones that few have.
var vocabulary = []string{"anna", "bob", "carol", "gmail.com", "example.com", "550", "rare1", "rare2", "queued", "x-y"}

func drawEvents(t *rapid.T) []trace.Event {
	word := func(name string) string { return rapid.SampledFrom(vocabulary).Draw(t, name) }
	events := make([]trace.Event, rapid.IntRange(1, 60).Draw(t, "events"))
	base := rapid.IntRange(0, 5000).Draw(t, "minute")
	for i := range events {
		e := &events[i]
		e.Time = eventTime.Add(time.Duration(base+rapid.IntRange(0, 30).Draw(t, "later")) * time.Minute)
		e.Kind = rapid.SampledFrom(trace.Kinds).Draw(t, "kind")
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			e.Session = fmt.Sprint("session", rapid.IntRange(0, 9).Draw(t, "session"))
		case 1: // of nobody
		default:
			e.ID = fmt.Sprint("message", rapid.IntRange(0, 30).Draw(t, "message"))
			e.Session = "session0"
		}
		e.From, e.To = word("from")+"@example.com", word("to")+"@gmail.com"
		e.Detail = word("one") + " " + word("two")
	}
	return events
}

// naive is the search as it is meant: through everything, the newest first.
func naive(t *rapid.T, s *Store, q trace.Search) (rows []string) {
	events, err := s.Events(t.Context(), trace.Query{Limit: 1 << 30, Since: q.Since, Until: q.Until})
	if err != nil {
		t.Fatal(err)
	}
	terms, _ := q.Terms()
	for _, e := range slices.Backward(events) {
		l := label(trace.Found{ID: e.ID, Session: e.Session, Time: e.Time})
		if e.HasTerms(terms) && !slices.Contains(rows, l) {
			rows = append(rows, l)
		}
	}
	return rows
}

// TestSearchIsExact: wherever the indexer is, whatever was inserted late, trimmed, changed or merged, a search finds
// what going through all events finds, in that order.
func TestSearchIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := Open(rt.Context(), Options{Dir: t.TempDir()})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		x := newTestIndexer(s)
		write := func(run func(*tx) error) {
			if err := s.write(rt.Context(), run); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(3, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "do") {
			case 0, 1, 2:
				if err := s.AppendEvents(rt.Context(), drawEvents(rt)); err != nil {
					rt.Fatal(err)
				}
			case 3, 4, 5, 6:
				for range rapid.IntRange(1, 4).Draw(rt, "work") {
					x.work(t, rapid.Bool().Draw(rt, "busy"))
				}
			case 7:
				write(func(tx *tx) error {
					_, err := tx.trim(rapid.Int64Range(1, 60).Draw(rt, "trim"), math.MinInt64, math.MaxInt64,
						rapid.Bool().Draw(rt, "refusals"))
					return err
				})
			case 8:
				forgetSome(rt, write)
			default:
				if rapid.IntRange(0, 3).Draw(rt, "anew") == 0 {
					if err := s.Reindex(rt.Context()); err != nil {
						rt.Fatal(err)
					}
				}
			}
			compare(rt, s)
		}
		x.all(t)
		compare(rt, s)
		if left := rowsOfNoSegment(t, s); left != 0 {
			rt.Errorf("%d rows of no segment", left)
		}
	})
}

// forgetSome removes somebody, as an operator may be asked to.
func forgetSome(rt *rapid.T, write func(func(*tx) error)) {
	who := rapid.SampledFrom(vocabulary).Draw(rt, "forget")
	write(func(tx *tx) error {
		numbers, err := list(tx.Conn, number, "SELECT n FROM event WHERE rcpt = ?", "gmail.com@"+who)
		if err != nil {
			return err
		}
		if err := tx.Run("UPDATE event SET rcpt = 'gmail.com@removed' WHERE rcpt = ?", "gmail.com@"+who); err != nil {
			return err
		}
		return tx.unindex(numbers, true)
	})
}

func compare(rt *rapid.T, s *Store) {
	q := trace.Search{Limit: rapid.SampledFrom([]int{1, 3, 100}).Draw(rt, "limit")}
	for range rapid.IntRange(0, 3).Draw(rt, "words") {
		q.Words += rapid.SampledFrom(append(vocabulary, "anna@example.com", "bob@gmail.com", "accepted", "gmail",
			"nobody", "message7", "session3")).Draw(rt, "word") + " "
	}
	if rapid.Bool().Draw(rt, "period") {
		q.Since = eventTime.Add(time.Duration(rapid.IntRange(0, 5000).Draw(rt, "since")) * time.Minute)
		q.Until = q.Since.Add(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "for")) * time.Minute)
	}
	var got []string
	for page := q; ; {
		a, err := s.Search(rt.Context(), page)
		if err != nil {
			rt.Fatal(err)
		}
		got = append(got, labels(a.Found)...)
		if page.After = a.Next; page.After == "" {
			break
		}
	}
	if want := naive(rt, s, q); !slices.Equal(got, want) {
		rt.Fatalf("%+v\ngot  %q\nwant %q", q, got, want)
	}
}
