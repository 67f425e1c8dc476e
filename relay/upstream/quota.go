package upstream

import (
	"context"
	"time"

	"postern/mail"
	"postern/relay/upstream/internal/gate"
)

// QuotaStore keeps what must survive a restart: how much was sent within the windows of the rates, and which quotas are used
// up until when. Without one, a restart begins to count anew.
type QuotaStore interface {
	// LoadQuotas returns what was saved last for an upstream; nothing is no error.
	LoadQuotas(ctx context.Context, upstream string) ([]Quota, error)
	// SaveQuotas replaces it. No quotas: there is nothing to remember.
	SaveQuotas(ctx context.Context, upstream string, quotas []Quota) error
}

// Quota is the memory of one identity.
type Quota struct {
	Identity string       `json:"identity"`
	Until    time.Time    `json:"until,omitzero"` // a quota is used up until then
	Reply    mail.Reply   `json:"reply,omitzero"` // as the upstream said
	Counts   []QuotaCount `json:"counts,omitempty"`
}

// QuotaCount is what leaves a window at one time.
type QuotaCount struct {
	Unit   Unit          `json:"unit"`
	Per    time.Duration `json:"per_ns"`
	Leaves time.Time     `json:"leaves"`
	Count  int64         `json:"count"`
}

const (
	saveEvery    = 30 * time.Second // what a crash may forget
	storeTimeout = 10 * time.Second
)

// loadQuotas reads what was saved. What cannot be read is forgotten: at worst the upstream says again that it is too much.
func (u *Upstream) loadQuotas() {
	if u.cfg.Quotas == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	quotas, err := u.cfg.Quotas.LoadQuotas(ctx, u.cfg.Name)
	if err != nil {
		u.log.Warn("what was sent to the upstream before the start is not known, its quotas are counted anew", "err", err)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.restoreLocked(time.Now(), quotas)
}

// Inherit takes over what another Upstream of the same provider knows of rates and quotas, which ends to save it. It is for a
// configuration that has changed: the provider goes on counting.
func (u *Upstream) Inherit(old *Upstream) {
	now := time.Now()
	old.mu.Lock()
	quotas := old.quotasLocked(now)
	old.inherited = true
	old.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.restoreLocked(now, quotas)
}

func (u *Upstream) restoreLocked(now time.Time, quotas []Quota) {
	for _, q := range quotas {
		id := u.identityLocked(q.Identity)
		if id == nil {
			return
		}
		for _, c := range q.Counts {
			if m := id.pace.meter(c.Unit, c.Per); m != nil {
				m.restore(now, c.Leaves, c.Count)
			}
		}
		if wait := q.Until.Sub(now); wait > 0 && id.gate.Ready() {
			id.gate.Hold(now, BackingOff, gate.News{Reply: q.Reply}, min(wait, maxQuota))
			id.quotaUntil = id.gate.Until
			u.armAlarmLocked(id, now)
		}
	}
}

// restore counts what leaves the window at a time, unless it has done so.
func (w *window) restore(now, leaves time.Time, n int64) {
	w.advance(now)
	c := min(leaves.UnixNano()/w.cell()-cells-1, w.head)
	if c < w.head-cells || n < 1 || n > maxCount {
		return
	}
	w.used[w.index(c)] += uint32(n)
	w.sum += n
}

// quotasLocked lists what is worth remembering.
func (u *Upstream) quotasLocked(now time.Time) []Quota {
	var quotas []Quota
	for _, id := range u.identities {
		q := Quota{Identity: id.name}
		if id.quotaUntil.After(now) && !id.gate.Ready() {
			q.Until, q.Reply = id.quotaUntil, id.gate.Reply
		}
		for i := range id.pace {
			q.Counts = id.pace[i].appendCounts(q.Counts, now)
		}
		if !q.Until.IsZero() || len(q.Counts) > 0 {
			quotas = append(quotas, q)
		}
	}
	return quotas
}

// appendCounts lists a window that outlives a restart.
func (m *meter) appendCounts(counts []QuotaCount, now time.Time) []QuotaCount {
	if m.span < time.Minute {
		return counts
	}
	m.advance(now)
	for c := m.head - cells; c <= m.head; c++ {
		if n := m.used[m.index(c)]; n > 0 {
			counts = append(counts, QuotaCount{Unit: m.unit, Per: m.span, Leaves: m.leaves(c), Count: int64(n)})
		}
	}
	return counts
}

// saveSoonLocked saves after d, or sooner if that was asked for before.
func (u *Upstream) saveSoonLocked(d time.Duration) {
	switch {
	case u.cfg.Quotas == nil || u.closed || u.inherited:
	case u.saver == nil:
		u.saver = time.AfterFunc(d, func() { u.save(context.Background()) })
	case d == 0:
		u.saver.Reset(0)
	}
}

// save writes what is known now. Saves follow each other; the last one knows most.
func (u *Upstream) save(ctx context.Context) {
	u.saving.Lock()
	defer u.saving.Unlock()
	u.mu.Lock()
	u.saver = nil
	if u.cfg.Quotas == nil || u.inherited || u.saved {
		u.mu.Unlock()
		return
	}
	u.saved = u.closed && u.places == 0 // nothing can change any more
	quotas := u.quotasLocked(time.Now())
	u.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := u.cfg.Quotas.SaveQuotas(ctx, u.cfg.Name, quotas); err != nil {
		u.log.Warn("what was sent to the upstream cannot be remembered over a restart", "err", err)
	}
}
