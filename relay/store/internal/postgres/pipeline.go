package postgres

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5/pgproto3"

	"postern/relay/store/internal/db"
)

// Call is a statement with its arguments. These may also be slices, for unnest: []int64, []int, []bool and []float64
// are arrays of numbers, []string and [][]byte of bytea.
type Call struct {
	Query string
	Args  []any
}

// Result is what a Call gave.
type Result struct {
	Changes int64 // rows that it inserted, updated or deleted
	rows    *result
}

// Rows gives each row. It stays valid.
func (r Result) Rows() iter.Seq[db.Row] {
	return func(yield func(db.Row) bool) {
		for i := range r.rows.n {
			if !yield(r.rows.row(i)) {
				return
			}
		}
	}
}

// Len is the number of rows.
func (r Result) Len() int { return r.rows.n }

// Pipeline runs statements in one round trip. Outside of a transaction they are one that is committed: all of them take
// place or none. An error of the kind Gone then has the transaction's number, if it got so far: another connection's
// Outcome tells what became of it; with no number, look for its rows. Within a transaction, that stays open, and has
// failed after an error.
//
// What is under way is not interrupted, neither by ctx nor by Interrupt.
func (c *Conn) Pipeline(ctx context.Context, calls []Call) ([]Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &c.run
	s.guard.enter()
	defer s.guard.leave()
	if s.link.lost != nil {
		return nil, s.link.lose(nil)
	}
	s.guard.protect(true)
	defer s.guard.protect(false)
	results := make([]Result, len(calls))
	lone := s.link.bare()
	var xid result
	err := s.again(func() error {
		xid.empty()
		s.prefix()
		if lone {
			s.link.send(s.stmts.own(transactionID), nil, "", 0, &xid)
			s.link.front.Send(&pgproto3.Flush{}) // it should arrive before the end of all
		}
		octets := 0
		portal := s.portal()
		for i, call := range calls {
			results[i] = Result{rows: new(result)}
			octets += s.enqueue(call.Query, call.Args, portal, 0, results[i].rows)
			if portal != "" {
				s.link.front.SendClose(&pgproto3.Close{ObjectType: 'P', Name: portal})
			}
		}
		return s.link.exchange(octets)
	})
	switch {
	case s.link.lost != nil && !lone:
		return nil, s.link.inDoubt(err, s.xid)
	case s.link.lost != nil:
		return nil, s.link.inDoubt(err, xid.xid())
	case err != nil:
		return nil, err
	}
	for i := range results {
		results[i].Changes = results[i].rows.changes
	}
	return results, nil
}
