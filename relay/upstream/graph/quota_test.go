package graph

import (
	"context"
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
		heir.Inherit(again.HandOver())
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
