package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"postern/internal/periodic"
	"postern/relay/config"
	"postern/relay/privacy"
	relaystore "postern/relay/store"
)

const (
	prunePeriod  = 10 * time.Minute
	pruneRecency = 365 * 24 * time.Hour // recipients not written to for a year count as new again
	auditFor     = 2 * 365 * 24 * time.Hour
)

// history keeps the trace within [store] history and history_size, and trace and statistics as [privacy] says.
type history struct {
	store   *relaystore.Store
	inForce func() *config.Config
	log     *slog.Logger
	period  time.Duration // of trim
	trimmed sync.Once     // said that it is at its bound
}

// run works until ctx ends.
func (h *history) run(ctx context.Context) {
	tick := time.NewTicker(h.period)
	defer tick.Stop()
	failing := false
	for pruned := (time.Time{}); ; {
		if now := time.Now(); now.Sub(pruned) >= prunePeriod {
			h.forgetOld(ctx, now)
			pruned = now
		}
		err := h.trim(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			h.log.Warn("the trace was not trimmed", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *history) forgetOld(ctx context.Context, now time.Time) {
	if _, err := h.store.PruneEvents(ctx, now.Add(-h.inForce().Store.History.Std())); err != nil && ctx.Err() == nil {
		h.log.Warn("old trace events were not removed", "err", err)
	}
	if _, err := h.store.PruneAudit(ctx, now.Add(-auditFor), now); err != nil && ctx.Err() == nil {
		h.log.Warn("old entries of the audit were not removed", "err", err)
	}
	if _, err := h.store.PruneAlerts(ctx, now.Add(-h.inForce().Store.History.Std())); err != nil && ctx.Err() == nil {
		h.log.Warn("old alerts were not removed", "err", err)
	}
	if _, err := h.store.DropContents(ctx); err != nil && ctx.Err() == nil {
		h.log.Warn("contents of delivered mail were not dropped", "err", err)
	}
	if _, err := h.store.ForgetRecipients(ctx, now.Add(-pruneRecency)); err != nil && ctx.Err() == nil {
		h.log.Warn("old recipients were not removed", "err", err)
	}
	if _, err := h.store.TrimStatistics(ctx, now, h.inForce().Privacy.Statistics.Std()); err != nil &&
		ctx.Err() == nil {
		h.log.Warn("old statistics were not removed", "err", err)
	}
	if err := forgetAccounts(ctx, h.store.SharedAccounts()); err != nil && ctx.Err() == nil {
		h.log.Warn("what nodes knew of accounts at upstreams that nobody uses was not removed", "err", err)
	}
	switch n, err := h.store.HideAddresses(ctx, now); {
	case err != nil && ctx.Err() == nil:
		h.log.Warn("addresses were not taken out of the trace as [privacy] says; it is tried again", "err", err)
	case n > 0:
		h.log.Debug("addresses were taken out of the trace", "events", n)
	}
}

// usePrivacy has the store do as [privacy] says from now on.
func usePrivacy(ctx context.Context, store *relaystore.Store, p config.Privacy) error {
	rules := privacy.Rules{Recipients: privacy.Mode(p.Recipients), Clients: privacy.Mode(p.Clients)}
	return store.UsePrivacy(ctx, rules, p.After.Std())
}

// trim runs often, so that the trace is never far over its bound. Reaching the bound is logged once.
func (h *history) trim(ctx context.Context) error {
	size := h.inForce().Store.HistorySize
	n, err := h.store.TrimEvents(ctx, int64(size))
	if n > 0 {
		h.trimmed.Do(func() {
			h.log.Info("the history has less room than [store] history would take: its oldest events go",
				"history_size", size)
		})
	}
	return err
}

// prepare sees to it, until ctx ends, that the trace is ready for what comes next, whatever run is at.
func (h *history) prepare(ctx context.Context) {
	failing := false
	for {
		c := h.inForce().Store
		err := h.store.PrepareEvents(ctx, c.History.Std(), int64(c.HistorySize))
		if err != nil && !failing && ctx.Err() == nil {
			h.log.Warn("the next part of the trace was not made", "err", err)
		}
		failing = err != nil
		if periodic.Sleep(ctx, h.period) != nil {
			return
		}
	}
}
