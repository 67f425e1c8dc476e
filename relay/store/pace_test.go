package store

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/relay/stats"
	"postern/relay/trace"
)

// mailFlow tells of so many events in a second, since a moment.
func mailFlow(since time.Time, each int) func() uint64 {
	return func() uint64 { return uint64(time.Since(since).Seconds() * float64(each)) }
}

// Programs that search without a pause get their share of the processors and no more while mail is busy.
func TestSearchersLeaveTheRestToMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, told := newPace(), mailFlow(time.Now(), 10*busyEvents)
		time.Sleep(2 * time.Second) // until it is known that mail is busy
		began, spent := time.Now(), time.Duration(0)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		const each = 20 * time.Millisecond
		var searchers sync.WaitGroup
		for n := range 6 { // two of each
			searchers.Go(func() {
				for {
					done, err := p.take(ctx, string(rune('a'+n/2)), told)
					if err != nil {
						return
					}
					time.Sleep(each)
					done()
					p.mu.Lock()
					spent += each
					p.mu.Unlock()
				}
			})
		}
		searchers.Wait()
		share := time.Since(began) * time.Duration(runtime.GOMAXPROCS(0)) / paceShare
		p.mu.Lock()
		defer p.mu.Unlock()
		if spent > share+3*(paceCredit+each) || spent < share/2 {
			t.Errorf("searches took %s, their share is %s", spent, share)
		}
	})
}

// A person who looks at what was found does not wait, and nobody does while mail is quiet.
func TestAPersonWhoSearchesDoesNotWait(t *testing.T) {
	for name, test := range map[string]struct {
		events   int
		think    time.Duration
		searches int
	}{"mail is busy": {100 * busyEvents, 10 * time.Second, 100}, "mail is quiet": {busyEvents / 2, 0, 1000}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, told := newPace(), mailFlow(time.Now(), test.events)
				for n := range test.searches {
					before := time.Now()
					done, err := p.take(t.Context(), "anna", told)
					if waited := time.Since(before); err != nil || waited > 0 {
						t.Fatalf("search %d waited for %s, %v", n, waited, err)
					}
					time.Sleep(10 * time.Millisecond)
					done()
					time.Sleep(test.think)
				}
			})
		})
	}
}

// Who gives up while waiting leaves the turn to others. A clock that goes back holds nobody up.
func TestTurnsToSearchAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		now := time.Now()
		anna, err := p.enter("anna")
		if err != nil {
			t.Fatal(err)
		}
		p.due(now, 0, anna)
		p.due(now.Add(2*time.Second), 1000, anna)
		p.leave(anna, time.Minute)
		told := mailFlow(now, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.take(ctx, "anna", told); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if len(p.turn) != 0 {
			t.Error("the turn is lost")
		}
		if wait := p.due(now.Add(-time.Hour), 5000, anna); wait != 0 && !p.busy {
			t.Errorf("%s after the clock went back", wait)
		}
		if wait := p.due(now.Add(-time.Hour+2*time.Second), 5000, anna); wait != 0 {
			t.Errorf("%s though mail is quiet", wait)
		}
	})
}

// Nobody waits for the searches of others: a program that asks for many at once, however long each takes, keeps no
// person from searching, and has a bound. Nothing of them is left behind.
func TestOneSearcherStarvesNobody(t *testing.T) {
	for _, each := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p, told := newPace(), mailFlow(time.Now(), 10*busyEvents)
			time.Sleep(2 * time.Second)
			all, stop := context.WithCancel(t.Context())
			defer stop()
			for range maxSearches {
				go func() {
					for all.Err() == nil {
						if done, err := p.take(all, "script", told); err == nil {
							time.Sleep(each)
							done()
						}
					}
				}()
			}
			time.Sleep(time.Minute)
			if _, err := p.take(t.Context(), "script", told); !errors.Is(err, trace.ErrTooMany) {
				t.Errorf("another search of it: %v", err)
			}
			for n := range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				done, err := p.take(ctx, "anna", told)
				if cancel(); err != nil {
					t.Fatalf("search %d of a person, of %s: %v", n, each, err)
				}
				time.Sleep(each)
				done()
				time.Sleep(2 * time.Minute) // until she asks again
			}
			stop()
			synctest.Wait()
			time.Sleep(time.Hour)
			if s, err := p.enter("bob"); err != nil || p.due(time.Now(), told(), s) > 0 || len(p.searchers) != 1 {
				t.Errorf("%d searchers are left, %v", len(p.searchers), err)
			}
		})
	}
}

// In the daemon whoever looks at statistics or at stories without a pause pays for that as for searches, and only they.
func TestLookUpsPay(t *testing.T) {
	s := open(t, Options{Daemon: true})
	appendEvents(t, s, story()...)
	ask := map[string]func(ctx context.Context, by string) error{
		"statistics": func(ctx context.Context, by string) error {
			_, err := s.Statistics(ctx, stats.Query{For: by}, time.Now())
			return err
		},
		"timeline": func(ctx context.Context, by string) error {
			_, _, err := s.Timeline(ctx, by, "m1")
			return err
		},
	}
	for what, look := range ask {
		if err := look(t.Context(), "anna"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	busy := func() { // until a second has passed
		s.pace.mu.Lock()
		defer s.pace.mu.Unlock()
		s.pace.busy, s.pace.sampled = true, time.Now().Add(time.Hour)
		s.pace.searchers["anna"] = &searcher{credit: -time.Hour}
	}
	for what, look := range ask {
		busy()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := look(ctx, "anna"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: she does not wait: %v", what, err)
		}
		cancel()
		busy()
		if err := look(t.Context(), "bob"); err != nil {
			t.Errorf("%s: he waits for her: %v", what, err)
		}
	}
}

// In the daemon a search ends with its context also while it waits.
func TestSearchGivesUp(t *testing.T) {
	s := open(t, Options{Daemon: true})
	s.pace.turn <- struct{}{} // somebody else's
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Search(ctx, trace.Search{Words: "anna"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	appendEvents(t, s, story()...)
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	q := trace.Search{Words: "anna"}
	a, err := s.Search(late, q)
	if err != nil || len(a.Found) != 0 || a.Next == "" {
		t.Errorf("whose time is up before it begins: %+v, %v", a, err)
	}
	<-s.pace.turn
	want := findAll(t, s, q)
	if q.After = a.Next; len(want) == 0 || !reflect.DeepEqual(findAll(t, s, q), want) {
		t.Errorf("what is found later is not all of %+v", want)
	}
	if _, err := s.Search(t.Context(), trace.Search{Words: "anna"}); err != nil {
		t.Error(err)
	}
}
