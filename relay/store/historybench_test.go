//go:build unix

package store_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/bench/run"
	"postern/internal/pgserver"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/store"
	"postern/relay/trace"
)

// BenchmarkFullHistory measures the processor time of PostgreSQL for an event that comes when the history is full, so
// that another one goes: its row in the first part, or many with their part. Rows cost more in the long run, since
// vacuum comes to them only once a minute.
//
//	go test ./relay/store -run '^$' -bench FullHistory -benchtime 400000x -count 3
func BenchmarkFullHistory(b *testing.B) {
	for _, in := range []string{"rows", "parts"} {
		b.Run(in, func(b *testing.B) { benchFullHistory(b, in == "parts") })
	}
}

// The history of the benchmark: events, and of a second.
const (
	fullHistory = 400_000
	fullRate    = 1000
)

func benchFullHistory(b *testing.B, parts bool) {
	server, err := pgserver.Start(b.Context(), testkit.ShortDir(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Close)
	url, err := config.ParseStoreURL(server.URL())
	if err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(b.Context(), store.Options{Dir: b.TempDir(), Daemon: true, URL: url, Node: "a",
		SealKey: auth.Secret(strings.Repeat("k", 32))})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	at := time.Now().Add(-time.Hour * time.Duration(2+(fullHistory+b.N)/fullRate/3600))
	if parts {
		shortParts(b, server.URL(), at, (fullHistory+b.N)/fullRate/20+2)
	}
	second := func() {
		if err := s.AppendEventsNow(b.Context(), secondOf(at)); err != nil {
			b.Fatal(err)
		}
		at = at.Add(time.Second)
	}
	for range fullHistory / fullRate {
		second()
	}
	testkit.SQL(b, server.URL(), "VACUUM ANALYZE")
	most, err := strconv.ParseInt(testkit.SQL(b, server.URL(), "SELECT sum(history) FROM counter")[0][0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	g := run.NewGroup()
	if err := g.Adopt(server.Pid()); err != nil {
		b.Fatal(err)
	}
	began, err := g.CPU()
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += fullRate {
		second()
		if n/fullRate%8 > 0 {
			continue
		}
		if _, err := s.TrimEvents(b.Context(), most); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	took, err := g.CPU()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(took-began)/1e3/float64(b.N), "postgres-µs/event")
}

// shortParts makes parts of 20 seconds in place of the first one, which no event of the benchmark is older than.
func shortParts(b *testing.B, url string, from time.Time, n int) {
	first := testkit.SQL(b, url, "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'event'::regclass")
	make := "DROP TABLE " + first[0][0]
	for i := range n {
		at := from.Add(time.Duration(i)*20*time.Second - time.Second).UnixNano()
		until := at + int64(20*time.Second)
		make += fmt.Sprintf("; CREATE TABLE event_%d_%d PARTITION OF event FOR VALUES FROM (%[1]d) TO (%[2]d)", at,
			until)
	}
	testkit.SQL(b, url, make)
}

// secondOf are the events of a second.
func secondOf(at time.Time) (events []trace.Event) {
	for i := range fullRate / 2 {
		now := at.Add(time.Duration(i) * 2 * time.Second / fullRate)
		id, who := mail.NewID(now), fmt.Sprintf("user%d@example.com", i*31%200)
		e := trace.Event{Time: now, Kind: trace.Accepted, ID: id, Session: "s" + id, Login: who, From: who, Author: who,
			Listener: "submission", Client: "192.0.2.1", Size: 4096, Reply: mail.R(250, "2.0.0", "queued as %s", id)}
		sent := e
		sent.Time, sent.Kind, sent.To = now.Add(time.Microsecond), trace.Delivered, fmt.Sprintf("r%d@example%d.net",
			now.UnixNano()%99_991, i)
		sent.MessageID, sent.Upstream, sent.Identity = "<"+id+"@example.com>", "office", "relay@example.com"
		events = append(events, e, sent)
	}
	return events
}
