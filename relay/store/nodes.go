package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/release"
	"postern/relay/store/internal/db"
)

// A daemon at a server has a row in the table node, which it renews. How long it is taken to live since then, and how
// often it does so:
const (
	nodeLives = 10 * time.Second
	nodeBeats = 2 * time.Second
	nodeKept  = 7 * 24 * time.Hour // what is known of one that has ended
)

// maxNodes is the highest number of a node, and so how many of them there may be.
const maxNodes = 63

var (
	// ErrNodeLives: other daemons use the database.
	ErrNodeLives = errors.New("another node uses this database")
	// ErrNodeName: another process, with another data directory or on another machine, is the node of this name.
	ErrNodeName = errors.New("another process is the node of this name")
	// ErrNoNode: no node has this name.
	ErrNoNode = errors.New("there is no node of this name: postern node list says which there are")
	// ErrNoNodes: the store is a file.
	ErrNoNodes = errors.New("there are nodes only where the store is at PostgreSQL; this one is a file of one daemon")
)

// Node is a daemon at a server, or was one.
type Node struct {
	Name    string
	Host    string // the machine
	Version string // of the program
	Started time.Time
	Seen    time.Time
	Alive   bool
	Drained bool  // it takes no mail and begins no attempt, as a person has asked
	Leads   bool  // it does what only one is to do
	Alike   bool  // its settings are those of the leader, or of the one that started last; not of one that has ended
	Leased  int64 // messages that it tries now
}

// membership is the row of this daemon.
type membership struct {
	name, boot, home string
	number           int64
	before           string             // the program of the process before
	moved            bool               // the process before was on another machine: nobody knows that it has ended
	leave            context.CancelFunc // ends the renewing
	ended            chan struct{}
	standing         atomic.Pointer[standing] // as the last beat saw it
	changes          atomic.Int64             // of the share
	over             atomic.Pointer[failure]  // why it must end; nil: it need not
}

// nodeHome is the file in a data directory that tells it from others. A process that has the lock of the directory
// knows by it that the one before has ended.
const nodeHome = "node.id"

// joinNodes enters the daemon among the nodes.
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
	if err == nil {
		err = m.beat(ctx, s.readers, e)
	}
	if over := m.over.Load(); err == nil && over != nil {
		err = over.error
	}
	if err != nil {
		return wrap(err, "join the nodes at %s", e.name)
	}
	e.node.Store(m.number)
	ctx, m.leave = context.WithCancel(context.WithoutCancel(ctx))
	s.member = m
	go s.renewNode(ctx, e, m)
	return nil
}

// enter makes the row, or takes over the one that a process of this name has left. That one finds that the row is not
// its own any more, if it only stood still.
func (m *membership) enter(t *tx, host string, now int64) (number int64, err error) {
	if err := forgetNodes(t, m.name, now, now-int64(nodeKept)); err != nil {
		return 0, err
	}
	if number, err = m.numbered(t, host, now); err != nil {
		return 0, err
	}
	err = t.Run(putNode, m.name, number, m.boot, m.home, host, release.Version(), now, now, now+int64(nodeLives))
	if err == nil {
		err = t.Run("INSERT INTO counter VALUES (?, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING", number)
	}
	return number, err
}

// numbered is the number that the node has, or else the lowest that is free. Where none is, the node that ended first
// makes room. A data directory may have been copied to another machine.
func (m *membership) numbered(t *tx, host string, now int64) (int64, error) {
	used, ended, seen := map[int64]bool{}, int64(0), int64(0)
	for row, err := range t.Rows("SELECT name, k, home, host, until, seen, version FROM node ORDER BY seen DESC") {
		if err != nil {
			return 0, err
		}
		lives := row.Int(4) > now
		switch {
		case row.Text(0) != m.name:
		case lives && (row.Text(2) != m.home || row.Text(3) != host):
			return 0, refuse(m.taken(row.Text(3)))
		default:
			m.moved, m.before = row.Text(3) != host, row.Text(6)
			return row.Int(1), nil
		}
		if used[row.Int(1)] = true; !lives {
			ended, seen = row.Int(1), row.Int(5)
		}
	}
	number := int64(1)
	for used[number] {
		number++
	}
	switch {
	case number <= maxNodes:
		return number, nil
	case ended == 0:
		return 0, refuse(fmt.Errorf("%d nodes use this database, and there may be no more of them", maxNodes))
	}
	return ended, forgetNodes(t, m.name, now, seen+1)
}

func (m *membership) taken(host string) error {
	return fmt.Errorf("%w: %s on %s, which was seen less than %s ago and has another data directory or machine; give "+
		"each node a name and a data_dir of its own, or stop that one, and this one takes over", ErrNodeName, m.name,
		host, nodeLives)
}

// forgetNodes removes the nodes but one that have ended and were last seen before a time: where machines come and go
// under new names there are ever more of them. What they have counted goes to the row of commands.
func forgetNodes(t *tx, but string, now, before int64) error {
	const (
		ended = "name <> ?1 AND until <= ?2 AND seen < ?3"
		gone  = "(SELECT k FROM node WHERE " + ended + ")"
	)
	for _, query := range []string{`UPDATE counter SET messages = counter.messages + s.messages,
		held = counter.held + s.held, bytes = counter.bytes + s.bytes, events = counter.events + s.events,
		history = counter.history + s.history, refusals = counter.refusals + s.refusals
		FROM (SELECT coalesce(sum(messages), 0) AS messages, coalesce(sum(held), 0) AS held,
			coalesce(sum(bytes), 0) AS bytes, coalesce(sum(events), 0) AS events,
			coalesce(sum(history), 0) AS history, coalesce(sum(refusals), 0) AS refusals
			FROM counter WHERE k IN ` + gone + `) s WHERE counter.k = 0`,
		"DELETE FROM counter WHERE k IN " + gone,
		"DELETE FROM alert_told WHERE node IN (SELECT name FROM node WHERE " + ended + ")",
		"DELETE FROM node WHERE " + ended,
	} {
		if err := t.Run(query, but, now, before); err != nil {
			return err
		}
	}
	return nil
}

var putNode = upsert("node", 1, "name", "k", "boot", "home", "host", "version", "started", "seen", "until")

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

// owner is the name that leases of a node have, of messages and of what only one is to do. A process that begins again
// in the same data directory may end them at once: the one before has ended. One of the same name with another
// directory may not.
func (m *membership) owner() string { return m.name + "/" + m.home[:min(len(m.home), ownerHome)] }

// ownerHome is how much of the home is in an owner, in characters.
const ownerHome = 8

// Owner is the name that this daemon's leases have.
func (s *Store) Owner() string {
	if s.member == nil {
		return "local"
	}
	return s.member.owner()
}

// SoleOwner is a name like Owner of a daemon at a server, which no two processes have that live: one that had it before
// has ended, and the kernel has closed its connections. Until the machine boots again each process of a data directory
// has the same, where the kernel says which it is; elsewhere each has one of its own.
func (s *Store) SoleOwner() string { return s.Owner() + "/" + cmp.Or(s.lock, s.member.boot) }

// Nodes returns the daemons at a server, those that live first; none with SQLite.
func (s *Store) Nodes(ctx context.Context) (all []Node, err error) {
	if !s.Shared() {
		return nil, nil
	}
	var settings []string
	all, err = readAll(ctx, s.readers, func(row db.Row) (Node, error) {
		settings = append(settings, row.Text(9))
		return Node{Name: row.Text(0), Host: row.Text(1), Version: row.Text(2), Started: s.clock.time(row.Int(3)),
			Seen: s.clock.time(row.Int(4)), Alive: row.Bool(5), Drained: row.Bool(6), Leads: row.Bool(7),
			Leased: row.Int(8)}, nil
	}, listNodes)
	model := -1
	for i, n := range all {
		if settings[i] != "" && n.Alive && (model < 0 || n.Leads ||
			!all[model].Leads && n.Started.After(all[model].Started)) {
			model = i
		}
	}
	for i := range all {
		all[i].Alike = all[i].Alive && (model < 0 || settings[i] == "" || settings[i] == settings[model])
	}
	return all, wrap(err, "list the nodes")
}

var listNodes = fmt.Sprintf(`SELECT n.name, host, version, started, seen, (n.until > t.now)::int::bigint, drained,
		(coalesce(l.until > t.now, false))::int::bigint, coalesce(m.leased, 0), settings
	FROM (SELECT *, name || '/' || substring(home from 1 for %d) AS owner FROM node) n
	CROSS JOIN (%s AS now) t
	LEFT JOIN leader l ON l.node = n.owner
	LEFT JOIN (SELECT lease_owner, count(*) AS leased FROM message, (%[2]s AS now) t2
		WHERE lease_until > 0 AND lease_until > t2.now GROUP BY lease_owner) m ON m.lease_owner = n.owner
	ORDER BY 6 DESC, n.k`, ownerHome, serverTime)

// DrainNode has a node take no mail and begin no attempt, or has it work again. It holds over a restart. ErrNoNode:
// there is none of this name; ErrNoNodes: the store is a file.
func (s *Store) DrainNode(ctx context.Context, name string, on bool) error {
	if !s.Shared() {
		return ErrNoNodes
	}
	err := s.write(ctx, func(t *tx) error {
		if err := t.Run("UPDATE node SET drained = ? WHERE name = ?", on, name); err != nil {
			return err
		}
		if t.Changes() == 0 {
			return refuse(ErrNoNode)
		}
		return nil
	})
	return wrap(err, "drain node %s", name)
}
