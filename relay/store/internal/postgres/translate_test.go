package postgres

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestTranslate(t *testing.T) {
	for _, c := range [][2]string{
		{"SELECT a FROM t WHERE b = ? AND c = ?", "SELECT a FROM t WHERE b = $1 AND c = $2"},
		{"SELECT ?2, ?1, ?, ?1", "SELECT $2, $1, $3, $1"},
		{"SELECT ?0, ?99999, ?65535", "SELECT ?0, ?99999, $65535"},
		{"SELECT $1::bigint, E'\\'?', $$?$$, $a$?'", "SELECT $1::bigint, E'\\'?', $$?$$, $a$?'"},
		{`SELECT "a?" -- it's ?`, `SELECT "a?" -- it's ?`},
		{"SELECT /* ' ? */ 'it''s ?', 1.5e3", "SELECT /* ' ? */ 'it''s ?'::bytea, 1.5e3"},
		{
			`SELECT 'a\b', 'ü', 'a''ü', x'0AfF', X''`,
			`SELECT '\x615c62'::bytea, '\xc3bc'::bytea, '\x6127c3bc'::bytea, '\x0aff'::bytea, '\x'::bytea`,
		},
		{"SELECT x'0', 'open", "SELECT x'0', 'open"},
		{"SELECT 'a'::text, 'b' ::name", "SELECT 'a'::text, 'b' ::name"},
		{"SELECT a FROM t INDEXED BY t_a WHERE a > 0", "SELECT a FROM t WHERE a > 0"},
		{"SELECT a FROM t NOT INDEXED WHERE NOT a = 1", "SELECT a FROM t WHERE NOT a = 1"},
		{"UPDATE t INDEXED /* c */ BY i SET a = 1", "UPDATE t /* c */SET a = 1"},
		{
			"SELECT u.a FROM user u WHERE user.login = ''",
			`SELECT u.a FROM "user" u WHERE "user".login = ''::bytea`,
		},
		{"SELECT current_user, users, USER", "SELECT current_user, users, USER"},
		{"SELECT a FROM t LIMIT -1 OFFSET ?", "SELECT a FROM t LIMIT ALL OFFSET $1"},
		{"DELETE FROM t WHERE a IN (SELECT a LIMIT -1)", "DELETE FROM t WHERE a IN (SELECT a LIMIT ALL)"},
		{
			"SELECT max(a), min(b), max(a, b), min (a, b)",
			"SELECT max(a), min(b), greatest(a, b), min (a, b)",
		},
		{"SELECT max(a, min(f(b, c)), min(1, 2))", "SELECT greatest(a, min(f(b, c)), least(1, 2))"},
		{"SELECT max((a, b)) FROM max_of", "SELECT max((a, b)) FROM max_of"},
		{"SELECT instr(a, ' ' || b) > 0", "SELECT position((' '::bytea || b) IN (a)) > 0"},
		{
			"SELECT instr(instr(a, b), max(c, d))",
			"SELECT position((greatest(c, d)) IN (position((b) IN (a))))",
		},
		{"SELECT instr(a, b -- c\n)", "SELECT position((b -- c\n\n) IN (a))"},
		{
			"SELECT lower(CAST(a AS TEXT)), CAST(b AS BLOB)",
			"SELECT decode(translate(encode(CAST(a AS bytea), 'escape'), " + upper + ", " + lower +
				"), 'escape'), CAST(b AS bytea)",
		},
		{
			"SELECT CAST(strftime('%s', 'now') AS INTEGER)",
			"SELECT CAST(floor(extract(epoch FROM now())) AS bigint)",
		},
		{"SELECT strftime('%Y', 'now')", "SELECT strftime('%Y'::bytea, 'now'::bytea)"},
		{"SELECT count(*) FROM (SELECT 1 FROM t)", "SELECT count(*) FROM (SELECT 1 FROM t) AS query_1"},
		{
			"SELECT 1 FROM (SELECT 1) AS a JOIN (VALUES (1))",
			"SELECT 1 FROM (SELECT 1) AS a JOIN (VALUES (1)) AS query_1",
		},
		{
			"SELECT 1 FROM (SELECT 1) a, t WHERE 1 IN (SELECT 1)",
			"SELECT 1 FROM (SELECT 1) a, t WHERE 1 IN (SELECT 1)",
		},
		{
			"SELECT 1 FROM (SELECT 1 FROM (SELECT 2)) WHERE 1",
			"SELECT 1 FROM (SELECT 1 FROM (SELECT 2) AS query_1) AS query_2 WHERE 1",
		},
		{"INSERT OR IGNORE INTO t VALUES (?) -- c", "INSERT INTO t VALUES ($1) ON CONFLICT DO NOTHING -- c"},
		{
			"INSERT OR IGNORE INTO t SELECT 1 RETURNING a;",
			"INSERT INTO t SELECT 1 ON CONFLICT DO NOTHING RETURNING a;",
		},
		{
			"INSERT OR IGNORE INTO a VALUES (1); SELECT 1",
			"INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING; SELECT 1",
		},
		{"INSERT OR REPLACE INTO t VALUES (1)", "INSERT OR REPLACE INTO t VALUES (1)"},
		{"SELECT 1 WHERE a OR ignore", "SELECT 1 WHERE a OR ignore"},
		{
			"INSERT INTO t VALUES (1) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n, m = max(m, ?1) " +
				"WHERE n > 0 " + "RETURNING n",
			"INSERT INTO t VALUES (1) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n, m = greatest(t.m, " +
				"$1) WHERE t.n > 0 RETURNING n",
		},
		{
			"INSERT INTO user VALUES (1) ON CONFLICT (k) DO UPDATE SET (a, b) = (b, (SELECT a FROM o)), c = " +
				"t.c + f(c)",
			`INSERT INTO "user" VALUES (1) ON CONFLICT (k) DO UPDATE SET (a, b) = ("user".b, (SELECT a FROM ` +
				`o)), c = t.c + f("user".c)`,
		},
		{"UPDATE t SET a = b WHERE c = d", "UPDATE t SET a = b WHERE c = d"},
		{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"},
		{"BEGIN IMMEDIATE", "BEGIN"},
		{"BEGIN IMMEDIATE;\nUPDATE t SET a = 1;\nCOMMIT", "BEGIN;\nUPDATE t SET a = 1;\nCOMMIT"},
		{"BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE"},
		{"DO $$ BEGIN RAISE 'x'; END $$", "DO $$ BEGIN RAISE 'x'; END $$"},
		{
			"CREATE TABLE t (a INTEGER PRIMARY KEY CHECK (a = 1), b REAL, -- TEXT\n\tc TEXT NOT NULL " +
				"DEFAULT '') STRICT, WITHOUT ROWID;",
			"CREATE TABLE t (a bigint PRIMARY KEY CHECK (a = 1), b double precision, -- TEXT\n\tc bytea NOT " +
				"NULL DEFAULT ''::bytea)  ;",
		},
		{
			"ALTER TABLE t ADD COLUMN b BLOB NOT NULL DEFAULT x''",
			`ALTER TABLE t ADD COLUMN b bytea NOT NULL DEFAULT '\x'::bytea`,
		},
		{"SELECT TEXT, INTEGER", "SELECT TEXT, INTEGER"},
		{"CREATE INDEX i ON t (a, b) WHERE a <> ''", "CREATE INDEX i ON t (a, b) WHERE a <> ''::bytea"},
		{"", ""},
		{"(", "("},
		{")", ")"},
		{"'", "'"},
		{"?", "$1"},
		{"max(", "max("},
		{"instr(,)", "position(() IN ())"},
	} {
		if got := Translate(c[0]); got != c[1] {
			t.Errorf("%s\n got %s\nwant %s", c[0], got, c[1])
		}
	}
}

// The inside of literals and comments comes out as it went in, whatever is around it.
func FuzzTranslate(f *testing.F) {
	for _, s := range []string{
		"SELECT instr(lower(CAST(a AS TEXT)), 'x''y'), max(?, 2) FROM user NOT INDEXED -- '\n LIMIT -1",
		"INSERT OR IGNORE INTO t VALUES (x'00', E'\\'', $$a$$) /* ' */ RETURNING 1; BEGIN; SELECT \"",
		"INSERT INTO t VALUES (?) ON CONFLICT (k) DO UPDATE SET n = n + 1, (a, b) = (SELECT 1 FROM (SELECT 2))",
		"CREATE TABLE t (a INTEGER) STRICT, WITHOUT ROWID; ))((,,;;",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := Translate(in)
		if strings.Contains(in, "strftime") {
			return
		}
		before, after := contents(lex(in)), contents(lex(out))
		for text, n := range before {
			if after[text] < n {
				t.Errorf("%q is there %d times, not %d\n%q\n%q", text, after[text], n, in, out)
			}
		}
	})
}

// contents counts comments and what literals mean.
func contents(all []token) map[string]int {
	n := map[string]int{}
	for _, tok := range all {
		text := tok.text
		switch {
		case tok.kind == space && isComment(text):
			n[strings.TrimRight(text, "\n")]++
		case tok.kind == opaque && text[0] == '"':
			n[text]++
		case tok.kind == literal && closed(text):
			value := []byte(strings.ReplaceAll(text[1:len(text)-1], "''", "'"))
			if b, ok := bytes.CutPrefix(value, []byte(`\x`)); ok {
				if octets, err := hex.DecodeString(string(b)); err == nil {
					n["="+string(octets)]++
				}
			}
			n["="+string(value)]++
		}
	}
	return n
}
