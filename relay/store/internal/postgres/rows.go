package postgres

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// How many rows are asked for at once: at first, and later as many as make so many octets.
const (
	firstRows   = 128
	mostRows    = 4096
	batchOctets = 256 << 10
)

// result holds rows of a statement, and what it did.
type result struct {
	types     []uint32 // of columns
	data      []byte   // values, one after another
	ends      []int    // of values in data
	nulls     []bool   // of values
	n         int      // rows
	suspended bool     // there are more
	changes   int64
	verb      string // of the statement, when it is done
}

func (r *result) add(values [][]byte) {
	for _, v := range values {
		r.data = append(r.data, v...)
		r.ends = append(r.ends, len(r.data))
		r.nulls = append(r.nulls, v == nil)
	}
	r.n++
}

func (r *result) empty() {
	r.data, r.ends, r.nulls, r.n = r.data[:0], r.ends[:0], r.nulls[:0], 0
}

// more is how many rows to ask for after these.
func (r *result) more() uint32 {
	average := max(len(r.data)/max(r.n, 1), 1)
	return uint32(min(max(batchOctets/average, 1), mostRows))
}

func (r *result) row(i int) *Row { return &Row{r, i} }

// Row is a row of a result.
type Row struct {
	of *result
	at int
}

// value returns a column's octets and type; null: it has none.
func (r *Row) value(i int) (v []byte, oid uint32, null bool) {
	at := r.at*len(r.of.types) + i
	from := 0
	if at > 0 {
		from = r.of.ends[at-1]
	}
	return r.of.data[from:r.of.ends[at]], r.of.types[i], r.of.nulls[at]
}

// Int returns column i of the row, 0 for NULL.
func (r *Row) Int(i int) int64 {
	v, oid, null := r.value(i)
	if null {
		return 0
	}
	return toInt(v, oid)
}

func toInt(v []byte, oid uint32) int64 {
	switch oid {
	case oidInt8, oidXID8:
		return int64(binary.BigEndian.Uint64(v))
	case oidInt4:
		return int64(int32(binary.BigEndian.Uint32(v)))
	case oidOid:
		return int64(binary.BigEndian.Uint32(v))
	case oidInt2:
		return int64(int16(binary.BigEndian.Uint16(v)))
	case oidBool:
		return int64(v[0])
	case oidFloat8, oidFloat4, oidNumeric:
		return int64(toFloat(v, oid))
	}
	panic(fmt.Sprintf("postgres: a column of type %d is no number", oid))
}

// Float returns column i of the row, 0 for NULL.
func (r *Row) Float(i int) float64 {
	v, oid, null := r.value(i)
	if null {
		return 0
	}
	return toFloat(v, oid)
}

func toFloat(v []byte, oid uint32) float64 {
	switch oid {
	case oidFloat8:
		return math.Float64frombits(binary.BigEndian.Uint64(v))
	case oidFloat4:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(v)))
	case oidNumeric:
		return numeric(v)
	}
	return float64(toInt(v, oid))
}

// Bool reports whether column i of the row is not 0.
func (r *Row) Bool(i int) bool { return r.Int(i) != 0 }

// Text returns column i of the row.
func (r *Row) Text(i int) string {
	v, oid, _ := r.value(i)
	if b := text(v, oid); b != nil {
		return string(b)
	}
	return string(v)
}

// Blob returns a copy of column i of the row.
func (r *Row) Blob(i int) []byte { return r.AppendBlob(nil, i) }

// AppendBlob appends column i of the row to b.
func (r *Row) AppendBlob(b []byte, i int) []byte {
	v, oid, _ := r.value(i)
	if t := text(v, oid); t != nil {
		v = t
	}
	return append(b, v...)
}

// text is a number in words, as SQLite gives it; nil: it is a text.
func text(v []byte, oid uint32) []byte {
	switch oid {
	case oidInt8, oidInt4, oidInt2, oidBool:
		if len(v) > 0 {
			return strconv.AppendInt(nil, toInt(v, oid), 10)
		}
	case oidFloat8:
		if len(v) > 0 {
			return strconv.AppendFloat(nil, toFloat(v, oid), 'g', -1, 64)
		}
	}
	return nil
}

// numeric decodes a number of any precision, as sum gives it: numeric_send in numeric.c of PostgreSQL.
func numeric(v []byte) float64 {
	if len(v) < 8 {
		return math.NaN()
	}
	sign := binary.BigEndian.Uint16(v[4:])
	weight := int(int16(binary.BigEndian.Uint16(v[2:])))
	const negative, special = 0x4000, 0xc000
	if sign&special == special {
		return math.NaN()
	}
	n := 0.0
	for digits := v[8:]; len(digits) >= 2; digits = digits[2:] {
		n += float64(binary.BigEndian.Uint16(digits)) * math.Pow(10000, float64(weight))
		weight--
	}
	if sign == negative {
		return -n
	}
	return n
}
