package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/suggest"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/stats"
)

// statsFlags are those of `postern stats`.
type statsFlags struct {
	query               stats.Query
	by, per             string
	since, until, onlyK string
	csv                 bool
}

func (a *app) statsCommand() *cobra.Command {
	var f statsFlags
	cmd := withJSON(&cobra.Command{
		Use:   "stats",
		Short: "How much mail was taken, delivered, deferred and given up, by login, domain or upstream",
		Long: `Count what became of mail: by hours of the last 90 days, or by days of the last two years. Hours and days
are those of UTC, and the period is widened to whole ones.

Accepted are messages answered 250, with their recipients and octets; refused what we answered 4yz or 5yz. Delivered,
deferred (each time) and failed count recipients, also those of our own reports and of mail that the upstream refused
while its client waited. Bounces are the part of the recipients that are done with which failed. Times are those from
accept to delivery, within 4.5 percent. "other" is what had no room for a line of its own; "-" has no name: clients that
have not logged in, our own reports, the null reverse-path.`,
		Example: `  postern stats
  postern stats --by upstream --since 24h --per hour
  postern stats --by recipient-domain --only example.net --per day --since 90d
  postern stats --by login --since 365d --csv > logins.csv`,
		Args: exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			now := time.Now()
			if err := f.complete(cmd, now); err != nil {
				return err
			}
			awaitTrace(cmd, ops)
			table, err := ops.Trace.Statistics(cmd.Context(), me(), f.query, now)
			switch _, known := operate.KindOf(err); {
			case known:
				return usage(cmd, err)
			case err != nil:
				return err
			case asJSON(cmd):
				return writeJSON(cmd.OutOrStdout(), operate.ShownStatistics(table))
			case f.csv:
				return operate.WriteStatistics(cmd.OutOrStdout(), table)
			}
			return printStats(cmd.OutOrStdout(), table)
		}),
	})
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "login", "count by: "+strings.Join(stats.DimensionNames(), ", "))
	flags.StringVar(&f.since, "since", "7d",
		"since this `time`: a duration back from now (24h, 7d), or 2026-11-28, or "+
			"2026-11-28T15:00:00Z")
	flags.StringVar(&f.until, "until", "", "until this `time`, written like --since (default now)")
	flags.StringVar(&f.per, "per", "total", "a line for each: hour, day, total")
	flags.StringVar(&f.onlyK, "only", "", "only this `name`, such as a login or domain")
	flags.IntVar(&f.query.Limit, "limit", stats.DefaultLimit, "the `n` names with most mail; the rest is other")
	flags.BoolVar(&f.csv, "csv", false, "print CSV, for a spreadsheet")
	return cmd
}

// complete makes the query of the flags.
func (f *statsFlags) complete(cmd *cobra.Command, now time.Time) (err error) {
	if f.query.By, err = stats.ParseDimension(f.by); err != nil {
		return usage(cmd, fmt.Errorf("--by: %w%s", err, suggest.Question(f.by, stats.DimensionNames())))
	}
	if f.query.Step, err = stats.ParseStep(f.per); err != nil {
		return usage(cmd, fmt.Errorf("--per: %w", err))
	}
	if f.query.Since, err = parseMoment(f.since, now); err != nil {
		return usage(cmd, fmt.Errorf("--since: %w", err))
	}
	if f.until != "" {
		if f.query.Until, err = parseMoment(f.until, now); err != nil {
			return usage(cmd, fmt.Errorf("--until: %w", err))
		}
	}
	if f.csv && asJSON(cmd) {
		return usage(cmd, errors.New("--csv and --json exclude each other"))
	}
	if cmd.Flags().Changed("only") {
		f.query.OnlyKey = &f.onlyK
	}
	if f.query.Limit < 1 || f.query.Limit > stats.MaxLimit {
		return usage(cmd, fmt.Errorf("--limit: write a number from 1 to %d", stats.MaxLimit))
	}
	return nil
}

// parseMoment reads a duration back from now, a day of UTC, or a time.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	d, err := config.ParseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf(`%q is no time: write a duration such as "7d", a day such as `+
			`"2026-11-28", or a `+
			`time such as "2026-11-28T15:00:00Z"`, s)
	}
	return now.Add(-d.Std()), nil
}

func printStats(w io.Writer, t *stats.Table) error {
	if len(t.Rows) == 0 {
		fmt.Fprintf(w, "Nothing was counted from %s to %s.\n", t.Since.Format(time.RFC3339),
			t.Until.Format(time.RFC3339))
		return errSilent
	}
	heading := []string{strings.ToUpper(t.By.String()), "ACCEPTED", "RCPTS", "SIZE", "REFUSED", "DELIVERED", "DEFERRED",
		"FAILED", "BOUNCES", "MEDIAN", "95%"}
	timed := t.Step != stats.Total
	if timed {
		heading = append([]string{"TIME"}, heading...)
	}
	var rows [][]string
	for i := range t.Rows {
		row := statCells(operate.StatName(t.Rows[i].Key), &t.Rows[i].Counts)
		if timed {
			row = append([]string{stepName(t.Step, t.Rows[i].Start)}, row...)
		}
		rows = append(rows, row)
	}
	total := statCells("total", &t.Total)
	if timed {
		total = append([]string{""}, total...)
	}
	if err := table(w, heading, append(rows, total)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s to %s, UTC.\n", t.Since.Format("2006-01-02 15:04"),
		t.Until.Format("2006-01-02 15:04"))
	return err
}

func stepName(step stats.Step, at time.Time) string {
	if step == stats.Day {
		return at.Format(time.DateOnly)
	}
	return at.Format("2006-01-02 15:04")
}

func statCells(name string, n *stats.Counts) []string {
	number := func(v int64) string { return strconv.FormatInt(v, 10) }
	bounces, median, p95 := "-", "-", "-"
	if rate, ok := n.BounceRate(); ok {
		bounces = strconv.FormatFloat(100*rate, 'f', 1, 64) + "%"
	}
	if d, ok := n.Times.Quantile(0.5); ok {
		median = roundedTo2(d)
	}
	if d, ok := n.Times.Quantile(0.95); ok {
		p95 = roundedTo2(d)
	}
	return []string{name, number(n.Messages), number(n.Recipients), size(n.Octets),
		number(n.Refused + n.LoginsRefused + n.SessionsRefused), number(n.Delivered), number(n.Deferred()),
		number(n.Failed() + n.Unclear), bounces, median, p95}
}

// roundedTo2 is a duration to about two digits, which is what it is exact to.
func roundedTo2(d time.Duration) string {
	switch {
	case d >= time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return d.Round(time.Second).String()
	}
	unit := time.Duration(1)
	for d/unit >= 100 {
		unit *= 10
	}
	return d.Round(unit).String()
}
