package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
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

// idle is what ReadyForQuery says where no transaction is open.
const idle = 'I'

// link speaks the protocol: what it sends is queued until the answers are asked for.
type link struct {
	net   net.Conn
	front *pgproto3.Frontend
	limit time.Duration // of a statement; 0: none
	grace time.Duration // patience
	guard *guard
	stmts *statements

	queue   []call // sent or about to be, in order
	memory  []byte // for what is queued, where that is much
	status  byte   // as ReadyForQuery said
	owed    int    // ReadyForQuery that nobody waited for
	cursors int    // loops of Rows outside of transactions that have not read all
	aborts  int    // counts errors, after which no cursor is left
	alone   bool   // a commit did not wait for its standby
	lost    *Error // the connection is of no use

	changes, total int64
}

func (l *link) inTransaction() bool { return l.lost == nil && l.status != idle }

// bare reports that the next statement is a transaction of its own.
func (l *link) bare() bool { return l.status == idle && l.cursors == 0 }

// errProtocol: the server says what it should not.
var errProtocol = errors.New("an unexpected message of the server")

// lose notes that the connection is of no use any more.
func (l *link) lose(err error) *Error {
	if l.lost == nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			e = &Error{Msg: "the connection to the database was lost", Err: err}
		}
		e.kind = db.Gone
		l.lost = e
		_ = l.net.Close()
	}
	l.queue = l.queue[:0]
	lost := *l.lost
	if l.guard.isStopped() {
		lost.kind = db.Interrupted
	}
	return &lost
}

// receive returns the next message that belongs to what is awaited.
func (l *link) receive() (pgproto3.BackendMessage, error) {
	for {
		msg, err := l.front.Receive()
		if err != nil {
			return nil, l.lose(err)
		}
		switch m := msg.(type) {
		case *pgproto3.NotificationResponse, *pgproto3.ParameterStatus, *pgproto3.CloseComplete:
			continue
		case *pgproto3.NoticeResponse:
			l.alone = l.alone || m.Routine == "SyncRepWaitForLSN"
			continue
		case *pgproto3.ErrorResponse:
			if m.SeverityUnlocalized == "FATAL" || m.SeverityUnlocalized == "PANIC" {
				return nil, l.lose(serverError(m))
			}
			if l.owed > 0 { // of a query whose rows were read
				continue
			}
		case *pgproto3.ReadyForQuery:
			l.status = m.TxStatus
			if l.owed > 0 {
				l.owed--
				continue
			}
		}
		return msg, nil
	}
}

// arm bounds how long the next answer may take.
func (l *link) arm() {
	var until time.Time
	if l.limit > 0 {
		until = time.Now().Add(l.limit + l.grace)
	}
	l.guard.bound(l.net, until)
}

// flush sends what is queued.
func (l *link) flush() error {
	l.arm()
	if err := l.front.Flush(); err != nil {
		return l.lose(err)
	}
	return nil
}

// answers sends what is queued and reads the answer of each statement. With sync it also ends the implicit transaction
// of statements outside of a transaction. After an error nothing is queued, and outside of a transaction nothing of
// all since the last sync has happened.
func (l *link) answers(sync bool) error {
	if sync {
		l.front.SendSync(&pgproto3.Sync{})
	} else {
		l.front.Send(&pgproto3.Flush{})
	}
	if err := l.flush(); err != nil {
		return err
	}
	return l.read(sync)
}

func (l *link) read(sync bool) error {
	var err error
	for _, call := range l.queue {
		if err = l.answer(call); err != nil {
			break
		}
	}
	switch {
	case l.lost != nil:
		return err
	case err != nil:
		return l.resync(err, sync)
	}
	l.queue = l.queue[:0]
	if !sync {
		return nil
	}
	return l.ready()
}

// resync makes the connection usable after an error of a statement.
func (l *link) resync(cause error, synced bool) error {
	for _, call := range l.queue {
		call.s.asked = false
	}
	l.queue = l.queue[:0]
	l.aborts++
	l.cursors = 0
	if e, ok := errors.AsType[*Error](cause); ok && (e.Code == "26000" || e.Code == "0A000") {
		l.stmts.forget()
	}
	if !synced {
		l.front.SendSync(&pgproto3.Sync{})
		if err := l.flush(); err != nil {
			return err
		}
	}
	for {
		switch msg, err := l.receive(); msg.(type) {
		case nil:
			return errors.Join(cause, err)
		case *pgproto3.ReadyForQuery:
			return cause
		}
	}
}

// ready waits for the end of what was sent, where an implicit transaction is committed.
func (l *link) ready() error {
	msg, err := l.receive()
	switch m := msg.(type) {
	case nil:
		return err
	case *pgproto3.ReadyForQuery:
		return l.confirmed()
	case *pgproto3.ErrorResponse:
		return l.resync(l.explain(m), true)
	}
	return l.lose(fmt.Errorf("%w: %T", errProtocol, msg))
}

// confirmed is an error if a commit came back before its standby had it: somebody canceled the wait.
func (l *link) confirmed() error {
	if !l.alone {
		return nil
	}
	l.alone = false
	return &Error{Msg: "committed, but the wait for the standby was canceled: it may be lost with the primary"}
}

func (l *link) explain(m *pgproto3.ErrorResponse) *Error {
	e := serverError(m)
	if e.Code == queryCanceled && l.guard.isStopped() {
		e.kind = db.Interrupted
	}
	return e
}

// answer reads the answer of one statement.
func (l *link) answer(call call) error {
	for {
		msg, err := l.receive()
		switch m := msg.(type) {
		case nil:
			return err
		case *pgproto3.ParseComplete:
			call.s.asked, call.s.known = false, call.s.name != ""
		case *pgproto3.RowDescription:
			call.s.columns = make([]uint32, 0, len(m.Fields)) // results have the former one
			for _, f := range m.Fields {
				call.s.columns = append(call.s.columns, f.DataTypeOID)
			}
		case *pgproto3.DataRow:
			if call.out != nil {
				call.out.add(m.Values)
				call.out.types = call.s.columns // also where the end of the answer never comes
			}
		case *pgproto3.CommandComplete:
			call.done(l, m.CommandTag)
			return nil
		case *pgproto3.PortalSuspended:
			call.out.types, call.out.suspended = call.s.columns, true
			return nil
		case *pgproto3.EmptyQueryResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("%.60q: %w", call.s.text, l.explain(m))
		case *pgproto3.ParameterDescription, *pgproto3.NoData, *pgproto3.BindComplete:
		default: // COPY, for one
			return l.lose(fmt.Errorf("%w: %T", errProtocol, msg))
		}
	}
}

// done notes what a statement did, as its tag says: INSERT 0 1, UPDATE 3, SELECT 2, BEGIN.
func (a call) done(l *link, tag []byte) {
	verb, rest, _ := bytes.Cut(tag, []byte(" "))
	var n int64
	if changed := string(verb); changed == "INSERT" || changed == "UPDATE" || changed == "DELETE" {
		n, _ = strconv.ParseInt(string(rest[bytes.LastIndexByte(rest, ' ')+1:]), 10, 64)
		l.changes = n
		l.total += n
	}
	if a.out != nil {
		a.out.types, a.out.suspended, a.out.changes = a.s.columns, false, n
		a.out.verb = string(verb)
	}
}

// sync waits for a ReadyForQuery that is owed.
func (l *link) sync() error {
	l.arm()
	for owed := l.owed; l.owed == owed; {
		msg, err := l.front.Receive()
		if err != nil {
			return l.lose(err)
		}
		if m, ok := msg.(*pgproto3.ReadyForQuery); ok {
			l.status = m.TxStatus
			l.owed--
		}
	}
	return nil
}

// send queues a statement, with the messages that make the server know it, for its first so many rows (0: all). It
// returns about how many octets that is.
func (l *link) send(s *stmt, values [][]byte, portal string, most uint32, out *result) (octets int) {
	if s.name == "" || !s.known && !s.asked {
		l.front.SendParse(&pgproto3.Parse{Name: s.name, Query: s.text, ParameterOIDs: s.params})
		l.front.SendDescribe(&pgproto3.Describe{ObjectType: 'S', Name: s.name})
		s.asked = true
		octets += len(s.text)
	}
	for _, v := range values {
		octets += len(v)
	}
	octets += bindOctets
	if octets > frontendKeeps {
		l.front.Send(room{l, octets})
	}
	l.front.SendBind(&pgproto3.Bind{
		DestinationPortal: portal, PreparedStatement: s.name, ParameterFormatCodes: binaryFormat, Parameters: values,
		ResultFormatCodes: binaryFormat,
	})
	l.front.SendExecute(&pgproto3.Execute{Portal: portal, MaxRows: most})
	l.queue = append(l.queue, call{s, out})
	return octets
}

// frontendKeeps is the memory that a Frontend keeps from one write to the next, in octets.
const frontendKeeps = 1 << 10

// room is no message. It moves what is queued to memory that is used again, where so many octets are to come: a
// Frontend would make its own grow anew for each large write.
type room struct {
	link   *link
	octets int
}

// Encode implements pgproto3.Message.
func (r room) Encode(queued []byte) ([]byte, error) {
	l, need := r.link, len(queued)+r.octets
	switch {
	case need <= cap(queued):
		return queued, nil
	case need > keepArena:
		return slices.Grow(queued, r.octets), nil
	case need > cap(l.memory):
		l.memory = make([]byte, 0, min(need+need/2, keepArena))
	}
	return append(l.memory[:0], queued...), nil
}

// Decode implements pgproto3.Message.
func (room) Decode([]byte) error { return errProtocol }

// Frontend implements pgproto3.FrontendMessage.
func (room) Frontend() {}

// bindOctets is about what the use of a statement takes, beside its arguments.
const bindOctets = 128

// pipelineOctets is how much is sent before anything is read. It fits into the buffers of the network, so that the
// server can always answer.
const pipelineOctets = 32 << 10

// exchange is answers for as much as there may be.
func (l *link) exchange(octets int) error {
	if octets < pipelineOctets {
		return l.answers(true)
	}
	l.front.SendSync(&pgproto3.Sync{})
	l.arm()
	sent := make(chan error, 1)
	go func() { sent <- l.front.Flush() }()
	err := l.read(true)
	if failed := <-sent; failed != nil && l.lost == nil {
		return l.lose(failed)
	}
	return err
}

// inDoubt notes which transaction may have been committed.
func (l *link) inDoubt(err error, xid XID) error {
	lost := *l.lost
	lost.XID = xid
	if e, ok := errors.AsType[*Error](err); ok && e.Err != nil {
		lost.Err = e.Err
	}
	return &lost
}
