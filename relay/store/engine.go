package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"postern/relay/store/internal/db"
)

// engine is the database that a store is in: file (SQLite) or server (PostgreSQL). Statements are the same for both;
// here is what differs.
type engine interface {
	// open connects and brings the schema up to date.
	open(ctx context.Context) error
	// readBy is told of the connections by which it may read.
	readBy(r *readers)
	// reader opens a connection that only reads.
	reader(ctx context.Context) (db.Conn, error)
	// snapshot is the statement that begins a transaction which sees one state of everything.
	snapshot() string

	// time is its clock.
	time() *clock
	// layout is how messages lie in its tables.
	layout() *layout
	// place is where the chunks of the content of a message are put, within a transaction.
	place(conn db.Conn, received time.Time) (int64, error)

	// number is that of an event of a time, or the first one that it may have. If another event has it, it is the next
	// one, a step further.
	number(t time.Time) (n, step int64)
	// settled waits for those that insert events without the lock of all writes, and have begun before. It reports
	// false if it takes them long.
	settled(ctx context.Context) (bool, error)
	// placeEvents makes room for events with these numbers, in order, within the transaction that inserts them.
	placeEvents(conn db.Conn, numbers []int64) error
	// dropEvents removes many of the oldest events at once, where they lie together: all of a part that ends before a
	// number, or that has so many octets of them at most. Where none is dropped, they go one by one.
	dropEvents(ctx context.Context, before, octets int64) (events int64, dropped bool, err error)
	// oneByOne reports whether events before a number go one by one when dropEvents has none left to drop.
	oneByOne(ctx context.Context, before int64) (bool, error)
	// removed is told of an event that went alone, its octets, and whether nothing older is left.
	removed(n, octets int64, oldest bool)

	transactor

	// claim makes sure that contents of so many messages, and octets of them, have room. It is called in the
	// transaction that adds them. queue.ErrFull: they have none.
	claim(conn db.Conn, messages int, octets int64) error
	// room returns queue.ErrFull when there is too little of it for new mail, without looking at a transaction.
	room(ctx context.Context) error
	// lack is how many octets of the history should go before room refuses mail.
	lack(ctx context.Context) (int64, error)
	// measure fills in what is known of the room that there is.
	measure(ctx context.Context, r *Room) error
	// examine looks for damage until ctx ends.
	examine(ctx context.Context, h *Health) error

	// close ends what the engine has, after the last transaction.
	close() error
}

// Shared reports whether other nodes may use the store at the same time, beside the command line.
func (s *Store) Shared() bool {
	_, alone := s.engine.(*file)
	return !alone
}

// transactor runs the transactions of the writer, on its goroutine.
type transactor interface {
	// split is how writes are put into transactions.
	split(ops []*op) [][]*op
	// transact runs writes in one transaction and commits it. After an error nothing of it is left, or what is left is
	// not known and the error says so.
	transact(ops []*op) (outcome, error)
	// between is called between two transactions.
	between()
	// makeRoom is called when a transaction had no room: the next one may have some.
	makeRoom()
	// rest is when tidy is to be called if nothing is written until then; false: it need not.
	rest() (time.Duration, bool)
	tidy()
}

// outcome is what a transaction did. On an error, alone says whether one of its writes may be at fault, so that others
// may do better without it.
type outcome struct {
	results []error // of each write: nil, or what it was refused with
	wrote   bool
	alone   bool
}

// fuse remembers an error after which nothing is written any more.
type fuse struct {
	log    *slog.Logger
	failed atomic.Pointer[failure]
}

// failure is what ended writing.
type failure struct{ error }

func (f *fuse) failure() error {
	if cause := f.failed.Load(); cause != nil {
		return cause.error
	}
	return nil
}

func (f *fuse) fail(cause error) {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if f.failed.CompareAndSwap(nil, &failure{err}) {
		f.log.Error("the store has failed: no more mail is taken; mend the disk and restart", "err", cause)
	}
}
