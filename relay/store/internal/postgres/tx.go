package postgres

import (
	"errors"
	"fmt"

	"postern/relay/store/internal/db"
)

// XID names a transaction of a server. The zero value names none.
type XID struct {
	ID       int64
	Timeline string // a promoted standby has another, on which the same number may be another transaction
}

// transactionID gives a transaction its number.
const transactionID = "SELECT pg_current_xact_id(), " + timeline

// timeline is the first part of the name of a file of the log: https://www.postgresql.org/docs/15/functions-admin.html
const timeline = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"

// own is a statement of this package, in the dialect of PostgreSQL.
func (c *Conn) own(text string) *stmt {
	if s := c.stmts[text]; s != nil {
		return s
	}
	s := &stmt{text: text}
	if !c.server.Pooled {
		c.names++
		s.name = fmt.Sprintf("s%d", c.names)
	}
	c.stmts[text] = s
	return s
}

// transaction runs what begins or ends a transaction.
func (c *Conn) transaction(query string) (handled bool, err error) {
	switch query {
	case "BEGIN", "BEGIN IMMEDIATE":
		return true, c.begin(Translate(query), nil)
	case "COMMIT":
		return true, c.commit()
	case "ROLLBACK":
		return true, c.rollback()
	}
	return false, nil
}

func (c *Conn) begin(text string, out *result) error {
	switch {
	case c.lost != nil:
		return c.lose(nil)
	case c.status != idle || c.cursors > 0:
		return errors.New("postgres: a transaction is open already")
	}
	c.xid = XID{}
	c.send(c.own(text), nil, "", 0, nil)
	if c.local != nil {
		c.send(c.local, nil, "", 0, nil)
	}
	if out != nil {
		c.send(c.own(transactionID), nil, "", 0, out)
	}
	err := c.answers(true)
	if err != nil && c.InTransaction() { // the settings, or the number
		err = errors.Join(err, c.rollback())
	}
	return err
}

// Begin starts a transaction that writes and returns its number, in one round trip.
func (c *Conn) Begin() (XID, error) {
	c.enter()
	defer c.leave()
	var out result
	if err := c.begin("BEGIN", &out); err != nil {
		return XID{}, err
	}
	c.xid = out.xid()
	return c.xid, nil
}

func (r *result) xid() XID {
	if r.n == 0 {
		return XID{}
	}
	return XID{r.row(0).Int(0), r.row(0).Text(1)}
}

// Commit ends a transaction. An error of the kind Gone has the transaction's number, if Begin started it: another
// connection's Outcome tells what became of it. With any other kind nothing of it is stored, unless the error says so.
func (c *Conn) Commit() error {
	c.enter()
	defer c.leave()
	return c.commit()
}

func (c *Conn) commit() error {
	if c.lost != nil { // before COMMIT was sent: the server has rolled it back
		return c.lose(nil)
	}
	if c.status == idle {
		return errors.New("postgres: there is no transaction to commit")
	}
	c.protect(true)
	defer c.protect(false)
	var out result
	c.send(c.own("COMMIT"), nil, c.portal(), 0, &out)
	err := c.answers(true)
	switch {
	case c.lost != nil:
		return c.inDoubt(err, c.xid)
	case err == nil && out.verb == "ROLLBACK":
		return &Error{Msg: "the transaction had failed before: nothing of it is stored"}
	}
	return err
}

// inDoubt notes which transaction may have been committed.
func (c *Conn) inDoubt(err error, xid XID) error {
	lost := *c.lost
	lost.XID = xid
	if e, ok := errors.AsType[*Error](err); ok && e.Err != nil {
		lost.Err = e.Err
	}
	return &lost
}

// Rollback ends a transaction, of which nothing is stored.
func (c *Conn) Rollback() error {
	c.enter()
	defer c.leave()
	return c.rollback()
}

func (c *Conn) rollback() error {
	if c.lost != nil || c.status == idle {
		return nil
	}
	c.send(c.own("ROLLBACK"), nil, c.portal(), 0, nil)
	return c.answers(true)
}

// Outcome is what became of a transaction.
type Outcome uint8

// What becomes of a transaction.
const (
	Unknown    Outcome = iota // the server was replaced by another, or forgot: look for its rows
	Committed                 // all of it is stored
	Aborted                   // nothing of it is stored
	InProgress                // ask again; End ends it
)

// Outcome asks what became of a transaction of another connection.
func (c *Conn) Outcome(x XID) (Outcome, error) {
	c.enter()
	defer c.leave()
	if x.ID == 0 {
		return Unknown, nil
	}
	var out result
	err := c.execute(`SELECT CASE WHEN `+timeline+` = convert_from($2, 'UTF8'::name)
		THEN pg_xact_status($1::text::xid8) END`, []any{x.ID, x.Timeline}, &out)
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Code {
		case "22023": // not begun yet: it is another server
			return Unknown, nil
		case "55000": // a standby has no log of its own
			return Unknown, &Error{Code: readOnly, Msg: e.Msg, kind: db.ReadOnly}
		}
	}
	if err != nil {
		return Unknown, err
	}
	switch out.row(0).Text(0) {
	case "committed":
		return Committed, nil
	case "aborted":
		return Aborted, nil
	case "in progress":
		return InProgress, nil
	}
	return Unknown, nil
}

// End ends a transaction of a connection that was lost but which the server still waits for.
func (c *Conn) End(x XID) error {
	c.enter()
	defer c.leave()
	return c.execute(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE pid <> pg_backend_pid() AND backend_xid = ($1::text::xid8)::xid`, []any{x.ID}, nil)
}
