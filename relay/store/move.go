package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// schemaMove has a row while a store is moved to another place and, where it has left, for good: a queue that is at two
// places would be sent twice.
const schemaMove = `
CREATE TABLE store_move (
	k     INTEGER PRIMARY KEY CHECK (k = 1),
	state TEXT NOT NULL,
	copy  TEXT NOT NULL,   -- which one: the same at both places
	place TEXT NOT NULL,   -- the other one, for people
	at    INTEGER NOT NULL -- when it was begun or, gone, ended
) STRICT;
`

// The states of a move.
const (
	moveLeaving  = "leaving"
	moveArriving = "arriving"
	moveGone     = "gone"
	moveStays    = "stays" // after all: what the other place has is of no use any more
)

// The errors of a store that is not to be used where it is.
var (
	// ErrMoving: it is being moved away, or that was broken off.
	ErrMoving = errors.New("the store is being moved")
	// ErrUnfinished: it is the copy of a store whose move was broken off.
	ErrUnfinished = errors.New("the store is an unfinished copy")
	// ErrMoved: it is at another place.
	ErrMoved = errors.New("the store was moved away")
)

// moveState is the row of store_move; the zero value: there is none.
type moveState struct {
	state, copy, place string
	at                 int64
}

func readMove(conn db.Conn) (moveState, error) {
	found, err := list(conn, func(row db.Row) (moveState, error) {
		return moveState{row.Text(0), row.Text(1), row.Text(2), row.Int(3)}, nil
	}, "SELECT state, copy, place, at FROM store_move WHERE k = 1")
	if err != nil || len(found) == 0 {
		return moveState{}, err
	}
	return found[0], nil
}

var putMove = upsert("store_move", 1, "k", "state", "copy", "place", "at")

// setMove writes the row, or removes it.
func (s *Store) setMove(ctx context.Context, m moveState) error {
	return s.writer.do(ctx, &op{run: func(t *tx) error {
		if m.state == "" {
			return t.Run("DELETE FROM store_move")
		}
		return t.Run(putMove, 1, m.state, m.copy, m.place, m.at)
	}})
}

func (s *Store) move(ctx context.Context) (m moveState, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		m, err = readMove(conn)
		return err
	})
	return m, err
}

// stays refuses a store that is at another place, or on its way. A daemon, which nobody moves the store beside, goes on
// where a move was broken off.
func (s *Store) stays(ctx context.Context) error {
	m, err := s.move(ctx)
	if db.KindOf(err) == db.Damaged { // whoever looks for damage must be able to
		return nil
	}
	if err != nil || m.state == "" || m.state == moveStays {
		return err
	}
	place, when := s.opts.Place(), fromNano(m.at).Format(time.DateTime)+" UTC"
	switch m.state {
	case moveGone:
		return fmt.Errorf("%s: %w to %s on %s: write that into [store] of relay.toml. If that one is lost or was "+
			"never used: postern store reuse", place, ErrMoved, m.place, when)
	case moveArriving:
		return fmt.Errorf("%s: %w of %s: run postern store migrate there again", place, ErrUnfinished, m.place)
	}
	if !s.opts.Daemon {
		return fmt.Errorf("%s: %w to %s since %s: wait. If that was broken off, run postern store migrate again, or "+
			"start postern to go on here", place, ErrMoving, m.place, when)
	}
	if err := s.alone(ctx); err != nil {
		return err
	}
	return s.stay(ctx, m)
}

// stay ends a move at its source.
func (s *Store) stay(ctx context.Context, m moveState) error {
	m.state, m.at = moveStays, time.Now().UnixNano()
	return s.setMove(ctx, m)
}

// alone refuses where another node lives, for a daemon.
func (s *Store) alone(ctx context.Context) error {
	nodes, err := s.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Alive && (s.member == nil || n.Name != s.member.name) {
			return fmt.Errorf("%w: %s on %s; stop it", ErrNodeLives, n.Name, n.Host)
		}
	}
	return nil
}

// Migration is what Migrate moved, or would move.
type Migration struct {
	From     string       `json:"from"`
	To       string       `json:"to"`
	Messages int64        `json:"messages"`
	Octets   int64        `json:"octets"` // of their contents
	Tables   []MovedTable `json:"tables"` // all but those of messages
}

// MovedTable is a table and how many rows it has.
type MovedTable struct {
	Name string `json:"name"`
	Rows int64  `json:"rows"`
}

// MigrateOptions say how a store is moved.
type MigrateOptions struct {
	Check    bool              // look whether it could be moved, and copy nothing
	Progress func(what string) // is told what begins; nil: nobody
}

// Migrate moves a whole store between SQLite and PostgreSQL, while no daemon uses either place. What is sealed is
// opened with the key of the one and sealed with that of the other; leases end, as at a restart; times go by the clock
// of the destination. What was copied is read back from both places and compared. Only then the source is marked as
// gone and, after that, the destination as whole: at no moment can both be served. A move that was broken off, however
// it was, is begun again.
func Migrate(ctx context.Context, from, to Options, o MigrateOptions) (*Migration, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if from.URL.Server() == to.URL.Server() {
		return nil, fmt.Errorf("both stores are of the same kind (%s, %s): this moves between SQLite and PostgreSQL; "+
			"a copy of postern.db with its seal.key, or pg_dump, moves within one", from.Place(), to.Place())
	}
	if err := from.mustBeThere(ctx); err != nil {
		return nil, err
	}
	unlock, err := lockBoth(from.Dir, to.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, o := range []*Options{&from, &to} {
		o.Daemon, o.moving = true, true
	}
	from.look = o.Check
	source, err := Open(ctx, from)
	if err != nil {
		return nil, err
	}
	m := &mover{from: source, MigrateOptions: o}
	err = m.migrate(ctx, to)
	err = errors.Join(err, source.Close())
	if m.to != nil {
		err = errors.Join(err, m.to.Close())
	}
	if err != nil {
		return nil, err
	}
	return &m.done, nil
}

// mustBeThere refuses where there is no store. It is asked before the locks, whose files are made.
func (o Options) mustBeThere(ctx context.Context) error {
	there, err := o.There(ctx)
	if err == nil && !there {
		err = fmt.Errorf("there is no store at %s", o.Place())
	}
	return err
}

// lockBoth takes the lock of the daemon in two directories, which may be one.
func lockBoth(a, b string) (unlock func(), err error) {
	if err := errors.Join(prepareDir(a), prepareDir(b)); err != nil {
		return nil, err
	}
	first, err := lockFile(filepath.Join(a, LockName))
	if err != nil {
		return nil, err
	}
	x, err := os.Stat(a)
	if err == nil {
		var y os.FileInfo
		if y, err = os.Stat(b); err == nil && os.SameFile(x, y) {
			return first, nil
		}
	}
	second := func() {}
	if err == nil {
		second, err = lockFile(filepath.Join(b, LockName))
	}
	if err != nil {
		first()
		return nil, err
	}
	return func() { second(); first() }, nil
}

// Reuse lets a store be used that was moved away, or whose move was broken off: what was sent from the other place
// since is sent again. It returns where it had gone, "" if nowhere.
func Reuse(ctx context.Context, o Options) (place string, err error) {
	if err := o.mustBeThere(ctx); err != nil {
		return "", err
	}
	unlock, err := lockBoth(o.Dir, o.Dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	o.Daemon, o.moving = true, true
	s, err := Open(ctx, o)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.alone(ctx); err != nil {
		return "", err
	}
	m, err := s.move(ctx)
	if err != nil || m.state == "" || m.state == moveStays {
		return "", err
	}
	if m.state == moveArriving {
		return "", fmt.Errorf("%s: %w of %s, with a part of its mail: run postern store migrate there again",
			o.Place(), ErrUnfinished, m.place)
	}
	return m.place, s.stay(ctx, m)
}

// mover moves from one store to another.
type mover struct {
	MigrateOptions
	from, to *Store // to: nil where nothing is there yet, for Check
	tables   []table
	shift    int64 // of times that go by the clock of the database
	done     Migration
}

func (m *mover) migrate(ctx context.Context, to Options) (err error) {
	m.done.From, m.done.To = m.from.opts.Place(), to.Place()
	if err := m.from.alone(ctx); err != nil {
		return err
	}
	if err := m.settled(ctx, to.Dir); err != nil {
		return err
	}
	began, err := m.begun(ctx)
	if err != nil {
		return err
	}
	if err := m.openTo(ctx, to); err != nil {
		return err
	}
	if m.tables, err = movedTables(); err != nil {
		return err
	}
	if err := m.vacant(ctx, began); err != nil {
		return err
	}
	if m.Check {
		_, err := m.sums(ctx, m.from, 0)
		return err
	}
	return m.carry(ctx, began)
}

// openTo opens the destination and makes it where there is none, but for Check.
func (m *mover) openTo(ctx context.Context, to Options) (err error) {
	if m.Check {
		if there, err := to.There(ctx); err != nil || !there {
			return err
		}
	}
	if m.to, err = Open(ctx, to); err != nil {
		return err
	}
	return m.to.alone(ctx)
}

// carry copies, compares, and lets the store change its place.
func (m *mover) carry(ctx context.Context, began moveState) error {
	if began.copy == "" {
		began.copy = rand.Text()
	}
	now := time.Now().UnixNano()
	// One that had gone stays so until the copy is whole: the copy was, perhaps, when that was written.
	if began.state != moveGone {
		if err := m.from.setMove(ctx, moveState{moveLeaving, began.copy, m.done.To, now}); err != nil {
			return err
		}
	}
	if err := m.to.setMove(ctx, moveState{moveArriving, began.copy, m.done.From, now}); err != nil {
		return wrap(err, "begin at %s", m.done.To)
	}
	m.shift = m.to.clock.ahead() - m.from.clock.ahead()
	if err := m.copyAll(ctx); err != nil {
		return fmt.Errorf("copy to %s: %w; nothing has changed at %s: run this again, or start postern there",
			m.done.To, err, m.done.From)
	}
	if err := m.compare(ctx); err != nil {
		return err
	}
	return m.handOver(context.WithoutCancel(ctx), began)
}

// handOver ends a move: the source first, so that never both can be used.
func (m *mover) handOver(ctx context.Context, began moveState) error {
	if err := m.from.setMove(ctx, moveState{moveGone, began.copy, m.done.To, time.Now().UnixNano()}); err != nil {
		return fmt.Errorf("mark %s as moved: %w; run this again", m.done.From, err)
	}
	if err := m.to.setMove(ctx, moveState{}); err != nil {
		return fmt.Errorf("mark %s as whole: %w; run this again", m.done.To, err)
	}
	return nil
}

// begun is what an earlier move has left at the source.
func (m *mover) begun(ctx context.Context) (moveState, error) {
	s, err := m.from.move(ctx)
	if err == nil && s.state == moveArriving {
		err = fmt.Errorf("%s: %w of %s: it cannot be moved on before that has ended", m.done.From, ErrUnfinished,
			s.place)
	}
	return s, err
}

// gone refuses a store that has moved.
func (m *mover) gone(began moveState) error {
	return fmt.Errorf("%s: %w to %s already: nothing is left to do but to write that into [store] of relay.toml and "+
		"to start postern", m.done.From, ErrMoved, began.place)
}

// vacant refuses a destination that has anything, unless it is of the same move.
func (m *mover) vacant(ctx context.Context, began moveState) error {
	if m.to == nil {
		if began.state == moveGone {
			return m.gone(began)
		}
		return nil
	}
	there, err := m.to.move(ctx)
	if err != nil {
		return err
	}
	if there.state == moveArriving && there.copy == began.copy {
		return nil
	}
	switch {
	case began.state == moveGone:
		return m.gone(began)
	case there.state == moveArriving:
		return fmt.Errorf("%s: %w of another store, %s: name an empty place", m.done.To, ErrUnfinished, there.place)
	case there.state == moveGone || there.state == moveLeaving:
		return fmt.Errorf("%s has a store, which was moved to %s: move it away, or name an empty place", m.done.To,
			there.place)
	}
	return m.emptyTo(ctx)
}

// emptyTo refuses a destination that has rows.
func (m *mover) emptyTo(ctx context.Context) error {
	return m.to.readers.read(ctx, func(conn db.Conn) error {
		names := []string{"message"}
		for _, t := range m.tables {
			if !saysNothing[t.name] {
				names = append(names, t.name)
			}
		}
		for _, name := range names {
			_, some, err := conn.Int("SELECT 1 FROM " + name + " LIMIT 1")
			if err != nil {
				return err
			}
			if some {
				return fmt.Errorf("%s is in use already (its table %s is not empty), so nothing is moved there: "+
					"name an empty place; docs/nodes.md says how to empty this one", m.done.To, name)
			}
		}
		return nil
	})
}

// settled refuses while the journals have answers for messages that wait: only a daemon makes use of them.
func (m *mover) settled(ctx context.Context, other string) error {
	for _, dir := range []string{m.from.opts.Dir, other} {
		j, err := OpenJournal(dir)
		if err != nil {
			return err
		}
		notes, err := j.Notes()
		if err = errors.Join(err, j.Close()); err != nil {
			return err
		}
		for _, n := range notes {
			switch _, err := m.from.Get(ctx, n.ID); {
			case err == nil:
				return fmt.Errorf("the journal in %s has the answer for %s, which the store has not: start postern "+
					"once where it is now, stop it, and try again", dir, n.ID)
			case !errors.Is(err, queue.ErrNotFound):
				return err
			}
		}
	}
	return nil
}
