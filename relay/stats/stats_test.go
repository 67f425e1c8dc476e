package stats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/mail"
	"postern/relay/trace"
)

var monday = time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)

// memory is a Sink that keeps everything; while fail is set it refuses.
type memory struct {
	fail  error
	sums  map[Cell]*Counts
	calls []int
}

func (m *memory) AddStatistics(_ context.Context, sums []Sum) error {
	if m.calls = append(m.calls, len(sums)); m.fail != nil {
		return m.fail
	}
	if m.sums == nil {
		m.sums = map[Cell]*Counts{}
	}
	for _, s := range sums {
		if m.sums[s.Cell] == nil {
			m.sums[s.Cell] = &Counts{}
		}
		m.sums[s.Cell].Add(&s.Counts)
	}
	return nil
}

func (m *memory) AddStatisticsNow(ctx context.Context, sums []Sum) error {
	return m.AddStatistics(ctx, sums)
}

func (m *memory) of(by Dimension, key string) (all Counts) {
	for at, n := range m.sums {
		if at.By == by && at.Key == key {
			all.Add(n)
		}
	}
	return all
}

func (m *memory) keys(by Dimension) (n int) {
	for at := range m.sums {
		if at.By == by {
			n++
		}
	}
	return n
}

func counted(t *testing.T, m *memory, events ...trace.Event) *Counter {
	t.Helper()
	c := NewCounter(m, nil)
	for i := range events {
		if events[i].Time.IsZero() {
			events[i].Time = monday
		}
		c.Count(&events[i])
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatCountsAsWhat(t *testing.T) {
	to := func(domains ...string) *trace.Rcpts { return &trace.Rcpts{Domains: domains} }
	refusal := mail.R(550, "5.7.1", "no")
	for name, test := range map[string]struct {
		event trace.Event
		by    Dimension
		key   string
		want  Counts
	}{
		"accepted, by login": {trace.Event{Kind: trace.Accepted, Login: "anna", Size: 9,
			Rcpts: to("a.example", "b.example")},
			Login, "anna", Counts{Messages: 1, Recipients: 2, Octets: 9}},
		"accepted, by domain": {trace.Event{Kind: trace.Accepted, Size: 9,
			Rcpts: to("A.example", "b.example", "a.example")},
			RecipientDomain, "a.example", Counts{Messages: 1, Recipients: 2, Octets: 9}},
		"accepted is no upstream's": {trace.Event{Kind: trace.Accepted, Size: 9, Rcpts: to("a.example")},
			Upstream, "", Counts{}},
		"by sender": {trace.Event{Kind: trace.Accepted, From: "Anna@Example.COM", Rcpts: to("a.example")},
			SenderDomain, "example.com", Counts{Messages: 1, Recipients: 1}},
		"null reverse-path": {trace.Event{Kind: trace.Accepted, Rcpts: to("a.example")}, SenderDomain, Nothing,
			Counts{Messages: 1, Recipients: 1}},
		"refused": {trace.Event{Kind: trace.Rejected, Listener: "l", Reply: refusal}, Listener, "l",
			Counts{Refused: 1}},
		"session refused": {trace.Event{Kind: trace.Refused, Listener: "l"}, Listener, "l", Counts{SessionsRefused: 1}},
		"login refused": {trace.Event{Kind: trace.AuthFail, Login: "x\x1b[2J", Reply: mail.R(535, "5.7.8", "no")},
			Login,
			"x?[2J", Counts{LoginsRefused: 1}},
		"locked out": {trace.Event{Kind: trace.AuthFail, Login: "anna"}, Login, "anna", Counts{}},
		"deferred": {trace.Event{Kind: trace.Deferred, Upstream: "u", Class: "deferral"}, Upstream, "u",
			Counts{Deferrals: 1}},
		"account": {trace.Event{Kind: trace.Deferred, Upstream: "u", Class: "account-fault"}, Upstream, "u",
			Counts{AccountFaults: 1}},
		"back-pressure": {trace.Event{Kind: trace.Deferred, Upstream: "u", Class: "back-pressure"}, Upstream, "u",
			Counts{BackPressure: 1}},
		"recipient": {trace.Event{Kind: trace.Failed, Upstream: "u", Class: "recipient-fault"}, Upstream, "u",
			Counts{RecipientFaults: 1}},
		"message": {trace.Event{Kind: trace.Failed, Upstream: "u", Class: "message-fault", Octets: 7},
			Upstream, "u", Counts{MessageFaults: 1}},
		"expired": {trace.Event{Kind: trace.Failed, To: "b@b.example", Class: "deferral"}, RecipientDomain,
			"b.example", Counts{GivenUp: 1}},
		"unclear": {trace.Event{Kind: trace.Unclear, To: "b@b.example"}, RecipientDomain, "b.example",
			Counts{Unclear: 1}},
		"attempt":           {trace.Event{Kind: trace.Attempt, Upstream: "u"}, Upstream, "u", Counts{}},
		"operator":          {trace.Event{Kind: trace.Operator, Login: "anna"}, Login, "anna", Counts{}},
		"a star is no name": {trace.Event{Kind: trace.Refused, Login: "*"}, Login, Other, Counts{SessionsRefused: 1}},
		"long": {trace.Event{Kind: trace.Rejected, From: "a@" + strings.Repeat("x", 300)}, SenderDomain,
			strings.Repeat("x", 97) + "...", Counts{Refused: 1}},
	} {
		m := &memory{}
		counted(t, m, test.event)
		if got := m.of(test.by, test.key); !got.Equal(&test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		for at := range m.sums {
			if len(at.Key) > maxKey || at.Key != mail.Printable(at.Key) || at.Hour != monday.Unix()/3600 {
				t.Errorf("%s: %+v", name, at)
			}
		}
	}
}

func TestDelivered(t *testing.T) {
	m := &memory{}
	c := counted(t, m,
		trace.Event{Kind: trace.Delivered, Upstream: "u", Listener: "l", To: "b@b.example", Octets: 7,
			Age: time.Second},
		trace.Event{Kind: trace.Delivered, Upstream: "u", Listener: "l", To: "c@b.example", Age: time.Second})
	got := m.of(Upstream, "u")
	if got.Delivered != 2 || got.Octets != 7 || got.Times.Count() != 2 {
		t.Errorf("%+v", got)
	}
	if got := m.of(RecipientDomain, "b.example"); got.Octets != 0 || got.Delivered != 2 {
		t.Errorf("%+v: octets of accepted messages only", got)
	}
	if totals, other := c.Totals(); totals["l"].Delivered != 2 || other != 0 {
		t.Errorf("%+v, %d", totals, other)
	}
}

// Whoever is refused cannot crowd out who sends, nor grow anything, and totals stay right.
func TestKeysAreBounded(t *testing.T) {
	m := &memory{}
	c := NewCounter(m, nil)
	for i := range 5000 {
		c.Count(&trace.Event{Time: monday, Kind: trace.Rejected, From: fmt.Sprintf("x@%d.example", i)})
	}
	for i := range 1500 {
		c.Count(&trace.Event{Time: monday, Kind: trace.Accepted, From: fmt.Sprintf("x@good%d.example", i), Size: 1,
			Rcpts: &trace.Rcpts{Domains: []string{"to.example"}}})
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := m.keys(SenderDomain); n != MaxKeys+1 {
		t.Errorf("%d keys", n)
	}
	good, other := 0, m.of(SenderDomain, Other)
	for at, n := range m.sums {
		if at.By == SenderDomain && n.Messages > 0 && at.Key != Other {
			good++
		}
	}
	if good != MaxKeys-refusalKeys || other.Messages != 1500-int64(good) || other.Refused != 5000-refusalKeys {
		t.Errorf("%d senders have a key, other has %+v", good, other)
	}
	if all := m.of(RecipientDomain, "to.example"); all.Messages != 1500 {
		t.Errorf("%+v", all)
	}
	if n := slices.Max(m.calls); n > flushCells {
		t.Errorf("%d cells in one write", n)
	}
}

func TestRefusedSumsAreKept(t *testing.T) {
	m := &memory{fail: errors.New("disk on fire")}
	c := NewCounter(m, nil)
	c.Count(&trace.Event{Time: monday, Kind: trace.Refused, Listener: "l"})
	for range 3 {
		if err := c.Flush(t.Context()); !errors.Is(err, m.fail) {
			t.Fatal(err)
		}
		c.Count(&trace.Event{Time: monday, Kind: trace.Refused, Listener: "l"})
	}
	m.fail = nil
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.of(Listener, "l"); got.SessionsRefused != 4 {
		t.Errorf("%+v", got)
	}
}

// The error of quantiles is within the bound, and adding histograms is as good as one.
func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			ms := math.Exp2(rapid.Float64Range(0, 31.8).Draw(t, "doublings"))
			return time.Duration(ms * float64(time.Millisecond))
		}), 1, 200).Draw(t, "times")
		var one, left, right Histogram
		for i, d := range times {
			one.Observe(d)
			if i%3 == 0 {
				left.Observe(d)
			} else {
				right.Observe(d)
			}
		}
		left.Add(&right)
		if !left.Equal(&one) || one.Count() != int64(len(times)) {
			t.Fatalf("%v, %v", left, one)
		}
		slices.Sort(times)
		for _, q := range []float64{0, 0.5, 0.95, 1} {
			rank := max(int(math.Ceil(q*float64(len(times)))), 1)
			want := times[rank-1]
			got, ok := one.Quantile(q)
			if off := math.Abs(float64(got-want)) / float64(want); !ok || off > MaxError {
				t.Fatalf("quantile %v is %v, not %v: off by %.4f", q, got, want, off)
			}
		}
	})
	var none Histogram
	if _, ok := none.Quantile(0.5); ok {
		t.Error("a median of nothing")
	}
	none.Observe(-time.Second)
	none.Observe(1 << 62)
	if none.Count() != 2 {
		t.Error("what is out of range is lost")
	}
}

func FuzzDecode(f *testing.F) {
	c := Counts{Messages: 1, Unclear: 300}
	c.Times.Observe(time.Second)
	c.Times.Observe(time.Hour)
	f.Add(c.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(c.Append(nil))
		if err != nil || !again.Equal(&c) {
			t.Fatalf("%+v, %+v: %v", c, again, err)
		}
	})
}

func TestQueryComplete(t *testing.T) {
	now := monday
	for name, test := range map[string]struct {
		q            Query
		since, until string // "": ErrQuery
	}{
		"a week":        {Query{}, "2026-10-26T09:00:00Z", "2026-11-02T10:00:00Z"},
		"days":          {Query{Step: Day}, "2026-10-26T00:00:00Z", "2026-11-03T00:00:00Z"},
		"a year":        {Query{Since: now.AddDate(-1, 0, 0)}, "2025-11-02T00:00:00Z", "2026-11-03T00:00:00Z"},
		"hours of then": {Query{Step: Hour, Since: now.AddDate(-1, 0, 0)}, "", ""},
		"backwards":     {Query{Since: now, Until: now.Add(-time.Hour)}, "", ""},
		"the future":    {Query{Since: now.Add(time.Hour)}, "", ""},
		"from the beginning": {Query{Since: time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)}, "1970-01-01T00:00:00Z",
			"2026-11-03T00:00:00Z"},
		"whole": {Query{Since: now.Truncate(time.Hour), Until: now.Add(time.Hour)}, "2026-11-02T09:00:00Z",
			"2026-11-02T10:00:00Z"},
	} {
		q, err := test.q.Complete(now)
		if test.since == "" {
			if !errors.Is(err, ErrQuery) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || q.Since.Format(time.RFC3339) != test.since || q.Until.Format(time.RFC3339) != test.until {
			t.Errorf("%s: %s to %s, %v", name, q.Since, q.Until, err)
		}
	}
}

func TestTableShowsTheLargest(t *testing.T) {
	q, err := Query{By: Login, Limit: 2}.Complete(monday)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder(q)
	for key, n := range map[string]int64{"anna": 5, "ben": 9, "cem": 1, Other: 100, Nothing: 2} {
		b.Add(monday, key, &Counts{Messages: n})
	}
	table := b.Table()
	var got []string
	for _, r := range table.Rows {
		got = append(got, fmt.Sprint(r.Key, " ", r.Messages))
	}
	if want := []string{"ben 9", "anna 5", "* 103"}; !slices.Equal(got, want) || table.Total.Messages != 117 {
		t.Errorf("%q, %d", got, table.Total.Messages)
	}
}
