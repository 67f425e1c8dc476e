package queue_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// nullStore accepts everything and keeps nothing, so that what is measured is the scheduler.
type nullStore struct {
	queue.Store
	finished sync.WaitGroup
	begun    sync.Once
	ready    chan struct{} // closed by the first read: the scheduler runs
}

func (s *nullStore) Add(context.Context, ...queue.NewMessage) error { return nil }
func (s *nullStore) Due(context.Context, time.Time, string, int, int) ([]*queue.Message, time.Time, error) {
	s.begun.Do(func() { close(s.ready) })
	return nil, time.Time{}, nil
}
func (s *nullStore) WaitedFor(context.Context, string, int) ([]string, error) { return nil, nil }
func (s *nullStore) Lease(context.Context, queue.Version, string, time.Time, time.Time) error {
	return nil
}
func (s *nullStore) ReleaseLeases(context.Context, string) (int64, error) { return 0, nil }
func (s *nullStore) Finish(context.Context, queue.Version, string, queue.Outcome) error {
	s.finished.Done()
	return nil
}

// BenchmarkThrough measures what a message costs in the scheduler from Submit to Finish, with 20 places.
func BenchmarkThrough(b *testing.B) {
	for _, places := range []int{1, 20} {
		b.Run(strconv.Itoa(places)+" places", func(b *testing.B) { benchmarkThrough(b, places) })
	}
}

func benchmarkThrough(b *testing.B, places int) {
	s, up := &nullStore{ready: make(chan struct{})}, newUpstreams()
	up.free["office"] = places
	up.answer = func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result { return results(m, delivered) }
	q := queue.New(queue.Options{
		Store: s, Journal: noJournal, Dispatcher: up, Owner: "node1", Window: 1 << 20, Schedule: usual,
		Trace: func(trace.Event) {}, Logger: slog.New(slog.DiscardHandler),
	})
	up.queue = q
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx) }()
	<-s.ready
	s.finished.Add(b.N)
	var n atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.SetParallelism(20)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := strconv.FormatInt(n.Add(1), 10)
			if err := q.Submit(context.Background(), message("M"+i, "anna"), body); err != nil {
				b.Error(err)
			}
		}
	})
	s.finished.Wait()
	b.StopTimer()
	cancel()
	<-done
}
