// Package nodetest has stores at PostgreSQL and nodes there, for tests of what stands above the store.
package nodetest

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/config"
	"postern/relay/store"
)

// Options are those of a store in a new database, whose address they come with.
func Options(t testing.TB) (o store.Options, database string) {
	t.Helper()
	database = testkit.SharedPostgreSQL(t).NewDatabase(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(u.User.Username()) // the password stands elsewhere
	o = store.Options{Dir: t.TempDir(), Password: testkit.PGPassword, SealKey: auth.Secret(strings.Repeat("k", 32))}
	if o.URL, err = config.ParseStoreURL(u.String()); err != nil {
		t.Fatal(err)
	}
	return o, database
}

// Add adds a node, which lives for an hour or is gone.
func Add(t testing.TB, database, name string, alive, drained bool) {
	t.Helper()
	until := "0"
	if alive {
		until = "(extract(epoch FROM clock_timestamp()) + 3600)::bigint * 1000000000"
	}
	testkit.SQL(t, database, fmt.Sprintf("INSERT INTO node (name, k, boot, home, host, version, started, seen, until, "+
		"drained) SELECT '%s', coalesce(max(k), 0) + 1, '', '', 'rack', 'v1', 1, 1, %s, %t::int FROM node",
		name, until, drained))
}
