//go:build unix

package run

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Results are the figures of all runs, by system and figure.
type Results struct {
	Idle    int                             `json:"idle"`
	Backlog int                             `json:"backlog"`
	Systems []string                        `json:"systems"`
	Figures map[string]map[string][]float64 `json:"figures"`
}

func newResults(o Options) *Results {
	return &Results{Idle: o.Idle, Backlog: o.Backlog, Figures: map[string]map[string][]float64{}}
}

func (r *Results) add(s System, figure string, v float64) {
	name := s.Name()
	if r.Figures[name] == nil {
		r.Figures[name] = map[string][]float64{}
		r.Systems = append(r.Systems, name)
	}
	r.Figures[name][figure] = append(r.Figures[name][figure], v)
}

// Median returns the median of a figure; false if it was not measured.
func (r *Results) Median(system, figure string) (float64, bool) {
	all := slices.Sorted(slices.Values(r.Figures[system][figure]))
	n := len(all)
	if n == 0 {
		return 0, false
	}
	return (all[(n-1)/2] + all[n/2]) / 2, true
}

// row is a line of the table: a figure and its target.
type row struct {
	title, figure, unit string
	demand              func(v, postfix float64, known bool) (verdict string, ok bool)
}

// times demands a multiple of Postfix's rate.
func times(factor float64) func(v, postfix float64, known bool) (string, bool) {
	return func(v, postfix float64, known bool) (string, bool) {
		if !known {
			return "", true
		}
		return fmt.Sprintf("%.1fx of %.0fx", v/postfix, factor), v >= factor*postfix
	}
}

func atMost(limit float64) func(v, postfix float64, known bool) (string, bool) {
	return func(v, _ float64, _ bool) (string, bool) { return fmt.Sprintf("at most %g", limit), v <= limit }
}

func atLeast(limit float64) func(v, postfix float64, known bool) (string, bool) {
	return func(v, _ float64, _ bool) (string, bool) { return fmt.Sprintf("at least %g", limit), v >= limit }
}

func (r *Results) rows() []row {
	factors := map[string]float64{"reused": 3, "fresh": 3, "large": 2, "far": 3}
	var rows []row
	for _, c := range Cases {
		rows = append(rows, row{c.Title, c.Key + " rate", "delivered/s", times(factors[c.Key])})
		cpu := row{"", c.Key + " cpu", "ms CPU each", nil}
		if c.Key == "reused" {
			cpu.demand = atMost(1.1)
		}
		rows = append(rows, cpu)
		if c.Key == "reused" {
			rows = append(rows, row{"of that an RSA-2048 signature alone", "signature", "ms", nil})
		}
	}
	return append(rows,
		row{fmt.Sprintf("%d idle authenticated TLS connections", r.Idle), "idle", "KiB each", atMost(40)},
		row{"syncs to disk per accepted message", "syncs", "", atMost(0.2)},
		row{"cost per message, queue empty", "backlog empty", "ms CPU each", nil},
		row{fmt.Sprintf("cost per message, %d queued", r.Backlog), "backlog full", "ms CPU each", nil},
		row{fmt.Sprintf("start with %d queued", r.Backlog), "backlog start", "s", atMost(2)},
		row{"start, queue empty", "start", "s", nil},
		row{"rate beside people who search, of that without", "search rate", "", atLeast(0.98)},
		row{"cost per message beside them, of that without", "search cpu", "", atMost(1.02)},
	)
}

// WriteTable writes the medians side by side, with Postern's targets. It reports whether all targets are met.
func (r *Results) WriteTable(w io.Writer) (bool, error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "case\t\t%s\n", strings.Join(r.headings(), "\t"))
	met := true
	for _, row := range r.rows() {
		cells, measured, ok := r.cells(row)
		if !measured {
			continue
		}
		met = met && ok
		fmt.Fprintf(t, "%s\t%s\t%s\n", row.title, row.unit, strings.Join(cells, "\t"))
	}
	return met, t.Flush()
}

func (r *Results) headings() []string {
	var out []string
	for _, s := range r.Systems {
		if out = append(out, s); demands(s) {
			out = append(out, "demanded")
		}
	}
	return out
}

// demands is whether something is demanded of a system, which then has a second column.
func demands(system string) bool { return system != postfixSigned && system != postfixUnsigned }

// ofOthers is what is demanded of systems that are measured in one case: a multiple of the rate of another one.
var ofOthers = map[string]struct {
	of     string
	factor float64
}{
	"Postern " + serverQueued:  {"Postfix", 2.5},
	"Postern " + serverDefault: {"Postern", 1},
	// Microsoft 365 and Graph.
	"Postern " + unsignedQueued:  {postfixUnsigned, 5},
	"Postern " + unsignedDefault: {postfixUnsigned, 10},
	"Postern " + serverUnsigned:  {postfixUnsigned, 10},
	"Postern " + opensslQueued:   {"Postern handoff=0s", 1.5},
	"Postern " + opensslDefault:  {"Postern", 2},
}

// demanded says what a row demands of a system, and whether it holds.
func (r *Results) demanded(row row, system string, v float64) (verdict string, ok bool) {
	switch {
	case !demands(system):
		return "", true
	case row.figure == fewCase+" cpu" && system == "Postern "+opensslDefault:
		alone, _ := r.Median(system, "signature")
		return fmt.Sprintf("at most %.2f", 2*alone), v <= 2*alone
	case row.figure == "backlog full": // what it costs with an empty queue, and a tenth
		empty, known := r.Median(system, "backlog empty")
		if !known {
			return "", true
		}
		return fmt.Sprintf("at most %.2f", 1.1*empty), v <= 1.1*empty
	case row.demand == nil:
		return "", true
	case system == "Postern" || system == "Postern handoff=0s":
		postfix, known := r.Median(postfixSigned, row.figure)
		return row.demand(v, postfix, known)
	case row.figure != fewCase+" rate":
		return "", true
	}
	d := ofOthers[system]
	other, known := r.Median(d.of, row.figure)
	if !known {
		return "", true
	}
	return fmt.Sprintf("%.2fx of %gx %s", v/other, d.factor, d.of), v >= d.factor*other
}

func (r *Results) cells(row row) (cells []string, measured, ok bool) {
	ok = true
	for _, s := range r.Systems {
		v, has := r.Median(s, row.figure)
		cell, verdict := "-", ""
		if has {
			measured = true
			cell = number(v)
		}
		if has {
			met := true
			if verdict, met = r.demanded(row, s, v); verdict != "" && !met {
				verdict += " MISSED"
			}
			ok = ok && met
		}
		if cells = append(cells, cell); demands(s) {
			cells = append(cells, verdict)
		}
	}
	return cells, measured, ok
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// WriteJSON writes every figure of every run.
func (r *Results) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
