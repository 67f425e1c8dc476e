package graph

import (
	"context"
	"time"

	"postern/relay/upstream"
	"postern/relay/upstream/internal/gate"
)

// news is what one use of a place led to.
type news struct {
	gate.News
	quota bool // what the mailbox may send is used up
}

const (
	saveEvery    = 30 * time.Second // what a crash may forget
	storeTimeout = 10 * time.Second
	longestQuota = 31 * day
)

// loadQuotas reads what was sent before the start. What cannot be read is forgotten: at worst Graph says again that it is too
// much.
func (u *Upstream) loadQuotas() {
	if u.o.Quotas == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	quotas, err := u.o.Quotas.LoadQuotas(ctx, u.o.Name)
	if err != nil {
		u.log.Warn("what was sent by the upstream before the start is not known, its rates are counted anew", "err", err)
		return
	}
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, q := range quotas {
		m := u.mailboxLocked(q.Identity)
		if m == nil {
			return
		}
		m.pacer.Restore(now, q.Counts)
		if wait := q.Until.Sub(now); wait > 0 && m.gate.Ready() {
			m.gate.Hold(now, upstream.Paused, gate.News{Reply: q.Reply}, min(wait, longestQuota))
			m.quotaUntil = m.gate.Until
			u.armAlarmLocked(m, now)
		}
	}
}

// quotasLocked lists what is worth remembering.
func (u *Upstream) quotasLocked(now time.Time) []upstream.Quota {
	var quotas []upstream.Quota
	for _, m := range u.mailboxes {
		q := upstream.Quota{Identity: m.name, Counts: m.pacer.Counts(now)}
		if m.quotaUntil.After(now) && !m.gate.Ready() {
			q.Until, q.Reply = m.quotaUntil, m.gate.Reply
		}
		if !q.Until.IsZero() || len(q.Counts) > 0 {
			quotas = append(quotas, q)
		}
	}
	return quotas
}

// saveSoonLocked saves after d, or sooner if that was asked for before.
func (u *Upstream) saveSoonLocked(d time.Duration) {
	switch {
	case u.o.Quotas == nil || u.closed || u.inherited:
	case u.saver == nil:
		u.saver = time.AfterFunc(d, func() { u.save(context.Background()) })
	case d == 0:
		u.saver.Reset(0)
	}
}

// save writes what is known now. Saves follow each other; the last one, when nothing can change any more, knows most.
func (u *Upstream) save(ctx context.Context) {
	u.saving.Lock()
	defer u.saving.Unlock()
	u.mu.Lock()
	u.saver = nil
	if u.o.Quotas == nil || u.inherited || u.saved {
		u.mu.Unlock()
		return
	}
	u.saved = u.closed && u.places == 0
	quotas := u.quotasLocked(time.Now())
	u.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := u.o.Quotas.SaveQuotas(ctx, u.o.Name, quotas); err != nil {
		u.log.Warn("what was sent by the upstream cannot be remembered over a restart", "err", err)
	}
}
