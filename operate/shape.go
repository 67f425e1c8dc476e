package operate

import (
	"cmp"
	"context"
	"slices"
	"time"

	"postern/relay/queue"
)

// ShapeBins are the upper ends of the ages that a Shape tells apart, as in Postfix's qshape; what is older is one more.
var ShapeBins = []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute,
	160 * time.Minute, 320 * time.Minute, 640 * time.Minute, 1280 * time.Minute}

// Bounds of a Shape.
const (
	maxShaped    = 20_000 // messages that are looked at, the oldest
	shapePage    = 1000   // at once
	maxShapeRows = 20     // of each list
)

// Shape is how old is what waits, by upstream and by domain of the recipients. Held messages are not in it.
type Shape struct {
	Upstreams []ShapeRow `json:"upstreams"` // the most first
	Domains   []ShapeRow `json:"domains"`
	Counted   int        `json:"counted"` // messages looked at
	Partial   bool       `json:"partial"` // there are more, younger than those
}

// ShapeRow counts messages by age. The name is "" for those that no upstream was tried for yet, or for all domains
// that there is no room for.
type ShapeRow struct {
	Name   string    `json:"name"`
	Rest   bool      `json:"rest,omitempty"` // all that are not named
	Total  int       `json:"total"`
	Bins   []int     `json:"bins"` // by ShapeBins, and older ones
	Oldest time.Time `json:"oldest"`
}

// Shape looks at what waits, the oldest 20 000.
func (q Queue) Shape(ctx context.Context, by Actor, now time.Time) (s Shape, err error) {
	if err := by.May(SeeQueue); err != nil {
		return s, err
	}
	upstreams, domains := map[string]*ShapeRow{}, map[string]*ShapeRow{}
	f := queue.Filter{Limit: shapePage}
	for {
		messages, err := q.Store.List(ctx, f)
		if err != nil {
			return s, err
		}
		for _, m := range messages {
			if m.Held {
				continue
			}
			s.Counted++
			count(upstreams, upstreamOf(m), m, now)
			for _, domain := range domainsOf(m) {
				count(domains, domain, m, now)
			}
		}
		if len(messages) < shapePage {
			break
		}
		if s.Counted >= maxShaped {
			s.Partial = true
			break
		}
		f.After = messages[len(messages)-1].ID
	}
	s.Upstreams, s.Domains = shapeRows(upstreams), shapeRows(domains)
	return s, nil
}

// upstreamOf is what a message waits for: the paused upstreams, or the one that was tried last.
func upstreamOf(m *queue.Message) string {
	if m.WaitingFor != "" {
		return m.WaitingFor
	}
	for i := range m.Recipients {
		if r := &m.Recipients[i]; r.Status == queue.Pending && r.Upstream != "" {
			return r.Upstream
		}
	}
	return ""
}

// domainsOf are those of the recipients that wait, each once.
func domainsOf(m *queue.Message) (domains []string) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.Status == queue.Pending && !slices.Contains(domains, r.To.Domain) {
			domains = append(domains, r.To.Domain)
		}
	}
	return domains
}

func count(rows map[string]*ShapeRow, name string, m *queue.Message, now time.Time) {
	r := rows[name]
	if r == nil {
		r = &ShapeRow{Name: name, Bins: make([]int, len(ShapeBins)+1), Oldest: m.Received}
		rows[name] = r
	}
	r.Total++
	age := now.Sub(m.Received)
	bin := slices.IndexFunc(ShapeBins, func(end time.Duration) bool { return age < end })
	if bin < 0 {
		bin = len(ShapeBins)
	}
	r.Bins[bin]++
	if m.Received.Before(r.Oldest) {
		r.Oldest = m.Received
	}
}

// shapeRows sorts rows, the most first, and makes one of those that there is no room for.
func shapeRows(rows map[string]*ShapeRow) []ShapeRow {
	all := make([]ShapeRow, 0, len(rows))
	for _, r := range rows {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b ShapeRow) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Name, b.Name))
	})
	if len(all) <= maxShapeRows {
		return all
	}
	rest := ShapeRow{Rest: true, Bins: make([]int, len(ShapeBins)+1), Oldest: all[maxShapeRows-1].Oldest}
	for _, r := range all[maxShapeRows-1:] {
		rest.Total += r.Total
		for i, n := range r.Bins {
			rest.Bins[i] += n
		}
		if r.Oldest.Before(rest.Oldest) {
			rest.Oldest = r.Oldest
		}
	}
	return append(all[:maxShapeRows-1:maxShapeRows-1], rest)
}
