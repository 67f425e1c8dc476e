package store

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	lib "modernc.org/sqlite/lib"

	"postern/relay/queue"
	"postern/relay/store/internal/sqlite"
)

// tx is a running transaction of the writer.
type tx struct {
	*sqlite.Conn
	loaded bool
	stored counters // as they were when the transaction began
	counts counters // as they are to be
}

// counters are kept in one row and written once in a transaction, however many writes change them.
type counters struct {
	messages, held, bytes int64
	events                int64 // of the trace
	history, refusals     int64 // octets of the trace, and of its refusals, as eventOctets counts them
}

// count returns the counters to be changed.
func (t *tx) count() (*counters, error) {
	if t.loaded {
		return &t.counts, nil
	}
	c, err := readCounters(t.Conn)
	if err != nil {
		return nil, err
	}
	t.loaded, t.stored, t.counts = true, c, c
	return &t.counts, nil
}

func readCounters(conn *sqlite.Conn) (counters, error) {
	for row, err := range conn.Rows("SELECT messages, held, bytes, events, history, refusals FROM counter WHERE k = " +
		"1") {
		if err != nil {
			return counters{}, err
		}
		return counters{row.Int(0), row.Int(1), row.Int(2), row.Int(3), row.Int(4), row.Int(5)}, nil
	}
	return counters{}, &sqlite.Error{Code: sqlite.Corrupt, Msg: "the counters are missing"}
}

func (t *tx) flush() error {
	c := t.counts
	if c == t.stored {
		return nil
	}
	return t.Run("UPDATE counter SET messages = ?, held = ?, bytes = ?, events = ?, history = ?, refusals = ? WHERE "+
		"k = 1",
		c.messages, c.held, c.bytes, c.events, c.history, c.refusals)
}

// commit runs writes in one transaction and answers them. If one fails, each is tried alone, so that
// only the guilty fails.
func (w *writer) commit(ops []*op) {
	if err := w.failure(); err != nil {
		answer(ops, err)
		return
	}
	results, begun, err := w.attempt(ops)
	if err == nil {
		for i, o := range ops {
			o.done <- results[i]
		}
		return
	}
	if fatal(err) {
		w.fail(err)
		answer(ops, w.failure())
		return
	}
	if !begun { // held by another process for longer than any of its writes takes
		answer(ops, fmt.Errorf("begin a transaction: %w", err))
		return
	}
	if isFull(err) {
		// The log is as long as it is on disk already: once copied, it begins anew in its own space.
		w.checkpoint(w.conn)
	}
	for _, o := range ops {
		w.commitAlone(o)
	}
}

func (w *writer) commitAlone(o *op) {
	if err := w.failure(); err != nil {
		o.done <- err
		return
	}
	results, _, err := w.attempt([]*op{o})
	if isFull(err) { // the ones before may have used up what the checkpoint gave
		w.checkpoint(w.conn)
		results, _, err = w.attempt([]*op{o})
	}
	switch {
	case err == nil:
		o.done <- results[0]
	case fatal(err):
		w.fail(err)
		o.done <- w.failure()
	case isFull(err):
		o.done <- fmt.Errorf("%w: %w", queue.ErrFull, err)
	default:
		if r, ok := errors.AsType[refusal](err); ok { // it had changed something
			err = r.error
		}
		o.done <- err
	}
}

func answer(ops []*op, err error) {
	for _, o := range ops {
		o.done <- err
	}
}

// attempt runs one transaction: begin, every write, the counters, commit with its one sync. On an
// error nothing of it is left.
func (w *writer) attempt(ops []*op) (results []error, begun bool, err error) {
	if err := w.conn.Run("BEGIN IMMEDIATE"); err != nil {
		return nil, false, err
	}
	t := &tx{Conn: w.conn}
	results = make([]error, len(ops))
	for i, o := range ops {
		before := t.TotalChanges()
		err := w.runOne(o, t)
		if r, ok := err.(refusal); ok && t.TotalChanges() == before {
			results[i] = r.error
			continue
		}
		if err != nil {
			return nil, true, w.rollback(err)
		}
	}
	if err := t.flush(); err != nil {
		return nil, true, w.rollback(err)
	}
	if err := w.conn.Run("COMMIT"); err != nil {
		return nil, true, w.rollback(err)
	}
	w.committed()
	return results, true, nil
}

// errOwnFault: a write failed by a fault of ours. It changed nothing.
var errOwnFault = errors.New("a fault of postern's own; its log has more")

// runOne runs one write. A panic in it, which one message or one request brings out, is its error and does not end the
// service for all, again after each restart.
func (w *writer) runOne(o *op, t *tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("a write to the store failed by a fault of ours", "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			err = errOwnFault
		}
	}()
	return o.run(t)
}

func (w *writer) rollback(err error) error {
	if !w.conn.InTransaction() {
		return err
	}
	return errors.Join(err, w.conn.Run("ROLLBACK"))
}

func (w *writer) committed() {
	pages := w.conn.PagesWritten()
	if pages == 0 {
		return
	}
	w.commits.Add(1)
	w.logged = w.logged || pages > 0
	if w.pages += pages; w.pages*pageSize >= logSize {
		select {
		case w.full <- struct{}{}:
			w.pages = 0
		default:
		}
	}
}

// isFull reports an error that freeing space mends: no page of it reached the log's commit record.
func isFull(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code {
	case lib.SQLITE_IOERR_WRITE, lib.SQLITE_IOERR_SHMSIZE, lib.SQLITE_IOERR_TRUNCATE:
		return e.Errno == syscall.ENOSPC || e.Errno == syscall.EDQUOT || e.Errno == syscall.EFBIG
	}
	return e.Primary() == sqlite.Full
}

// fatal reports an error after which nothing that we write can be trusted any more.
func fatal(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok || isFull(err) {
		return false
	}
	switch e.Code {
	case lib.SQLITE_IOERR_NOMEM, lib.SQLITE_IOERR_LOCK, lib.SQLITE_IOERR_SHMLOCK, lib.SQLITE_IOERR_RDLOCK,
		lib.SQLITE_IOERR_UNLOCK:
		return false
	}
	switch e.Primary() {
	case sqlite.IOErr, sqlite.Corrupt, sqlite.NotADB, sqlite.ReadOnly:
		return true
	}
	return false
}

// failure is what ended writing.
type failure struct{ error }

func (w *writer) failure() error {
	if f := w.failed.Load(); f != nil {
		return f.error
	}
	return nil
}

func (w *writer) fail(cause error) {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if w.failed.CompareAndSwap(nil, &failure{err}) {
		w.log.Error("the store has failed: no more mail is taken; mend the disk and restart", "err", cause)
	}
}
