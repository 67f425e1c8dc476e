package postgres

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unsafe"
)

// Types of values: https://www.postgresql.org/docs/15/catalog-pg-type.html, pg_type.dat of its sources.
const (
	oidBool    = 16
	oidBytea   = 17
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidOid     = 26
	oidFloat4  = 700
	oidFloat8  = 701
	oidBytes   = 1001 // bytea[]
	oidInts    = 1016 // bigint[]
	oidFloats  = 1022 // double precision[]
	oidNumeric = 1700
	oidXID8    = 5069
)

// stmt is a statement with the types of its arguments.
type stmt struct {
	text    string // in the dialect of PostgreSQL
	name    string // of the prepared statement; "": it is prepared for each use
	params  []uint32
	columns []uint32 // types
	known   bool     // to the server
	asked   bool     // Parse is sent
	other   *stmt    // the same query with arguments of other types
}

// statements are those that a connection ran.
type statements struct {
	pooled bool             // each is prepared for each use
	all    map[string]*stmt // by query
	names  int              // of prepared statements
}

// of returns the statement of a query for arguments of these types.
func (p *statements) of(query string, params []uint32) *stmt {
	first := p.all[query]
	for s := first; s != nil; s = s.other {
		if slices.Equal(s.params, params) {
			return s
		}
	}
	s := &stmt{params: slices.Clone(params), other: first, name: p.name()}
	if first != nil {
		s.text = first.text
	} else {
		s.text = Translate(query)
	}
	p.all[query] = s
	return s
}

// own returns a statement of this package, in the dialect of PostgreSQL.
func (p *statements) own(text string) *stmt {
	s := p.all[text]
	if s == nil {
		s = &stmt{text: text, name: p.name()}
		p.all[text] = s
	}
	return s
}

func (p *statements) name() string {
	if p.pooled {
		return ""
	}
	p.names++
	return "s" + strconv.Itoa(p.names)
}

// forget makes the server prepare all statements anew, under other names.
func (p *statements) forget() {
	for _, s := range p.all {
		for ; s != nil; s = s.other {
			if s.known {
				s.name, s.known = p.name(), false
			}
		}
	}
}

// scratch is memory for the arguments of one statement.
type scratch struct {
	types  []uint32
	values [][]byte
	spans  []int // of values in arena; -1: values has it
	arena  []byte
}

// bind encodes arguments in binary.
func (a *scratch) bind(args []any) {
	a.types, a.values, a.spans, a.arena = a.types[:0], a.values[:0], a.spans[:0], a.arena[:0]
	for i, arg := range args {
		from := len(a.arena)
		var oid uint32
		switch v := arg.(type) {
		case string:
			a.whole(unsafe.Slice(unsafe.StringData(v), len(v)))
			continue
		case []byte:
			a.whole(v)
			continue
		case int:
			oid, a.arena = oidInt8, binary.BigEndian.AppendUint64(a.arena, uint64(v))
		case int64:
			oid, a.arena = oidInt8, binary.BigEndian.AppendUint64(a.arena, uint64(v))
		case bool:
			oid, a.arena = oidInt8, binary.BigEndian.AppendUint64(a.arena, bit(v))
		case float64:
			oid, a.arena = oidFloat8, binary.BigEndian.AppendUint64(a.arena, math.Float64bits(v))
		default:
			if oid = a.array(arg); oid == 0 {
				panic(fmt.Sprintf("postgres: argument %d is a %T", i+1, arg))
			}
		}
		a.types = append(a.types, oid)
		a.values = append(a.values, nil)
		a.spans = append(a.spans, from)
	}
	end := len(a.arena) // it does not move any more
	for i := len(a.values) - 1; i >= 0; i-- {
		if from := a.spans[i]; from >= 0 {
			a.values[i] = a.arena[from:end:end]
			end = from
		}
	}
}

// whole is a bytea that the caller keeps until it is sent. An empty one is not NULL.
func (a *scratch) whole(v []byte) {
	if len(v) == 0 {
		v = []byte{}
	}
	a.types, a.values, a.spans = append(a.types, oidBytea), append(a.values, v), append(a.spans, -1)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// array encodes a slice and returns its type, 0 if it is none.
func (a *scratch) array(arg any) uint32 {
	switch v := arg.(type) {
	case []int64:
		numbers(a, oidInt8, v, func(n int64) uint64 { return uint64(n) })
		return oidInts
	case []int:
		numbers(a, oidInt8, v, func(n int) uint64 { return uint64(n) })
		return oidInts
	case []bool:
		numbers(a, oidInt8, v, bit)
		return oidInts
	case []float64:
		numbers(a, oidFloat8, v, math.Float64bits)
		return oidFloats
	case []string:
		texts(a, v)
		return oidBytes
	case [][]byte:
		texts(a, v)
		return oidBytes
	}
	return 0
}

// head begins an array of one dimension, or of none where it is empty: array_recv in arrayfuncs.c of PostgreSQL.
func (a *scratch) head(oid uint32, n int) {
	dimensions := uint32(min(n, 1))
	a.arena = binary.BigEndian.AppendUint32(a.arena, dimensions)
	a.arena = binary.BigEndian.AppendUint32(a.arena, 0) // no NULL
	a.arena = binary.BigEndian.AppendUint32(a.arena, oid)
	if n > 0 {
		a.arena = binary.BigEndian.AppendUint32(a.arena, uint32(n))
		a.arena = binary.BigEndian.AppendUint32(a.arena, 1) // the first index
	}
}

func numbers[T any](a *scratch, oid uint32, all []T, bits func(T) uint64) {
	a.head(oid, len(all))
	for _, v := range all {
		a.arena = binary.BigEndian.AppendUint32(a.arena, 8)
		a.arena = binary.BigEndian.AppendUint64(a.arena, bits(v))
	}
}

func texts[T string | []byte](a *scratch, all []T) {
	a.head(oidBytea, len(all))
	for _, v := range all {
		a.arena = binary.BigEndian.AppendUint32(a.arena, uint32(len(v)))
		a.arena = append(a.arena, v...)
	}
}

// keepArena bounds what is kept for the next statement, in octets: the arguments of a thousand events of the trace fit.
const keepArena = 1 << 20

func (a *scratch) release() {
	clear(a.values)
	if cap(a.arena) > keepArena {
		a.arena = nil
	}
}

var binaryFormat = []int16{1}
