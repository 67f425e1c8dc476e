//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/relay/store/internal/db"
)

// table makes a table for a test, from its columns in the dialect of SQLite.
func table(t *testing.T, c *Conn, name, columns string) {
	t.Helper()
	must(t, c.Exec("DROP TABLE IF EXISTS "+name+"; CREATE TABLE "+name+" ("+columns+") STRICT"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, c *Conn, query string, args ...any) int64 {
	t.Helper()
	n, _, err := c.Int(query, args...)
	must(t, err)
	return n
}

func wantKind(t *testing.T, err error, want db.Kind) {
	t.Helper()
	if err == nil || db.KindOf(err) != want {
		t.Fatalf("kind %d, want %d: %v", db.KindOf(err), want, err)
	}
}

// each runs a test on a connection of its own and on one through a pooler.
func each(t *testing.T, f func(t *testing.T, c *Conn)) {
	t.Run("direct", func(t *testing.T) { f(t, open(t, Config{})) })
	t.Run("pooled", func(t *testing.T) {
		c := open(t, Config{URL: newPooler(t, server(t)).url()})
		if !c.Server().Pooled {
			t.Fatal("the pooler was not noticed")
		}
		f(t, c)
	})
}

func TestValues(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "v", "k INTEGER PRIMARY KEY, i INTEGER, r REAL, s TEXT, b BLOB")
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		large := bytes.Repeat(all, 12<<10)
		for k, v := range []struct {
			i any
			r float64
			s string
			b []byte
		}{
			{0, 0, "", nil}, {int64(math.MinInt64), math.MaxFloat64, "a'\\b\x00ü", all}, {true, -0.5, "user", large},
			{false, math.SmallestNonzeroFloat64, strings.Repeat("x", 70_000), []byte{}},
		} {
			must(t, c.Run("INSERT INTO v VALUES (?, ?, ?, ?, ?)", k, v.i, v.r, v.s, v.b))
			want := map[any]int64{0: 0, int64(math.MinInt64): math.MinInt64, true: 1, false: 0}[v.i]
			n := 0
			for row, err := range c.Rows("SELECT i, r, s, b, octet_length(b), i <> 0, NULL FROM v "+
				"WHERE k = ? AND s = ?", k, v.s) {
				must(t, err)
				n++
				if row.Int(0) != want || row.Float(1) != v.r || row.Text(2) != v.s || !bytes.Equal(row.Blob(3), v.b) ||
					row.Int(4) != int64(len(v.b)) || row.Bool(5) != (want != 0) || row.Int(6) != 0 ||
					row.Text(6) != "" {
					t.Errorf("row %d came back as %d %g %.20q %.20q", k, row.Int(0), row.Float(1), row.Text(2),
						row.Blob(3))
				}
				if got := row.AppendBlob([]byte("+"), 2); string(got) != "+"+v.s {
					t.Errorf("row %d: appended %.20q", k, got)
				}
			}
			if n != 1 {
				t.Errorf("%d rows", n)
			}
		}
	})
}

func TestInt(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "n", "k INTEGER PRIMARY KEY, i INTEGER NOT NULL")
		for _, q := range []string{"SELECT i FROM n WHERE k = ?", "SELECT max(i) FROM n WHERE k > ?"} {
			if n, ok, err := c.Int(q, 1); n != 0 || ok || err != nil {
				t.Errorf("%s: %d %v %v", q, n, ok, err)
			}
		}
		must(t, c.Run("INSERT INTO n VALUES (?, ?), (?, ?)", 1, 5, 2, 7_000_000_000))
		for q, want := range map[string]int64{
			"SELECT i FROM n WHERE k = 1":         5,
			"SELECT sum(i) FROM n":                7_000_000_005, // numeric
			"SELECT -sum(i) FROM n":               -7_000_000_005,
			"SELECT count(*) FROM n":              2,
			"SELECT max(i, 6) FROM n WHERE k = 1": 6,
			"SELECT 1":                            1,
			"SELECT i > 1 FROM n WHERE k = 1":     1,
		} {
			if got := count(t, c, q); got != want {
				t.Errorf("%s: %d, want %d", q, got, want)
			}
		}
		if n := count(t, c, "UPDATE n SET i = i + 1 WHERE k = 1 RETURNING i"); n != 6 {
			t.Errorf("returned %d", n)
		}
		if c.Changes() != 1 || c.TotalChanges() != 3 {
			t.Errorf("%d changed at last, %d in all", c.Changes(), c.TotalChanges())
		}
		must(t, c.Run("UPDATE n SET i = 0 WHERE k > ?", 100))
		must(t, c.Run("SELECT 1"))
		if c.Changes() != 0 || c.TotalChanges() != 3 {
			t.Errorf("%d changed at last, %d in all", c.Changes(), c.TotalChanges())
		}
	})
}

// The same text of a query may come with arguments of different types.
func TestArgumentsOfOtherTypes(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "o", "r REAL NOT NULL")
		must(t, c.Run("INSERT INTO o VALUES (?)", 1))
		must(t, c.Run("INSERT INTO o VALUES (?)", 1.5))
		must(t, c.Run("INSERT INTO o VALUES (?)", 2))
		if n := count(t, c, "SELECT count(*) FROM o WHERE r > ?", 1.25); n != 2 {
			t.Errorf("%d rows", n)
		}
	})
}

// Loops read rows in parts, with other statements in between and an early end, in and out of a transaction.
func TestRows(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "many", "n INTEGER PRIMARY KEY, data BLOB NOT NULL")
		must(t, c.Run("INSERT INTO many SELECT n, $1 FROM generate_series(1, 20000) AS n",
			bytes.Repeat([]byte{7}, 100)))
		check := func(t *testing.T) {
			var inner, outer int64
			for row, err := range c.Rows("SELECT n, data FROM many ORDER BY n") {
				must(t, err)
				if outer++; row.Int(0) != outer || len(row.Blob(1)) != 100 {
					t.Fatalf("row %d is %d", outer, row.Int(0))
				}
				if outer%5000 != 1 {
					continue
				}
				for row, err := range c.Rows("SELECT n FROM many WHERE n > ? ORDER BY n", outer) {
					must(t, err)
					inner++
					if row.Int(0) == outer+1000 {
						if count(t, c, "SELECT count(*) FROM many") != 20000 {
							t.Fatal("a third statement within")
						}
						break
					}
				}
			}
			if outer != 20000 || inner != 4000 {
				t.Errorf("%d and %d rows", outer, inner)
			}
			for _, err := range c.Rows("SELECT n FROM many") {
				must(t, err)
				break
			}
			if count(t, c, "SELECT max(n) FROM many") != 20000 {
				t.Error("after a loop that ended early")
			}
		}
		check(t)
		if c.InTransaction() {
			t.Fatal("a loop has left a transaction")
		}
		must(t, c.Run("BEGIN IMMEDIATE"))
		check(t)
		if !c.InTransaction() {
			t.Fatal("a loop has ended the transaction")
		}
		must(t, c.Commit())
		for n, err := range c.Rows("DELETE FROM many WHERE n <= ? RETURNING n", 3) {
			must(t, err)
			_ = n.Int(0)
		}
		if n := count(t, open(t, Config{}), "SELECT count(*) FROM many"); n != 19997 {
			t.Errorf("%d rows are left", n)
		}
	})
}

func TestErrorWithinLoop(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		const numbers = "SELECT n FROM generate_series(1, 100000) AS n"
		for _, begin := range []bool{false, true} {
			if begin {
				must(t, c.Run("BEGIN IMMEDIATE"))
			}
			var last error
			rows := 0
			for _, err := range c.Rows(numbers) {
				if last = err; err != nil {
					break
				}
				if rows++; rows == 1 && c.Run("SELECT 1 / 0") == nil {
					t.Fatal("1 / 0 is a number")
				}
			}
			if last == nil || rows == 0 {
				t.Errorf("the loop went on after an error within it: %d rows, %v", rows, last)
			}
			must(t, c.Rollback())
			if n := count(t, c, "SELECT count(*) FROM ("+numbers+")"); n != 100000 || c.InTransaction() {
				t.Errorf("%d rows, in a transaction: %v", n, c.InTransaction())
			}
		}
	})
}

// A plain BEGIN reads one snapshot.
func TestSnapshot(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "snap", "n INTEGER NOT NULL")
		other := open(t, Config{})
		must(t, c.Run("BEGIN"))
		before := count(t, c, "SELECT count(*) FROM snap")
		must(t, other.Run("INSERT INTO snap VALUES (1)"))
		if n := count(t, c, "SELECT count(*) FROM snap"); n != before {
			t.Error("a snapshot changes")
		}
		must(t, c.Run("ROLLBACK"))
		if n := count(t, c, "SELECT count(*) FROM snap"); n != before+1 {
			t.Error("the snapshot stays")
		}
	})
}

func TestKinds(t *testing.T) {
	c := open(t, Config{})
	table(t, c, "kinds", "k INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE")
	must(t, c.Run("INSERT INTO kinds VALUES (1, 'a')"))
	wantKind(t, c.Run("INSERT INTO kinds VALUES (1, 'b')"), db.Taken)
	wantKind(t, c.Run("INSERT INTO kinds VALUES (2, 'a')"), db.Other)
	wantKind(t, c.Run("SELECT * FROM nothing_of_this_name"), db.Refused)
	wantKind(t, c.Run("INSERT OR REPLACE INTO kinds VALUES (1, 'b')"), db.Other)
	must(t, c.Exec("BEGIN; SET TRANSACTION READ ONLY"))
	wantKind(t, c.Run("INSERT INTO kinds VALUES (3, 'c')"), db.ReadOnly)
	must(t, c.Rollback())
	for code, want := range map[string]db.Kind{
		"53100": db.Full, "53200": db.Busy, "40001": db.Busy, "40P01": db.Busy, "55P03": db.Busy, "XX001": db.Damaged,
		"XX002": db.Damaged, "58030": db.ReadOnly, "42501": db.Refused, "28000": db.Refused, "08006": db.Gone,
		"57P03": db.Gone, "XX000": db.Other, "22012": db.Other,
	} {
		err := c.Run("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '" + code + "', MESSAGE = 'no'; END $$")
		wantKind(t, err, want)
		if !strings.Contains(err.Error(), code) {
			t.Errorf("without its code: %v", err)
		}
	}
	wantKind(t, c.Run("SELECT pg_terminate_backend(pg_backend_pid())"), db.Gone)
	if !c.Lost() || c.InTransaction() {
		t.Error("the connection is not lost")
	}
	wantKind(t, c.Run("SELECT 1"), db.Gone)
	wantKind(t, c.Exec("SELECT 1"), db.Gone)
	_, _, err := c.Int("SELECT 1")
	wantKind(t, err, db.Gone)
	for _, err := range c.Rows("SELECT 1") {
		wantKind(t, err, db.Gone)
	}
	_, err = c.Pipeline(t.Context(), []Call{{Query: "SELECT 1"}})
	wantKind(t, err, db.Gone)
	must(t, c.Close())
	must(t, c.Close())
}

// An error tells nothing of what stands in rows: it may get into a log.
func TestErrorTellsNoValues(t *testing.T) {
	c := open(t, Config{})
	table(t, c, "secret", "name TEXT PRIMARY KEY")
	must(t, c.Run("INSERT INTO secret VALUES (?)", "geheim"))
	err := c.Run("INSERT INTO secret VALUES (?)", "geheim")
	wantKind(t, err, db.Taken)
	if text := err.Error(); strings.Contains(text, "geheim") || strings.Contains(text, "67656865696d") {
		t.Error(text)
	}
}

func TestTimeouts(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		url := server(t).url()
		if pooled {
			url = newPooler(t, server(t)).url()
		}
		c := open(t, Config{URL: url, StatementTimeout: 1e8, LockTimeout: 5e7, IdleTimeout: 7e9})
		wantKind(t, c.Run("SELECT pg_sleep(100)"), db.Busy)
		must(t, c.Run("BEGIN IMMEDIATE"))
		if n := count(t, c, "SELECT setting::bigint FROM pg_settings WHERE name = "+
			"'idle_in_transaction_session_timeout'::name"); n != 7000 {
			t.Errorf("idle_in_transaction_session_timeout: %d", n)
		}
		must(t, c.Rollback())
		holder := open(t, Config{})
		table(t, holder, "held", "n INTEGER PRIMARY KEY")
		must(t, holder.Run("BEGIN IMMEDIATE"))
		must(t, holder.Run("LOCK TABLE held"))
		err := c.Run("INSERT INTO held VALUES (1)")
		wantKind(t, err, db.Busy)
		if e, _ := errors.AsType[*Error](err); e.Code != lockNotFree {
			t.Error(err)
		}
		must(t, holder.Rollback())
		must(t, c.Run("INSERT INTO held VALUES (1)"))
		must(t, c.SetStatementTimeout(t.Context(), 0))
		must(t, c.Run("SELECT pg_sleep(0.2)"))
	}
}

func TestInterrupt(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		watcher := open(t, Config{})
		c.Interrupt() // nothing runs: nothing happens
		for _, begin := range []bool{false, true} {
			if begin {
				must(t, c.Run("BEGIN IMMEDIATE"))
			}
			done := make(chan error, 1)
			go func() { done <- c.Run("SELECT pg_sleep(100)") }()
			waitFor(t, watcher, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'::text AND "+
				"query LIKE 'SELECT pg_sleep(100)%'::text")
			c.Interrupt()
			wantKind(t, <-done, db.Interrupted)
			c.Interrupt()
			must(t, c.Rollback())
			if count(t, c, "SELECT 7") != 7 {
				t.Error("the next statement")
			}
		}
		// within a loop, also while its rows are here already
		rows := 0
		for _, err := range c.Rows("SELECT n FROM generate_series(1, 1000) AS n") {
			if err != nil {
				wantKind(t, err, db.Interrupted)
				break
			}
			if rows++; rows == 3 {
				c.Interrupt()
			}
		}
		if rows != 3 {
			t.Errorf("%d rows", rows)
		}
		if count(t, c, "SELECT 8") != 8 {
			t.Error("the next statement")
		}
	})
}

// waitFor runs a query until it gives more than 0.
func waitFor(t *testing.T, c *Conn, query string, args ...any) {
	t.Helper()
	for range 2000 {
		if count(t, c, query, args...) > 0 {
			return
		}
		must(t, c.Run("SELECT pg_sleep(0.005)"))
	}
	t.Fatalf("never: %s", query)
}

// Interrupts at any moment hit what runs or nothing, never the statement after.
func TestInterruptsAtRandom(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				c.Interrupt()
			}
		}()
		for range 100 {
			for _, err := range c.Rows("SELECT n FROM generate_series(1, 500) AS n") {
				if err != nil && db.KindOf(err) != db.Interrupted {
					t.Fatal(err)
				}
			}
		}
		stop()
		<-ended
		for range 100 {
			must(t, c.Run("SELECT 1"))
		}
	})
}

func TestFailedTransaction(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "ft", "n INTEGER PRIMARY KEY")
		_, err := c.Begin()
		must(t, err)
		must(t, c.Run("INSERT INTO ft VALUES (1)"))
		if c.Run("INSERT INTO ft VALUES (1)") == nil {
			t.Fatal("inserted twice")
		}
		if !c.InTransaction() {
			t.Error("the transaction has ended by itself")
		}
		if err := c.Commit(); err == nil || db.KindOf(err) == db.Gone || c.InTransaction() {
			t.Errorf("a failed transaction was committed: %v", err)
		}
		if n := count(t, c, "SELECT count(*) FROM ft"); n != 0 {
			t.Errorf("%d rows", n)
		}
		if c.Commit() == nil {
			t.Error("committed nothing")
		}
		must(t, c.Rollback())
		must(t, c.Run("BEGIN IMMEDIATE"))
		if c.Run("BEGIN IMMEDIATE") == nil {
			t.Error("a transaction within one")
		}
		must(t, c.Run("ROLLBACK"))
	})
}

// Where the schema is changed by another, statements that were prepared before work on.
func TestSchemaChanges(t *testing.T) {
	c, other := open(t, Config{}), open(t, Config{})
	table(t, c, "changing", "n INTEGER NOT NULL")
	const all = "SELECT * FROM changing"
	must(t, c.Run("INSERT INTO changing VALUES (1)"))
	for i := range 3 {
		if i > 0 {
			must(t, other.Exec(fmt.Sprintf("ALTER TABLE changing ADD COLUMN c%d TEXT NOT NULL DEFAULT 'x'", i)))
		}
		for row, err := range c.Rows(all) {
			must(t, err)
			if row.Int(0) != 1 || i > 0 && row.Text(i) != "x" {
				t.Errorf("after change %d", i)
			}
		}
	}
	must(t, c.Run("BEGIN IMMEDIATE")) // the second time works here
	must(t, c.Run("SELECT 1"))
	must(t, other.Exec("ALTER TABLE changing ADD COLUMN last INTEGER NOT NULL DEFAULT 0"))
	wantKind(t, c.Run(all), db.Busy)
	must(t, c.Rollback())
	must(t, c.Run("BEGIN IMMEDIATE"))
	must(t, c.Run(all))
	must(t, c.Commit())
}

func TestOpen(t *testing.T) {
	s := server(t)
	c := open(t, Config{Node: "eins"})
	must(t, c.Exec("DROP ROLE IF EXISTS careless; CREATE ROLE careless LOGIN; ALTER ROLE careless SET "+
		"synchronous_commit = off; DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; ALTER ROLE reader SET "+
		"default_transaction_read_only = on; DROP ROLE IF EXISTS strict; CREATE ROLE strict LOGIN; ALTER ROLE strict "+
		"SET default_transaction_isolation = serializable"))
	if n := count(t, c, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postern eins'::text"); n != 1 {
		t.Error("the node's name is not told")
	}
	if got := c.Server(); got.Version/10000 != 15 || got.Pooled || got.Standby || got.Commit != "on" || got.Fsync {
		t.Errorf("%+v", got)
	}
	role := func(name string) string { return strings.Replace(s.url(), "postgres@", name+":geheim@", 1) }
	for _, url := range []string{role("careless"), newPooler(t, s).as("careless")} {
		c := open(t, Config{URL: url})
		must(t, c.Run("BEGIN IMMEDIATE"))
		if c.Server().Commit != "on" || count(t, c, "SELECT count(*) FROM pg_settings WHERE name = "+
			"'synchronous_commit'::text AND setting = 'on'::text") != 1 {
			t.Error("commits are not synchronous")
		}
	}
	strict := open(t, Config{URL: role("strict")})
	must(t, strict.Run("BEGIN IMMEDIATE"))
	if count(t, strict, "SELECT count(*) FROM pg_settings WHERE name = 'transaction_isolation'::text AND setting = "+
		"'read committed'::text") != 1 {
		t.Error("a statement does not see what others have committed before it")
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	dead.Close()
	several := strings.Replace(s.url(), "127.0.0.1:", dead.Addr().String()+",127.0.0.1:", 1)
	if count(t, open(t, Config{URL: several}), "SELECT 1") != 1 {
		t.Error("the second host")
	}
	for url, want := range map[string]db.Kind{
		role("nobody_at_all"):                                      db.Refused,
		newPooler(t, s).as("strict"):                               db.Refused,
		strings.Replace(s.url(), "/postgres?", "/no?", 1):          db.Refused,
		"postgres://x:geheim@" + dead.Addr().String():              db.Gone,
		"postgres://x:geheim@127.0.0.1:port/":                      db.Refused,
		role("reader") + "&target_session_attrs=read-write":        db.ReadOnly,
		strings.Replace(several, "postgres@", "reader:geheim@", 1): db.ReadOnly,
	} {
		_, err := Open(t.Context(), Config{URL: url})
		wantKind(t, err, want)
		if text := err.Error(); strings.Contains(text, "geheim") || strings.Contains(text, "\n") {
			t.Error(text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Config{URL: s.url()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c := open(t, Config{URL: role("reader")}); !c.Server().Standby {
		t.Error("a single host that takes no writes")
	}
	if err := Check("postgres://x:geheim@h/?sslmode=so"); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Error(err)
	}
	must(t, Check("postgres://a,b/postern?sslmode=verify-full&target_session_attrs=read-write"))
}

func TestPipeline(t *testing.T) {
	each(t, func(t *testing.T, c *Conn) {
		table(t, c, "p", "id TEXT PRIMARY KEY, n INTEGER NOT NULL, data BLOB NOT NULL, r REAL NOT NULL, "+
			"f INTEGER NOT NULL")
		const remove = "DELETE FROM p USING unnest($1::bytea[]) AS gone (id) WHERE p.id = gone.id RETURNING n"
		insert := Call{"INSERT INTO p SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::float8[], " +
			"$5::bigint[]) RETURNING id, n", []any{[]string{"a", "", "c\x00\\"}, []int64{1, -2, 3},
			[][]byte{nil, {0, 255}, []byte("x")}, []float64{0.5, 1, 2}, []bool{true, false, true}}}
		got, err := c.Pipeline(t.Context(), []Call{insert,
			{"UPDATE p SET n = n + 10 WHERE id = ?", []any{"a"}}, {"SELECT count(*) FROM p", nil},
			{remove, []any{[]string{""}}},
			{remove, []any{[]string{}}}})
		must(t, err)
		changes, rows := []int64{}, []int{}
		for _, r := range got {
			changes, rows = append(changes, r.Changes), append(rows, r.Len())
		}
		if !slices.Equal(changes, []int64{3, 1, 0, 1, 0}) || !slices.Equal(rows, []int{3, 0, 1, 1, 0}) {
			t.Errorf("%d changed, %d rows", changes, rows)
		}
		for row := range got[3].Rows() {
			if row.Int(0) != -2 {
				t.Errorf("deleted %d", row.Int(0))
			}
		}
		var ids []string
		for row, err := range open(t, Config{}).Rows("SELECT id, n, data, r, f FROM p ORDER BY id") {
			must(t, err)
			ids = append(ids, fmt.Sprintf("%q %d %q %g %d", row.Text(0), row.Int(1), row.Blob(2), row.Float(3),
				row.Int(4)))
		}
		if want := []string{`"a" 11 "" 0.5 1`, `"c\x00\\" 3 "x" 2 1`}; !slices.Equal(ids, want) {
			t.Errorf("%q, want %q", ids, want)
		}
		// an error leaves nothing, wherever it is
		for at := range 3 {
			calls := []Call{{"DELETE FROM p", nil}, {"UPDATE p SET n = 0", nil}}
			calls = slices.Insert(calls, at, Call{"SELECT 1 / ?", []any{0}})
			_, err = c.Pipeline(t.Context(), calls)
			if e, _ := errors.AsType[*Error](err); e == nil || e.Code != "22012" {
				t.Fatal(err)
			}
			if n := count(t, c, "SELECT sum(n) FROM p"); n != 14 || c.InTransaction() {
				t.Errorf("error %d: %d is left, in a transaction: %v", at, n, c.InTransaction())
			}
		}
		// within a transaction it stays open
		must(t, c.Run("BEGIN IMMEDIATE"))
		_, err = c.Pipeline(t.Context(), []Call{{"DELETE FROM p", nil}})
		must(t, err)
		must(t, c.Rollback())
		if n := count(t, c, "SELECT count(*) FROM p"); n != 2 {
			t.Errorf("%d rows", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Pipeline(ctx, []Call{{"DELETE FROM p", nil}}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Much in both directions at once: neither side waits for the other to read.
func TestLargePipeline(t *testing.T) {
	c := open(t, Config{})
	table(t, c, "lp", "n INTEGER PRIMARY KEY, data BLOB NOT NULL")
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	var calls []Call
	for n := range 32 {
		calls = append(calls, Call{"INSERT INTO lp VALUES (?, ?) RETURNING data", []any{n, data}})
	}
	got, err := c.Pipeline(t.Context(), calls)
	must(t, err)
	for _, r := range got {
		for row := range r.Rows() {
			if !bytes.Equal(row.Blob(0), data) {
				t.Fatal("it is not the same")
			}
		}
	}
	calls = append(calls, Call{"DELETE FROM lp", nil}) // the first error comes long before all is sent
	if _, err := c.Pipeline(t.Context(), calls); db.KindOf(err) != db.Taken {
		t.Error(err)
	}
	if n := count(t, c, "SELECT count(*) FROM lp"); n != 32 {
		t.Errorf("%d rows", n)
	}
}

// TestUnreached: a way that leads to no server says where to look.
func TestUnreached(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	for url, want := range map[string]string{
		"host=127.0.0.1 port=" + fmt.Sprint(closed.Addr().(*net.TCPAddr).Port): "listens there (listen_addresses)",
		"host=db1.invalid": "check the host in [store] url",
	} {
		_, err := Open(t.Context(), Config{URL: url + " user=postern dbname=postern sslmode=disable"})
		if err == nil || !strings.Contains(err.Error(), want) || db.KindOf(err) != db.Gone {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
}

// Whoever looks whether a connection is there does not wait for what is owed and does not come.
func TestAliveDoesNotWait(t *testing.T) {
	w := newWire(t, server(t))
	c := open(t, Config{URL: w.url()})
	for _, err := range c.Rows("SELECT n FROM generate_series(1, 100000) AS n") {
		must(t, err)
		w.keep(&w.answers) // that to the end of the loop
		break
	}
	<-w.kept
	c.run.link.limit, c.run.link.grace = time.Millisecond, time.Millisecond // whoever waits gives up soon
	if !c.Alive() {
		t.Error("the connection counts as lost, though nobody has asked anything")
	}
	if c.run.link.owed != 1 {
		t.Errorf("%d answers are owed", c.run.link.owed)
	}
}

// Of several hosts a silent one does not take the time of those behind it.
func TestSilentHost(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	c, err := Open(ctx, Config{URL: fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=postgres "+
		"sslmode=disable connect_timeout=60", silent.Addr().(*net.TCPAddr).Port, server(t).port)})
	must(t, err)
	must(t, c.Close())
}
