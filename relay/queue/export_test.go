package queue

import (
	"time"

	"postern/mail"
)

// Decide is decider.decide for tests from outside.
func (q *Queue) Decide(now time.Time, m *Message, results []mail.Result) Outcome {
	return q.attempts.decider.decide(now, m, nil, results).out
}

// WindowStats is the state of the scheduler at a glance.
type WindowStats struct {
	Window  int   // messages in memory
	Waiting int   // of those, waiting for a slot
	Running int   // attempts and outcomes being recorded
	Content int64 // octets of content in memory
	Paused  int   // routes that are paused and that mail sleeps for
	// StoreFailing: scheduling pauses because the store returns errors.
	StoreFailing bool
}

// Stats returns the state of the window.
func (q *Queue) Stats() WindowStats {
	q.sched.mu.Lock()
	defer q.sched.mu.Unlock()
	p, now := &q.sched.plan, time.Now()
	st := WindowStats{
		Window: len(p.window.entries), Waiting: p.window.waiting, Running: p.window.active, Content: p.window.content,
		StoreFailing: p.health.failing,
	}
	for _, r := range p.routes.routes {
		if r.closed(now) {
			st.Paused++
		}
	}
	return st
}
