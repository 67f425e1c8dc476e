package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"postern/internal/periodic"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// One of the nodes leads: it does what only one is to do. It does so for a term, by the clock of the database, which it
// renews with its row; a node that lives takes over when the term is over. By its own monotonic clock it counts from
// when it asked, and stops a while before the end.
const (
	leaderTerm  = 15 * time.Second
	leaderSpare = 3 * time.Second
)

// standing is what a node knows of itself among the others.
type standing struct {
	rank, of int // its share of the queue
	drained  bool
	leads    time.Time // until then, by the monotonic clock
	differ   []string  // nodes that live and have other settings
}

// renewNode renews the row until ctx ends, or this process must.
func (s *Store) renewNode(ctx context.Context, e *server, m *membership) {
	defer close(m.ended)
	for periodic.Sleep(ctx, nodeBeats) == nil && e.ousted.Load() == nil {
		// After an error the next one may do; who reads and writes says what is wrong.
		if _ = m.beat(ctx, s.readers, e); e.ousted.Load() != nil {
			s.log.Error("no more mail is taken here, and this process ends", "node", m.name, "err", s.Ousted())
		}
	}
}

// beat renews the row and the term of the leader, and looks who else is there. Where the row is another process's, or a
// newer Postern has changed the schema, this one begins nothing any more: it takes no mail, leases none and leads
// nobody. What it has under way is its own still, by its owner, and ends.
func (m *membership) beat(ctx context.Context, readers *readers, e *server) error {
	return readers.read(ctx, func(conn db.Conn) error {
		newer, err := list(conn, func(row db.Row) (origin, error) { return origin{int(row.Int(0)), row.Text(1)}, nil },
			newerSchema, len(migrations))
		if len(newer) > 0 {
			m.end(e, fmt.Errorf("%s: %w", e.name, newer[0].newer()))
		}
		if err != nil || len(newer) > 0 {
			return err
		}
		asked := time.Now()
		results, err := conn.(*postgres.Conn).Pipeline(ctx, []postgres.Call{
			{Query: renewRow, Args: []any{int64(nodeLives), m.name, m.boot}},
			{Query: renewTerm, Args: []any{m.owner(), int64(leaderTerm), m.name, m.boot}},
			{Query: livingNodes},
		})
		if err != nil {
			return err
		}
		if results[0].Len() == 0 {
			m.end(e, m.takenOver())
			return nil
		}
		for row := range results[0].Rows() {
			e.clock.set(row.Int(0), asked, time.Now())
		}
		now := m.among(results[2])
		if results[1].Len() > 0 {
			now.leads = asked.Add(leaderTerm - leaderSpare)
		}
		m.stand(now)
		return nil
	})
}

// end has this one begin nothing any more.
func (m *membership) end(e *server, cause error) {
	m.over.Store(&failure{cause})
	e.ousted.Store(&failure{fmt.Errorf("%w: %w", ErrAway, cause)})
	m.stand(&standing{rank: -1})
}

func (m *membership) takenOver() error {
	return fmt.Errorf("%w: it has taken over while %s stood still", ErrNodeName, m.name)
}

const (
	renewRow = `UPDATE node SET seen = t.now, until = t.now + ?1
		FROM (` + serverTime + ` AS now) t WHERE name = ?2 AND boot = ?3 RETURNING t.now`
	// One that is drained leads where all are.
	renewTerm = `UPDATE leader SET node = ?1, until = t.now + ?2 FROM (` + serverTime + ` AS now) t, node n
		WHERE leader.k = 1 AND (leader.node = ?1 OR leader.until < t.now) AND n.name = ?3 AND n.boot = ?4
			AND (n.drained = 0 OR NOT EXISTS (SELECT 1 FROM node o WHERE o.until > t.now AND o.drained = 0))
		RETURNING leader.k`
	livingNodes = `SELECT name, drained, settings FROM node, (` + serverTime + ` AS now) t WHERE until > t.now
		ORDER BY k`
	// Who made it has waited until no older node lived. This one stood still then.
	newerSchema = "SELECT version, program FROM migration WHERE version > ? ORDER BY version DESC LIMIT 1"
)

// among is where the node stands among those that live, without what it leads.
func (m *membership) among(living postgres.Result) *standing {
	now := &standing{rank: -1}
	works := false // one of them that is not drained; else they all go on sending what waits
	for row := range living.Rows() {
		works = works || !row.Bool(1)
	}
	var mine []byte
	settings := map[string][]byte{}
	for row := range living.Rows() {
		name, drained := row.Text(0), row.Bool(1)
		settings[name] = row.Blob(2)
		if name == m.name {
			now.drained, mine = drained, row.Blob(2)
		}
		if drained && works {
			continue
		}
		if name == m.name {
			now.rank = now.of
		}
		now.of++
	}
	for name, digest := range settings {
		if len(mine) > 0 && len(digest) > 0 && !bytes.Equal(digest, mine) {
			now.differ = append(now.differ, name)
		}
	}
	slices.Sort(now.differ)
	return now
}

// stand notes where the node stands.
func (m *membership) stand(now *standing) {
	before := m.standing.Swap(now)
	if before == nil || before.rank != now.rank || before.of != now.of {
		m.changes.Add(1)
	}
}

// leaveNodes says that this daemon has ended, so that another need not wait.
func (s *Store) leaveNodes() error {
	m := s.member
	if m == nil {
		return nil
	}
	m.leave()
	<-m.ended
	m.stand(&standing{rank: -1})
	ctx, cancel := context.WithTimeout(context.Background(), connectFor)
	defer cancel()
	return s.readers.read(ctx, func(conn db.Conn) error {
		_, err := conn.(*postgres.Conn).Pipeline(ctx, []postgres.Call{
			{Query: "UPDATE node SET until = 0 WHERE name = ? AND boot = ?", Args: []any{m.name, m.boot}},
			{Query: "UPDATE leader SET until = 0 WHERE node = ?", Args: []any{m.owner()}},
		})
		return err
	})
}

// Leads reports whether this daemon is to do what only one is to do. With SQLite it always is; a command never leads
// nodes.
func (s *Store) Leads() bool {
	if s.member == nil {
		return !s.Shared()
	}
	return time.Now().Before(s.member.standing.Load().leads)
}

// Share is this daemon's share of the queue: its rank, from 0, among so many nodes that live and are not drained. Alone
// and with SQLite it is 0 of 1. The rank is -1 for one that is drained while others live, or that another process has
// taken over from: it has no share. So of may be 0.
func (s *Store) Share() (rank, of int) {
	if s.member == nil {
		return 0, 1
	}
	now := s.member.standing.Load()
	return now.rank, now.of
}

// Membership is another number whenever Share is different.
func (s *Store) Membership() int64 {
	if s.member == nil {
		return 0
	}
	return s.member.changes.Load()
}

// Drained reports whether a person has asked that this daemon take no mail and begin no attempt.
func (s *Store) Drained() bool { return s.member != nil && s.member.standing.Load().drained }

// Differ names the nodes that live and have other settings than this daemon.
func (s *Store) Differ() []string {
	if s.member == nil {
		return nil
	}
	return s.member.standing.Load().differ
}

// Ousted is why this daemon must end: another process is the node of its name, or a newer Postern has changed the
// database. nil: it need not.
func (s *Store) Ousted() error {
	if s.member == nil {
		return nil
	}
	if over := s.member.over.Load(); over != nil {
		return over.error
	}
	return nil
}

// SetSettings notes a digest of the settings that nodes have in common, for the others to compare with theirs. It does
// nothing with SQLite.
func (s *Store) SetSettings(ctx context.Context, digest []byte) error {
	m := s.member
	if m == nil {
		return nil
	}
	err := s.write(ctx, func(t *tx) error {
		return t.Run("UPDATE node SET settings = ? WHERE name = ? AND boot = ?", digest, m.name, m.boot)
	})
	return wrap(err, "note the settings of node %s", m.name)
}
