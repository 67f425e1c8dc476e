package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"postern/relay/store/internal/db"
)

// call is a statement whose answer is awaited.
type call struct {
	s   *stmt
	out *result // nil: nobody wants its rows
}

// errProtocol: the server says what it should not.
var errProtocol = errors.New("an unexpected message of the server")

// lose notes that the connection is of no use any more.
func (c *Conn) lose(err error) *Error {
	if c.lost == nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			e = &Error{Msg: "the connection to the database was lost", Err: err}
		}
		e.kind = db.Gone
		c.lost = e
		_ = c.net.Close()
	}
	c.queue = c.queue[:0]
	lost := *c.lost
	if c.isStopped() {
		lost.kind = db.Interrupted
	}
	return &lost
}

// receive returns the next message that belongs to what is awaited.
func (c *Conn) receive() (pgproto3.BackendMessage, error) {
	for {
		msg, err := c.front.Receive()
		if err != nil {
			return nil, c.lose(err)
		}
		switch m := msg.(type) {
		case *pgproto3.NotificationResponse, *pgproto3.ParameterStatus, *pgproto3.CloseComplete:
			continue
		case *pgproto3.NoticeResponse:
			c.alone = c.alone || m.Routine == "SyncRepWaitForLSN"
			continue
		case *pgproto3.ErrorResponse:
			if m.SeverityUnlocalized == "FATAL" || m.SeverityUnlocalized == "PANIC" {
				return nil, c.lose(serverError(m))
			}
			if c.owed > 0 { // of a query whose rows were read
				continue
			}
		case *pgproto3.ReadyForQuery:
			c.status = m.TxStatus
			if c.owed > 0 {
				c.owed--
				continue
			}
		}
		return msg, nil
	}
}

// arm bounds how long the next answer may take.
func (c *Conn) arm() {
	var until time.Time
	if c.limits.statement > 0 {
		until = time.Now().Add(c.limits.statement + grace)
	}
	_ = c.net.SetDeadline(until)
}

// flush sends what is queued.
func (c *Conn) flush() error {
	c.arm()
	if err := c.front.Flush(); err != nil {
		return c.lose(err)
	}
	return nil
}

// answers sends what is queued and reads the answer of each statement. With sync it also ends the implicit transaction
// of statements outside of a transaction. After an error nothing is queued, and outside of a transaction nothing of
// all since the last sync has happened.
func (c *Conn) answers(sync bool) error {
	if sync {
		c.front.SendSync(&pgproto3.Sync{})
	} else {
		c.front.Send(&pgproto3.Flush{})
	}
	if err := c.flush(); err != nil {
		return err
	}
	return c.read(sync)
}

func (c *Conn) read(sync bool) error {
	var err error
	for _, call := range c.queue {
		if err = c.answer(call); err != nil {
			break
		}
	}
	switch {
	case c.lost != nil:
		return err
	case err != nil:
		return c.resync(err, sync)
	}
	c.queue = c.queue[:0]
	if !sync {
		return nil
	}
	return c.ready()
}

// resync makes the connection usable after an error of a statement.
func (c *Conn) resync(cause error, synced bool) error {
	for _, call := range c.queue {
		call.s.asked = false
	}
	c.queue = c.queue[:0]
	c.aborts++
	c.cursors = 0
	if e, ok := errors.AsType[*Error](cause); ok && (e.Code == "26000" || e.Code == "0A000") {
		c.forget()
	}
	if !synced {
		c.front.SendSync(&pgproto3.Sync{})
		if err := c.flush(); err != nil {
			return err
		}
	}
	for {
		switch msg, err := c.receive(); msg.(type) {
		case nil:
			return errors.Join(cause, err)
		case *pgproto3.ReadyForQuery:
			return cause
		}
	}
}

// ready waits for the end of what was sent, where an implicit transaction is committed.
func (c *Conn) ready() error {
	msg, err := c.receive()
	switch m := msg.(type) {
	case nil:
		return err
	case *pgproto3.ReadyForQuery:
		return c.confirmed()
	case *pgproto3.ErrorResponse:
		return c.resync(c.explain(m), true)
	}
	return c.lose(fmt.Errorf("%w: %T", errProtocol, msg))
}

// confirmed is an error if a commit came back before its standby had it: somebody canceled the wait.
func (c *Conn) confirmed() error {
	if !c.alone {
		return nil
	}
	c.alone = false
	return &Error{Msg: "committed, but the wait for the standby was canceled: it may be lost with the primary"}
}

func (c *Conn) explain(m *pgproto3.ErrorResponse) *Error {
	e := serverError(m)
	if e.Code == queryCanceled && c.isStopped() {
		e.kind = db.Interrupted
	}
	return e
}

// answer reads the answer of one statement.
func (c *Conn) answer(call call) error {
	for {
		msg, err := c.receive()
		switch m := msg.(type) {
		case nil:
			return err
		case *pgproto3.ParseComplete:
			call.s.asked, call.s.known = false, call.s.name != ""
		case *pgproto3.RowDescription:
			call.s.columns = call.s.columns[:0]
			for _, f := range m.Fields {
				call.s.columns = append(call.s.columns, f.DataTypeOID)
			}
		case *pgproto3.DataRow:
			if call.out != nil {
				call.out.add(m.Values)
			}
		case *pgproto3.CommandComplete:
			call.done(c, m.CommandTag)
			return nil
		case *pgproto3.PortalSuspended:
			call.out.types, call.out.suspended = call.s.columns, true
			return nil
		case *pgproto3.EmptyQueryResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("%.60q: %w", call.s.text, c.explain(m))
		case *pgproto3.ParameterDescription, *pgproto3.NoData, *pgproto3.BindComplete:
		default: // COPY, for one
			return c.lose(fmt.Errorf("%w: %T", errProtocol, msg))
		}
	}
}

// done notes what a statement did, as its tag says: INSERT 0 1, UPDATE 3, SELECT 2, BEGIN.
func (l call) done(c *Conn, tag []byte) {
	verb, rest, _ := bytes.Cut(tag, []byte(" "))
	var n int64
	if changed := string(verb); changed == "INSERT" || changed == "UPDATE" || changed == "DELETE" {
		n, _ = strconv.ParseInt(string(rest[bytes.LastIndexByte(rest, ' ')+1:]), 10, 64)
		c.changes = n
		c.total += n
	}
	if l.out != nil {
		l.out.types, l.out.suspended, l.out.changes = l.s.columns, false, n
		l.out.verb = string(verb)
	}
}

// sync waits for a ReadyForQuery that is owed.
func (c *Conn) sync() error {
	c.arm()
	for owed := c.owed; c.owed == owed; {
		msg, err := c.front.Receive()
		if err != nil {
			return c.lose(err)
		}
		if m, ok := msg.(*pgproto3.ReadyForQuery); ok {
			c.status = m.TxStatus
			c.owed--
		}
	}
	return nil
}
