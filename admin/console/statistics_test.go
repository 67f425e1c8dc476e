package console

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/relay/stats"
)

// TestDaysOfTheOffice: days begin at midnight where the server is, on both sides of a change of the clocks, and today
// is one of them.
func TestDaysOfTheOffice(t *testing.T) {
	const zone = "TZ=Europe/Berlin"
	if !slices.Contains(os.Environ(), zone) { // a process has one zone from its start
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDaysOfTheOffice$")
		again.Env = append(os.Environ(), zone)
		if out, err := again.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	berlin := time.Local
	at := func(day, hour int) time.Time { return time.Date(2026, 10, day, hour, 0, 0, 0, berlin) }
	table := &stats.Table{Step: stats.Hour, Period: stats.Period{Since: at(23, 0).UTC(), Until: at(27, 9).UTC()}}
	for _, when := range []time.Time{at(23, 0), at(23, 23), at(24, 0), at(25, 0), at(25, 23), at(26, 0), at(27, 8)} {
		row := stats.Row{Start: when.UTC()}
		row.Messages = 1
		table.Rows = append(table.Rows, row)
	}
	got := map[string]int64{}
	for _, s := range lineOf(table, true).Rows {
		got[s.At.Local().Format("02 15:04")] = s.Accepted
	}
	want := map[string]int64{"23 00:00": 2, "24 00:00": 1, "25 00:00": 2, "26 00:00": 1, "27 00:00": 1}
	for day, n := range want {
		if got[day] != n {
			t.Errorf("%s: %d, want %d, of %v", day, got[day], n, got)
		}
	}
	r := newRig(t)
	r.now = time.Date(2026, 11, 28, 9, 30, 0, 0, berlin)
	var all []stats.Sum
	for _, when := range []time.Time{r.now.Add(-time.Hour), r.now.Add(-10 * time.Hour)} { // yesterday, 23:30
		for _, by := range []stats.Dimension{stats.Login, stats.Listener} {
			all = append(all, stats.Sum{Cell: stats.Cell{Hour: when.Unix() / 3600, By: by, Key: "anna"},
				Counts: stats.Counts{Messages: 21}})
		}
	}
	r.must(r.store.AddStatisticsNow(t.Context(), all))
	for span, want := range map[string]string{"today": "<dd>21</dd>", "24h": "<dd>42</dd>"} {
		body := r.page("/statistics?span="+span, in("de"))
		if !strings.Contains(body, want) || !strings.Contains(body, `<option value="today"`) {
			t.Errorf("%s: no %s in\n%s", span, want, body)
		}
	}
}
