package store

import (
	"fmt"
	"time"

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
func (w *writer) checkpoints(conn *sqlite.Conn) {
	defer conn.Close()
	for range w.full {
		for range 4 {
			inLog, copied, ok := w.checkpoint(conn)
			if !ok || (inLog-copied)*pageSize <= smallRest {
				break
			}
		}
		w.finish.Store(true)
	}
}

// checkpoint copies what it can. Somebody else who does the same, or a full disk, makes it do nothing; the
// next one will. Any other error is the end: the engine would sync the same pages again next time, and
// a second sync may succeed although the first one lost them.
func (w *writer) checkpoint(conn *sqlite.Conn) (inLog, copied int, ok bool) {
	if w.failure() != nil {
		return 0, 0, false
	}
	inLog, copied, err := conn.Checkpoint()
	switch {
	case err == nil:
		w.checkpointed.Add(1)
		return inLog, copied, true
	case fatal(err):
		w.fail(fmt.Errorf("checkpoint: %w", err))
	case sqlite.CodeOf(err) != sqlite.Busy:
		w.complain(err)
	}
	return 0, 0, false
}

// emptyLog copies the log into the file and cuts it to nothing, for the writer. Where the command line is reading,
// later.
func (w *writer) emptyLog() {
	w.emptied = time.Now()
	if w.failure() != nil {
		w.logged = false
		return
	}
	w.conn.BusyTimeout(100)
	err := w.conn.EmptyLog()
	w.conn.BusyTimeout(busyTimeout)
	switch {
	case err == nil:
		w.pages, w.logged = 0, false
		w.checkpointed.Add(1)
	case fatal(err):
		w.fail(fmt.Errorf("checkpoint: %w", err))
	case sqlite.CodeOf(err) != sqlite.Busy:
		w.complain(err)
	}
}

// complainEvery is how often the same trouble is worth a line in the log.
const complainEvery = time.Minute

// complain logs that a checkpoint did not work. It belongs to the checkpointer's goroutine and the
// writer's, which share a mutex for it.
func (w *writer) complain(err error) {
	w.mu.Lock()
	again := time.Since(w.complained) >= complainEvery
	if again {
		w.complained = time.Now()
	}
	w.mu.Unlock()
	if again {
		w.log.Warn("the store's log could not be copied into its file; it will be tried again", "err", err)
	}
}

// lastCheckpoint copies the log when the store closes. The daemon leaves an empty one, so that the file alone
// is a whole backup while postern does not run.
func (w *writer) lastCheckpoint(daemon bool) {
	w.checkpoint(w.conn)
	if !daemon || w.failure() != nil {
		return
	}
	w.conn.BusyTimeout(100) // the command line may be reading
	if err := w.conn.EmptyLog(); err != nil && sqlite.CodeOf(err) != sqlite.Busy {
		w.log.Warn("the store's log could not be emptied; the next start will copy it", "err", err)
	}
}
