package store

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// tx is a running transaction of the writer.
type tx struct {
	db.Conn
	engine  engine
	clock   *clock
	layout  *layout
	counter int64 // the row of the counters that it changes
	loaded  bool
	stored  counters // as they were when the transaction began
	counts  counters // as they are to be
}

// counters are written once in a transaction, however many writes change them.
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
	c, err := readCounters(t.Conn, t.layout)
	if err != nil {
		return nil, err
	}
	t.loaded, t.stored, t.counts = true, c, c
	return &t.counts, nil
}

// errNoCounters: the row is made with the schema.
var errNoCounters = damageError("the counters are missing")

// damageError is an error of what is stored.
type damageError string

func (d damageError) Error() string { return string(d) }
func (d damageError) Kind() db.Kind { return db.Damaged }

func readCounters(conn db.Conn, l *layout) (counters, error) {
	for row, err := range conn.Rows(l.counters) {
		if err != nil {
			return counters{}, err
		}
		if row.Int(0) > 0 {
			return counters{row.Int(1), row.Int(2), row.Int(3), row.Int(4), row.Int(5), row.Int(6)}, nil
		}
	}
	return counters{}, errNoCounters
}

func (t *tx) flush() error {
	if t.counts == t.stored {
		return nil
	}
	c, s := t.counts, t.stored
	return t.Run("UPDATE counter SET messages = messages + ?, held = held + ?, bytes = bytes + ?, "+
		"events = events + ?, history = history + ?, refusals = refusals + ? WHERE k = ?", c.messages-s.messages,
		c.held-s.held, c.bytes-s.bytes, c.events-s.events, c.history-s.history, c.refusals-s.refusals, t.counter)
}

// commit runs writes and answers them.
func (w *writer) commit(ops []*op) {
	for _, group := range w.split(ops) {
		w.commitGroup(group)
	}
}

// commitGroup runs writes in one transaction and answers them. If one fails, each is tried alone, so that
// only the guilty fails.
func (w *writer) commitGroup(ops []*op) {
	if err := w.failure(); err != nil {
		answer(ops, err)
		return
	}
	did, err := w.transact(ops)
	switch {
	case err == nil:
		for i, o := range ops {
			o.done <- did.results[i]
		}
		return
	case db.KindOf(err) == db.Damaged:
		w.fail(err)
		answer(ops, w.failure())
		return
	case !did.alone:
		answer(ops, err)
		return
	}
	if db.KindOf(err) == db.Full {
		w.makeRoom()
	}
	for _, o := range ops {
		w.commitAlone(o)
	}
}

func (w *writer) transact(ops []*op) (outcome, error) {
	did, err := w.transactor.transact(ops)
	if did.wrote {
		w.commits.Add(1)
	}
	return did, err
}

func (w *writer) commitAlone(o *op) {
	if err := w.failure(); err != nil {
		o.done <- err
		return
	}
	did, err := w.transact([]*op{o})
	if db.KindOf(err) == db.Full { // the ones before may have used up the room that was made
		w.makeRoom()
		did, err = w.transact([]*op{o})
	}
	switch {
	case err == nil:
		o.done <- did.results[0]
	case db.KindOf(err) == db.Damaged:
		w.fail(err)
		o.done <- w.failure()
	case db.KindOf(err) == db.Full:
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

// runAll runs writes and the counters on a connection that is in a transaction. On an error the transaction is to be
// rolled back.
func runAll(t *tx, ops []*op, log *slog.Logger) (results []error, err error) {
	results = make([]error, len(ops))
	for i, o := range ops {
		before := t.TotalChanges()
		err := runOne(o, t, log)
		if r, ok := err.(refusal); ok && t.TotalChanges() == before {
			results[i] = r.error
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return results, t.flush()
}

// errOwnFault: a write failed by a fault of ours. It changed nothing.
var errOwnFault = errors.New("a fault of postern's own; its log has more")

// runOne runs one write. A panic in it, which one message or one request brings out, is its error and does not end the
// service for all, again after each restart.
func runOne(o *op, t *tx, log *slog.Logger) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a write to the store failed by a fault of ours", "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			err = errOwnFault
		}
	}()
	return o.run(t)
}
