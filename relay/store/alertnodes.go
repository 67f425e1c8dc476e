package store

import (
	"context"
	"errors"
	"time"
)

// Nodes look for conditions by themselves, and tell hooks once. Each that sees a condition has a row.
const (
	// toldFor is how long a hook is not told again: a little less than the day after which it is.
	toldFor = 23 * time.Hour
	// toldKept is how long a row stays that nobody repeats.
	toldKept = 3 * 24 * time.Hour
)

// errNotJoined: BeginAlert and EndAlert are for nodes.
var errNotJoined = errors.New("this is no node")

// BeginAlert notes that a condition, named by a digest, holds for this node. It reports whether this node is to tell a
// hook of it, as no other one that lives has done so in the last day, and since when it holds for any of them.
func (s *Store) BeginAlert(ctx context.Context, key string, since time.Time) (tell bool, first time.Time, err error) {
	m := s.member
	if m == nil {
		return false, since, errNotJoined
	}
	err = s.write(ctx, func(t *tx) error {
		now, _, err := t.Int(serverTime)
		if err != nil {
			return err
		}
		mine, told, began := false, int64(0), unixNano(since)
		for row, err := range t.Rows(`SELECT a.node, a.since, a.told, a.teller FROM alert_told a
			JOIN node n ON n.name = a.node WHERE a.k = ? AND (a.node = ? OR n.until > ?)`, key, m.name, now) {
			switch {
			case err != nil:
				return err
			case row.Text(0) == m.name: // it has said that it tells, and has not, or not with success
				mine = row.Bool(3) && row.Int(2) > now-int64(toldFor)
			default:
				began, told = min(began, row.Int(1)), max(told, row.Int(2))
			}
		}
		if tell = mine || told <= now-int64(toldFor); tell {
			told = now
		}
		first = fromNano(began)
		if err := t.Run("DELETE FROM alert_told WHERE told < ?", now-int64(toldKept)); err != nil {
			return err
		}
		return t.Run(putTold, key, m.name, began, told, tell)
	})
	return tell, first, wrap(err, "note an alert for other nodes")
}

var putTold = upsert("alert_told", 2, "k", "node", "since", "told", "teller")

// EndAlert notes that a condition does not hold any more for this node, and reports whether it does for no other one
// that lives, so that this one is to tell.
func (s *Store) EndAlert(ctx context.Context, key string) (tell bool, err error) {
	m := s.member
	if m == nil {
		return false, errNotJoined
	}
	err = s.write(ctx, func(t *tx) error {
		now, _, err := t.Int(serverTime)
		if err != nil {
			return err
		}
		err = t.Run(`DELETE FROM alert_told WHERE k = ?1 AND node NOT IN
			(SELECT name FROM node WHERE name <> ?2 AND until > ?3)`, key, m.name, now)
		if err != nil {
			return err
		}
		others, _, err := t.Int("SELECT count(*) FROM alert_told WHERE k = ?", key)
		tell = others == 0
		return err
	})
	return tell, wrap(err, "note the end of an alert for other nodes")
}
