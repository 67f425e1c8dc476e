package main

import (
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/relay/stats"
	"postern/relay/trace"
)

// counted adds sums of this hour for some logins.
func counted(t *testing.T, l *commandLine, sums map[string]stats.Counts) {
	t.Helper()
	var all []stats.Sum
	for key, n := range sums {
		all = append(all, stats.Sum{Cell: stats.Cell{Hour: time.Now().Unix() / 3600, By: stats.Login, Key: key},
			Counts: n})
	}
	if err := l.store.AddStatisticsNow(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	anna := stats.Counts{Messages: 4, Recipients: 5, Octets: 12_345, Delivered: 3, RecipientFaults: 1, Deferrals: 2}
	for _, d := range []time.Duration{time.Second, 2 * time.Second, time.Hour} {
		anna.Times.Observe(d)
	}
	counted(t, l, map[string]stats.Counts{"anna": anna, "=cmd()": {Messages: 1}, stats.Nothing: {LoginsRefused: 2},
		stats.Other: {Messages: 3}})
	out := l.ok("stats")
	for _, line := range []string{
		`anna 4 5 12 kB 0 3 2 1 25.0% 2s 1h01m`, `=cmd() 1 0 0 B 0 0 0 0 - - -`, `- 0 0 0 B 2 0 0 0 - - -`,
		`other 3 0 0 B 0 0 0 0 - - -`, `total 8 5 12 kB 2 3 2 1 25.0% 2s 1h01m`,
	} {
		found := slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool {
			return strings.Join(strings.Fields(l), " ") == line
		})
		if !found {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(l.ok("stats", "--csv", "--per", "day"))).ReadAll()
	if err != nil || len(rows) != 6 || rows[0][0] != "start" || len(rows[0]) != 19 {
		t.Fatalf("%q, %v", rows, err)
	}
	names := []string{rows[1][1], rows[2][1], rows[3][1], rows[4][1], rows[5][1]}
	if want := []string{"anna", "-", "'=cmd()", "other", "total"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	var view struct {
		By, Per string
		Rows    []struct {
			Key           string
			Messages      int64
			BounceRate    *float64 `json:"bounce_rate"`
			MedianSeconds *float64 `json:"median_seconds"`
		}
		Total struct{ Messages, Failed int64 }
	}
	if err := json.Unmarshal([]byte(l.ok("stats", "--json", "--only", "anna", "--since", "1h")), &view); err != nil {
		t.Fatal(err)
	}
	if view.By != "login" || view.Per != "total" || len(view.Rows) != 1 || view.Rows[0].Messages != 4 ||
		*view.Rows[0].BounceRate != 0.25 || *view.Rows[0].MedianSeconds > 2.1 || view.Total.Failed != 1 {
		t.Errorf("%+v", view)
	}
	if out, _, err := l.run("stats", "--by", "upstream"); err == nil || !strings.HasPrefix(out, "Nothing was counted") {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"--by", "logins"}, {"--per", "week"}, {"--since", "tomorrow"}, {"--since", "1h",
		"--until", "2h"}, {"--csv", "--json"}, {"--limit", "0"}, {"--per", "hour", "--since", "400d"}, {"anna"}} {
		if _, _, err := l.run(append([]string{"stats"}, args...)...); !isUsage(err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestTraceForget(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	err := l.store.AppendEventsNow(t.Context(), []trace.Event{
		{Kind: trace.Delivered, To: "bob@example.net", Detail: "of bob"},
		{Kind: trace.Delivered, To: "carol@example.net", Detail: "of carol, not bob@example.net"}})
	if err != nil {
		t.Fatal(err)
	}
	out := l.ok("trace", "forget", "bob@example.net")
	if !strings.HasPrefix(out, "Removed: 1 event, the mention in 1 event of others, 0 rows") ||
		strings.Contains(out, "queue delete") {
		t.Error(out)
	}
	if out = l.ok("trace"); strings.Contains(out, "bob") || !strings.Contains(out, "not (removed)") ||
		!strings.Contains(out, "a person was removed") {
		t.Error(out)
	}
	var again struct{ Events, Shortened *int64 }
	if err := json.Unmarshal([]byte(l.ok("trace", "forget", "bob@example.net", "--json")), &again); err != nil ||
		*again.Events != 0 || *again.Shortened != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	for _, args := range [][]string{{}, {"*@example.net"}, {"@example.net"}, {" "}, {"a", "b"}} {
		if _, _, err := l.run(append([]string{"trace", "forget"}, args...)...); !isUsage(err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestRoundedTo2(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{1234 * time.Microsecond: "1.2ms", 20 * time.Second: "20s",
		time.Minute: "1m0s", 59*time.Minute + 48*time.Second + 1: "59m48s", 26*time.Hour + 29*time.Second: "26h00m"} {
		if got := roundedTo2(d); got != want {
			t.Errorf("%s is shown as %s", d, got)
		}
	}
}
