package graph

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

// shelf is a QuotaStore in memory.
type shelf struct {
	mu     sync.Mutex
	quotas []upstream.Quota
	saves  int
	err    error
}

func (s *shelf) LoadQuotas(context.Context, string) ([]upstream.Quota, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.quotas), s.err
}

func (s *shelf) SaveQuotas(_ context.Context, _ string, quotas []upstream.Quota) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves++
	if s.err == nil {
		s.quotas = slices.Clone(quotas)
	}
	return s.err
}

func threeADay(s *shelf) func(*Options) {
	return func(o *Options) {
		o.Rates, o.Quotas = []upstream.Rate{{Count: 3, Unit: upstream.Messages, Per: day}}, s
	}
}

// What was sent counts after a restart, and after a crash but for the last half minute.
func TestRatesSurviveARestart(t *testing.T) {
	for name, crash := range map[string]bool{"restart": false, "crash": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake, s := fakeprovider.NewGraph(fakeprovider.GraphOptions{}), &shelf{}
				u, _ := connected(t, fake, threeADay(s))
				for range 3 {
					send(t, u, to(t, "", "a@example.org"))
				}
				if crash {
					time.Sleep(saveEvery + time.Second)
				} else if err := u.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				again, _ := connected(t, fake, threeADay(s))
				if slot, until := again.Reserve(time.Now(), ""); slot != nil || time.Until(until) < 23*time.Hour {
					t.Errorf("place %v until %v", slot, until)
				}
				if st := again.States()[0]; st.Rates[0].Used != 3 {
					t.Errorf("%+v", st)
				}
				if slot, _ := again.Reserve(time.Now(), "other@example.com"); slot == nil {
					t.Error("another mailbox must wait too")
				}
			})
		})
	}
}

// A quota that Exchange calls used up is not asked for again after a restart.
func TestUsedUpQuotaSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, s := fakeprovider.NewGraph(fakeprovider.GraphOptions{}), &shelf{}
		u, _ := connected(t, fake, func(o *Options) { o.Quotas = s })
		fake.Fail(fakeprovider.GraphFault{Status: 403, Code: "ErrorExceededMessageLimit", Times: 1})
		send(t, u, to(t, "", "a@example.org"))
		if err := u.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		again, _ := connected(t, fake, func(o *Options) { o.Quotas = s })
		st := again.States()[0]
		if st.Status != upstreamPaused || time.Until(st.Until) < 50*time.Minute || st.Reply.IsZero() {
			t.Errorf("%+v", st)
		}
		heir, _ := connected(t, fake, nil)
		heir.Inherit(again)
		if st := heir.States()[0]; st.Status != upstreamPaused {
			t.Errorf("a changed configuration forgets it: %+v", st)
		}
		time.Sleep(time.Until(st.Until))
		fake.Fail()
		third, _ := connected(t, fake, func(o *Options) { o.Quotas = s })
		if r := only(t, send(t, third, to(t, "", "a@example.org"))); r.Class != mail.Delivered {
			t.Errorf("after the wait: %s", r.Reply)
		}
	})
}

// A store that fails costs a count, not a message; an Upstream that was inherited writes no more.
func TestQuotasThatCannotBeKept(t *testing.T) {
	fake, s := fakeprovider.NewGraph(fakeprovider.GraphOptions{}), &shelf{err: errors.New("disk")}
	u, _ := connected(t, fake, threeADay(s))
	if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered {
		t.Errorf("%s", r.Reply)
	}
	heir, _ := connected(t, fake, threeADay(s))
	heir.Inherit(u)
	if err := u.Close(t.Context()); err != nil || s.saves != 0 {
		t.Errorf("%v after %d saves", err, s.saves)
	}
	s.err = nil
	if err := heir.Close(t.Context()); err != nil || len(s.quotas) != 1 || s.quotas[0].Counts[0].Count != 1 {
		t.Errorf("%v, %+v", err, s.quotas)
	}
}
