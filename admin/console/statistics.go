package console

import (
	"bytes"
	"slices"
	"sort"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/stats"
)

// statisticsPage counts what became of mail.
var (
	statisticsPage = page{path: statisticsPath, title: "Statistics", menu: true, needs: operate.SeeStatistics,
		sheet: "statistics", show: showStatistics}
	statisticsFile = page{path: statisticsPath + "/" + statisticsName, title: "Statistics", under: statisticsPath,
		needs: operate.SeeStatistics, sheet: "statistics", show: showStatisticsFile}
)

const (
	statisticsPath = "/statistics"
	statisticsName = "postern-statistics.csv"
)

// statisticsView is the body of the page.
type statisticsView struct {
	By, Spans []choice
	Only      string // name, as it is asked for
	OnlySet   bool
	Of        string // what the rows are
	Link      bool   // a row leads to its own numbers
	Rows      []statisticsRow
	Total     statisticsRow
	Line      *lineChart
	File      string
}

// statisticsRowOf is the sums of one name.
type statisticsRow struct {
	stats.Counts
	Name, Link  string
	Bounces     string
	Median, P95 string
	Refusals    int64
	Width       float64 // of its bar, of 100: its part of the largest
}

// lineChart is a chart of what happened over the period, in a box of chartWidth by chartHeight.
type lineChart struct {
	Lines         []chartLine
	Rows          []statisticsStep // the newest first
	Top           int
	From, To      time.Time
	Width, Height int
	Grid          []float64
	Hourly        bool
	UTC           bool // its days are those of UTC
	Total         stats.Counts
}

// statisticsStep is an hour or a day.
type statisticsStep struct {
	At                          time.Time
	Accepted, Delivered, Failed int64
}

// today is the period since the last midnight.
const today = "today"

// periods are those that may be asked for; those of hours show a line for each hour. The first is chosen unless another
// is.
var periods = []struct {
	value string
	label key
	long  time.Duration
	step  stats.Step
}{
	{"7d", "the last 7 days", 7 * 24 * time.Hour, stats.Hour},
	{today, "today", 0, stats.Hour},
	{"24h", "the last 24 hours", 24 * time.Hour, stats.Hour},
	{"30d", "the last 30 days", 30 * 24 * time.Hour, stats.Day},
	{"90d", "the last 90 days", 89 * 24 * time.Hour, stats.Day},
	{"1y", "the last year", 365 * 24 * time.Hour, stats.Day},
}

// dimensions are by what may be counted.
var dimensions = []struct {
	by    stats.Dimension
	label key
}{
	{stats.Login, "Login"}, {stats.Listener, "Listener"}, {stats.Upstream, "Provider"},
	{stats.SenderDomain, "Domain of the sender"}, {stats.RecipientDomain, "Domain of the recipient"},
}

// statisticsNames is how many names the table has; the rest is one row.
const statisticsNames = 50

// askedStatistics reads what is asked for, and what it is in words.
func askedStatistics(v *visit, view *statisticsView) stats.Query {
	q := v.URL.Query()
	ask := stats.Query{By: stats.Login, Limit: statisticsNames}
	chosen := periods[0]
	for _, p := range periods {
		if p.value == q.Get("span") {
			chosen = p
		}
	}
	for _, p := range periods {
		view.Spans = append(view.Spans, choice{p.value, v.t(p.label), p.value == chosen.value})
	}
	for _, d := range dimensions {
		if d.by.String() == q.Get("by") {
			ask.By = d.by
		}
	}
	for _, d := range dimensions {
		view.By = append(view.By, choice{d.by.String(), v.t(d.label), d.by == ask.By})
		if d.by == ask.By {
			view.Of = v.t(d.label)
		}
	}
	ask.Since, ask.Until, ask.Step = v.now.Add(-chosen.long), v.now, chosen.step
	if chosen.value == today {
		ask.Since = midnight(v.now)
	}
	if view.OnlySet = q.Has("only"); view.OnlySet {
		only := mail.Cut(q.Get("only"), maxFilter)
		view.Only = statNameOf(v, only)
		ask.OnlyKey = &only
	}
	return ask
}

func showStatistics(v *visit) (any, error) {
	view := &statisticsView{}
	ask := askedStatistics(v, view)
	v.console.Operations.Trace.Await(v.Context())
	sums := ask
	sums.Step = stats.Total
	table, err := v.console.Operations.Trace.Statistics(v.Context(), v.actor, sums, v.now)
	if err != nil {
		return nil, err
	}
	over, daily := ask, ask.Step == stats.Day
	if ask.OnlyKey == nil {
		over.By = stats.All
	}
	if daily && v.now.Sub(ask.Since) < stats.HourlyFor { // of hours the days of the server's zone can be made
		over.Since, over.Step = midnight(ask.Since), stats.Hour
	}
	steps, err := v.console.Operations.Trace.Statistics(v.Context(), v.actor, over, v.now)
	if err != nil {
		return nil, err
	}
	largest := int64(1)
	for i := range table.Rows {
		largest = max(largest, table.Rows[i].Messages, table.Rows[i].Delivered)
	}
	for i := range table.Rows {
		row := statisticsRowOf(v, table.Rows[i].Key, &table.Rows[i].Counts)
		row.Width = 100 * float64(max(row.Messages, row.Delivered)) / float64(largest)
		if key := table.Rows[i].Key; key != stats.Other && !view.OnlySet {
			p := v.URL.Query()
			p.Set("only", key)
			row.Link = with(statisticsPath, p)
		}
		view.Rows = append(view.Rows, row)
	}
	view.Total = statisticsRowOf(v, "", &table.Total)
	view.Line = lineOf(steps, daily)
	view.File = with(statisticsPath+"/"+statisticsName, v.URL.Query())
	return view, nil
}

// statNameOf is what a person reads for a key.
func statNameOf(v *visit, key string) string {
	switch key {
	case stats.Nothing:
		return v.t("without a name")
	case stats.Other:
		return v.t("all others")
	}
	return plain(120, key)
}

func statisticsRowOf(v *visit, name string, n *stats.Counts) statisticsRow {
	row := statisticsRow{Counts: *n, Name: statNameOf(v, name), Bounces: "–", Median: "–", P95: "–",
		Refusals: n.Refused + n.LoginsRefused + n.SessionsRefused}
	if rate, ok := n.BounceRate(); ok {
		row.Bounces = v.printer.Sprintf("%.1f %%", 100*rate)
	}
	if d, ok := n.Times.Quantile(0.5); ok {
		row.Median = tookOf(v, d)
	}
	if d, ok := n.Times.Quantile(0.95); ok {
		row.P95 = tookOf(v, d)
	}
	return row
}

// tookOf is how long something took, to about two digits.
func tookOf(v *visit, d time.Duration) string {
	switch {
	case d < time.Second:
		return v.printer.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return v.printer.Sprintf("%.1f s", d.Seconds())
	}
	return v.span(d)
}

// midnight is when a day began in the server's zone.
func midnight(t time.Time) time.Time {
	y, m, d := t.Local().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.Local)
}

// maxSteps bounds what a chart has.
const maxSteps = 1000

// lineOf draws what happened over the period, by days if it is to be daily. Days of a table of hours are those of the
// server's zone. Steps in which nothing happened are drawn, and not in its table.
func lineOf(t *stats.Table, daily bool) *lineChart {
	c := &lineChart{From: t.Since, To: t.Until, Width: chartWidth, Height: chartHeight, Hourly: !daily,
		UTC: t.Step == stats.Day, Total: t.Total, Grid: []float64{0.5, chartHeight / 2, chartHeight - 0.5}}
	var steps []statisticsStep
	for at := t.Since; at.Before(t.Until) && len(steps) < maxSteps || len(steps) < 2; {
		steps = append(steps, statisticsStep{At: at})
		switch {
		case !daily:
			at = at.Add(time.Hour)
		case c.UTC:
			at = at.AddDate(0, 0, 1)
		default:
			at = midnight(at).AddDate(0, 0, 1)
		}
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		after := sort.Search(len(steps), func(i int) bool { return steps[i].At.After(r.Start) })
		if after > 0 {
			s := &steps[after-1]
			s.Accepted, s.Delivered, s.Failed = s.Accepted+r.Messages, s.Delivered+r.Delivered, s.Failed+r.Failed()
		}
	}
	values := [3][]int{}
	for _, s := range steps {
		for i, v := range []int64{s.Accepted, s.Delivered, s.Failed} {
			values[i] = append(values[i], int(v))
			c.Top = max(c.Top, int(v))
		}
	}
	c.Top = roundTop(c.Top)
	for i, class := range []string{"a", "b", "c"} {
		c.Lines = append(c.Lines, chartLine{class, points(values[i], c.Top)})
	}
	c.Rows = slices.DeleteFunc(steps, func(s statisticsStep) bool { return s.Accepted+s.Delivered+s.Failed == 0 })
	slices.Reverse(c.Rows)
	return c
}

// showStatisticsFile answers with the same numbers as CSV, a line for each name in each step.
func showStatisticsFile(v *visit) (any, error) {
	ask := askedStatistics(v, &statisticsView{})
	table, err := v.console.Operations.Trace.Statistics(v.Context(), v.actor, ask, v.now)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := operate.WriteStatistics(&b, table); err != nil {
		return nil, err
	}
	return attachment{statisticsName, "text/csv; charset=utf-8", b.Bytes()}, nil
}
