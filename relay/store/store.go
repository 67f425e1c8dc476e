// Package store persists what must survive a restart, in one SQLite file in the data directory: the queue with its
// contents, the trace, users, DKIM keys, limit states and install secrets.
//
// What it promises, most important first:
//
//   - A method that changes something returns nil only when the change is committed and synced. If it returns an error,
//     the change was not made, with one exception that no disk spares anybody: if the sync of a commit fails, the
//     change may or may not be there after a restart.
//   - Writes of all callers are committed together (group commit): one transaction, one sync. If one of them fails, all
//     are rolled back and each is tried alone, so that only the faulty one fails. Lazy writes (trace events, limit
//     states) wait for the next commit, 250 ms at most.
//   - A full disk is queue.ErrFull; it passes and harms nothing else. A failed write, sync or checkpoint, or a damaged
//     page, ends writing for good (ErrFailed): the kernel may have dropped what it could not write, so a retry could
//     succeed falsely. Reading goes on; a restart looks at the disk anew.
//   - Several processes may have the file open. One of them, the daemon, holds a lock, which protects the queue's
//     leases. The command line does not take it; it signals changes to the daemon by generations.
//   - Nothing stored grows without a bound: see Options.
//   - Only List, and an operator's action over everything, take time that depends on how much is stored.
//
// Files are created with mode 0600 in a directory of mode 0700.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/seal"
	"postern/relay/store/internal/sqlite"
)

// The names of our files in the data directory. SQLite adds -wal and -shm to the first.
const (
	FileName = "postern.db"
	LockName = "postern.lock"
)

// Options say where the store is and what bounds it.
type Options struct {
	Dir    string // data directory; its parent must exist
	Daemon bool   // take the lock that only one process may have; only with it is an older store brought up to date
	Logger *slog.Logger

	URL      config.StoreURL // the zero value is the file in Dir; what follows is for a server alone
	Password auth.Secret     // of the user in URL; "": none
	SealKey  auth.Secret     // 32 octets that seal what is secret, the same on all nodes
	Node     string          // this node's name, which no other has
	Degraded string          // what becomes of new mail while the server is away, such as config.DegradedRefuse
	limits   limits          // of tests
	unusable error           // why Password or SealKey could not be read
	moving   bool            // for Migrate and Reuse, which have the lock
	look     bool            // for Migrate, which only looks: an older store stays as it is

	MaxBytes  int64 // octets of queued contents from which Add answers queue.ErrFull; 0: no limit
	MinFree   int64 // octets that must stay free on the file system for Add; at least minFloor, negative: none
	MaxEvents int64 // trace events kept whatever their age; 0: 5 million
	MaxKnown  int64 // recipients remembered for each login; 0: 50 000
}

// The errors of the store beside those of queue.
var (
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrFailed: an earlier write, sync or checkpoint failed. Nothing is written any more until a restart.
	ErrFailed = errors.New("store has failed and takes no more writes until a restart")
	// ErrLocked: another daemon uses the data directory.
	ErrLocked = errors.New("another postern daemon uses this data directory")
)

// Store is one SQLite file. Its methods are safe for concurrent use.
type Store struct {
	opts   Options
	log    *slog.Logger
	unlock func()
	lock   string // the name of the lock that only one process may have; "": it has none
	engine engine
	clock  *clock // of the engine

	writer  *writer
	readers *readers // of mail
	lookups *readers // of people who look at trace, statistics, audit and alerts
	sealer  *seal.Sealer
	privacy atomic.Pointer[privacyInForce] // nil: addresses are kept
	told    atomic.Uint64                  // events that were appended here
	doubted doubted
	sums    doubtedSums
	pace    *pace // of people who search; nil: they are in another process than mail

	member   *membership    // among the nodes; nil: SQLite, or a command
	running  sync.WaitGroup // the writer's goroutine
	closed   sync.Once
	closeErr error
}

// Open opens the store in a directory and makes it where there is none. Its cost does not depend on
// how much is stored. Errors name the file and what to do about it.
//
// The order matters: first the directory and its lock, then the file, so that no second daemon and no
// stranger's file is ever written to; then the header, the length and the schema version; then, in the
// daemon, a checkpoint of what a former life left in the log. More damage than that shows when it is met.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.unusable != nil {
		return nil, o.unusable
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	if !o.URL.Server() {
		if err := notRestoring(o.Dir); err != nil {
			return nil, err
		}
	}
	s := &Store{opts: o, log: o.Logger, unlock: func() {}}
	if o.Daemon && !o.moving {
		unlock, name, err := lockNamed(filepath.Join(o.Dir, LockName))
		if err != nil {
			return nil, err
		}
		s.unlock, s.lock, s.pace = unlock, name, newPace()
		s.forgetCopy()
	}
	err := s.open(ctx)
	if err == nil {
		if err = s.sealKeys(ctx); err != nil {
			err = errors.Join(err, s.Close())
		}
	}
	if err != nil {
		s.unlock()
		return nil, err
	}
	return s, nil
}

// minFloor is the least that must stay free for new mail, in octets. What waits in the log, up to about
// twice logSize, has to fit into the file once more before anything can leave; below this a full disk
// would keep accepted mail from being delivered.
const minFloor = 4 * logSize

func (o Options) withDefaults() Options {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.MinFree >= 0 {
		o.MinFree = max(o.MinFree, minFloor)
	}
	o.MaxEvents = cmp.Or(o.MaxEvents, 5_000_000)
	o.MaxKnown = cmp.Or(o.MaxKnown, 50_000)
	return o
}

func (s *Store) open(ctx context.Context) error {
	var err error
	if s.sealer, err = s.opts.Sealer(); err != nil {
		return err
	}
	f := &fuse{log: s.log}
	if s.opts.URL.Server() {
		s.engine = newServer(s.opts, f)
	} else {
		s.engine = newFile(s.opts, f)
	}
	s.clock = s.engine.time()
	if err := s.engine.open(ctx); err != nil {
		return err
	}
	s.readers = newReaders(s.engine.reader, s.engine.snapshot(), maxReaders)
	s.lookups = newReaders(s.engine.reader, s.engine.snapshot(), maxLookups)
	s.engine.readBy(s.readers)
	s.writer = newWriter(s.engine, f)
	s.running.Go(s.writer.run)
	if s.opts.URL.Server() {
		if err := s.matchSeal(ctx); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if e, ok := s.engine.(*server); ok && s.opts.Daemon {
		if err := s.joinNodes(ctx, e); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if !s.opts.moving {
		if err := s.stays(ctx); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if s.opts.Daemon && !s.opts.moving {
		s.noteUse(ctx, s.usedBy())
	}
	return nil
}

// Hurry makes lazy writes commit at once from now on: a process that ends writes a few, one after the other.
func (s *Store) Hurry() { s.writer.hurry() }

// Close lets running writes end, copies the log into the file and closes everything.
func (s *Store) Close() error {
	s.closed.Do(func() {
		left := s.leaveNodes()
		s.writer.stop()
		s.running.Wait()
		s.closeErr = errors.Join(left, s.readers.close(), s.lookups.close())
		s.closeErr = errors.Join(s.closeErr, s.engine.close())
		s.unlock()
	})
	return s.closeErr
}

// Commits counts the transactions that were committed and synced, one sync each.
func (s *Store) Commits() uint64 { return s.writer.commits.Load() }

// wrap says what an error, if there is one, kept from being done.
func wrap(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(what, args...), err)
}

// unixNano is how times are stored: nanoseconds since 1970, 0 for the zero time. What they cannot say, before 1678 or
// behind 2262, is as early or late as can be: people ask for all until the year 9999.
func unixNano(t time.Time) int64 {
	switch year := t.Year(); {
	case t.IsZero():
		return 0
	case year < 1678:
		return math.MinInt64
	case year > 2262 || t.After(lastNano):
		return math.MaxInt64
	}
	return t.UnixNano()
}

var lastNano = time.Unix(0, math.MaxInt64)

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// explain turns what the engine says about a file into what a person can act on.
func explain(path string, err error) error {
	switch sqlite.CodeOf(err) {
	case sqlite.NotADB:
		return fmt.Errorf("%s is not a database, or its beginning is damaged: restore it from a backup, or move it "+
			"away to begin with an empty store: %w", path, err)
	case sqlite.Corrupt:
		return fmt.Errorf("%s is damaged: keep a copy, then restore it from a backup: %w", path, err)
	case sqlite.ReadOnly, sqlite.CantOpen:
		return fmt.Errorf("%s cannot be written: check the owner and the mode of the file and its directory: %w", path,
			err)
	case sqlite.Full:
		return fmt.Errorf("%s: no space left for the store: %w", path, err)
	case sqlite.Busy:
		return fmt.Errorf("%s is held by another process for too long: %w", path, err)
	default:
		return fmt.Errorf("open %s: %w", path, err)
	}
}
