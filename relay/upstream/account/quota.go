package account

import (
	"context"
	"log/slog"
	"time"

	"postern/relay/upstream"
)

const (
	saveEvery    = 30 * time.Second // what a crash may forget
	shortestKept = time.Minute      // shorter windows are over when a restart is
	storeTimeout = 10 * time.Second
)

// saved reads what was saved for an upstream. What cannot be read is forgotten: at worst the provider says again that
// it is too much.
func saved(set *upstream.Settings, log *slog.Logger) []upstream.Quota {
	if set.Quotas == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	quotas, err := set.Quotas.LoadQuotas(ctx, set.Name)
	if err != nil {
		log.Warn("what was sent to the upstream before the start is not known, its quotas are counted anew", "err", err)
		return nil
	}
	return quotas
}

// HandOver implements upstream.Transport. What is under way counts as sent now.
func (t *Table[H]) HandOver() (quotas []upstream.Quota) {
	t.Update(func() {
		t.handedOver = true
		quotas = t.quotasLocked(0)
	})
	return quotas
}

// Inherit implements upstream.Transport. What was read from the store is in quotas, or over.
func (t *Table[H]) Inherit(quotas []upstream.Quota) {
	if t.o.Sharing != nil {
		return // what is known is in the database
	}
	t.Update(func() {
		for key, a := range t.accounts {
			if a.taken == 0 {
				stop(&a.alarm)
				stop(&a.paced)
				delete(t.accounts, key)
			}
		}
		t.restoreLocked(quotas)
		t.saveSoonLocked(saveEvery)
	})
}

func (t *Table[H]) restoreLocked(quotas []upstream.Quota) {
	now := time.Now()
	for _, q := range quotas {
		a := t.accountLocked(q.Identity)
		if a == nil {
			return
		}
		for _, c := range q.Counts {
			if m := a.pace.meter(c.Unit, c.Per); m != nil {
				m.restore(now, c.Leaves, c.Count)
			}
		}
		if wait := q.Until.Sub(now); wait > 0 && a.breaker.Ready() {
			a.breaker.Hold(now, t.o.Spent, News{Reply: q.Reply}, min(wait, upstream.MaxQuota))
			a.spentUntil = a.breaker.Until
			t.armLocked(a, now)
		}
	}
}

// restore counts what leaves the window at a time, unless it has done so.
func (w *window) restore(now, leaves time.Time, n int64) {
	w.advance(now)
	c := min(leaves.UnixNano()/w.cell()-cells-1, w.head)
	if c < w.head-cells || n < 1 || n > upstream.MaxCount {
		return
	}
	w.used[w.index(c)] += uint32(n)
	w.sum += n
}

// spentLocked notes, when the breaker has moved, whether that is for a quota. It reports whether that is news.
func (a *account[H]) spentLocked(spent bool) bool {
	switch ready := a.breaker.Ready(); {
	case spent && !ready:
		a.spentUntil = a.breaker.Until
	case ready && !a.spentUntil.IsZero():
		a.spentUntil = time.Time{}
	default:
		return false
	}
	return true
}

// quotasLocked lists what is worth remembering, of windows that are not shorter than least. For least 0 what is under
// way is in it.
func (t *Table[H]) quotasLocked(least time.Duration) []upstream.Quota {
	var quotas []upstream.Quota
	now := time.Now()
	for _, a := range t.accounts {
		q := upstream.Quota{Identity: a.name}
		if a.spentUntil.After(now) && !a.breaker.Ready() {
			q.Until, q.Reply = a.spentUntil, a.breaker.Reply
		}
		for i := range a.pace {
			m := &a.pace[i]
			if m.span >= least {
				q.Counts = m.appendCounts(q.Counts, now)
			}
			if least == 0 && m.flying > 0 {
				q.Counts = append(q.Counts, upstream.QuotaCount{Unit: m.unit, Per: m.span, Leaves: m.leaves(m.head),
					Count: m.flying})
			}
		}
		if !q.Until.IsZero() || len(q.Counts) > 0 {
			quotas = append(quotas, q)
		}
	}
	return quotas
}

func (m *meter) appendCounts(counts []upstream.QuotaCount, now time.Time) []upstream.QuotaCount {
	m.advance(now)
	for c := m.head - cells; c <= m.head; c++ {
		if n := m.used[m.index(c)]; n > 0 {
			counts = append(counts, upstream.QuotaCount{Unit: m.unit, Per: m.span, Leaves: m.leaves(c),
				Count: int64(n)})
		}
	}
	return counts
}

// saveSoonLocked saves after d, or sooner if that was asked for before.
func (t *Table[H]) saveSoonLocked(d time.Duration) {
	switch {
	case t.set.Quotas == nil || t.o.Sharing != nil || t.closed || t.handedOver:
	case t.saver == nil:
		t.saver = time.AfterFunc(d, func() { t.save(context.Background()) })
	case d == 0:
		t.saver.Reset(0)
	}
}

// save writes what is known now, or with a Sharing gives back what was leased. Saves follow each other; the last one,
// when nothing can change any more, knows most.
func (t *Table[H]) save(ctx context.Context) {
	if t.party != nil {
		t.o.Sharing.leave(ctx, t.party)
		return
	}
	t.saving.Lock()
	defer t.saving.Unlock()
	t.mu.Lock()
	t.saver = nil
	if t.set.Quotas == nil || t.handedOver || t.saved {
		t.mu.Unlock()
		return
	}
	t.saved = t.empty
	quotas := t.quotasLocked(shortestKept)
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := t.set.Quotas.SaveQuotas(ctx, t.set.Name, quotas); err != nil {
		t.o.Log.Warn("what was sent to the upstream cannot be remembered over a restart", "err", err)
	}
}
