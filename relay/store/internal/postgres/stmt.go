package postgres

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unsafe"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Types of values: https://www.postgresql.org/docs/15/catalog-pg-type.html, pg_type.dat of its sources.
const (
	oidBool    = 16
	oidBytea   = 17
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidText    = 25
	oidOid     = 26
	oidFloat4  = 700
	oidFloat8  = 701
	oidBytes   = 1001 // bytea[]
	oidInts    = 1016 // bigint[]
	oidFloats  = 1022 // double precision[]
	oidVarchar = 1043
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

// statement returns the statement of a query for arguments of these types.
func (c *Conn) statement(query string, params []uint32) *stmt {
	first := c.stmts[query]
	for s := first; s != nil; s = s.other {
		if slices.Equal(s.params, params) {
			return s
		}
	}
	s := &stmt{params: slices.Clone(params), other: first}
	if first != nil {
		s.text = first.text
	} else {
		s.text = Translate(query)
	}
	if !c.server.Pooled {
		c.names++
		s.name = "s" + strconv.Itoa(c.names)
	}
	c.stmts[query] = s
	return s
}

// forget makes the server prepare all statements anew, under other names.
func (c *Conn) forget() {
	for _, s := range c.stmts {
		for ; s != nil; s = s.other {
			if s.known {
				c.names++
				s.name, s.known = "s"+strconv.Itoa(c.names), false
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

// keepArena bounds what is kept for the next statement, in octets.
const keepArena = 512 << 10

func (a *scratch) release() {
	clear(a.values)
	if cap(a.arena) > keepArena {
		a.arena = nil
	}
}

var binaryFormat = []int16{1}

// send queues a statement, with the messages that make the server know it, for its first so many rows (0: all). It
// returns about how many octets that is.
func (c *Conn) send(s *stmt, values [][]byte, portal string, most uint32, out *result) (octets int) {
	if s.name == "" || !s.known && !s.asked {
		c.front.SendParse(&pgproto3.Parse{Name: s.name, Query: s.text, ParameterOIDs: s.params})
		c.front.SendDescribe(&pgproto3.Describe{ObjectType: 'S', Name: s.name})
		s.asked = true
		octets += len(s.text)
	}
	c.front.SendBind(&pgproto3.Bind{
		DestinationPortal: portal, PreparedStatement: s.name, ParameterFormatCodes: binaryFormat, Parameters: values,
		ResultFormatCodes: binaryFormat,
	})
	c.front.SendExecute(&pgproto3.Execute{Portal: portal, MaxRows: most})
	c.queue = append(c.queue, call{s, out})
	for _, v := range values {
		octets += len(v)
	}
	return octets
}

// enqueue queues a query with arguments.
func (c *Conn) enqueue(query string, args []any, portal string, most uint32, out *result) (octets int) {
	c.scratch.bind(args)
	defer c.scratch.release()
	return c.send(c.statement(query, c.scratch.types), c.scratch.values, portal, most, out)
}
