package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postern/relay/store/internal/db"
)

// Bounds of the connections that read at the same time: for mail, and for people who look things up, however many they
// are and however long it takes. Mail never waits for them.
const (
	maxReaders = 4
	maxLookups = 2
)

// readers lends connections for reading. Who reads more than a few rows watches its context.
type readers struct {
	open  func(context.Context) (db.Conn, error)
	begin string       // a transaction that sees one state of everything
	free  chan db.Conn // nil: not opened yet

	mu     sync.Mutex
	closed bool // guarded by mu
}

func newReaders(open func(context.Context) (db.Conn, error), begin string, n int) *readers {
	r := &readers{open: open, begin: begin, free: make(chan db.Conn, n)}
	for range n {
		r.free <- nil
	}
	return r
}

// read runs f with a connection of its own and interrupts it when ctx ends. The wait for a connection, and for a new
// one to be made, ends with ctx too.
func (r *readers) read(ctx context.Context, f func(db.Conn) error) error {
	conn, err := r.get(ctx)
	if err != nil {
		return err
	}
	stop := func() {}
	if ctx.Done() != nil {
		stop = interruptOn(ctx, conn)
	}
	ended := false
	defer func() {
		stop()
		if !ended { // it is lost, or f panics: nobody knows in what state the connection is
			_ = conn.Close()
			conn = nil
		}
		r.free <- conn
	}()
	err = f(conn)
	ended = db.KindOf(err) != db.Gone && !conn.InTransaction()
	return readError(ctx, err)
}

// snapshot is read for what belongs together.
func (r *readers) snapshot(ctx context.Context, f func(db.Conn) error) error {
	return r.read(ctx, func(conn db.Conn) error {
		if err := conn.Run(r.begin); err != nil {
			return err
		}
		err := f(conn)
		if conn.InTransaction() {
			err = errors.Join(err, conn.Run("ROLLBACK"))
		}
		return err
	})
}

func (r *readers) get(ctx context.Context) (db.Conn, error) {
	var conn db.Conn
	select {
	case conn = <-r.free:
	default:
		select {
		case conn = <-r.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	err := ctx.Err()
	r.mu.Lock()
	if r.closed {
		err = ErrClosed
	}
	r.mu.Unlock()
	if c, ok := conn.(mortal); ok && err == nil && !alive(ctx, c, conn) {
		_ = conn.Close()
		conn = nil
	}
	if err == nil && conn == nil {
		if conn, err = r.open(ctx); err != nil {
			conn = nil // whatever type of nil it is
		}
	}
	if err != nil {
		r.free <- conn
		return nil, err
	}
	return conn, nil
}

// close waits for all readers and closes their connections.
func (r *readers) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	var errs []error
	for range cap(r.free) {
		if conn := <-r.free; conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	for range cap(r.free) {
		r.free <- nil
	}
	return errors.Join(errs...)
}

// alive is whether a connection may be used still; the look ends with ctx.
func alive(ctx context.Context, c mortal, conn db.Conn) bool {
	defer interruptOn(ctx, conn)()
	return c.Alive()
}

// interruptAgain is when what has begun since the last interrupt gets another.
const interruptAgain = 100 * time.Millisecond

// interruptOn interrupts conn when ctx ends, until the returned function is called; after that conn is
// left alone. An interrupt that comes between two statements hits none, so it is repeated.
func interruptOn(ctx context.Context, conn db.Conn) (stop func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(ended)
		again := time.NewTicker(interruptAgain)
		defer again.Stop()
		for {
			conn.Interrupt()
			select {
			case <-stopped:
				return
			case <-again.C:
			}
		}
	})
	return func() {
		close(stopped)
		if !cancel() {
			<-ended
		}
	}
}

// mortal is a connection that may be lost while nobody uses it.
type mortal interface{ Alive() bool }

func readError(ctx context.Context, err error) error {
	if db.KindOf(err) == db.Gone {
		return away(err)
	}
	if db.KindOf(err) == db.Interrupted && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return err
}

// list reads all rows of a query.
func list[T any](conn db.Conn, scan func(db.Row) (T, error), query string, args ...any) (all []T,
	err error) {
	for row, err := range conn.Rows(query, args...) {
		if err != nil {
			return nil, err
		}
		v, err := scan(row)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// readAll is list with a connection of its own.
func readAll[T any](ctx context.Context, r *readers, scan func(db.Row) (T, error), query string,
	args ...any) (all []T, err error) {
	err = r.read(ctx, func(conn db.Conn) error {
		all, err = list(conn, scan, query, args...)
		return err
	})
	return all, err
}

// text scans a query's only column.
func text(row db.Row) (string, error) { return row.Text(0), nil }
