// Package sqlite is a thin binding to the SQLite engine of modernc.org/sqlite, without database/sql:
// prepared statements that stay compiled, arguments that are copied once, and the few calls that
// database/sql does not expose (checkpoints, page counts, the errno behind an error).
//
// A Conn belongs to one goroutine at a time; only Interrupt may come from another. Every error of the
// engine is an *Error with its extended result code. Nothing here retries: the store decides what an
// error means.
package sqlite

import (
	"errors"
	"fmt"
	"iter"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"postern/internal/errno"
	"postern/relay/store/internal/db"
)

// Result codes that callers tell apart (primary ones; the upper bits refine them).
const (
	Busy      = lib.SQLITE_BUSY
	Full      = lib.SQLITE_FULL
	IOErr     = lib.SQLITE_IOERR
	Corrupt   = lib.SQLITE_CORRUPT
	NotADB    = lib.SQLITE_NOTADB
	ReadOnly  = lib.SQLITE_READONLY
	CantOpen  = lib.SQLITE_CANTOPEN
	Interrupt = lib.SQLITE_INTERRUPT
)

// Error is a failure that the engine reported.
type Error struct {
	Code  int           // extended result code
	Errno syscall.Errno // of the system call behind it, 0 if there was none
	Msg   string
}

func (e *Error) Error() string {
	if e.Errno != 0 {
		return fmt.Sprintf("%s (sqlite %d: %s)", e.Msg, e.Code, e.Errno.Error())
	}
	return fmt.Sprintf("%s (sqlite %d)", e.Msg, e.Code)
}

// Primary is the result code without its refinement.
func (e *Error) Primary() int { return e.Code & 0xff }

// CodeOf returns the primary result code in err, 0 if it holds none.
func CodeOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Primary()
	}
	return 0
}

// Kind implements db.Error.
func (e *Error) Kind() db.Kind {
	switch e.Code {
	case lib.SQLITE_CONSTRAINT_PRIMARYKEY, lib.SQLITE_CONSTRAINT_ROWID:
		return db.Taken
	case lib.SQLITE_IOERR_WRITE, lib.SQLITE_IOERR_SHMSIZE, lib.SQLITE_IOERR_TRUNCATE:
		if errno.Full(e.Errno) || e.Errno == errno.TooLarge {
			return db.Full
		}
	case lib.SQLITE_IOERR_NOMEM, lib.SQLITE_IOERR_LOCK, lib.SQLITE_IOERR_SHMLOCK, lib.SQLITE_IOERR_RDLOCK,
		lib.SQLITE_IOERR_UNLOCK:
		return db.Other
	}
	switch e.Primary() {
	case Interrupt:
		return db.Interrupted
	case Busy:
		return db.Busy
	case Full:
		return db.Full
	case IOErr, Corrupt, NotADB, ReadOnly:
		return db.Damaged
	}
	return db.Other
}

// Conn is one connection to a database file.
type Conn struct {
	tls   *libc.TLS
	db    uintptr
	stmts map[string]*Stmt
	hooks []syncFunc
}

var patch = sync.OnceFunc(func() {
	lib.PatchIssue199()
	keepHeld()
})

// Open opens the database file at path, which must exist.
func Open(path string) (*Conn, error) { return open(path, lib.SQLITE_OPEN_READWRITE) }

// OpenFrozen opens the database file at path as it lies there: nothing is written, nothing is locked and no file is
// made beside it. What its log has that is not in the file is not seen.
func OpenFrozen(path string) (*Conn, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if path = filepath.ToSlash(path); !strings.HasPrefix(path, "/") { // a drive of Windows
		path = "/" + path
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: "immutable=1"}
	return open(name.String(), lib.SQLITE_OPEN_READONLY|lib.SQLITE_OPEN_URI)
}

func open(path string, how int32) (*Conn, error) {
	patch()
	c := &Conn{tls: libc.NewTLS(), stmts: map[string]*Stmt{}}
	name, err := libc.CString(path)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, name)
	out := libc.Xcalloc(c.tls, 1, 8)
	if out == 0 {
		return nil, errNoMemory
	}
	defer libc.Xfree(c.tls, out)
	rc := lib.Xsqlite3_open_v2(c.tls, name, out, how|lib.SQLITE_OPEN_NOMUTEX|lib.SQLITE_OPEN_EXRESCODE, 0)
	c.db = *(*uintptr)(pointer(out))
	if rc != lib.SQLITE_OK {
		err := c.error(rc)
		c.Close()
		return nil, err
	}
	if err := c.noCheckpointOnClose(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// noCheckpointOnClose leaves checkpoints to whoever knows that syncing still works: the engine would
// otherwise make one when the last connection closes, also after an earlier sync had failed.
func (c *Conn) noCheckpointOnClose() error {
	args := libc.Xcalloc(c.tls, 2, 16)
	if args == 0 {
		return errNoMemory
	}
	defer libc.Xfree(c.tls, args)
	if rc := lib.Xsqlite3_db_config(c.tls, c.db, lib.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
		libc.VaList(args, int32(1), uintptr(0))); rc != lib.SQLITE_OK {
		return c.error(rc)
	}
	return nil
}

var errNoMemory = &Error{Code: lib.SQLITE_NOMEM, Msg: "out of memory"}

// pointer turns an address outside the Go heap into a pointer.
func pointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

func (c *Conn) error(rc int32) *Error {
	e := &Error{Code: int(rc), Msg: libc.GoString(lib.Xsqlite3_errstr(c.tls, rc))}
	if c.db == 0 {
		return e
	}
	if lib.Xsqlite3_extended_errcode(c.tls, c.db) == rc {
		e.Msg = libc.GoString(lib.Xsqlite3_errmsg(c.tls, c.db))
	}
	if p := e.Primary(); p == lib.SQLITE_IOERR || p == lib.SQLITE_CANTOPEN || p == lib.SQLITE_FULL {
		e.Errno = syscall.Errno(lib.Xsqlite3_system_errno(c.tls, c.db))
	}
	return e
}

// Close finalizes all statements and closes the connection. It may be called twice.
func (c *Conn) Close() error {
	if c.tls == nil {
		return nil
	}
	for _, s := range c.stmts {
		s.finalize()
	}
	var err error
	if c.db != 0 {
		if rc := lib.Xsqlite3_close_v2(c.tls, c.db); rc != lib.SQLITE_OK {
			err = c.error(rc)
		}
	}
	c.tls.Close()
	c.tls, c.db, c.stmts = nil, 0, nil
	return err
}

// BusyTimeout makes the connection wait for the locks of others, in milliseconds.
func (c *Conn) BusyTimeout(ms int) { lib.Xsqlite3_busy_timeout(c.tls, c.db, int32(ms)) }

// Exec runs statements that take no arguments and whose rows nobody wants.
func (c *Conn) Exec(script string) error {
	text, err := libc.CString(script)
	if err != nil {
		return err
	}
	defer libc.Xfree(c.tls, text)
	if rc := lib.Xsqlite3_exec(c.tls, c.db, text, 0, 0, 0); rc != lib.SQLITE_OK {
		return c.error(rc)
	}
	return nil
}

// prepare returns the compiled form of one statement. The connection keeps it: asking again with the
// same text costs a map access. The text must come from code, never from data.
func (c *Conn) prepare(query string) (*Stmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	text, err := libc.CString(query)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, text)
	out := libc.Xcalloc(c.tls, 1, 8)
	if out == 0 {
		return nil, errNoMemory
	}
	defer libc.Xfree(c.tls, out)
	if rc := lib.Xsqlite3_prepare_v3(c.tls, c.db, text, -1, lib.SQLITE_PREPARE_PERSISTENT, out,
		0); rc != lib.SQLITE_OK {
		return nil, fmt.Errorf("prepare %.60q: %w", query, c.error(rc))
	}
	s := &Stmt{c: c, p: *(*uintptr)(pointer(out))}
	c.stmts[query] = s
	return s, nil
}

// Run runs a statement that gives no rows.
func (c *Conn) Run(query string, args ...any) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	defer s.reset()
	s.bind(args)
	_, err = s.step()
	return err
}

// Rows runs a query and gives each of its rows, valid until the next, or the error that ends it. A statement that
// changes something has to be read to its end. The same query must not run within the loop.
func (c *Conn) Rows(query string, args ...any) iter.Seq2[db.Row, error] {
	return func(yield func(db.Row, error) bool) {
		s, err := c.prepare(query)
		if err != nil {
			yield(nil, err)
			return
		}
		defer s.reset()
		s.bind(args)
		for {
			row, err := s.step()
			if err != nil {
				yield(nil, err)
				return
			}
			if !row || !yield(s, nil) {
				return
			}
		}
	}
}

// Int runs a query that gives one number; ok is false when it gives no row or NULL.
func (c *Conn) Int(query string, args ...any) (n int64, ok bool, err error) {
	for row, err := range c.Rows(query, args...) {
		if err != nil {
			return 0, false, err
		}
		if lib.Xsqlite3_column_type(c.tls, row.(*Stmt).p, 0) != lib.SQLITE_NULL {
			n, ok = row.Int(0), true
		}
	}
	return n, ok, nil
}

// Changes is the number of rows that the last INSERT, UPDATE or DELETE touched.
func (c *Conn) Changes() int64 { return lib.Xsqlite3_changes64(c.tls, c.db) }

// TotalChanges is the number of rows that were inserted, updated or deleted since the connection was opened, whether
// committed or not.
func (c *Conn) TotalChanges() int64 { return lib.Xsqlite3_total_changes64(c.tls, c.db) }

// InTransaction reports whether a transaction is open.
func (c *Conn) InTransaction() bool { return lib.Xsqlite3_get_autocommit(c.tls, c.db) == 0 }

// Interrupt ends what the connection runs with the code Interrupt. It may be called from any goroutine
// while the connection is not being closed.
func (c *Conn) Interrupt() {
	tls := libc.NewTLS()
	defer tls.Close()
	lib.Xsqlite3_interrupt(tls, c.db)
}

// PagesWritten returns how many pages the connection wrote since the last call.
func (c *Conn) PagesWritten() int {
	out := libc.Xcalloc(c.tls, 2, 4)
	if out == 0 {
		return 0
	}
	defer libc.Xfree(c.tls, out)
	lib.Xsqlite3_db_status(c.tls, c.db, lib.SQLITE_DBSTATUS_CACHE_WRITE, out, out+4, 1)
	return int(*(*int32)(pointer(out)))
}

// Checkpoint copies pages from the write-ahead log into the database file, as many as it can without
// waiting for anybody, and syncs. It returns the pages in the log and how many of them are copied.
func (c *Conn) Checkpoint() (inLog, copied int, err error) {
	return c.checkpoint(lib.SQLITE_CHECKPOINT_PASSIVE)
}

// EmptyLog copies all pages and cuts the log to nothing. It waits for others as BusyTimeout says.
func (c *Conn) EmptyLog() error {
	_, _, err := c.checkpoint(lib.SQLITE_CHECKPOINT_TRUNCATE)
	return err
}

func (c *Conn) checkpoint(mode int32) (inLog, copied int, err error) {
	out := libc.Xcalloc(c.tls, 2, 4)
	if out == 0 {
		return 0, 0, errNoMemory
	}
	defer libc.Xfree(c.tls, out)
	if rc := lib.Xsqlite3_wal_checkpoint_v2(c.tls, c.db, 0, mode, out, out+4); rc != lib.SQLITE_OK {
		return 0, 0, c.error(rc)
	}
	return int(*(*int32)(pointer(out))), int(*(*int32)(pointer(out + 4))), nil
}
