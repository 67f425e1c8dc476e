package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/sqlite"
)

// file is the engine SQLite: one file in the data directory. One connection writes; another one, with a goroutine of
// its own, checkpoints.
type file struct {
	*fuse
	path   string
	daemon bool
	look   bool // see Options.look
	log    *slog.Logger
	before string // the program that used it last

	conn         *sqlite.Conn // of the writer's goroutine
	readers      *readers     // of mail; for what must be known of the file
	space        space
	clock        clock
	reserve      *reserve // of the daemon; nil: none
	checkpointed atomic.Uint64
	checkpointer sync.WaitGroup

	complaining sync.Mutex
	complained  time.Time // guarded by complaining; of a checkpoint that did not work

	// Of the writer's goroutine.
	pages   int       // written to the log since it was last copied
	logged  bool      // written to the log since it was last emptied
	emptied time.Time // when it was

	full   chan struct{} // asks for a checkpoint
	finish atomic.Bool   // the checkpointer left a small rest, to be copied between two transactions
}

func newFile(o Options, f *fuse) *file {
	return &file{
		fuse: f, path: filepath.Join(o.Dir, FileName), daemon: o.Daemon, look: o.look, log: o.Logger,
		full:  make(chan struct{}, 1),
		space: space{dir: o.Dir, floor: o.MinFree},
	}
}

// open implements engine. The order matters: the file, so that no stranger's is ever written to; then the header, the
// length and the schema version; then, in the daemon, a checkpoint of what a former life left in the log.
func (f *file) open(context.Context) error {
	if err := prepareFile(f.path); err != nil {
		return err
	}
	conn, err := f.openMain()
	if err != nil {
		return explain(f.path, err)
	}
	if f.daemon {
		if err := recoverLog(conn); err != nil {
			conn.Close()
			return explain(f.path, err)
		}
	}
	ckpt, err := openConn(f.path)
	if err == nil && f.daemon {
		f.reserve, err = openReserve(f.path)
	}
	if err != nil {
		if ckpt != nil {
			ckpt.Close()
		}
		conn.Close()
		return explain(f.path, err)
	}
	conn.PagesWritten() // those of the schema are no message's
	f.conn = conn
	f.checkpointer.Go(func() { f.checkpoints(ckpt) })
	return nil
}

// close implements engine: it copies the log into the file.
func (f *file) close() error {
	close(f.full)
	f.checkpointer.Wait()
	f.lastCheckpoint(f.daemon)
	return errors.Join(f.conn.Close(), f.reserve.close())
}

// readBy implements engine.
func (f *file) readBy(r *readers) { f.readers = r }

// reader implements engine.
func (f *file) reader(context.Context) (db.Conn, error) {
	conn, err := openConn(f.path)
	if err != nil {
		return nil, explain(f.path, err)
	}
	if err := conn.Exec("PRAGMA query_only = ON"); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// time implements engine: it is ours.
func (f *file) time() *clock { return &f.clock }

// number implements engine.
func (f *file) number(t time.Time) (n, step int64) { return t.UnixNano(), 1 }

// settled implements engine: nobody does.
func (f *file) settled(context.Context) (bool, error) { return true, nil }

// placeEvents implements engine: all are in one table.
func (f *file) placeEvents(db.Conn, []int64) error { return nil }

// dropEvents implements engine: the pages of a table are mixed, and go one by one anyway.
func (f *file) dropEvents(context.Context, int64, int64) (int64, bool, error) { return 0, false, nil }

// oneByOne implements engine.
func (f *file) oneByOne(context.Context, int64) (bool, error) { return true, nil }

// removed implements engine.
func (f *file) removed(int64, int64, bool) {}

// layout implements engine.
func (f *file) layout() *layout { return fileLayout }

// place implements engine: behind the last chunk.
func (f *file) place(conn db.Conn, _ time.Time) (int64, error) {
	last, _, err := conn.Int("SELECT n FROM chunk ORDER BY n DESC LIMIT 1")
	return last + 1, err
}

// snapshot implements engine.
func (f *file) snapshot() string { return "BEGIN" }

// transact implements transactor: begin, every write, the counters, commit with its one sync.
func (f *file) transact(ops []*op) (did outcome, err error) {
	if err := f.conn.Run("BEGIN IMMEDIATE"); err != nil { // held by another process for longer than any write takes
		return outcome{}, fmt.Errorf("begin a transaction: %w", err)
	}
	did.alone = true
	t := &tx{Conn: f.conn, engine: f, clock: &f.clock, layout: fileLayout, counter: 1}
	if did.results, err = runAll(t, ops, f.log); err == nil {
		err = f.conn.Run("COMMIT")
	}
	if err != nil {
		return did, f.rollback(err)
	}
	did.wrote = f.committed()
	return did, nil
}

func (f *file) rollback(err error) error {
	if !f.conn.InTransaction() {
		return err
	}
	return errors.Join(err, f.conn.Run("ROLLBACK"))
}

// committed reports whether the transaction wrote anything.
func (f *file) committed() bool {
	pages := f.conn.PagesWritten()
	if pages == 0 {
		return false
	}
	f.logged = true
	if f.pages += pages; f.pages*pageSize >= logSize {
		select {
		case f.full <- struct{}{}:
			f.pages = 0
		default:
		}
	}
	return true
}

// claim implements engine.
func (f *file) claim(conn db.Conn, messages int, octets int64) error {
	return f.reserve.claim(conn, messages, octets)
}

// room implements engine: queue.ErrFull when too little of the file system is free.
func (f *file) room(ctx context.Context) error { return f.space.check(f.freePages(ctx)) }

// lack implements engine.
func (f *file) lack(ctx context.Context) (int64, error) { return f.space.lack(f.freePages(ctx)) }

// freePages returns how many octets of the file are free.
func (f *file) freePages(ctx context.Context) func() (int64, error) {
	return func() (free int64, err error) {
		err = f.readers.read(ctx, func(conn db.Conn) error {
			pages, _, err := conn.Int("PRAGMA freelist_count")
			free = pages * pageSize
			return err
		})
		return free, err
	}
}

// measure implements engine.
func (f *file) measure(ctx context.Context, r *Room) (err error) {
	r.Floor = f.space.floor
	if r.Free, err = f.space.free(); err == nil {
		r.Within, err = f.freePages(ctx)()
	}
	r.File = sizeOf(f.path)
	return err
}

// examine implements engine.
func (f *file) examine(ctx context.Context, h *Health) (err error) {
	h.File, h.Log = sizeOf(f.path), sizeOf(f.path+"-wal")
	if h.Within, err = f.freePages(context.WithoutCancel(ctx))(); err != nil {
		return err
	}
	h.Damage, err = readAll(ctx, f.readers, text, "PRAGMA quick_check(20)")
	return err
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
