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
	"postern/relay/stats"
	"postern/relay/trace"
)

// statLedger is the account of a month that is kept beside the statistics, event by event.
type statLedger struct {
	saved, unsaved []statEntry // a kill loses the unsaved ones
}

// statEntry is what one event should count for.
type statEntry struct {
	at   time.Time
	keys map[stats.Dimension]map[string]stats.Counts // by dimension and key; ages are apart
	age  time.Duration                               // 0: nothing was delivered
}

func (l *statLedger) note(e statEntry) { l.unsaved = append(l.unsaved, e) }

// sums adds up what a dimension should have, by key and step of so many hours.
func (l *statLedger) sums(by stats.Dimension, step time.Duration) map[string]*statWant {
	want := map[string]*statWant{}
	for _, e := range l.saved {
		for key, n := range e.keys[by] {
			at := key + " " + e.at.Truncate(step).Format(time.RFC3339)
			if step == 0 {
				at = key
			}
			w := want[at]
			if w == nil {
				w = &statWant{}
				want[at] = w
			}
			w.Add(&n)
			if e.age > 0 {
				w.ages = append(w.ages, e.age)
			}
		}
	}
	return want
}

type statWant struct {
	stats.Counts
	ages []time.Duration
}

// check compares a sum with what it should be.
func (w *statWant) check(got *stats.Counts) error {
	plain := *got
	plain.Times = stats.Histogram{}
	if !plain.Equal(&w.Counts) || got.Times.Count() != int64(len(w.ages)) {
		return fmt.Errorf("%+v with %d times, want %+v with %d", plain, got.Times.Count(), w.Counts, len(w.ages))
	}
	if len(w.ages) == 0 {
		return nil
	}
	slices.Sort(w.ages)
	for _, q := range []float64{0.5, 0.95} {
		want := w.ages[max(int(math.Ceil(q*float64(len(w.ages)))), 1)-1]
		d, _ := got.Times.Quantile(q)
		if math.Abs(float64(d-want)) > stats.MaxError*float64(want) {
			return fmt.Errorf("quantile %v is %s, want %s", q, d, want)
		}
	}
	return nil
}

// statMonth is the month that is simulated: messages and what becomes of them.
type statMonth struct {
	*rapid.T
	begin  time.Time
	events []trace.Event // by time
	ledger map[int]statEntry
}

var (
	statLogins  = []string{"anna", "ben@example.com", "scanner", ""}
	statDomains = []string{"example.com", "example.net", "example.org"}
	statClasses = []string{"deferral", "account-fault", "back-pressure"}
)

func drawStatMonth(t *rapid.T, begin time.Time) *statMonth {
	m := &statMonth{T: t, begin: begin, ledger: map[int]statEntry{}}
	for i := range rapid.IntRange(1, 40).Draw(t, "messages") {
		m.message(fmt.Sprintf("m%d", i))
	}
	for range rapid.IntRange(0, 10).Draw(t, "refusals") {
		m.refusal()
	}
	return m
}

func (m *statMonth) when(after time.Time) time.Time {
	end := m.begin.Add(30 * 24 * time.Hour)
	return after.Add(time.Duration(rapid.Int64Range(0, int64(end.Sub(after))/2).Draw(m.T, "later")))
}

func (m *statMonth) add(e trace.Event, entry statEntry) {
	e.Attempt, entry.at = len(m.events), e.Time // so that it is known again
	m.ledger[len(m.events)] = entry
	m.events = append(m.events, e)
}

// message draws a message with its recipients, and all that happens until each of them is done.
func (m *statMonth) message(id string) {
	login, from := rapid.SampledFrom(statLogins).Draw(m.T, "login"), rapid.SampledFrom(statDomains).Draw(m.T, "from")
	to := rapid.SliceOfN(rapid.SampledFrom(statDomains), 1, 4).Draw(m.T, "to")
	size := rapid.Int64Range(1, 1e6).Draw(m.T, "size")
	e := trace.Event{ID: id, Login: login, Listener: "submission", From: "x@" + from, Size: size}
	received := m.when(m.begin)
	accepted := e
	accepted.Kind, accepted.Time, accepted.Rcpts = trace.Accepted, received, &trace.Rcpts{Domains: to}
	n := stats.Counts{Messages: 1, Recipients: int64(len(to)), Octets: size}
	domains := map[string]stats.Counts{}
	for _, d := range to {
		domains[d] = stats.Counts{Messages: 1, Recipients: domains[d].Recipients + 1, Octets: size}
	}
	m.add(accepted, statEntry{keys: map[stats.Dimension]map[string]stats.Counts{
		stats.Login: {login: n}, stats.Listener: {"submission": n}, stats.SenderDomain: {from: n},
		stats.RecipientDomain: domains,
	}})
	for i, d := range to {
		m.recipient(e, received, from, d, fmt.Sprintf("%d@%s", i, d))
	}
}

// recipient draws deferrals and the end of one recipient.
func (m *statMonth) recipient(e trace.Event, received time.Time, from, domain, to string) {
	e.To, e.Time = to, received
	tell := func(n stats.Counts) {
		e.Upstream = rapid.SampledFrom([]string{"office", "spare"}).Draw(m.T, "upstream")
		entry := statEntry{keys: map[stats.Dimension]map[string]stats.Counts{
			stats.Login: {e.Login: n}, stats.Listener: {e.Listener: n}, stats.SenderDomain: {from: n},
			stats.RecipientDomain: {domain: n},
		}}
		if e.Kind == trace.Delivered {
			e.Age = max(e.Time.Sub(received), time.Millisecond)
			entry.age, e.Octets = e.Age, e.Size
			n.Octets = e.Size
		}
		entry.keys[stats.Upstream] = map[string]stats.Counts{e.Upstream: n}
		m.add(e, entry)
	}
	for range rapid.IntRange(0, 3).Draw(m.T, "deferrals") {
		e.Time, e.Kind, e.Class = m.when(e.Time), trace.Deferred, rapid.SampledFrom(statClasses).Draw(m.T, "class")
		tell(map[string]stats.Counts{"deferral": {Deferrals: 1}, "account-fault": {AccountFaults: 1},
			"back-pressure": {BackPressure: 1}}[e.Class])
	}
	e.Time, e.Class = m.when(e.Time), ""
	switch rapid.IntRange(0, 5).Draw(m.T, "end") {
	case 0:
		e.Kind, e.Class = trace.Failed, "recipient-fault"
		tell(stats.Counts{RecipientFaults: 1})
	case 1:
		e.Kind, e.Class = trace.Failed, "message-fault"
		tell(stats.Counts{MessageFaults: 1})
	case 2:
		e.Kind = trace.Failed
		tell(stats.Counts{GivenUp: 1})
	case 3:
		e.Kind = trace.Unclear
		tell(stats.Counts{Unclear: 1})
	default:
		e.Kind = trace.Delivered
		tell(stats.Counts{Delivered: 1})
	}
}

func (m *statMonth) refusal() {
	e := trace.Event{Time: m.when(m.begin), Kind: rapid.SampledFrom([]trace.Kind{trace.Refused, trace.AuthFail,
		trace.Rejected}).Draw(m.T, "kind"), Login: "anna", Listener: "submissions", From: "x@example.com",
		To: "y@example.net", Client: "192.0.2.1", Reply: mail.R(550, "5.7.1", "no")}
	n := map[trace.Kind]stats.Counts{trace.Refused: {SessionsRefused: 1}, trace.AuthFail: {LoginsRefused: 1},
		trace.Rejected: {Refused: 1}}[e.Kind]
	m.add(e, statEntry{keys: map[stats.Dimension]map[string]stats.Counts{
		stats.Login: {"anna": n}, stats.Listener: {"submissions": n}, stats.SenderDomain: {"example.com": n},
		stats.RecipientDomain: {"example.net": n},
	}})
}

// live records the month in several lives, each of which ends well or is killed.
func (m *statMonth) live(s *Store) *statLedger {
	l := &statLedger{}
	begin := func() (*trace.Recorder, *stats.Counter) {
		r, c := trace.NewRecorder(s, nil), stats.NewCounter(s, nil)
		r.CountWith(c.Count)
		return r, c
	}
	r, c := begin()
	saved := func(err error) {
		if err != nil {
			m.Fatal(err)
		}
		l.saved, l.unsaved = append(l.saved, l.unsaved...), nil
	}
	slices.SortStableFunc(m.events, func(a, b trace.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range m.events {
		if e.Kind.IsRefusal() {
			r.Refusal(e)
		} else {
			r.Record(e)
		}
		l.note(m.ledger[e.Attempt])
		switch rapid.IntRange(0, 12).Draw(m.T, "then") {
		case 0:
			saved(c.Flush(m.Context()))
		case 1: // killed
			l.unsaved = nil
			r, c = begin()
		case 2:
			saved(c.Close(m.Context()))
			r, c = begin()
		}
	}
	saved(c.Close(m.Context()))
	return l
}

// TestStatisticsEqualTheLedger: whatever happens in a month, and however often the process ends, the sums are those of
// what was written down, for every dimension, in hours, days and all of it.
func TestStatisticsEqualTheLedger(t *testing.T) {
	s := open(t, Options{})
	s.Hurry()
	begin := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		begin = begin.Add(31 * 24 * time.Hour) // each run has a month of its own
		l := drawStatMonth(t, begin).live(s)
		now := begin.Add(30 * 24 * time.Hour)
		for _, by := range stats.Dimensions {
			for step, length := range map[stats.Step]time.Duration{stats.Total: 0, stats.Hour: time.Hour,
				stats.Day: 24 * time.Hour} {
				table, err := s.Statistics(t.Context(), stats.Query{By: by, Since: begin, Step: step}, now)
				if err != nil {
					t.Fatal(err)
				}
				compareStats(t, table, l.sums(by, length))
			}
		}
	})
}

func compareStats(t *rapid.T, table *stats.Table, want map[string]*statWant) {
	var total stats.Counts
	for _, row := range table.Rows {
		at := row.Key + " " + row.Start.Format(time.RFC3339)
		if table.Step == stats.Total {
			at = row.Key
		}
		if want[at] == nil {
			t.Fatalf("%s by %s: %q is not in the ledger: %+v", table.Step, table.By, at, row.Counts)
		}
		if err := want[at].check(&row.Counts); err != nil {
			t.Fatalf("%s by %s, %q: %v", table.Step, table.By, at, err)
		}
		delete(want, at)
		total.Add(&row.Counts)
	}
	if len(want) > 0 || !total.Equal(&table.Total) {
		t.Fatalf("%s by %s: %d are missing; the total is %+v, not %+v", table.Step, table.By, len(want), table.Total,
			total)
	}
}

// statAt adds one accepted message of a login at a time.
func statAt(t testing.TB, s *Store, at time.Time, login string) {
	t.Helper()
	sum := stats.Sum{Cell: stats.Cell{Hour: at.Unix() / 3600, By: stats.Login, Key: login},
		Counts: stats.Counts{Messages: 1}}
	if err := s.AddStatistics(t.Context(), []stats.Sum{sum}); err != nil {
		t.Fatal(err)
	}
}

// statShape says how many messages and steps a query finds.
func statShape(t testing.TB, s *Store, q stats.Query, now time.Time) string {
	t.Helper()
	table, err := s.Statistics(t.Context(), q, now)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d messages in %d rows", table.Total.Messages, len(table.Rows))
}

func TestStatisticsOfTwoYears(t *testing.T) {
	s := open(t, Options{})
	s.Hurry()
	now := time.Date(2026, 11, 28, 15, 30, 0, 0, time.UTC)
	const days = 800
	for i := range days {
		statAt(t, s, now.Add(-time.Duration(i)*24*time.Hour), "anna")
	}
	ask := func(want string, q stats.Query) {
		t.Helper()
		q.By = stats.Login
		if got := statShape(t, s, q, now); got != want {
			t.Errorf("%+v: %s, want %s", q, got, want)
		}
	}
	back := func(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }
	if n, err := s.TrimStatistics(t.Context(), now, stats.DailyFor); err != nil || n != days-91+days-731 {
		t.Errorf("%d rows went, %v", n, err)
	}
	ask("731 messages in 1 rows", stats.Query{Since: back(790)})
	ask("731 messages in 731 rows", stats.Query{Since: back(790), Step: stats.Day})
	ask("11 messages in 11 rows", stats.Query{Since: back(10), Step: stats.Hour})
	ask("11 messages in 1 rows", stats.Query{Since: back(10)})
	anna, ben := "anna", "ben"
	ask("11 messages in 11 rows", stats.Query{Since: back(10), Step: stats.Day, OnlyKey: &anna})
	ask("0 messages in 0 rows", stats.Query{Since: back(10), OnlyKey: &ben})
	if n, err := s.TrimStatistics(t.Context(), now, 5*24*time.Hour); err != nil || n != 85+725 {
		t.Errorf("%d rows went, %v", n, err)
	}
	ask("6 messages in 6 rows", stats.Query{Since: back(10), Step: stats.Day})
}

// The store bounds the keys of an hour over many writes, and the rows of all of them.
func TestStatisticsAreBounded(t *testing.T) {
	s := open(t, Options{})
	s.Hurry()
	now := time.Date(2026, 11, 28, 15, 30, 0, 0, time.UTC)
	const logins = stats.MaxKeys + 100
	var sums []stats.Sum
	for i := range logins {
		for h := range int64(2) {
			sums = append(sums, stats.Sum{Cell: stats.Cell{Hour: now.Unix()/3600 - h, By: stats.Login,
				Key: fmt.Sprint("u", i)}, Counts: stats.Counts{Messages: 1}})
		}
	}
	for half := range slices.Chunk(sums, 3000) {
		if err := s.AddStatistics(t.Context(), half); err != nil {
			t.Fatal(err)
		}
	}
	q := stats.Query{By: stats.Login, Since: now.Add(-5 * time.Hour), Step: stats.Hour, Limit: stats.MaxLimit}
	if got, want := statShape(t, s, q, now), fmt.Sprintf("%d messages in %d rows", 2*logins,
		2*(stats.MaxKeys+1)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n, err := s.boundStats(t.Context(), statHours, stats.MaxKeys+1); err != nil || n != stats.MaxKeys+1 {
		t.Errorf("%d rows went, %v", n, err)
	}
	if got := statShape(t, s, q, now); !strings.HasPrefix(got, fmt.Sprint(logins, " messages")) {
		t.Error(got)
	}
}
