package sqlite

import (
	"fmt"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// Stmt is a compiled statement at one of its rows. Columns are counted from 0. An error of bind is kept and returned by
// step.
type Stmt struct {
	c   *Conn
	p   uintptr
	err error

	// arena holds copies of the bound texts and blobs outside the Go heap until reset.
	arena     uintptr
	size, off int
	spent     []uintptr // blocks that became too small while arguments in them are still bound
}

// keepArena bounds what a statement keeps for the next use, in octets.
const keepArena = 512 << 10

func (s *Stmt) alloc(n int) uintptr {
	n = (n + 16) &^ 15 // at least one octet, so that an empty text has an address and is not NULL
	if s.off+n > s.size {
		if s.arena != 0 {
			s.spent = append(s.spent, s.arena)
		}
		s.size, s.off = max(2*s.size, n, 256), 0
		s.arena = libc.Xmalloc(s.c.tls, libc.Tsize_t(s.size))
		if s.arena == 0 {
			s.size, s.err = 0, errNoMemory
			return 0
		}
	}
	p := s.arena + uintptr(s.off)
	s.off += n
	return p
}

func (s *Stmt) check(rc int32) {
	if rc != lib.SQLITE_OK && s.err == nil {
		s.err = s.c.error(rc)
	}
}

// bind sets the arguments, from the first on, to copies of values. A blob that is nil is empty, not NULL.
func (s *Stmt) bind(values []any) {
	for i, value := range values {
		n := int32(i + 1)
		switch v := value.(type) {
		case int:
			s.check(lib.Xsqlite3_bind_int64(s.c.tls, s.p, n, int64(v)))
		case int64:
			s.check(lib.Xsqlite3_bind_int64(s.c.tls, s.p, n, v))
		case bool:
			var bit int64
			if v {
				bit = 1
			}
			s.check(lib.Xsqlite3_bind_int64(s.c.tls, s.p, n, bit))
		case float64:
			s.check(lib.Xsqlite3_bind_double(s.c.tls, s.p, n, v))
		case string:
			if p := s.alloc(len(v)); p != 0 {
				copy(octets(p, len(v)), v)
				s.check(lib.Xsqlite3_bind_text(s.c.tls, s.p, n, p, int32(len(v)), 0))
			}
		case []byte:
			if p := s.alloc(len(v)); p != 0 {
				copy(octets(p, len(v)), v)
				s.check(lib.Xsqlite3_bind_blob(s.c.tls, s.p, n, p, int32(len(v)), 0))
			}
		default:
			panic(fmt.Sprintf("sqlite: argument %d is a %T", n, value))
		}
	}
}

// step runs the statement up to its next row and reports whether there is one.
func (s *Stmt) step() (bool, error) {
	if s.err != nil {
		return false, s.err
	}
	switch rc := lib.Xsqlite3_step(s.c.tls, s.p); rc {
	case lib.SQLITE_ROW:
		return true, nil
	case lib.SQLITE_DONE:
		return false, nil
	default:
		s.err = s.c.error(rc)
		return false, s.err
	}
}

// reset makes the statement ready for its next use and lets go of its arguments.
func (s *Stmt) reset() {
	lib.Xsqlite3_reset(s.c.tls, s.p) // repeats the error that Step returned
	s.err, s.off = nil, 0
	for _, p := range s.spent {
		libc.Xfree(s.c.tls, p)
	}
	s.spent = s.spent[:0]
	if s.size > keepArena {
		libc.Xfree(s.c.tls, s.arena)
		s.arena, s.size = 0, 0
	}
}

func (s *Stmt) finalize() {
	s.reset()
	lib.Xsqlite3_finalize(s.c.tls, s.p)
	if s.arena != 0 {
		libc.Xfree(s.c.tls, s.arena)
	}
}

// Int returns column i of the row.
func (s *Stmt) Int(i int) int64 { return lib.Xsqlite3_column_int64(s.c.tls, s.p, int32(i)) }

// Float returns column i of the row.
func (s *Stmt) Float(i int) float64 { return lib.Xsqlite3_column_double(s.c.tls, s.p, int32(i)) }

// Bool reports whether column i of the row is not 0.
func (s *Stmt) Bool(i int) bool { return s.Int(i) != 0 }

// Text returns a copy of column i of the row.
func (s *Stmt) Text(i int) string { return string(s.raw(i)) }

// Blob returns a copy of column i of the row.
func (s *Stmt) Blob(i int) []byte { return append([]byte(nil), s.raw(i)...) }

// AppendBlob appends column i of the row to b.
func (s *Stmt) AppendBlob(b []byte, i int) []byte { return append(b, s.raw(i)...) }

// raw is column i where the engine keeps it, valid until the next call for the statement.
func (s *Stmt) raw(i int) []byte {
	p := lib.Xsqlite3_column_blob(s.c.tls, s.p, int32(i))
	if p == 0 {
		return nil
	}
	return octets(p, int(lib.Xsqlite3_column_bytes(s.c.tls, s.p, int32(i))))
}

func octets(p uintptr, n int) []byte { return unsafe.Slice((*byte)(pointer(p)), n) }
