package store

import (
	"fmt"
	"time"

	"postern/relay/store/internal/db"
	"postern/relay/store/internal/sqlite"
)

// logSize is how much is written to the log, in octets, before it is copied into the file. The log's
// file grows to about twice that under load.
const logSize = 32 << 20

// The log is emptied when nothing has been written for idleFor, but not more often than emptyEvery: what was deleted
// must not stay readable in it for longer than need be (secure_delete sees to the file).
const (
	idleFor    = 2 * time.Second
	emptyEvery = time.Minute
)

// smallRest is what the writer may copy itself between two transactions, in octets.
const smallRest = 4 << 20

// checkpoints copies the log into the file whenever the writer says that it has become long, beside
// the writer and not in its way. While mail keeps coming the copy never reaches the log's end; so once only
// a small rest is left, the writer copies that between two transactions and the log begins anew.
func (f *file) checkpoints(conn *sqlite.Conn) {
	defer conn.Close()
	for range f.full {
		for range 4 {
			inLog, copied, ok := f.checkpoint(conn)
			if !ok || (inLog-copied)*pageSize <= smallRest {
				break
			}
		}
		f.finish.Store(true)
	}
}

// checkpoint copies what it can. Somebody else who does the same, or a full disk, makes it do nothing; the
// next one will. Any other error is the end: the engine would sync the same pages again next time, and
// a second sync may succeed although the first one lost them.
func (f *file) checkpoint(conn *sqlite.Conn) (inLog, copied int, ok bool) {
	if f.failure() != nil {
		return 0, 0, false
	}
	inLog, copied, err := conn.Checkpoint()
	switch {
	case err == nil:
		f.checkpointed.Add(1)
		return inLog, copied, true
	case db.KindOf(err) == db.Damaged:
		f.fail(fmt.Errorf("checkpoint: %w", err))
	case db.KindOf(err) != db.Busy:
		f.complain(err)
	}
	return 0, 0, false
}

// emptyLog copies the log into the file and cuts it to nothing, for the writer. Where the command line is reading,
// later.
func (f *file) emptyLog() {
	f.emptied = time.Now()
	if f.failure() != nil {
		f.logged = false
		return
	}
	f.conn.BusyTimeout(100)
	err := f.conn.EmptyLog()
	f.conn.BusyTimeout(busyTimeout)
	switch {
	case err == nil:
		f.pages, f.logged = 0, false
		f.checkpointed.Add(1)
	case db.KindOf(err) == db.Damaged:
		f.fail(fmt.Errorf("checkpoint: %w", err))
	case db.KindOf(err) != db.Busy:
		f.complain(err)
	}
}

// complainEvery is how often the same trouble is worth a line in the log.
const complainEvery = time.Minute

// complain logs that a checkpoint did not work. It belongs to the checkpointer's goroutine and the
// writer's, which share a mutex for it.
func (f *file) complain(err error) {
	f.complaining.Lock()
	again := time.Since(f.complained) >= complainEvery
	if again {
		f.complained = time.Now()
	}
	f.complaining.Unlock()
	if again {
		f.log.Warn("the store's log could not be copied into its file; it will be tried again", "err", err)
	}
}

// split implements transactor: all writes are one transaction.
func (f *file) split(ops []*op) [][]*op { return [][]*op{ops} }

// between implements transactor.
func (f *file) between() {
	if f.finish.Swap(false) {
		f.pages = 0
		f.checkpoint(f.conn)
	}
}

// makeRoom implements transactor: the log is as long as it is on disk already, and once copied it begins anew in its
// own space.
func (f *file) makeRoom() { f.checkpoint(f.conn) }

// rest implements transactor.
func (f *file) rest() (time.Duration, bool) {
	return max(idleFor, emptyEvery-time.Since(f.emptied)), f.logged
}

// tidy implements transactor.
func (f *file) tidy() { f.emptyLog() }

// lastCheckpoint copies the log when the store closes. The daemon leaves an empty one, so that the file alone
// is a whole backup while postern does not run.
func (f *file) lastCheckpoint(daemon bool) {
	f.checkpoint(f.conn)
	if !daemon || f.failure() != nil {
		return
	}
	f.conn.BusyTimeout(100) // the command line may be reading
	if err := f.conn.EmptyLog(); err != nil && db.KindOf(err) != db.Busy {
		f.log.Warn("the store's log could not be emptied; the next start will copy it", "err", err)
	}
}
