package queue

import (
	"context"
	"fmt"
	"time"
)

// grace is how long cut attempts have to return, and outcomes to be recorded.
const grace = 10 * time.Second

// Run records what a former life noted, ends its leases, and schedules attempts until ctx ends, then drains: attempts
// may end until the drain deadline. It returns when everything that the Queue started has returned, and may be called
// once. Start it before anything submits.
func (q *Queue) Run(ctx context.Context) error {
	if err := q.attempts.recall(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	released, err := q.opts.Store.ReleaseLeases(ctx, q.opts.Owner)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("release leases of %s: %w", q.opts.Owner, err)
	}
	if released > 0 {
		q.log.Info("attempts of a former life are made again", "messages", released)
	}
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	attempts, cut := context.WithCancel(hard)
	defer cut()
	q.sched.start(hard, attempts)
	close(q.up)
	q.loop(ctx)
	return q.drain(cut, kill)
}

func (q *Queue) loop(ctx context.Context) {
	for {
		do := q.sched.turn(time.Now())
		q.begin(do)
		timer := time.NewTimer(do.nap)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-q.bell.rung:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// begin begins what a turn wants done. Everything is a task.
func (q *Queue) begin(do todo) {
	tasks, store := &q.sched.tasks, storeWork{q.sched, q.opts.Store}
	for _, a := range do.attempts {
		tasks.Go(func() { q.attempts.run(a.entry, a.slot) })
	}
	for _, e := range do.reviews {
		tasks.Go(func() { q.attempts.review(e) })
	}
	if do.work {
		tasks.Go(store.do)
	}
	if do.extend {
		tasks.Go(store.extend)
	}
}

// drain waits for running attempts, cuts them at the deadline, and stops recording outcomes some time
// after that.
func (q *Queue) drain(cut, kill context.CancelFunc) error {
	q.sched.stop()
	done := make(chan struct{})
	go func() { q.sched.tasks.Wait(); close(done) }()
	for _, step := range []struct {
		after time.Duration
		then  func()
	}{{q.opts.Drain, cut}, {grace, kill}} {
		select {
		case <-done:
		case <-time.After(step.after):
			step.then()
		}
	}
	<-done
	if lost := q.sched.lost; lost > 0 { // all tasks have ended
		return fmt.Errorf("%d outcomes could not be recorded: these messages will be tried again", lost)
	}
	return nil
}
