package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// candidate is a message that is due.
type candidate struct {
	id, login string
}

// Due implements queue.Store. Three indexes answer it without looking at anything that is not due:
//
//   - what is due in order of time, if that is less than limit: all of it is known then;
//   - otherwise login after login, beginning behind the last one served, and of each as much as it
//     gets (a loose index scan: one step for each login with mail in the queue);
//   - leases that ran out, which are rare.
//
// Of several nodes each has its share of the messages, by their IDs, so that they do not lease against each other. What
// is due for a while and nobody took is everybody's.
func (s *Store) Due(ctx context.Context, now time.Time, after string, perLogin, limit int) (due []*queue.Message,
	next time.Time, err error) {
	if limit <= 0 {
		limit = 1000
	}
	if perLogin <= 0 || perLogin > limit {
		perLogin = limit
	}
	rank, of := s.Share()
	if rank < 0 {
		return nil, time.Time{}, nil
	}
	err = s.readers.read(ctx, func(conn db.Conn) error {
		l := &look{conn: conn, clock: s.clock, now: s.clock.nano(now), after: after, perLogin: perLogin, limit: limit,
			together: s.Shared(), share: shareOf(rank, of)}
		if due, err = l.due(); err != nil {
			return err
		}
		next, err = l.next()
		return err
	})
	return due, next, wrap(err, "look for due messages")
}

// look is one call of Due.
type look struct {
	conn            db.Conn
	clock           *clock
	now             int64
	after           string
	perLogin, limit int
	together        bool   // one statement reads many messages: each would be a round trip
	share           string // a condition: the message is of this node's share; "": all are
}

// leftFor is how long a message is due before it is everybody's: another node's window may be full, or its upstreams
// paused.
const leftFor = 30 * time.Second

// shareOf is a condition for messages of a share. The last character of an ID is random.
func shareOf(rank, of int) string {
	if of < 2 {
		return ""
	}
	return fmt.Sprintf("get_byte(id, length(id) - 1) %% %d = %d", of, rank)
}

// ours is the end of a condition.
func (l *look) ours() string {
	if l.share == "" {
		return ""
	}
	return " AND " + l.share
}

func (l *look) due() ([]*queue.Message, error) {
	first, err := l.candidates(`SELECT id, login FROM message INDEXED BY message_due
		WHERE held = 0 AND lease_until = 0 AND next <= ?1`+l.ours()+` ORDER BY next, login, id LIMIT ?2`,
		l.now, l.limit+1)
	if err != nil {
		return nil, err
	}
	if l.share != "" && len(first) < l.limit {
		left, err := l.candidates(`SELECT id, login FROM message INDEXED BY message_due
			WHERE held = 0 AND lease_until = 0 AND next <= ?1 AND NOT `+l.share+` ORDER BY next, login, id LIMIT ?2`,
			l.now-int64(leftFor), l.limit-len(first))
		if err != nil {
			return nil, err
		}
		first = append(first, left...)
	}
	expired, err := l.candidates(`SELECT id, login FROM message INDEXED BY message_lease
		WHERE lease_until > 0 AND lease_until <= ?1 AND held = 0 AND next <= ?1
		ORDER BY lease_until LIMIT ?2`, l.now, l.limit)
	if err != nil {
		return nil, err
	}
	var logins [][]candidate
	if len(first) <= l.limit {
		logins = l.group(first)
	} else if logins, err = l.scan(); err != nil {
		return nil, err
	}
	for _, c := range expired {
		logins = l.join(logins, c)
	}
	l.rotate(logins)
	return l.fetch(takeTurns(logins, l.perLogin, l.limit))
}

func (l *look) candidates(query string, args ...any) ([]candidate, error) {
	return list(l.conn, func(row db.Row) (candidate, error) { return candidate{row.Text(0), row.Text(1)}, nil },
		query, args...)
}

// group sorts candidates by login and keeps their order.
func (l *look) group(all []candidate) (logins [][]candidate) {
	index := map[string]int{}
	for _, c := range all {
		i, ok := index[c.login]
		if !ok {
			i = len(logins)
			index[c.login] = i
			logins = append(logins, nil)
		}
		logins[i] = append(logins[i], c)
	}
	return logins
}

func (l *look) join(logins [][]candidate, c candidate) [][]candidate {
	for i := range logins {
		if logins[i][0].login == c.login {
			logins[i] = append(logins[i], c)
			return logins
		}
	}
	return append(logins, []candidate{c})
}

// rotate puts the logins in order, beginning behind the one that was served last.
func (l *look) rotate(logins [][]candidate) {
	slices.SortFunc(logins, func(a, b []candidate) int {
		x, y := a[0].login, b[0].login
		if (x > l.after) != (y > l.after) {
			if x > l.after {
				return -1
			}
			return 1
		}
		return cmp.Compare(x, y)
	})
}

// scan finds the logins with due messages, at most as many as there are places, and then of each as
// many messages as are needed to fill them.
func (l *look) scan() ([][]candidate, error) {
	names, err := l.logins()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	logins := make([][]candidate, len(names))
	for share := (l.limit + len(names) - 1) / len(names); ; share *= 4 {
		share = min(share, l.perLogin)
		total, more := 0, false
		for i, name := range names {
			if logins[i] == nil || len(logins[i])*4 >= share { // else its last ones are known
				if logins[i], err = l.ofLogin(name, share); err != nil {
					return nil, err
				}
			}
			total += len(logins[i])
			more = more || len(logins[i]) == share
		}
		if total >= l.limit || share == l.perLogin || !more {
			return slices.DeleteFunc(logins, func(c []candidate) bool { return len(c) == 0 }), nil
		}
	}
}

func (l *look) logins() ([]string, error) {
	names, err := l.walk(nil, ">", l.after, func(string) bool { return false })
	if err != nil {
		return nil, err
	}
	return l.walk(names, ">=", "", func(login string) bool { return login > l.after })
}

// walk steps from login to login until end says that it is too far, and appends to names those that
// have something due, up to limit of them. Each step is one seek, however many messages a login has.
func (l *look) walk(names []string, compare, from string, end func(login string) bool) ([]string, error) {
	for len(names) < l.limit {
		login, next, found := "", int64(0), false
		for row, err := range l.conn.Rows(`SELECT login, next FROM message INDEXED BY message_due_login
			WHERE held = 0 AND lease_until = 0 AND login `+compare+` ?1`+l.ours()+`
			ORDER BY login, next LIMIT 1`, from) {
			if err != nil {
				return nil, err
			}
			login, next, found = row.Text(0), row.Int(1), true
		}
		if !found || end(login) {
			return names, nil
		}
		if next <= l.now {
			names = append(names, login)
		}
		compare, from = ">", login
	}
	return names, nil
}

func (l *look) ofLogin(login string, limit int) ([]candidate, error) {
	return l.candidates(`SELECT id, login FROM message INDEXED BY message_due_login
		WHERE held = 0 AND lease_until = 0 AND login = ?1 AND next <= ?2`+l.ours()+`
		ORDER BY next, id LIMIT ?3`, login, l.now, limit)
}

// takeTurns takes one of each login, then a second one of each, and so on.
func takeTurns(logins [][]candidate, perLogin, limit int) (ids []string) {
	for turn := 0; turn < perLogin; turn++ {
		taken := false
		for _, c := range logins {
			if turn >= len(c) {
				continue
			}
			if len(ids) == limit {
				return ids
			}
			ids = append(ids, c[turn].id)
			taken = true
		}
		if !taken {
			break
		}
	}
	return ids
}

// fetch reads messages. One that is gone meanwhile is left out: Lease will tell about those that change
// later.
func (l *look) fetch(ids []string) ([]*queue.Message, error) {
	if l.together {
		all, err := list(l.conn, l.clock.scanMessage,
			"SELECT "+messageColumns+" FROM queued WHERE id = ANY(?1::bytea[])", ids)
		order := make(map[string]int, len(ids))
		for i, id := range ids {
			order[id] = i
		}
		slices.SortFunc(all, func(a, b *queue.Message) int { return cmp.Compare(order[a.ID], order[b.ID]) })
		return all, err
	}
	found := make([]*queue.Message, 0, len(ids))
	for _, id := range ids {
		m, err := l.clock.getMessage(l.conn, id)
		if err != nil {
			return nil, err
		}
		if m != nil {
			found = append(found, m)
		}
	}
	return found, nil
}

// next is when the next message will be due, or its lease run out.
func (l *look) next() (time.Time, error) {
	const waiting = "SELECT next FROM message INDEXED BY message_due WHERE held = 0 AND lease_until = 0 AND next > ?1"
	var earliest int64
	ask := func(query string, from, later int64) error {
		n, ok, err := l.conn.Int(query, from)
		if n += later; err == nil && ok && (earliest == 0 || n < earliest) {
			earliest = n
		}
		return err
	}
	err := errors.Join(
		ask(waiting+l.ours()+" ORDER BY next LIMIT 1", l.now, 0),
		ask("SELECT max(next, lease_until) FROM message INDEXED BY message_lease WHERE lease_until > 0 AND "+
			"lease_until > ?1 AND held = 0 ORDER BY lease_until LIMIT 1", l.now, 0))
	if err == nil && l.share != "" {
		left := int64(leftFor)
		err = ask(waiting+" AND NOT "+l.share+" ORDER BY next LIMIT 1", l.now-left, left)
	}
	return l.clock.time(earliest), err
}
