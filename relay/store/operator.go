package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// listLimit is how many messages a listing shows when nobody says how many.
const listLimit = 1000

// List implements queue.Store.
func (s *Store) List(ctx context.Context, f queue.Filter) ([]*queue.Message, error) {
	if f.Limit <= 0 {
		f.Limit = listLimit
	}
	found, _, err := s.page(ctx, f, f.After, f.Limit)
	return found, wrap(err, "list the queue")
}

// page returns up to limit messages that match, behind the ID after, and whether there may be more.
func (s *Store) page(ctx context.Context, f queue.Filter, after string, limit int) (found []*queue.Message, more bool,
	err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		if f.IDs != nil {
			found, err = s.named(conn, f, after, limit)
		} else {
			found, err = s.matching(conn, f, after, limit)
		}
		return err
	})
	return found, len(found) == limit, err
}

// named reads the messages that a filter names.
func (s *Store) named(conn db.Conn, f queue.Filter, after string, limit int) (found []*queue.Message, err error) {
	ids := slices.Clone(f.IDs)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if id <= after || len(found) == limit {
			continue
		}
		m, err := s.clock.getMessage(conn, id)
		if err != nil {
			return nil, err
		}
		if m != nil && matches(m, f) {
			found = append(found, m)
		}
	}
	return found, nil
}

// matching goes through the queue in order of ID.
func (s *Store) matching(conn db.Conn, f queue.Filter, after string, limit int) (found []*queue.Message, err error) {
	for row, err := range conn.Rows("SELECT "+messageColumns+` FROM queued
		WHERE id > ?1 AND (?2 = '' OR login = ?2) AND held >= ?3 ORDER BY id`, after, f.Login, f.Held) {
		if err != nil {
			return nil, err
		}
		m, err := s.clock.scanMessage(row)
		if err != nil {
			return nil, err
		}
		if matches(m, f) {
			found = append(found, m)
		}
		if len(found) == limit {
			break
		}
	}
	return found, nil
}

func matches(m *queue.Message, f queue.Filter) bool {
	if f.Login != "" && m.Login != f.Login || f.Held && !m.Held {
		return false
	}
	if f.From != "" && !matchAddress(m.Envelope.From, f.From) {
		return false
	}
	return f.To == "" || slices.ContainsFunc(m.Recipients,
		func(r queue.Recipient) bool { return matchAddress(r.To, f.To) })
}

// matchAddress compares an address with a pattern: exact but for the case of the domain, "*@domain", or
// "<>" for the null reverse-path.
func matchAddress(a mail.Address, pattern string) bool {
	if a.IsNull() {
		return pattern == "<>"
	}
	if domain, ok := strings.CutPrefix(pattern, "*@"); ok {
		return a.Domain == strings.ToLower(domain)
	}
	if p, err := mail.ParseAddress(pattern); err == nil {
		return a == p
	}
	return a.String() == pattern
}

// act changes what a filter selects, page by page: what matches is looked for by a reader, so that a long
// search holds up nobody, and changed in small transactions, where each message is looked at again.
func (s *Store) act(ctx context.Context, what string, f queue.Filter, change func(*tx, string) (bool, error)) (
	total int64, err error) {
	after := f.After
	for {
		limit := actionBatch
		if f.Limit > 0 {
			limit = min(limit, f.Limit)
		}
		found, more, err := s.page(ctx, f, after, limit)
		if err != nil {
			return total, fmt.Errorf("%s: %w", what, err)
		}
		changed, err := s.actOn(ctx, found, change)
		if total += int64(len(changed)); f.Changed != nil && len(changed) > 0 {
			f.Changed(changed)
		}
		if err != nil {
			return total, fmt.Errorf("%s: %w", what, err)
		}
		if f.Limit > 0 {
			f.Limit -= len(found)
			more = more && f.Limit > 0
		}
		if !more {
			return total, nil
		}
		after = found[len(found)-1].ID
	}
}

// actOn changes messages in one transaction, and returns those that it changed.
func (s *Store) actOn(ctx context.Context, found []*queue.Message, change func(*tx, string) (bool, error)) (
	ids []string, err error) {
	if len(found) == 0 {
		return nil, nil
	}
	err = s.write(ctx, func(t *tx) error {
		ids = nil
		for _, m := range found {
			changed, err := change(t, m.ID)
			if err != nil {
				return err
			}
			if changed {
				ids = append(ids, m.ID)
			}
		}
		if ids == nil {
			return nil
		}
		return bump(t.Conn, TopicQueue)
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// update runs a statement and reports whether it changed anything.
func update(t *tx, query string, args ...any) (bool, error) {
	err := t.Run(query, args...)
	return err == nil && t.Changes() > 0, err
}

// Hold implements queue.Store. A message that is held already keeps its reason and is not counted.
func (s *Store) Hold(ctx context.Context, f queue.Filter, reason string) (int64, error) {
	return s.act(ctx, "hold", f, func(t *tx, id string) (bool, error) {
		changed, err := update(t, "UPDATE message SET held = 1, hold_reason = ? WHERE id = ? AND held = 0", reason, id)
		return t.heldChanged(changed, err, 1)
	})
}

// Release implements queue.Store. What is released is due at once.
func (s *Store) Release(ctx context.Context, f queue.Filter, now time.Time) (int64, error) {
	return s.act(ctx, "release", f, func(t *tx, id string) (bool, error) {
		changed, err := update(t, "UPDATE message SET held = 0, hold_reason = '', next = ?, waiting_for = '' WHERE "+
			"id = ? AND held = 1",
			s.clock.nano(now), id)
		return t.heldChanged(changed, err, -1)
	})
}

func (t *tx) heldChanged(changed bool, err error, by int64) (bool, error) {
	if err != nil || !changed {
		return false, err
	}
	counts, err := t.count()
	if err != nil {
		return false, err
	}
	counts.held += by
	return true, nil
}

// Retry implements queue.Store. It leaves alone what is held (release it) and what is tried just now.
func (s *Store) Retry(ctx context.Context, f queue.Filter, now time.Time) (int64, error) {
	return s.act(ctx, "retry", f, func(t *tx, id string) (bool, error) {
		return update(t, "UPDATE message SET next = ?1, waiting_for = '' WHERE held = 0 AND lease_until <= ?1 AND "+
			"id = ?2", s.clock.nano(now), id)
	})
}

// Bounce implements queue.Store. It also releases: the message is to be looked at now. A running
// attempt may still deliver it; what is pending after that is failed at once.
func (s *Store) Bounce(ctx context.Context, f queue.Filter, now time.Time) (int64, error) {
	return s.act(ctx, "bounce", f, func(t *tx, id string) (bool, error) {
		released, err := update(t, "UPDATE message SET held = 0, hold_reason = '' WHERE id = ? AND held = 1", id)
		if _, err := t.heldChanged(released, err, -1); err != nil {
			return false, err
		}
		return update(t, "UPDATE message SET bounce = 1, next = ?, waiting_for = '' WHERE id = ?", s.clock.nano(now),
			id)
	})
}

// Delete implements queue.Store.
func (s *Store) Delete(ctx context.Context, f queue.Filter) (int64, error) {
	return s.act(ctx, "delete", f, func(t *tx, id string) (bool, error) {
		p, err := t.find(id)
		if _, gone := err.(refusal); gone || err == nil && p.leased(s.clock.nano(time.Now())) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, p.remove(t, id)
	})
}
