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

// pipelineOctets is how much is sent before anything is read. It fits into the buffers of the network, so that the
// server can always answer.
const pipelineOctets = 32 << 10

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
	c.enter()
	defer c.leave()
	if c.lost != nil {
		return nil, c.lose(nil)
	}
	c.protect(true)
	defer c.protect(false)
	results := make([]Result, len(calls))
	var xid result
	err := c.again(func() error {
		lone := c.status == idle && c.cursors == 0
		xid.empty()
		c.prefix()
		if lone {
			c.send(c.own(transactionID), nil, "", 0, &xid)
			c.front.Send(&pgproto3.Flush{}) // it should arrive before the end of all
		}
		octets := 0
		portal := c.portal()
		for i, call := range calls {
			results[i] = Result{rows: new(result)}
			octets += c.enqueue(call.Query, call.Args, portal, 0, results[i].rows)
			if portal != "" {
				c.front.SendClose(&pgproto3.Close{ObjectType: 'P', Name: portal})
			}
		}
		return c.exchange(octets)
	})
	switch {
	case c.lost != nil:
		return nil, c.inDoubt(err, xid.xid())
	case err != nil:
		return nil, err
	}
	for i := range results {
		results[i].Changes = results[i].rows.changes
	}
	return results, nil
}

// exchange is answers for as much as there may be.
func (c *Conn) exchange(octets int) error {
	if octets < pipelineOctets {
		return c.answers(true)
	}
	c.front.SendSync(&pgproto3.Sync{})
	c.arm()
	sent := make(chan error, 1)
	go func() { sent <- c.front.Flush() }()
	err := c.read(true)
	if failed := <-sent; failed != nil && c.lost == nil {
		return c.lose(failed)
	}
	return err
}
