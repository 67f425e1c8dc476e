package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// The benchmarks measure what a message costs from Add to Finish: processor time of the whole process,
// and commits, each with one sync. Run them with
//
//	go test ./relay/store -run '^$' -bench . -benchtime 20000x

// processorTime is what the process used so far.
func processorTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func benchMessage(now time.Time, login string, leased bool) *queue.Message {
	m := &queue.Message{
		ID: mail.NewID(now), Login: login, Listener: "submission", Session: mail.NewID(now),
		Envelope:   mail.Envelope{From: mail.Address{Local: "alice", Domain: "example.com"}},
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "bob", Domain: "example.net"}}, Status: queue.Pending}},
		Author:     mail.Address{Local: "alice", Domain: "example.com"}, MessageID: "<0123456789abcdef@example.com>",
		Received: now, Expires: now.Add(48 * time.Hour), NextAttempt: now,
	}
	if leased {
		m.LeaseOwner, m.LeaseUntil = "node-1", now.Add(10*time.Minute)
	}
	return m
}

// prefill puts messages of 50 logins into the queue, due in an hour.
func prefill(b testing.TB, s *SQLite, count, size int) {
	b.Helper()
	content := mail.BytesContent(make([]byte, size))
	for done := 0; done < count; {
		var news []queue.NewMessage
		for range min(1000, count-done) {
			now := time.Now()
			m := benchMessage(now, fmt.Sprint("user", rand.IntN(50)), false)
			m.NextAttempt = now.Add(time.Hour)
			news = append(news, queue.NewMessage{Message: m, Content: content})
		}
		if err := s.Add(b.Context(), news...); err != nil {
			b.Fatal(err)
		}
		done += len(news)
	}
}

// load runs writers that add and finish b.N messages of a size.
func load(b *testing.B, s *SQLite, writers, size int) {
	content := mail.BytesContent(make([]byte, size))
	commits, checkpoints, cpu := s.Commits(), s.Checkpoints(), processorTime()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	for w := range writers {
		login := fmt.Sprint("user", w)
		group.Go(func() {
			for left.Add(-1) >= 0 {
				m := benchMessage(time.Now(), login, true)
				if err := s.Add(b.Context(), queue.NewMessage{Message: m, Content: content}); err != nil {
					b.Error(err)
					return
				}
				if err := s.Finish(b.Context(), m.ID, "node-1", queue.Outcome{Remove: true}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric(float64((processorTime()-cpu).Microseconds())/n, "µs-cpu/message")
	syncs := s.Commits() - commits + 2*(s.Checkpoints()-checkpoints)
	b.ReportMetric(float64(syncs)/n, "syncs/message")
	b.ReportMetric(float64(s.Checkpoints()-checkpoints)/n*1000, "checkpoints/1000")
}

func BenchmarkAddFinish(b *testing.B) {
	for _, test := range []struct {
		name           string
		writers, size  int
		queued, inside int // messages in the queue before, of that size
	}{
		{"1writer/4KiB", 1, 4 << 10, 0, 0},
		{"20writers/4KiB", 20, 4 << 10, 0, 0},
		{"20writers/4KiB/queued=200000", 20, 4 << 10, 200_000, 1 << 10},
		{"8writers/1MB", 8, 1_000_000, 0, 0},
	} {
		b.Run(test.name, func(b *testing.B) {
			if test.queued > 0 && testing.Short() {
				b.Skip("long")
			}
			s := open(b, Options{Daemon: true})
			prefill(b, s, test.queued, test.inside)
			load(b, s, test.writers, test.size)
		})
	}
}
