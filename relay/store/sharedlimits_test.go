package store

import (
	"context"
	"iter"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postern/policy"
	"postern/policy/policytest"
	"postern/relay/store/internal/db"
)

// server is a db.Conn to PostgreSQL, as far as limits need it.
type server struct {
	db.Conn
	ctx  context.Context
	conn *pgx.Conn
}

var placeholder = regexp.MustCompile(`\?`)

func (s server) Rows(query string, args ...any) iter.Seq2[db.Row, error] {
	n := 0
	query = placeholder.ReplaceAllStringFunc(query, func(string) string { n++; return "$" + strconv.Itoa(n) })
	return func(yield func(db.Row, error) bool) {
		rows, err := s.conn.Query(s.ctx, query, args...)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			v, err := rows.Values()
			if !yield(serverRow{v: v}, err) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

func (s server) Run(query string, args ...any) error {
	for _, err := range s.Rows(query, args...) {
		return err
	}
	return nil
}

type serverRow struct {
	db.Row
	v []any
}

func (r serverRow) Int(i int) int64   { return r.v[i].(int64) }
func (r serverRow) Bool(i int) bool   { return r.Int(i) != 0 }
func (r serverRow) Text(i int) string { return string(r.v[i].([]byte)) }
func (r serverRow) Float(i int) float64 { return r.v[i].(float64) }

// openServer returns how to ask a schema of its own over n connections, as n nodes have them.
func openServer(t *testing.T, n int) func(context.Context, func(db.Conn) error) error {
	url := os.Getenv("TESTPG")
	conns := make(chan *pgx.Conn, n)
	for range n {
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		conns <- c
	}
	c := <-conns
	_, err := c.Exec(t.Context(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"+sharedTables+schemaSharedLimits)
	if err != nil {
		t.Fatal(err)
	}
	conns <- c
	return func(ctx context.Context, f func(db.Conn) error) error {
		c := <-conns
		defer func() { conns <- c }()
		return f(server{ctx: ctx, conn: c})
	}
}

const sharedTables = `
CREATE TABLE limit_state (
	login bytea NOT NULL, lim bytea NOT NULL, tokens double precision NOT NULL, at bigint NOT NULL,
	full_at bigint NOT NULL, PRIMARY KEY (login, lim));
CREATE INDEX limit_state_full ON limit_state (full_at);
CREATE TABLE known (login bytea NOT NULL, addr bytea NOT NULL, used bigint NOT NULL, PRIMARY KEY (login, addr));
CREATE INDEX known_login_used ON known (login, used);
CREATE INDEX known_used ON known (used);
CREATE TABLE known_count (login bytea PRIMARY KEY, n bigint NOT NULL);
`

func TestSharedLimits(t *testing.T) {
	policytest.RunSharedLimits(t, func(t *testing.T, now func() time.Time) policy.SharedLimits {
		s := newSharedLimits(openServer(t, 4), 1_000_000)
		s.at = func() int64 { return now().UnixNano() }
		return s
	})
}

var _ sync.Mutex
