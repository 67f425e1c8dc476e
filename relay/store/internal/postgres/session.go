package postgres

import (
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"postern/relay/store/internal/db"
)

// session runs statements and transactions over a link.
type session struct {
	link    *link
	stmts   *statements
	guard   *guard
	local   *stmt // makes our settings within a transaction; nil: they were made for the session
	scratch scratch
	xid     XID // of the transaction that Begin started
}

func newSession(pg *pgconn.PgConn, pooled bool) session {
	s := session{stmts: &statements{pooled: pooled, all: map[string]*stmt{}}, guard: &guard{}}
	s.link = &link{net: pg.Conn(), front: pg.Frontend(), grace: patience, guard: s.guard, stmts: s.stmts, status: idle}
	return s
}

// settle makes sure that pgconn can use the connection for a moment: nothing runs and no answer is owed.
func (s *session) settle() error {
	if !s.link.bare() {
		return errors.New("postgres: a transaction is open")
	}
	if s.link.lost != nil {
		return s.link.lost
	}
	for s.link.owed > 0 {
		if err := s.link.sync(); err != nil {
			return err
		}
	}
	return s.link.net.SetDeadline(time.Time{})
}

// enqueue queues a query with arguments. It returns about how many octets that is.
func (s *session) enqueue(query string, args []any, portal string, most uint32, out *result) (octets int) {
	s.scratch.bind(args)
	defer s.scratch.release()
	return s.link.send(s.stmts.of(query, s.scratch.types), s.scratch.values, portal, most, out)
}

// execute runs one statement to its end.
func (s *session) execute(query string, args []any, out *result) error {
	if s.link.lost != nil {
		return s.link.lose(nil)
	}
	if handled, err := s.transaction(query); handled {
		return err
	}
	return s.again(func() error {
		s.prefix()
		s.enqueue(query, args, s.portal(), 0, out)
		return s.link.answers(s.link.cursors == 0)
	})
}

// again repeats a statement outside of a transaction whose plan was made before the schema was changed.
func (s *session) again(run func() error) error {
	whole := s.link.bare()
	err := run()
	e, ok := errors.AsType[*Error](err)
	if ok && whole && (e.Code == "0A000" && e.kind == db.Busy || e.Code == "26000") {
		return run()
	}
	return err
}

// prefix queues our settings for a transaction that begins with the next statement.
func (s *session) prefix() {
	if s.local != nil && s.link.bare() {
		s.link.send(s.local, nil, "", 0, nil)
	}
}

// portal names where the server keeps rows: one for each loop within another.
func (s *session) portal() string {
	depth := s.guard.calls()
	if depth <= 1 {
		return ""
	}
	name := "p" + strconv.Itoa(depth)
	s.link.front.SendClose(&pgproto3.Close{ObjectType: 'P', Name: name}) // of a former loop
	return name
}

// transaction runs what begins or ends a transaction.
func (s *session) transaction(query string) (handled bool, err error) {
	switch query {
	case "BEGIN", "BEGIN IMMEDIATE":
		return true, s.begin(Translate(query), nil)
	case "COMMIT":
		return true, s.commit()
	case "ROLLBACK":
		return true, s.rollback()
	}
	return false, nil
}

func (s *session) begin(text string, out *result) error {
	switch {
	case s.link.lost != nil:
		return s.link.lose(nil)
	case !s.link.bare():
		return errors.New("postgres: a transaction is open already")
	}
	s.xid = XID{}
	s.link.send(s.stmts.own(text), nil, "", 0, nil)
	if s.local != nil {
		s.link.send(s.local, nil, "", 0, nil)
	}
	if out != nil {
		s.link.send(s.stmts.own(transactionID), nil, "", 0, out)
	}
	err := s.link.answers(true)
	if err != nil && s.link.inTransaction() { // the settings, or the number
		err = errors.Join(err, s.rollback())
	}
	return err
}

func (s *session) commit() error {
	if s.link.lost != nil { // before COMMIT was sent: the server has rolled it back
		return s.link.lose(nil)
	}
	if s.link.status == idle {
		return errors.New("postgres: there is no transaction to commit")
	}
	s.guard.protect(true)
	defer s.guard.protect(false)
	var out result
	s.link.send(s.stmts.own("COMMIT"), nil, s.portal(), 0, &out)
	err := s.link.answers(true)
	switch {
	case s.link.lost != nil:
		return s.link.inDoubt(err, s.xid)
	case err == nil && out.verb == "ROLLBACK":
		return &Error{Msg: "the transaction had failed before: nothing of it is stored"}
	}
	return err
}

func (s *session) rollback() error {
	if s.link.lost != nil || s.link.status == idle {
		return nil
	}
	s.link.send(s.stmts.own("ROLLBACK"), nil, s.portal(), 0, nil)
	return s.link.answers(true)
}
