package alert

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Run sends alerts until ctx ends, then gives the waiting ones one more try for up to drainTime.
func (a *Alerter) Run(ctx context.Context) {
	last, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cut) })
	defer stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	running := make(map[*hook]bool)
	tick := time.NewTicker(lookPeriod)
	defer tick.Stop()
	for {
		a.mu.Lock()
		hooks := slices.Clone(a.hooks)
		a.mu.Unlock()
		for h := range running {
			if !slices.Contains(hooks, h) {
				delete(running, h)
			}
		}
		for _, h := range hooks {
			if !running[h] {
				running[h] = true
				workers.Go(func() { a.serve(ctx, last, h) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		case <-tick.C:
			a.look(time.Now())
		}
	}
}

// serve sends one hook its alerts in order, until ctx ends or the hook is gone. last ends drainTime after ctx.
func (a *Alerter) serve(ctx, last context.Context, h *hook) {
	failures, lastChance := 0, false
	for {
		n, settings, gone := a.next(h)
		if gone {
			return
		}
		if n == nil {
			select {
			case <-ctx.Done():
				return
			case <-h.wake:
			}
			continue
		}
		r := a.tell(last, h, settings, n)
		if a.done(time.Now(), h, n, r) {
			failures = 0
			continue
		}
		failures++
		wait := max(retryWait(failures), min(r.after, giveUp))
		a.logger(settings, n).Warn("alert not taken, will retry", "err", r.err, "in", wait.Round(time.Second))
		if !a.pause(ctx, h, wait) {
			if lastChance || r.after > 0 || last.Err() != nil {
				return
			}
			lastChance = true
		}
	}
}

// deliver gives an alert to a hook.
func deliver(ctx context.Context, h Hook, d Document) result {
	if h.Local != nil {
		return result{err: h.Local(ctx, d)}
	}
	return post(ctx, h, d.encode())
}

// pause waits before a retry. It reports whether to go on.
func (a *Alerter) pause(ctx context.Context, h *hook, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-h.wake: // another alert was queued, or the hook is gone
			a.mu.Lock()
			gone := h.gone
			a.mu.Unlock()
			if gone {
				return true // next will say so
			}
		}
	}
}

// retryWait doubles with each failure, with 20 % jitter either way.
func retryWait(failures int) time.Duration {
	d := retryFirst
	for i := 1; i < failures && d < retryMost; i++ {
		d *= 2
	}
	return time.Duration(float64(min(d, retryMost)) * (0.8 + 0.4*rand.Float64()))
}

// next returns the alert to send, nil if none waits, and whether the hook is gone.
func (a *Alerter) next(h *hook) (n *notice, settings Hook, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.gone {
		return nil, Hook{}, true
	}
	for len(h.waiting) > 0 {
		n := h.waiting[0]
		e := h.known[n.of]
		if !n.doc.Resolved || e != nil && !e.Told.IsZero() {
			return n, h.Hook, false
		}
		h.waiting = h.waiting[1:] // the end of a condition whose beginning the hook refused
		if e != nil && e.Ending {
			delete(h.known, n.of)
		}
	}
	return nil, h.Hook, false
}

// done removes an alert that was taken or is given up. It reports false if the alert is to be retried.
func (a *Alerter) done(now time.Time, h *hook, n *notice, r result) bool {
	late := now.Sub(n.made) >= giveUp
	if r.err != nil && !r.final && !late {
		return false
	}
	a.mu.Lock()
	h.waiting = slices.DeleteFunc(h.waiting, func(w *notice) bool { return w == n })
	e := h.known[n.of]
	switch {
	case e == nil:
	case n.doc.Resolved && e.Ending: // even if the hook did not take it: the end is not told twice
		delete(h.known, n.of)
	case r.err == nil:
		if e.Told = now; r.elsewhere {
			e.Since = r.since
		}
	}
	log, local := a.logger(h.Hook, n).With("resolved", n.doc.Resolved), h.Local != nil
	a.mu.Unlock()
	switch {
	case r.err != nil:
		a.count(n.doc.Event, "failed")
		log.Error("alert given up", "err", r.err)
	case r.elsewhere:
		log.Debug("alert told by another node")
	case !local: // what is told here is in the log by itself
		a.count(n.doc.Event, "sent")
		log.Info("alert sent")
	}
	a.save()
	return true
}

func (a *Alerter) logger(h Hook, n *notice) *slog.Logger {
	return a.o.Logger.With("hook", h.Name, "host", h.Host(), "event", string(n.doc.Event), "subject", n.doc.Subject)
}

// save records who has been told what.
func (a *Alerter) save() {
	a.file.save(func() map[string][]*entry {
		a.mu.Lock()
		defer a.mu.Unlock()
		all := make(map[string][]*entry)
		for _, h := range a.hooks {
			for _, e := range h.sorted() {
				if !e.Told.IsZero() {
					copied := *e
					all[h.id] = append(all[h.id], &copied)
				}
			}
		}
		return all
	})
}
