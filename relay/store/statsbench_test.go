package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/stats"
	"postern/relay/trace"
)

// BenchmarkStatistics measures what a message costs in processor time, from Add to Finish with its two events, without
// and with statistics: of 50 logins and 400 recipient domains, written each 3000 messages, which is every 30 seconds at
// 100 messages a second. Compare the medians of
//
//	go test ./relay/store -run '^$' -bench Statistics -benchtime 20000x -count 5
func BenchmarkStatistics(b *testing.B) {
	for _, with := range []bool{false, true} {
		name := "without"
		if with {
			name = "with"
		}
		b.Run(name, func(b *testing.B) { benchStatistics(b, with) })
	}
}

func benchStatistics(b *testing.B, with bool) {
	s := open(b, Options{Dir: b.TempDir(), Daemon: true})
	r, c := trace.NewRecorder(s, nil), stats.NewCounter(s, nil)
	if with {
		r.CountWith(c.Count)
	}
	var done atomic.Int64
	began := processorTime()
	b.ResetTimer()
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for i := done.Add(1); i <= int64(b.N); i = done.Add(1) {
				benchCounted(b, s, r, i)
				if i%100 == 0 && r.Flush(b.Context()) != nil || i%3000 == 0 && c.Flush(b.Context()) != nil {
					b.Error("not written")
				}
			}
		})
	}
	writers.Wait()
	b.ReportMetric(float64(processorTime()-began)/1e3/float64(b.N), "cpu-µs/msg")
}

// benchCounted is one message with its events.
func benchCounted(b *testing.B, s *Store, r *trace.Recorder, i int64) {
	login, to := fmt.Sprint("user", i%50), fmt.Sprintf("bob@domain%d.example", i%400)
	m := benchMessage(time.Now(), login, true)
	if err := s.Add(b.Context(),
		queue.NewMessage{Message: m, Content: mail.BytesContent(make([]byte, 4000))}); err != nil {
		b.Error(err)
	}
	e := trace.Event{Kind: trace.Accepted, ID: m.ID, Session: m.Session, Listener: m.Listener, Client: "192.0.2.7",
		Login: login, From: "alice@example.com", To: to, MessageID: m.MessageID, Size: 4000,
		Rcpts: &trace.Rcpts{Domains: []string{to}}}
	r.Record(e)
	e.Kind, e.Upstream, e.Class, e.Age, e.Octets = trace.Delivered, "office", "delivered", time.Second, 4000
	r.Record(e)
	if err := s.Finish(b.Context(), attempt(1, m.ID), "node-1", queue.Outcome{Remove: true}); err != nil {
		b.Error(err)
	}
}

// BenchmarkAddStatistics measures one sum, written to hours and days, in processor time.
func BenchmarkAddStatistics(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir(), Daemon: true})
	sums := make([]stats.Sum, 100)
	for i := range sums {
		sums[i].Cell = stats.Cell{Hour: 400_000, By: stats.RecipientDomain, Key: fmt.Sprintf("domain%d.example", i*4)}
		sums[i].Delivered = 3
		sums[i].Times.Observe(time.Second)
		sums[i].Times.Observe(time.Duration(i) * time.Second)
	}
	began, n := processorTime(), 0
	for ; b.Loop(); n += len(sums) {
		if err := s.AddStatisticsNow(b.Context(), sums); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(processorTime()-began)/1e3/float64(n), "cpu-µs/sum")
}

// BenchmarkCount measures one event of mail, in memory.
func BenchmarkCount(b *testing.B) {
	c := stats.NewCounter(nil, nil)
	e := trace.Event{Time: time.Unix(1.7e9, 0), Kind: trace.Delivered, Login: "anna", Listener: "submission",
		From: "alice@example.com", To: "bob@example.net", Upstream: "office", Age: time.Second}
	for b.Loop() {
		c.Count(&e)
	}
}
