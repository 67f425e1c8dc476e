package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"postern/relay/store/internal/db"
)

// A daemon at a server has a row in the table node, which it renews. How long it is taken to live since then, and how
// often it does so:
const (
	nodeLives = 10 * time.Second
	nodeBeats = 2 * time.Second
	nodeKept  = 7 * 24 * time.Hour // what is known of one that has ended
)

// ErrNodeLives: another daemon uses the database.
var ErrNodeLives = errors.New("another node uses this database")

// Node is a daemon at a server, or was one.
type Node struct {
	Name    string
	Host    string // the machine
	Version string // of the program
	Started time.Time
	Seen    time.Time
	Alive   bool
	Drained bool  // it takes no mail and begins no attempt
	Leads   bool  // it does what one node does for all
	Alike   bool  // its configuration is that of the others
	Leased  int64 // messages that it tries
}

// membership is the row of this daemon.
type membership struct {
	name, boot, home string
	number           int64
	leave            context.CancelFunc // ends the renewing
	ended            chan struct{}
}

// nodeHome is the file in a data directory that tells it from others. A process that has the lock of the directory
// knows by it that the one before has ended.
const nodeHome = "node.id"

// joinNodes enters the daemon among the nodes, or refuses it where another one lives: what nodes share beyond the queue
// (limits, connections to providers) is counted by each process alone in this version.
func (s *Store) joinNodes(ctx context.Context, e *server) error {
	home, err := homeOf(s.opts.Dir)
	if err != nil {
		return err
	}
	m := &membership{name: s.opts.Node, boot: rand.Text(), home: home, ended: make(chan struct{})}
	host, _ := os.Hostname()
	err = s.write(ctx, func(t *tx) error {
		now, _, err := t.Int(serverTime)
		if err != nil {
			return err
		}
		if m.number, err = m.enter(t, host, now); err == nil {
			e.lapsed = true // the last batch is of another process
		}
		return err
	})
	if err != nil {
		return wrap(err, "join the nodes at %s", e.name)
	}
	e.node.Store(m.number)
	ctx, m.leave = context.WithCancel(context.WithoutCancel(ctx))
	s.member = m
	go s.renewNode(ctx, e, m)
	return nil
}

func (m *membership) enter(t *tx, host string, now int64) (number int64, err error) {
	last := int64(0)
	for row, err := range t.Rows("SELECT name, k, home, host, until FROM node ORDER BY k") {
		if err != nil {
			return 0, err
		}
		name, k, until := row.Text(0), row.Int(1), row.Int(4)
		if last = max(last, k); name == m.name {
			number = k
		}
		if until > now && row.Text(2) != m.home {
			return 0, refuse(fmt.Errorf("%w: %s on %s, which was seen less than %s ago; this version runs one node at "+
				"a time: stop it, and this one takes over", ErrNodeLives, name, row.Text(3), nodeLives))
		}
	}
	if number == 0 {
		number = last + 1
	}
	// Those that stood still find that their row is not theirs any more.
	if err := t.Run("UPDATE node SET boot = '', until = 0 WHERE name <> ?", m.name); err != nil {
		return 0, err
	}
	if err := forgetNodes(t, m.name, now-int64(nodeKept)); err != nil {
		return 0, err
	}
	err = t.Run(putNode, m.name, number, m.boot, m.home, host, programVersion(), now, now, now+int64(nodeLives))
	if err == nil {
		err = t.Run("INSERT INTO counter VALUES (?, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING", number)
	}
	return number, err
}

// forgetNodes removes the nodes but one that were last seen before a time: where machines come and go under new names
// there are ever more of them. What they have counted goes to the row of commands.
func forgetNodes(t *tx, but string, before int64) error {
	const gone = "(SELECT k FROM node WHERE name <> ? AND seen < ?)"
	err := t.Run(`UPDATE counter SET messages = counter.messages + s.messages, held = counter.held + s.held,
		bytes = counter.bytes + s.bytes, events = counter.events + s.events, history = counter.history + s.history,
		refusals = counter.refusals + s.refusals
		FROM (SELECT coalesce(sum(messages), 0) AS messages, coalesce(sum(held), 0) AS held,
			coalesce(sum(bytes), 0) AS bytes, coalesce(sum(events), 0) AS events,
			coalesce(sum(history), 0) AS history, coalesce(sum(refusals), 0) AS refusals
			FROM counter WHERE k IN `+gone+`) s WHERE counter.k = 0`, but, before)
	if err != nil {
		return err
	}
	if err := t.Run("DELETE FROM counter WHERE k IN "+gone, but, before); err != nil {
		return err
	}
	return t.Run("DELETE FROM node WHERE name <> ? AND seen < ?", but, before)
}

var putNode = upsert("node", 1, "name", "k", "boot", "home", "host", "version", "started", "seen", "until")

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// homeOf reads what tells a data directory from others, and makes it where it is missing.
func homeOf(dir string) (string, error) {
	path := filepath.Join(dir, nodeHome)
	f, err := openFile(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		id := rand.Text()
		if f, err = openFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL); err == nil {
			_, err = f.WriteString(id + "\n")
			err = errors.Join(err, f.Sync(), giveToOwner(f, dir), f.Close())
		}
		return id, err
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	id := strings.TrimSpace(string(text))
	if err == nil && id == "" {
		err = fmt.Errorf("%s is empty: remove it", path)
	}
	return id, err
}

// renewNode renews the row until ctx ends, or another process has it.
func (s *Store) renewNode(ctx context.Context, e *server, m *membership) {
	defer close(m.ended)
	for pause(ctx, nodeBeats) == nil && s.beat(ctx, e, m) {
	}
}

// beat renews the row, and reports whether it is ours. Where it is another process's, this one begins nothing any more:
// it takes no mail and leases none. What it has under way is its own still, by the name of the node, and ends.
func (s *Store) beat(ctx context.Context, e *server, m *membership) (ours bool) {
	asked, now := time.Now(), int64(0)
	err := s.readers.read(ctx, func(conn db.Conn) (err error) {
		now, ours, err = conn.Int(renewQuery, int64(nodeLives), m.name, m.boot)
		return err
	})
	switch {
	case err != nil: // the next one may do; who reads and writes says what is wrong
		return true
	case ours:
		e.clock.set(now, asked, time.Now())
	default:
		err := fmt.Errorf("%w: %w: it has taken over while %s stood still; restart this one", ErrAway, ErrNodeLives,
			m.name)
		e.ousted.Store(&failure{err})
		s.log.Error("another node has taken over: no more mail is taken here; restart this one", "node", m.name)
	}
	return ours
}

const renewQuery = `UPDATE node SET seen = t.now, until = t.now + ?1
	FROM (` + serverTime + ` AS now) t WHERE name = ?2 AND boot = ?3 RETURNING t.now`

// leaveNodes says that this daemon has ended, so that another need not wait.
func (s *Store) leaveNodes() error {
	m := s.member
	if m == nil {
		return nil
	}
	m.leave()
	<-m.ended
	ctx, cancel := context.WithTimeout(context.Background(), connectFor)
	defer cancel()
	return s.readers.read(ctx, func(conn db.Conn) error {
		return conn.Run("UPDATE node SET until = 0 WHERE name = ? AND boot = ?", m.name, m.boot)
	})
}

// Nodes returns the daemons at a server, those that live first; none with SQLite.
func (s *Store) Nodes(ctx context.Context) (all []Node, err error) {
	if !s.opts.URL.Server() {
		return nil, nil
	}
	all, err = readAll(ctx, s.readers, func(row db.Row) (Node, error) {
		return Node{Name: row.Text(0), Host: row.Text(1), Version: row.Text(2), Started: s.clock.time(row.Int(3)),
			Seen: s.clock.time(row.Int(4)), Alive: row.Bool(5), Drained: row.Bool(6), Leads: row.Bool(7), Alike: true,
			Leased: row.Int(8)}, nil
	}, `SELECT name, host, version, started, seen, (until > t.now)::int::bigint, drained,
		(SELECT count(*) FROM leader l WHERE l.node = n.name AND l.until > t.now),
		(SELECT count(*) FROM message m WHERE lease_until > 0 AND lease_until > t.now AND (lease_owner = n.name
			OR substring(lease_owner FROM 1 FOR length(n.name) + 1) = n.name || '/'::bytea))
		FROM node n, (`+serverTime+` AS now) t ORDER BY 6 DESC, k`)
	return all, wrap(err, "list the nodes")
}

// Owner is the name that this daemon's leases have: of its node.
func (s *Store) Owner() string {
	if s.member == nil {
		return "local"
	}
	return s.member.name
}
