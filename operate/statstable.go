package operate

import (
	"io"
	"strconv"
	"time"

	"postern/relay/stats"
)

// StatName is what a person reads for a key of statistics.
func StatName(key string) string {
	switch key {
	case stats.Nothing:
		return "-"
	case stats.Other:
		return "other"
	}
	return key
}

// StatSums is what machines are given of sums.
type StatSums struct {
	stats.Counts
	Deferred   int64    `json:"deferred"`
	Failed     int64    `json:"failed"`
	BounceRate *float64 `json:"bounce_rate"` // null: nothing is done with
	Median     *float64 `json:"median_seconds"`
	P95        *float64 `json:"p95_seconds"`
}

// SumsOf returns what machines are given of sums.
func SumsOf(n *stats.Counts) StatSums {
	v := StatSums{Counts: *n, Deferred: n.Deferred(), Failed: n.Failed()}
	if rate, ok := n.BounceRate(); ok {
		v.BounceRate = &rate
	}
	v.Median, v.P95 = seconds(n, 0.5), seconds(n, 0.95)
	return v
}

func seconds(n *stats.Counts, q float64) *float64 {
	d, ok := n.Times.Quantile(q)
	if !ok {
		return nil
	}
	s := d.Seconds()
	return &s
}

// csvHeading are the columns of WriteStatistics. Columns are added at the end, never renamed.
var csvHeading = []string{"start", "name", "messages", "recipients", "octets", "refused", "logins_refused",
	"sessions_refused", "delivered", "deferrals", "account_faults", "back_pressure", "recipient_faults",
	"message_faults", "given_up", "unclear", "bounce_rate", "median_seconds", "p95_seconds"}

// WriteStatistics writes statistics as CSV, for a spreadsheet. The last line is the total.
func WriteStatistics(w io.Writer, t *stats.Table) error {
	rows := [][]string{csvHeading}
	for i := range t.Rows {
		rows = append(rows, csvRow(t.Rows[i].Start.Format(time.RFC3339), StatName(t.Rows[i].Key), &t.Rows[i].Counts))
	}
	rows = append(rows, csvRow("", "total", &t.Total))
	return writeCSV(w, rows)
}

func csvRow(start, name string, n *stats.Counts) []string {
	row := []string{start, name}
	for _, v := range []int64{n.Messages, n.Recipients, n.Octets, n.Refused, n.LoginsRefused, n.SessionsRefused,
		n.Delivered, n.Deferrals, n.AccountFaults, n.BackPressure, n.RecipientFaults, n.MessageFaults, n.GivenUp,
		n.Unclear} {
		row = append(row, strconv.FormatInt(v, 10))
	}
	sums := SumsOf(n)
	for _, v := range []*float64{sums.BounceRate, sums.Median, sums.P95} {
		cell := ""
		if v != nil {
			cell = strconv.FormatFloat(*v, 'f', 4, 64)
		}
		row = append(row, cell)
	}
	return row
}

// StatRow is one line of statistics. Its key is "*" for others, "" for none.
type StatRow struct {
	Start time.Time `json:"start"`
	Key   string    `json:"key"`
	StatSums
}

// Statistics are statistics as JSON has them.
type Statistics struct {
	By   string `json:"by"`
	Step string `json:"per"`
	stats.Period
	Rows  []StatRow `json:"rows"`
	Total StatSums  `json:"total"`
}

// ShownStatistics returns a table as JSON has it: rows that are never null.
func ShownStatistics(t *stats.Table) Statistics {
	rows := make([]StatRow, 0, len(t.Rows))
	for i := range t.Rows {
		r := &t.Rows[i]
		rows = append(rows, StatRow{r.Start, r.Key, SumsOf(&r.Counts)})
	}
	return Statistics{t.By.String(), t.Step.String(), t.Period, rows, SumsOf(&t.Total)}
}
