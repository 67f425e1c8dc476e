// Package db is what the store needs of a database: statements and their rows, and what an error means. SQLite
// (package sqlite) and PostgreSQL (package postgres) implement it. All statements are written once, in the SQL of
// SQLite; package postgres translates them.
//
// A Conn belongs to one goroutine at a time; only Interrupt may come from another.
package db

import (
	"errors"
	"iter"
)

// Conn is one connection to a database.
//
// Arguments are int, int64, bool, float64, string and []byte; a nil []byte is empty, not NULL. They stand for ?, the
// n-th for the n-th of them, or for ?1, ?2 and so on. The text of a query comes from code, never from data.
type Conn interface {
	// Exec runs statements that take no arguments and whose rows nobody wants.
	Exec(script string) error
	// Run runs a statement that gives no rows.
	Run(query string, args ...any) error
	// Rows runs a query and gives each of its rows, valid until the next, or the error that ends it. A statement that
	// changes something has to be read to its end. The same query must not run within the loop.
	Rows(query string, args ...any) iter.Seq2[Row, error]
	// Int runs a query that gives one number; ok is false when it gives no row or NULL.
	Int(query string, args ...any) (n int64, ok bool, err error)
	// Changes is the number of rows that the last INSERT, UPDATE or DELETE touched.
	Changes() int64
	// TotalChanges is the number of rows that were inserted, updated or deleted since the connection was opened,
	// whether committed or not.
	TotalChanges() int64
	// InTransaction reports whether a transaction is open.
	InTransaction() bool
	// Interrupt ends what the connection runs with the kind Interrupted. It may be called from any goroutine while the
	// connection is not being closed.
	Interrupt()
	// Close closes the connection. It may be called twice.
	Close() error
}

// Row is a row of a query. Columns are counted from 0.
type Row interface {
	Int(i int) int64
	Float(i int) float64
	Bool(i int) bool // is it not 0
	Text(i int) string
	Blob(i int) []byte // a copy
	// AppendBlob appends column i to b.
	AppendBlob(b []byte, i int) []byte
}

// Kind is what an error of a database means for its user.
type Kind uint8

// The kinds of errors.
const (
	Other       Kind = iota // also nil: of the statement, or of nothing known
	Interrupted             // by Interrupt
	Busy                    // a lock of somebody else was held for too long
	Taken                   // a row was not inserted since its primary key is another row's
	Full                    // no room: freeing some mends it, and nothing was changed
	Damaged                 // what is stored, or its disk: nothing that is written now can be trusted
	ReadOnly                // nothing can be written at present
	Refused                 // this user may not: login, privileges, schema
	Gone                    // the connection is lost, and a commit under way may or may not have taken place
)

// Error is implemented by the errors of both engines.
type Error interface {
	error
	Kind() Kind
}

// KindOf returns the kind of an error that an engine reported, Other if there is none in err.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[Error](err); ok {
		return e.Kind()
	}
	return Other
}
