package postgres

import (
	"errors"

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

// Begin starts a transaction that writes and returns its number, in one round trip.
func (c *Conn) Begin() (XID, error) {
	c.run.guard.enter()
	defer c.run.guard.leave()
	var out result
	if err := c.run.begin("BEGIN", &out); err != nil {
		return XID{}, err
	}
	c.run.xid = out.xid()
	return c.run.xid, nil
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
	c.run.guard.enter()
	defer c.run.guard.leave()
	return c.run.commit()
}

// Rollback ends a transaction, of which nothing is stored.
func (c *Conn) Rollback() error {
	c.run.guard.enter()
	defer c.run.guard.leave()
	return c.run.rollback()
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
	c.run.guard.enter()
	defer c.run.guard.leave()
	if x.ID == 0 {
		return Unknown, nil
	}
	var out result
	err := c.run.execute(`SELECT CASE WHEN `+timeline+` = convert_from($2, 'UTF8'::name)
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
	c.run.guard.enter()
	defer c.run.guard.leave()
	return c.run.execute(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE pid <> pg_backend_pid() AND backend_xid = ($1::text::xid8)::xid`, []any{x.ID}, nil)
}
