package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testkit/cputime"
	"postern/mail"
	"postern/relay/queue"
)

// The benchmarks measure what a message costs from Add to Finish: processor time of the whole process,
// and commits, each with one sync. Run them with
//
//	go test ./relay/store -run '^$' -bench . -benchtime 20000x

// processorTime is what the process used so far.
func processorTime() time.Duration {
	used, _ := cputime.Used()
	return used
}

func benchMessage(now time.Time, login string, leased bool) *queue.Message {
	m := &queue.Message{
		ID: mail.NewID(now), Login: login, Listener: "submission", Session: mail.NewID(now),
		Envelope: mail.Envelope{From: mail.Address{Local: "alice", Domain: "example.com"}},
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "bob", Domain: "example.net"}},
			Status: queue.Pending}},
		Author: mail.Address{Local: "alice", Domain: "example.com"}, MessageID: "<0123456789abcdef@example.com>",
		Received: now, Expires: now.Add(48 * time.Hour), NextAttempt: now,
	}
	if leased {
		m.LeaseOwner, m.LeaseUntil = "node-1", now.Add(10*time.Minute)
	}
	return m
}

// prefill puts messages of 50 logins into the queue, due in an hour.
func prefill(b testing.TB, s *Store, count, size int) {
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

// spent is what a load cost.
type spent struct {
	cpu                  time.Duration
	commits, checkpoints uint64
}

// load runs writers that add and finish so many messages of a size.
func load(b testing.TB, s *Store, writers, size, messages int) spent {
	b.Helper()
	content := mail.BytesContent(make([]byte, size))
	commits, copied, cpu := s.Commits(), checkpoints(s), processorTime()
	var left atomic.Int64
	left.Store(int64(messages))
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
				if err := s.Finish(b.Context(), attempt(1, m.ID), "node-1", queue.Outcome{Remove: true}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return spent{processorTime() - cpu, s.Commits() - commits, checkpoints(s) - copied}
}

// syncs is how often the disk was asked to sync: once for a commit, twice for a checkpoint.
func (s spent) syncs() uint64 { return s.commits + 2*s.checkpoints }

func BenchmarkAddFinish(b *testing.B) {
	for _, test := range []struct {
		name          string
		writers, size int
	}{
		{"1writer-4KiB", 1, 4 << 10},
		{"20writers-4KiB", 20, 4 << 10},
		{"8writers-1MB", 8, 1_000_000},
	} {
		b.Run(test.name, func(b *testing.B) {
			s := open(b, Options{Daemon: true})
			b.ResetTimer()
			got := load(b, s, test.writers, test.size, b.N)
			n := float64(b.N)
			b.ReportMetric(float64(got.cpu.Microseconds())/n, "µs-cpu/message")
			b.ReportMetric(float64(got.syncs())/n, "syncs/message")
			b.ReportMetric(float64(got.checkpoints)/n*1000, "checkpoints/1000")
		})
	}
}

// BenchmarkQueued takes turns on an empty queue and on one with 200 000 messages, so that what else runs
// on the machine hits both, and reports how much more a message costs in the latter.
func BenchmarkQueued(b *testing.B) {
	const queued, turn = 200_000, 1000
	empty, filled := open(b, Options{Daemon: true}), open(b, Options{Daemon: true})
	prefill(b, filled, queued, 1<<10)
	load(b, empty, 20, 4<<10, turn)
	load(b, filled, 20, 4<<10, turn)
	var inEmpty, inFilled spent
	b.ResetTimer()
	for done := 0; done < b.N; done += turn {
		e, f := load(b, empty, 20, 4<<10, turn), load(b, filled, 20, 4<<10, turn)
		inEmpty.cpu, inFilled.cpu = inEmpty.cpu+e.cpu, inFilled.cpu+f.cpu
	}
	b.ReportMetric(float64(inFilled.cpu)/float64(inEmpty.cpu), "times-cpu")
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(b.Context(), Options{Dir: dir, Daemon: true})
	if err != nil {
		b.Fatal(err)
	}
	prefill(b, s, 200_000, 1<<10)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		s, err := Open(b.Context(), Options{Dir: dir, Daemon: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDue asks for the next thousand where one login has 200 000 due and a hundred others have a
// few, and where 200 000 are not yet due.
func BenchmarkDue(b *testing.B) {
	s := open(b, Options{Daemon: true})
	prefill(b, s, 200_000, 64)
	ask := func(b *testing.B, now time.Time, want int) {
		for b.Loop() {
			due, _, err := s.Due(b.Context(), now, "", 100, 1000)
			if err != nil || len(due) != want {
				b.Fatal(len(due), err)
			}
		}
	}
	b.Run("none-of-200000", func(b *testing.B) { ask(b, time.Now(), 0) })
	b.Run("1000-of-200000", func(b *testing.B) { ask(b, time.Now().Add(2*time.Hour), 1000) })
}

// checkpoints counts those of a file.
func checkpoints(s *Store) uint64 {
	if f, ok := s.engine.(*file); ok {
		return f.checkpointed.Load()
	}
	return 0
}
