package graph

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

// slowly is a transport that takes its time: before it reads the request, or between the request and its answer.
type slowly struct {
	rt    http.RoundTripper
	delay time.Duration
	early bool
}

func (s *slowly) RoundTrip(r *http.Request) (*http.Response, error) {
	wait := func() error {
		select {
		case <-time.After(s.delay):
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	if s.early {
		if err := wait(); err != nil {
			return nil, err
		}
	}
	_, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := wait(); err != nil {
		return nil, err
	}
	again := r.Clone(r.Context())
	if again.Body, err = r.GetBody(); err != nil {
		return nil, err
	}
	return s.rt.RoundTrip(again)
}

// item is a message of one sender in the test's queue.
type item struct {
	mailbox string
	name    string
	due     time.Time
}

// office500 pushes 500 messages of ten people through an upstream, as the queue does: places without waiting, results
// that keep a message tried again later. It returns how many attempts failed for good, and how many were uncertain.
func office500(t *testing.T, u *Upstream, retry time.Duration) (bounced, uncertain int) {
	wake := make(chan struct{}, 1)
	u.OnChange(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		waiting []item
		left    = 500
	)
	for i := range left {
		waiting = append(waiting, item{mailbox: fmt.Sprintf("person%d@example.com", i%10),
			name: fmt.Sprintf("m%d@example.org", i)})
	}
	attempt := func(s upstream.Slot, it item) {
		defer wg.Done()
		tx := to(t, "To: "+it.name+"\r\n", it.name)
		r := s.Send(t.Context(), tx)[0]
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Uncertain:
			uncertain++
			fallthrough
		case r.Class != mail.Delivered && !r.Class.Permanent():
			it.due = time.Now().Add(max(retry, r.RetryAfter))
			waiting = append(waiting, it)
		case r.Class.Permanent():
			bounced++
			t.Errorf("%s: %s", it.name, r.Reply)
			fallthrough
		default:
			left--
		}
	}
	for deadline := time.Now().Add(7 * 24 * time.Hour); ; {
		mu.Lock()
		now := time.Now()
		kept := waiting[:0]
		for _, it := range waiting {
			if it.due.After(now) {
				kept = append(kept, it)
				continue
			}
			s, _ := u.Reserve(now, it.mailbox)
			if s == nil {
				kept = append(kept, it)
				continue
			}
			wg.Add(1)
			go attempt(s, it)
		}
		waiting = kept
		over := left == 0
		mu.Unlock()
		if over || now.After(deadline) {
			break
		}
		select {
		case <-wake:
		case <-time.After(5 * time.Second):
		}
	}
	wg.Wait()
	return bounced, uncertain
}

// Under every regime everything arrives, nothing bounces, and where no answer was lost it arrives once.
func TestRegimes(t *testing.T) {
	for name, c := range map[string]struct {
		fake    fakeprovider.GraphOptions
		faults  []fakeprovider.GraphFault
		retry   time.Duration
		atLeast time.Duration // that it must take
		lossy   bool
		rates   []upstream.Rate // that we keep; nothing is refused then
	}{
		"plain": {retry: time.Minute},
		"30 a minute": {fake: fakeprovider.GraphOptions{PerMinute: 10, Latency: 100 * time.Millisecond},
			retry: time.Minute, atLeast: 4 * time.Minute},
		"our own 30 a minute": {fake: fakeprovider.GraphOptions{PerMinute: 10, Latency: 100 * time.Millisecond},
			retry: time.Minute, atLeast: 4 * time.Minute,
			rates: []upstream.Rate{{Count: 10, Unit: upstream.Messages, Per: time.Minute}}},
		"storm of 429": {faults: []fakeprovider.GraphFault{{Times: 200, Status: 429, Code: "ApplicationThrottled",
			RetryAfter: "20"}}, retry: time.Minute},
		"429 unadorned": {faults: []fakeprovider.GraphFault{{Times: 60, Status: 429}}, retry: time.Minute},
		"daily quota":   {fake: fakeprovider.GraphOptions{PerDay: 20}, retry: time.Hour, atLeast: 48 * time.Hour},
		"denied for long": {faults: []fakeprovider.GraphFault{{Times: 50, Status: 403, Code: "ErrorAccessDenied"}},
			retry: time.Minute},
		"token gone": {faults: []fakeprovider.GraphFault{{Times: 37, Status: 401,
			Code: "InvalidAuthenticationToken"}}, retry: time.Minute},
		"cut requests": {faults: []fakeprovider.GraphFault{{Times: 100, Drop: true, Early: true}},
			retry: time.Minute},
		"lost answers": {faults: []fakeprovider.GraphFault{{Times: 40, Drop: true, AfterWork: true}},
			retry: time.Minute, lossy: true},
		"504 but sent": {faults: []fakeprovider.GraphFault{{Times: 40, Status: 504, AfterWork: true}},
			retry: time.Minute, lossy: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.fake.Latency == 0 {
					c.fake.Latency = time.Second
				}
				fake := fakeprovider.NewGraph(c.fake)
				fake.Fail(c.faults...)
				u, _ := connected(t, fake, func(o *Options) { o.Rates = c.rates })
				begun := time.Now()
				_, uncertain := office500(t, u, c.retry)

				times := map[string]int{}
				for _, a := range fake.Arrivals() {
					if len(a.Recipients) != 1 {
						t.Fatalf("recipients %v", a.Recipients)
					}
					times[a.Recipients[0]]++
				}
				extra := len(fake.Arrivals()) - 500
				if len(times) != 500 || extra != 0 && !c.lossy || extra > uncertain || c.lossy && uncertain == 0 {
					t.Errorf("%d messages arrived, %d times too often, %d uncertain", len(times), extra, uncertain)
				}
				for i := range 10 {
					if n := fake.MostAtOnce(fmt.Sprintf("person%d@example.com", i)); n > DefaultConnections {
						t.Errorf("%d requests at a time", n)
					}
				}
				if n := fake.Answered(429); n > 0 && c.rates != nil {
					t.Errorf("%d were refused", n)
				}
				if took := time.Since(begun); took < c.atLeast {
					t.Errorf("took %s only", took)
				}
				if err := u.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// While a mailbox rests it is asked by one probe at a time.
func TestThrottledMailboxIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
		fake.Fail(fakeprovider.GraphFault{Status: 429, RetryAfter: "120"})
		u, _ := connected(t, fake, nil)
		send(t, u, to(t, "", "a@example.org"))
		s, until := u.Reserve(time.Now(), "")
		if s != nil || time.Until(until) != 2*time.Minute {
			t.Fatalf("rests for %s", time.Until(until))
		}
		if other, _ := u.Reserve(time.Now(), "other@example.com"); other == nil {
			t.Error("another mailbox must wait too")
		} else {
			other.Release()
		}
		changed := make(chan struct{}, 10)
		u.OnChange(func() { changed <- struct{}{} })
		<-changed
		if left := time.Until(until); left > 0 {
			t.Errorf("woken %s too early", left)
		}
		probe := reserve(t, u)
		if s, until := u.Reserve(time.Now(), "OFFICE@example.com"); s != nil || !until.IsZero() {
			t.Error("a second probe")
		}
		fake.Fail()
		probe.Send(t.Context(), to(t, "", "a@example.org"))
		if status(u) != upstreamReady {
			t.Errorf("the mailbox is %s", status(u))
		}
	})
}
