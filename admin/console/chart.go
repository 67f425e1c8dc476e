package console

import (
	"fmt"
	"strings"
	"time"

	"postern/relay/trace"
)

// minutes is how many minutes the chart shows.
const minutes = 60

// traffic is how many messages were accepted, and recipients delivered, in each of the last minutes, the oldest first.
type traffic struct {
	From      time.Time
	Accepted  [minutes]int
	Delivered [minutes]int
	Partial   bool                 // there was more than is looked at: the oldest minutes lack some
	Last      map[string]time.Time // delivery by each upstream, within dayOf
}

// Bounds of what the page Now reads of the trace, in events and time.
const (
	maxTraffic = 20_000
	maxLast    = 1000
	dayOf      = 24 * time.Hour
)

// trafficOf counts the trace of the last hour, and finds the last delivery by each upstream within a day.
func trafficOf(v *visit) (t traffic, err error) {
	t.From = v.now.Truncate(time.Minute).Add(-(minutes - 1) * time.Minute)
	ask := func(q trace.Query) ([]trace.Event, error) {
		return v.console.Operations.Trace.Events(v.Context(), v.actor, q, "")
	}
	hour, err := ask(trace.Query{Kinds: []trace.Kind{trace.Accepted, trace.Delivered}, Since: t.From,
		Limit: maxTraffic})
	if err != nil {
		return t, err
	}
	day, err := ask(trace.Query{Kinds: []trace.Kind{trace.Delivered}, Since: v.now.Add(-dayOf), Limit: maxLast})
	if err != nil {
		return t, err
	}
	t.count(hour)
	t.Last = map[string]time.Time{}
	for i := range day {
		if e := &day[i]; e.Time.After(t.Last[e.Upstream]) {
			t.Last[e.Upstream] = e.Time
		}
	}
	return t, nil
}

// count adds the events of the hour.
func (t *traffic) count(hour []trace.Event) {
	t.Partial = len(hour) == maxTraffic
	for i := range hour {
		minute := int(hour[i].Time.Sub(t.From) / time.Minute)
		if minute < 0 || minute >= minutes {
			continue
		}
		if hour[i].Kind == trace.Accepted {
			t.Accepted[minute]++
		} else {
			t.Delivered[minute]++
		}
	}
}

// chart is lines drawn over the minutes, in a box of chartWidth by chartHeight that is stretched to its place.
type chart struct {
	Lines               []chartLine
	Rows                []chartRow // the same as numbers, of minutes in which something happened, the newest first
	Top                 int        // the largest value, or what the axis ends with
	From, To            time.Time
	Width, Height       int
	Partial             bool
	Accepted, Delivered int // in all
	BusiestN            int
	Busiest             time.Time
	Grid                []float64 // heights of lines across
}

// chartLine is one line: points for a path.
type chartLine struct{ Class, Points string }

// chartRow is one minute.
type chartRow struct {
	At                  time.Time
	Accepted, Delivered int
}

const (
	chartWidth  = 590
	chartHeight = 100
)

func (t *traffic) chart() chart {
	c := chart{From: t.From, To: t.From.Add(minutes * time.Minute), Width: chartWidth, Height: chartHeight,
		Partial: t.Partial}
	for i := range minutes {
		a, d := t.Accepted[i], t.Delivered[i]
		c.Accepted, c.Delivered = c.Accepted+a, c.Delivered+d
		c.Top = max(c.Top, a, d)
		if a > c.BusiestN {
			c.BusiestN, c.Busiest = a, t.From.Add(time.Duration(i)*time.Minute)
		}
		if a+d > 0 {
			c.Rows = append([]chartRow{{t.From.Add(time.Duration(i) * time.Minute), a, d}}, c.Rows...)
		}
	}
	c.Top = roundTop(c.Top)
	c.Lines = []chartLine{{"a", points(t.Accepted[:], c.Top)}, {"b", points(t.Delivered[:], c.Top)}}
	c.Grid = []float64{0.5, chartHeight / 2, chartHeight - 0.5}
	return c
}

// roundTop is a round number at or above n, even so that its half is whole.
func roundTop(n int) int {
	for unit := 1; ; unit *= 10 {
		for _, step := range []int{2, 4, 6, 10} {
			if n <= step*unit {
				return step * unit
			}
		}
	}
}

// points are the coordinates of a line.
func points(values []int, top int) string {
	var b strings.Builder
	step := float64(chartWidth) / float64(len(values)-1)
	for i, n := range values {
		y := chartHeight - float64(n)/float64(top)*(chartHeight-2) - 1
		fmt.Fprintf(&b, "%.1f,%.1f ", float64(i)*step, y)
	}
	return strings.TrimSpace(b.String())
}
