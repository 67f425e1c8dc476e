package postgres

import (
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5/pgproto3"

	"postern/relay/store/internal/db"
)

// Run runs a statement that gives no rows.
func (c *Conn) Run(query string, args ...any) error {
	c.run.guard.enter()
	defer c.run.guard.leave()
	return c.run.execute(query, args, nil)
}

// Int runs a query that gives one number; ok is false when it gives no row or NULL.
func (c *Conn) Int(query string, args ...any) (n int64, ok bool, err error) {
	c.run.guard.enter()
	defer c.run.guard.leave()
	var out result
	if err := c.run.execute(query, args, &out); err != nil || out.n == 0 {
		return 0, false, err
	}
	v, oid, null := out.row(out.n - 1).value(0)
	if null {
		return 0, false, nil
	}
	return toInt(v, oid), true, nil
}

// Rows runs a query and gives each of its rows, valid until the next, or the error that ends it. Other statements may
// run within the loop. Outside of a transaction the loop has to end within the time of a statement.
func (c *Conn) Rows(query string, args ...any) iter.Seq2[db.Row, error] {
	return func(yield func(db.Row, error) bool) {
		c.run.guard.enter()
		defer c.run.guard.leave()
		l := loop{of: &c.run}
		err := l.start(query, args)
		defer l.end()
		for err == nil {
			for i := range l.rows.n {
				if c.run.guard.isStopped() {
					yield(nil, &Error{Msg: "interrupted", kind: db.Interrupted})
					return
				}
				if !yield(l.rows.row(i), nil) {
					return
				}
			}
			if !l.rows.suspended {
				return
			}
			err = l.next()
		}
		yield(nil, err)
	}
}

// loop reads the rows of a query in parts.
type loop struct {
	of     *session
	s      *stmt
	portal string
	rows   result
	aborts int  // of the connection when it began
	lone   bool // outside of a transaction
	open   bool // there may be more rows
}

// start sends the query and reads its first rows. Outside of a transaction the rest is there until the next sync.
func (l *loop) start(query string, args []any) error {
	c := l.of.link
	if c.lost != nil {
		return c.lose(nil)
	}
	l.lone = c.status == idle
	err := l.of.again(func() error {
		l.of.prefix()
		l.portal = l.of.portal()
		l.of.enqueue(query, args, l.portal, firstRows, &l.rows)
		l.s = c.queue[len(c.queue)-1].s
		return c.answers(!l.lone)
	})
	if err != nil {
		return err
	}
	l.aborts = c.aborts
	switch {
	case l.rows.suspended:
		l.open = true
		if l.lone {
			c.cursors++
		}
	case l.lone && c.cursors == 0 && l.rows.verb == "SELECT":
		return l.release()
	case l.lone && c.cursors == 0: // it changed something, which is to be committed
		return c.answers(true)
	}
	return nil
}

// next reads more rows.
func (l *loop) next() error {
	c := l.of.link
	if c.lost != nil {
		return c.lose(nil)
	}
	if c.aborts != l.aborts {
		return &Error{Msg: "an error within the loop over a query has ended the query"}
	}
	most := l.rows.more()
	l.rows.empty()
	c.front.SendExecute(&pgproto3.Execute{Portal: l.portal, MaxRows: most})
	c.queue = append(c.queue, call{l.s, &l.rows})
	return c.answers(!l.lone)
}

// end lets go of rows that were not read.
func (l *loop) end() {
	c := l.of.link
	if !l.open || c.lost != nil || c.aborts != l.aborts {
		return
	}
	c.front.SendClose(&pgproto3.Close{ObjectType: 'P', Name: l.portal})
	if !l.lone {
		return // it goes with the next statement
	}
	if c.cursors--; c.cursors == 0 {
		_ = l.release() // a lost connection shows with the next statement
	}
}

// release ends the implicit transaction of a query. Nobody waits for the answer, but for that of a pooler, which may
// give the connection away while the next statement is half sent.
func (l *loop) release() error {
	if l.of.stmts.pooled {
		return l.of.link.answers(true)
	}
	l.of.link.front.SendSync(&pgproto3.Sync{})
	if err := l.of.link.flush(); err != nil {
		return err
	}
	l.of.link.owed++
	return nil
}

// Exec runs statements that take no arguments and whose rows nobody wants.
func (c *Conn) Exec(script string) error {
	c.run.guard.enter()
	defer c.run.guard.leave()
	l := c.run.link
	if l.lost != nil {
		return l.lose(nil)
	}
	if l.cursors > 0 {
		return errors.New("postgres: a script within a loop over rows")
	}
	l.front.SendQuery(&pgproto3.Query{String: Translate(script)})
	if err := l.flush(); err != nil {
		return err
	}
	for {
		msg, err := l.receive()
		switch m := msg.(type) {
		case nil:
			return err
		case *pgproto3.CommandComplete:
			call{}.done(l, m.CommandTag)
		case *pgproto3.ErrorResponse:
			return l.resync(l.explain(m), true)
		case *pgproto3.ReadyForQuery:
			return l.confirmed()
		case *pgproto3.RowDescription, *pgproto3.DataRow, *pgproto3.EmptyQueryResponse:
		default:
			return l.lose(fmt.Errorf("%w: %T", errProtocol, msg))
		}
	}
}
