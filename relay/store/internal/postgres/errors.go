package postgres

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"postern/internal/errno"
	"postern/relay/store/internal/db"
)

// Error is a failure that the server reported, or of the way to it.
type Error struct {
	Code string // SQLSTATE; "" if the server did not say
	Msg  string // of the server; without values of rows
	XID  XID    // of the transaction whose end is not known, if it has one: ask Outcome
	Err  error  // of the network, or nil

	kind db.Kind
}

// Kind implements db.Error.
func (e *Error) Kind() db.Kind { return e.kind }

func (e *Error) Unwrap() error { return e.Err }

func (e *Error) Error() string {
	text := e.Msg
	if e.Code != "" {
		text = fmt.Sprintf("%s (postgresql %s)", text, e.Code)
	}
	if e.Err != nil {
		text += ": " + oneLine(e.Err.Error())
	}
	if todo := cmp.Or(todo(e.Code), unreached(e.Err)); todo != "" {
		text += ": " + todo
	}
	return text
}

// unreached is what a person can do about a way to the server that does not lead there.
func unreached(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &name):
		return "check the host in [store] url"
	case errors.As(err, &certificate):
		return "the server needs a certificate of an authority that is known here (sslrootcert in [store] url) with " +
			"the name that [store] url has"
	case errors.Is(err, errno.Refused):
		return "see whether the database server runs, on this port, and listens there (listen_addresses)"
	}
	return ""
}

// oneLine joins what pgconn says of several addresses.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' }), "; ")
}

// SQLSTATE codes: https://www.postgresql.org/docs/15/errcodes-appendix.html
const (
	uniqueViolation = "23505"
	readOnly        = "25006"
	diskFull        = "53100"
	outOfMemory     = "53200"
	tooManyConns    = "53300"
	lockNotFree     = "55P03"
	queryCanceled   = "57014"
	ioError         = "58030"
	undefinedFile   = "58P01"
	dataCorrupted   = "XX001"
	indexCorrupted  = "XX002"
)

// kindOf says what a SQLSTATE means. An error of the disk (58030) is not Damaged: the server ends itself, and recovers,
// when it cannot sync its log, so that what it confirmed can be trusted still. It cannot write at present.
func kindOf(code, constraint string) db.Kind {
	switch code {
	case uniqueViolation:
		if strings.HasSuffix(constraint, "_pkey") { // PostgreSQL's own name for a primary key
			return db.Taken
		}
		return db.Other
	case lockNotFree, "40P01", "40001", queryCanceled, outOfMemory:
		return db.Busy
	case diskFull:
		return db.Full
	case tooManyConns, "57P01", "57P02", "57P03", "57P05", "25P03":
		return db.Gone
	case readOnly, ioError:
		return db.ReadOnly
	case "42501", "3D000", "3F000", "42P01", "42703":
		return db.Refused
	case dataCorrupted, indexCorrupted, undefinedFile:
		return db.Damaged
	}
	switch {
	case strings.HasPrefix(code, "08"):
		return db.Gone
	case strings.HasPrefix(code, "28"):
		return db.Refused
	}
	return db.Other
}

// todo is what a person can do about an error.
func todo(code string) string {
	switch code {
	case readOnly:
		return "it is a standby or was made read-only: name the primary, or all hosts, in [store] url"
	case diskFull:
		return "make room on the disk of the database server"
	case outOfMemory:
		return "the database server needs more memory, or less work_mem and fewer connections"
	case tooManyConns:
		return "raise max_connections of the database server, or the limit of the role or database"
	case lockNotFree, queryCanceled:
		return "see pg_stat_activity for what holds it up; it is tried again"
	case "42501":
		return "the role needs to own Postern's tables and to be able to create some in its schema"
	case "3D000":
		return "create the database, owned by Postern's role, or correct [store] url"
	case "42P01", "42703", "3F000":
		return "Postern's tables are not what it made: is it the right database and search_path?"
	case ioError:
		return "look at the disk and the log of the database server"
	case dataCorrupted, indexCorrupted, undefinedFile:
		return "the database is damaged: look with pg_amcheck, and restore it or promote its standby"
	case "57P03":
		return "the database server is starting or stopping"
	}
	if strings.HasPrefix(code, "28") {
		return "check user and password in [store] url, and pg_hba.conf of the database server"
	}
	return ""
}

// CodeOf returns the SQLSTATE of an error, if it has one.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// TimedOut reports that a statement, or its wait for a lock, took too long. So would another try.
func TimedOut(err error) bool {
	code := CodeOf(err)
	return code == lockNotFree || code == queryCanceled
}

// LockTimedOut reports that a lock was held by somebody else for too long.
func LockTimedOut(err error) bool { return CodeOf(err) == lockNotFree }

// serverError is an error message of the server.
func serverError(m *pgproto3.ErrorResponse) *Error {
	e := &Error{Code: m.Code, Msg: m.Message, kind: kindOf(m.Code, m.ConstraintName)}
	if m.Code == "0A000" && m.Routine == "RevalidateCachedQuery" { // the schema was changed: prepared anew, it works
		e.kind = db.Busy
	}
	return e
}

// connectError explains why there is no connection.
func connectError(ctx context.Context, err error) error {
	e := &Error{Msg: "the database cannot be reached", Err: err, kind: db.Gone}
	var said *pgconn.PgError
	switch {
	case errors.Is(err, pgconn.ErrReadOnlyConnection):
		e.Code, e.kind = readOnly, db.ReadOnly
	case errors.As(err, &said):
		e.Code, e.kind = said.Code, kindOf(said.Code, "")
		if e.kind == db.Other {
			e.kind = db.Gone
		}
	}
	if ctx.Err() != nil {
		e.Err = errors.Join(ctx.Err(), err)
	}
	return e
}
