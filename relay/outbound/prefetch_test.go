package outbound

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/upstream"
)

// doors stands for an upstream with so many slots.
type doors struct {
	mu    sync.Mutex
	free  int
	until time.Time
}

func (d *doors) reserve(time.Time) (upstream.Slot, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.until.IsZero() || d.free == 0 {
		return nil, d.until
	}
	d.free--
	return &brittleSlot{}, time.Time{}
}

func (d *doors) set(free int, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free, d.until = free, until
}

func TestPrefetchServesInOrderAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &doors{}
		s := newPrefetch(8, nil, d.reserve)
		for range 2 {
			if !s.admit() {
				t.Fatal("eight slots have two in prefetch")
			}
		}
		if s.admit() {
			t.Fatal("eight slots have no more than two in prefetch")
		}
		var order []int
		for i := range 2 {
			go func() {
				if slot, _ := s.await(t.Context()); slot != nil {
					order = append(order, i)
				}
				s.leave()
			}()
			synctest.Wait()
		}
		for range 2 {
			d.set(1, time.Time{})
			s.wake()
			synctest.Wait()
		}
		if len(order) != 2 || order[0] != 0 || order[1] != 1 {
			t.Errorf("served in order %v", order)
		}
		if s.waiting() {
			t.Error("somebody is still waited for")
		}
	})
}

func TestPrefetchEndsWithPauseShutdownAndContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, stop := &doors{}, make(chan struct{})
		s := newPrefetch(4, stop, d.reserve)
		ended := make(chan time.Time, 1)
		wait := func(ctx context.Context) {
			go func() {
				slot, until := s.await(ctx)
				if slot != nil {
					t.Error("a slot came from nowhere")
				}
				ended <- until
			}()
			synctest.Wait()
		}
		wait(t.Context())
		pause := time.Now().Add(time.Hour)
		d.set(0, pause)
		s.wake()
		if until := <-ended; !until.Equal(pause) {
			t.Errorf("a pause until %v was told as %v", pause, until)
		}
		d.set(0, time.Time{})
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx)
		cancel()
		<-ended
		wait(t.Context())
		close(stop)
		<-ended
		if len(s.parked) != 0 {
			t.Errorf("%d are left behind", len(s.parked))
		}
	})
}

func TestPrefetchEndsWithItsUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &doors{}
		s := newPrefetch(4, nil, d.reserve)
		ended := make(chan struct{})
		go func() {
			s.await(t.Context())
			close(ended)
		}()
		synctest.Wait()
		s.end()
		<-ended
		if p, until := s.await(t.Context()); p != nil || !until.After(time.Now()) {
			t.Errorf("after the end there is a slot %v, or nobody says when to ask again: %v", p, until)
		}
	})
}
