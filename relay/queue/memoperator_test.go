package queue_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// List implements queue.Store.
func (s *memstore) List(ctx context.Context, f queue.Filter) ([]*queue.Message, error) {
	if err := s.begin(ctx, "list"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	var out []*queue.Message
	for _, r := range s.matchLocked(f) {
		m := copyOf(&r.Message)
		out = append(out, &m)
	}
	return out, nil
}

func (s *memstore) matchLocked(f queue.Filter) []*row {
	var out []*row
	for _, id := range slices.Sorted(maps.Keys(s.rows)) {
		r := s.rows[id]
		if matches(&r.Message, f) && (f.Limit == 0 || len(out) < f.Limit) {
			out = append(out, r)
		}
	}
	return out
}

func matches(m *queue.Message, f queue.Filter) bool {
	switch {
	case len(f.IDs) > 0 && !slices.Contains(f.IDs, m.ID),
		f.Login != "" && m.Login != f.Login,
		f.From != "" && !addressMatches(m.Envelope.From, f.From),
		f.Held && !m.Held,
		f.After != "" && m.ID <= f.After:
		return false
	}
	return f.To == "" || slices.ContainsFunc(m.Recipients,
		func(r queue.Recipient) bool { return addressMatches(r.To, f.To) })
}

func addressMatches(a mail.Address, pattern string) bool {
	if domain, ok := strings.CutPrefix(pattern, "*@"); ok {
		return strings.EqualFold(a.Domain, domain)
	}
	return a.String() == pattern
}

// change applies an operator's action to what it returns true for.
func (s *memstore) change(ctx context.Context, op string, f queue.Filter, action func(*row) bool) (int64, error) {
	if err := s.begin(ctx, op); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	var changed []string
	for _, r := range s.matchLocked(f) {
		if id := r.ID; action(r) {
			changed = append(changed, id)
		}
	}
	if f.Changed != nil && changed != nil {
		f.Changed(changed)
	}
	return int64(len(changed)), nil
}

// Hold implements queue.Store.
func (s *memstore) Hold(ctx context.Context, f queue.Filter, reason string) (int64, error) {
	return s.change(ctx, "hold", f, func(r *row) bool {
		changed := !r.Held
		r.Held, r.HoldReason = true, reason
		return changed
	})
}

// Release implements queue.Store.
func (s *memstore) Release(ctx context.Context, f queue.Filter, now time.Time) (int64, error) {
	return s.change(ctx, "release", f, func(r *row) bool {
		if !r.Held {
			return false
		}
		r.Held, r.HoldReason, r.NextAttempt, r.WaitingFor = false, "", now, ""
		return true
	})
}

// Retry implements queue.Store.
func (s *memstore) Retry(ctx context.Context, f queue.Filter, now time.Time) (int64, error) {
	return s.change(ctx, "retry", f, func(r *row) bool {
		if r.Held || r.LeaseOwner != "" {
			return false
		}
		r.NextAttempt, r.WaitingFor = now, ""
		return true
	})
}

// Bounce implements queue.Store.
func (s *memstore) Bounce(ctx context.Context, f queue.Filter, now time.Time) (int64, error) {
	return s.change(ctx, "bounce", f, func(r *row) bool {
		r.Bounce, r.Held, r.HoldReason, r.NextAttempt, r.WaitingFor = true, false, "", now, ""
		return true
	})
}

// Delete implements queue.Store.
func (s *memstore) Delete(ctx context.Context, f queue.Filter) (int64, error) {
	return s.change(ctx, "delete", f, func(r *row) bool {
		if leased(&r.Message, time.Now()) {
			return false
		}
		delete(s.rows, r.ID)
		return true
	})
}

// Stats implements queue.Store.
func (s *memstore) Stats(ctx context.Context) (queue.Stats, error) {
	if err := s.begin(ctx, "stats"); err != nil {
		return queue.Stats{}, err
	}
	defer s.mu.Unlock()
	var st queue.Stats
	for _, r := range s.rows {
		st.Messages++
		st.Bytes += int64(len(r.content))
		if r.Held {
			st.Held++
		}
		if leased(&r.Message, time.Now()) {
			st.Leased++
		}
		if st.Oldest.IsZero() || r.Received.Before(st.Oldest) {
			st.Oldest = r.Received
		}
	}
	return st, nil
}
