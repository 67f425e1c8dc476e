package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"postern/relay/seal"
	"postern/relay/store/internal/db"
	"postern/relay/upstream/oauth"
)

// How much is moved at once: rows of one look, rows of one statement, and octets after which a look or a transaction
// ends.
const (
	moveRows   = 512
	moveInsert = 32
	moveOctets = 4 << 20
)

// table is one that is moved row by row, as SQLite describes it.
type table struct {
	name    string
	columns []column
	key     []int // columns, in the order of the primary key
}

type column struct {
	name string
	kind string // INTEGER, REAL, TEXT or BLOB
}

// notMoved are tables that say something of the place itself, or whose owners have ended.
var notMoved = map[string]bool{"migration": true, "store_move": true, "node": true, "leader": true, "acme_lock": true,
	"upstream_shared": true, "alert_told": true}

// otherwise are the tables that the engines have in different ways: see layout.
var otherwise = map[string]bool{"message": true, "message_body": true, "chunk": true, "content": true, "counter": true}

// saysNothing are tables that may have rows although nothing is in a store.
var saysNothing = map[string]bool{"search_state": true, "privacy_state": true, "stat_count": true, "generation": true}

// serverTimes are columns with times by the clock of the database: what is written with clock.nano.
var serverTimes = map[string]bool{
	"acme_item.modified": true, "api_answer.at": true, "console_flow.until": true, "console_keepsake.until": true,
	"lockout.until": true, "lockout_place.at": true, "console_lockout.until": true, "console_lockout_place.at": true,
}

// sealedColumn is a column with something sealed.
type sealedColumn struct {
	of    []string // columns that the label is made of
	label func(of []string) string
	// text: with the prefix sealed, in base64. Else octets.
	text bool
	// clear: an earlier version may have left it unsealed.
	clear bool
}

func labelOf(label func(string) string) func([]string) string {
	return func(of []string) string { return label(of[0]) }
}

// sealedColumns are all of them, by table and column.
var sealedColumns = map[string]sealedColumn{
	"secret.value":            {of: []string{"name"}, label: labelOf(secretLabel), clear: true},
	"console_user.totp":       {of: []string{"name"}, label: labelOf(totpLabel)},
	"console_keepsake.sealed": {of: []string{"owner"}, label: labelOf(keepsakeLabel)},
	"acme_item.sealed":        {of: []string{"key"}, label: labelOf(acmeLabel)},
	"upstream_grant.sealed":   {of: []string{"upstream"}, label: labelOf(oauth.SealLabel)},
	"scram_keys.sealed": {of: []string{"login"},
		label: labelOf(func(login string) string { return scramKind.label + login })},
	"cram_keys.sealed": {of: []string{"login"},
		label: labelOf(func(login string) string { return cramKind.label + login })},
	"api_answer.body": {of: []string{"key"}, label: labelOf(func(key string) string {
		var digest [32]byte
		copy(digest[:], key)
		return answerLabel(digest)
	})},
	"dkim_key.pem": {of: []string{"domain", "selector"}, text: true,
		label: func(of []string) string { return keyLabel(Key{Domain: of[0], Selector: of[1]}) }},
}

// movedTables are the tables that are moved row by row, as this version makes them.
func movedTables() ([]table, error) {
	conn, err := openConn(":memory:")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := prepareSchema(conn, nil); err != nil {
		return nil, err
	}
	return listTables(conn)
}

func listTables(conn db.Conn) (all []table, err error) {
	names, err := list(conn, text, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "+
		"ORDER BY name")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if notMoved[name] || otherwise[name] {
			continue
		}
		t := table{name: name}
		place := map[int]int64{} // in the key
		for row, err := range conn.Rows("PRAGMA table_info(" + name + ")") {
			if err != nil {
				return nil, err
			}
			if row.Int(5) > 0 {
				t.key = append(t.key, len(t.columns))
				place[len(t.columns)] = row.Int(5)
			}
			t.columns = append(t.columns, column{row.Text(1), row.Text(2)})
		}
		slices.SortFunc(t.key, func(a, b int) int { return int(place[a] - place[b]) })
		all = append(all, t)
	}
	return all, nil
}

func (t *table) names(which []int) string {
	names := make([]string, len(which))
	for i, c := range which {
		names[i] = t.columns[c].name
	}
	return strings.Join(names, ", ")
}

func (t *table) all() string {
	which := make([]int, len(t.columns))
	for i := range which {
		which[i] = i
	}
	return t.names(which)
}

func (t *table) at(name string) int {
	return slices.IndexFunc(t.columns, func(c column) bool { return c.name == name })
}

func marks(n int) string { return "(?" + strings.Repeat(", ?", n-1) + ")" }

// page reads rows behind one, nil for the first ones, in order of the key.
func (t *table) page(ctx context.Context, s *Store, after []any, limit int) (rows [][]any, octets int, err error) {
	query, args := "SELECT "+t.all()+" FROM "+t.name, []any(nil)
	if after != nil {
		query += " WHERE (" + t.names(t.key) + ") > " + marks(len(t.key))
		for _, c := range t.key {
			args = append(args, after[c])
		}
	}
	query += " ORDER BY " + t.names(t.key) + " LIMIT ?"
	err = s.readers.read(ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows(query, append(args, limit)...) {
			if err != nil {
				return err
			}
			values, n := t.scan(row)
			rows, octets = append(rows, values), octets+n
		}
		return nil
	})
	return rows, octets, err
}

func (t *table) scan(row db.Row) (values []any, octets int) {
	values = make([]any, len(t.columns))
	for i, c := range t.columns {
		switch c.kind {
		case "INTEGER":
			values[i] = row.Int(i)
		case "REAL":
			values[i] = row.Float(i)
		case "TEXT":
			v := row.Text(i)
			values[i], octets = v, octets+len(v)
		default:
			v := row.Blob(i)
			values[i], octets = v, octets+len(v)
		}
		octets += 16
	}
	return values, octets
}

// pages gives the whole table, a page at a time, whose size follows from that of the rows before.
func (t *table) pages(ctx context.Context, s *Store, use func(rows [][]any) error) (total int64, err error) {
	var after []any
	for limit := 16; ; {
		rows, octets, err := t.page(ctx, s, after, limit)
		if err != nil || len(rows) == 0 {
			return total, wrap(err, "read %s", t.name)
		}
		after = slices.Clone(rows[len(rows)-1])
		total += int64(len(rows))
		if err := use(rows); err != nil {
			return total, err
		}
		limit = min(max(moveOctets/4/(octets/len(rows)+1), 1), 2*limit, moveRows)
	}
}

// clearRow makes of a row as a store has it one without seals, with times that are so much later.
func (t *table) clearRow(s *Store, values []any, shift int64) error {
	for i, c := range t.columns {
		name := t.name + "." + c.name
		if n, ok := values[i].(int64); ok && serverTimes[name] {
			values[i] = later(n, shift)
		}
		k, ok := sealedColumns[name]
		if !ok {
			continue
		}
		plain, err := k.open(s.sealer, k.label(t.texts(values, k.of)), values[i])
		if err != nil {
			return fmt.Errorf("%s of %s at %s: %w", name, strings.Join(t.printable(values, k.of), ", "), s.opts.Place(),
				s.explainSeal(err))
		}
		values[i] = plain
	}
	return nil
}

// sealRow seals in a row what clearRow has opened, for another store.
func (t *table) sealRow(s *Store, values []any) {
	for i, c := range t.columns {
		if k, ok := sealedColumns[t.name+"."+c.name]; ok {
			values[i] = k.seal(s.sealer, k.label(t.texts(values, k.of)), values[i])
		}
	}
}

func (t *table) texts(values []any, columns []string) (texts []string) {
	for _, name := range columns {
		switch v := values[t.at(name)].(type) {
		case string:
			texts = append(texts, v)
		case []byte:
			texts = append(texts, string(v))
		}
	}
	return texts
}

func (t *table) printable(values []any, columns []string) (texts []string) {
	for _, v := range t.texts(values, columns) {
		texts = append(texts, fmt.Sprintf("%.64q", v))
	}
	return texts
}

// open opens what a column has; what is empty is nothing.
func (k *sealedColumn) open(s *seal.Sealer, label string, value any) (any, error) {
	b, _ := value.([]byte)
	if text, ok := value.(string); ok && k.text {
		code, isSealed := strings.CutPrefix(text, sealed)
		if !isSealed {
			return nil, seal.ErrDamaged
		}
		var err error
		if b, err = base64.StdEncoding.DecodeString(code); err != nil {
			return nil, seal.ErrDamaged
		}
	}
	if len(b) == 0 {
		return value, nil
	}
	plain, err := s.Open(label, b)
	if k.clear && errors.Is(err, seal.ErrDamaged) && len(b) < len(s.Seal("", nil)) {
		plain, err = b, nil
	}
	if err != nil {
		return nil, err
	}
	if k.text {
		return string(plain), nil
	}
	return bytes.Clone(plain), nil
}

func (k *sealedColumn) seal(s *seal.Sealer, label string, value any) any {
	switch v := value.(type) {
	case string:
		return sealed + base64.StdEncoding.EncodeToString(s.Seal(label, []byte(v)))
	case []byte:
		if len(v) > 0 {
			return s.Seal(label, v)
		}
	}
	return value
}

// later is a stored time on another clock. Those that mean never or always stay.
func later(n, shift int64) int64 {
	if n == 0 || n == math.MinInt64 || n == math.MaxInt64 {
		return n
	}
	return n + shift
}

// copyTable copies a table, a page at a time.
func (m *mover) copyTable(ctx context.Context, t table) error {
	_, err := t.pages(ctx, m.from, func(rows [][]any) error {
		for _, values := range rows {
			if err := t.clearRow(m.from, values, m.shift); err != nil {
				return err
			}
			t.sealRow(m.to, values)
		}
		return m.to.writer.do(ctx, &op{run: func(tx *tx) error {
			if t.name != "event" {
				return t.insert(tx, rows)
			}
			numbers := make([]int64, len(rows))
			for i, values := range rows {
				numbers[i] = values[0].(int64)
			}
			if err := tx.engine.placeEvents(tx.Conn, numbers); err != nil {
				return err
			}
			if err := t.insert(tx, rows); err != nil {
				return err
			}
			return tx.countEvents(numbers[0], numbers[len(numbers)-1])
		}})
	})
	return wrap(err, "table %s", t.name)
}

func (t *table) insert(tx *tx, rows [][]any) error {
	head := "INSERT INTO " + t.name + " (" + t.all() + ") VALUES " + marks(len(t.columns))
	for len(rows) > 0 {
		n, query := 1, head
		if len(rows) >= moveInsert {
			n, query = moveInsert, head+strings.Repeat(", "+marks(len(t.columns)), moveInsert-1)
		}
		if err := tx.Run(query, slices.Concat(rows[:n]...)...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// countEvents adds events that were inserted to the counters.
func (t *tx) countEvents(first, last int64) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	more, err := sumEvents(t.Conn, first, last)
	counts.events += more.events
	counts.history += more.history
	counts.refusals += more.refusals
	return err
}

// empty removes what an earlier try has left, and what an empty store has.
func (m *mover) empty(ctx context.Context) error {
	names := []string{}
	for _, t := range m.tables {
		names = append(names, t.name)
	}
	zero := func(tx *tx) error {
		return tx.Run("UPDATE counter SET messages = 0, held = 0, bytes = 0, events = 0, history = 0, refusals = 0")
	}
	if m.to.opts.URL.Server() {
		names = append(names, "message", "message_body", "content")
		return m.to.writer.do(ctx, &op{run: func(tx *tx) error {
			if err := zero(tx); err != nil {
				return err
			}
			if err := tx.Exec("TRUNCATE " + strings.Join(names, ", ")); err != nil {
				return err
			}
			return tx.engine.(*server).renewEvents(tx.Conn)
		}})
	}
	for _, t := range append(slices.Clone(m.tables), table{name: "message", columns: []column{{"id", "TEXT"}},
		key: []int{0}}, table{name: "chunk", columns: []column{{"n", "INTEGER"}}, key: []int{0}}) {
		batch := int64(moveRows)
		if t.name == "chunk" {
			batch = moveOctets / chunkSize
		}
		_, err := m.to.inBatches(ctx, batch, func(tx *tx) (int64, error) {
			err := tx.Run("DELETE FROM "+t.name+" WHERE ("+t.names(t.key)+") IN (SELECT "+t.names(t.key)+" FROM "+
				t.name+" LIMIT ?)", batch)
			return tx.Changes(), err
		})
		if err != nil {
			return wrap(err, "empty %s", t.name)
		}
	}
	return m.to.writer.do(ctx, &op{run: zero})
}

func (m *mover) copyAll(ctx context.Context) error {
	m.Progress("empty " + m.done.To)
	if err := m.empty(ctx); err != nil {
		return err
	}
	for _, t := range m.tables {
		m.Progress("copy " + t.name)
		if err := m.copyTable(ctx, t); err != nil {
			return err
		}
	}
	m.Progress("copy messages")
	return m.copyMessages(ctx)
}
