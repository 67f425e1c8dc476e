package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"

	"postern/relay/store/internal/db"
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

// execute runs one statement to its end.
func (c *Conn) execute(query string, args []any, out *result) error {
	if c.lost != nil {
		return c.lose(nil)
	}
	if handled, err := c.transaction(query); handled {
		return err
	}
	return c.again(func() error {
		c.prefix()
		c.enqueue(query, args, c.portal(), 0, out)
		return c.answers(c.status != idle || c.cursors == 0)
	})
}

// again repeats a statement outside of a transaction whose plan was made before the schema was changed.
func (c *Conn) again(run func() error) error {
	whole := c.status == idle && c.cursors == 0
	err := run()
	if e, ok := errors.AsType[*Error](err); ok && whole && (e.Code == "0A000" && e.kind == db.Busy || e.Code == "26000") {
		return run()
	}
	return err
}

// prefix queues our settings for a transaction that begins with the next statement.
func (c *Conn) prefix() {
	if c.local != nil && c.status == idle && c.cursors == 0 {
		c.send(c.local, nil, "", 0, nil)
	}
}

// portal names where the server keeps rows: one for each loop within another.
func (c *Conn) portal() string {
	c.mu.Lock()
	depth := c.depth
	c.mu.Unlock()
	if depth <= 1 {
		return ""
	}
	name := "p" + strconv.Itoa(depth)
	c.front.SendClose(&pgproto3.Close{ObjectType: 'P', Name: name}) // of a former loop
	return name
}

// Run runs a statement that gives no rows.
func (c *Conn) Run(query string, args ...any) error {
	c.enter()
	defer c.leave()
	return c.execute(query, args, nil)
}

// Int runs a query that gives one number; ok is false when it gives no row or NULL.
func (c *Conn) Int(query string, args ...any) (n int64, ok bool, err error) {
	c.enter()
	defer c.leave()
	var out result
	if err := c.execute(query, args, &out); err != nil || out.n == 0 {
		return 0, false, err
	}
	v, oid, null := out.row(out.n - 1).value(0)
	if null {
		return 0, false, nil
	}
	return toInt(v, oid), true, nil
}

// Rows runs a query and gives each of its rows, valid until the next, or the error that ends it. Other statements may
// run within the loop. Outside of a transaction the loop has to end within the time of a statement.
func (c *Conn) Rows(query string, args ...any) iter.Seq2[db.Row, error] {
	return func(yield func(db.Row, error) bool) {
		c.enter()
		defer c.leave()
		l := loop{c: c}
		err := l.start(query, args)
		defer l.end()
		for err == nil {
			for i := range l.rows.n {
				if c.isStopped() {
					yield(nil, &Error{Msg: "interrupted", kind: db.Interrupted})
					return
				}
				if !yield(l.rows.row(i), nil) {
					return
				}
			}
			if !l.rows.suspended {
				return
			}
			err = l.next()
		}
		yield(nil, err)
	}
}

// loop reads the rows of a query in parts.
type loop struct {
	c      *Conn
	s      *stmt
	portal string
	rows   result
	aborts int  // of the connection when it began
	lone   bool // outside of a transaction
	open   bool // there may be more rows
}

// start sends the query and reads its first rows. Outside of a transaction the rest is there until the next sync.
func (l *loop) start(query string, args []any) error {
	c := l.c
	if c.lost != nil {
		return c.lose(nil)
	}
	l.lone = c.status == idle
	err := c.again(func() error {
		c.prefix()
		l.portal = c.portal()
		c.enqueue(query, args, l.portal, firstRows, &l.rows)
		l.s = c.queue[len(c.queue)-1].s
		return c.answers(!l.lone)
	})
	if err != nil {
		return err
	}
	l.aborts = c.aborts
	switch {
	case l.rows.suspended:
		l.open = true
		if l.lone {
			c.cursors++
		}
	case l.lone && c.cursors == 0 && l.rows.verb == "SELECT":
		return l.release()
	case l.lone && c.cursors == 0: // it changed something, which is to be committed
		return c.answers(true)
	}
	return nil
}

// next reads more rows.
func (l *loop) next() error {
	c := l.c
	if c.lost != nil {
		return c.lose(nil)
	}
	if c.aborts != l.aborts {
		return &Error{Msg: "an error within the loop over a query has ended the query"}
	}
	most := l.rows.more()
	l.rows.empty()
	c.front.SendExecute(&pgproto3.Execute{Portal: l.portal, MaxRows: most})
	c.queue = append(c.queue, call{l.s, &l.rows})
	return c.answers(!l.lone)
}

// end lets go of rows that were not read.
func (l *loop) end() {
	c := l.c
	if !l.open || c.lost != nil || c.aborts != l.aborts {
		return
	}
	c.front.SendClose(&pgproto3.Close{ObjectType: 'P', Name: l.portal})
	if !l.lone {
		return // it goes with the next statement
	}
	if c.cursors--; c.cursors == 0 {
		_ = l.release() // a lost connection shows with the next statement
	}
}

// release ends the implicit transaction of a query. Nobody waits for the answer.
func (l *loop) release() error {
	l.c.front.SendSync(&pgproto3.Sync{})
	if err := l.c.flush(); err != nil {
		return err
	}
	l.c.owed++
	return nil
}

// Exec runs statements that take no arguments and whose rows nobody wants.
func (c *Conn) Exec(script string) error {
	c.enter()
	defer c.leave()
	if c.lost != nil {
		return c.lose(nil)
	}
	if c.cursors > 0 {
		return errors.New("postgres: a script within a loop over rows")
	}
	c.front.SendQuery(&pgproto3.Query{String: Translate(script)})
	if err := c.flush(); err != nil {
		return err
	}
	for {
		msg, err := c.receive()
		switch m := msg.(type) {
		case nil:
			return err
		case *pgproto3.CommandComplete:
			call{}.done(c, m.CommandTag)
		case *pgproto3.ErrorResponse:
			return c.resync(c.explain(m), true)
		case *pgproto3.ReadyForQuery:
			return c.confirmed()
		case *pgproto3.RowDescription, *pgproto3.DataRow, *pgproto3.EmptyQueryResponse:
		default:
			return c.lose(fmt.Errorf("%w: %T", errProtocol, msg))
		}
	}
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
