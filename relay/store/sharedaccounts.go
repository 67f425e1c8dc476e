package store

import (
	"context"

	"postern/relay/store/internal/postgres"
	"postern/relay/upstream/account"
)

// schemaSharedAccounts is for PostgreSQL alone. It keeps what nodes share of the accounts at upstreams: slots, rates,
// pauses and probes, in one row for each account. Rows are few and hot: room on their pages lets them be updated in
// place, and they are vacuumed after a few hundred updates.
const schemaSharedAccounts = `
CREATE TABLE upstream_shared (
	upstream bytea  NOT NULL,
	account  bytea  NOT NULL,
	version  bigint NOT NULL,
	state    bytea  NOT NULL,
	forget   bigint NOT NULL, -- nanoseconds since 1970 by the server's clock
	PRIMARY KEY (upstream, account)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0,
	autovacuum_vacuum_cost_delay = 0);
`

// SharedAccounts keeps what nodes share of the accounts at upstreams in PostgreSQL.
type SharedAccounts struct{ ask askServer }

var _ account.Shared = (*SharedAccounts)(nil)

// SharedAccounts is what nodes share of the accounts at upstreams; nil with SQLite, whose one daemon shares with no
// other.
func (s *Store) SharedAccounts() *SharedAccounts {
	e, ok := s.engine.(*server)
	if !ok {
		return nil
	}
	return &SharedAccounts{e.ask}
}

// swapAccounts replaces rows whose version is still the one asked for. Rows are locked in the order of their keys, so
// that nodes do not wait for each other in a circle. A row that another node replaces at the same time is read as that
// node left it, since a locked row is read anew. Of what is asked with one key and version
// the first is put: the tables of one node before and after a reload ask together. Versions follow the clock, so that
// the one of a row that was forgotten never returns.
const swapAccounts = `
WITH asked AS MATERIALIZED (
	SELECT *, length(state) > 0 AND 1 = row_number() OVER (
		PARTITION BY upstream, account, version ORDER BY length(state) = 0, n) AS writes
	FROM unnest(?1::bytea[], ?2::bytea[], ?3::bigint[], ?4::bytea[], ?5::bigint[])
		WITH ORDINALITY AS a (upstream, account, version, state, forget, n)
), clock AS MATERIALIZED (
	SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint AS now
), held AS MATERIALIZED (
	SELECT s.upstream, s.account, s.version, s.state FROM upstream_shared AS s
	JOIN (SELECT DISTINCT upstream, account FROM asked WHERE writes) AS a
		ON s.upstream = a.upstream AND s.account = a.account
	ORDER BY s.upstream, s.account FOR UPDATE OF s
), put AS (
	UPDATE upstream_shared AS s SET version = greatest(s.version + 1, clock.now), state = a.state, forget = a.forget
	FROM asked AS a JOIN held AS h ON h.upstream = a.upstream AND h.account = a.account AND h.version = a.version, clock
	WHERE s.upstream = a.upstream AND s.account = a.account AND s.version = a.version AND a.writes
	RETURNING a.n, s.upstream, s.account, s.version, s.state
), made AS (
	INSERT INTO upstream_shared (upstream, account, version, state, forget)
	SELECT a.upstream, a.account, clock.now, a.state, a.forget FROM asked AS a, clock
	WHERE a.version = 0 AND a.writes
		AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.upstream = a.upstream AND h.account = a.account)
	ORDER BY a.upstream, a.account
	ON CONFLICT DO NOTHING RETURNING upstream, account, version, state
), found AS (
	SELECT a.n, a.version AS seen,
		p.n = a.n OR m.version IS NOT NULL AND a.version = 0 AND a.writes AS swapped,
		coalesce(p.version, m.version, h.version, s.version, 0) AS version,
		coalesce(p.state, m.state, h.state, s.state) AS state
	FROM asked AS a
	LEFT JOIN put AS p ON p.upstream = a.upstream AND p.account = a.account
	LEFT JOIN made AS m ON m.upstream = a.upstream AND m.account = a.account
	LEFT JOIN held AS h ON h.upstream = a.upstream AND h.account = a.account
	LEFT JOIN upstream_shared AS s ON s.upstream = a.upstream AND s.account = a.account
)
SELECT coalesce(swapped, false)::int, version, CASE WHEN swapped IS NOT TRUE AND version <> seen THEN state END, now
FROM found, clock ORDER BY n`

// Swap implements account.Shared, in one round trip.
func (s *SharedAccounts) Swap(ctx context.Context, rows []account.Row) (answers []account.Answer, now int64,
	err error) {
	n := len(rows)
	upstreams, accounts, states := make([]string, n), make([]string, n), make([][]byte, n)
	versions, forget := make([]int64, n), make([]int64, n)
	for i, r := range rows {
		upstreams[i], accounts[i], states[i] = r.Upstream, r.Account, r.State
		versions[i], forget[i] = r.Version, r.Forget
	}
	err = s.ask(ctx, func(conn *postgres.Conn) error {
		answers = make([]account.Answer, 0, n)
		// Not Rows: that would give the rows of a SELECT before it is committed.
		results, err := conn.Pipeline(ctx, []postgres.Call{{Query: swapAccounts,
			Args: []any{upstreams, accounts, versions, states, forget}}})
		if err != nil {
			return err
		}
		for row := range results[0].Rows() {
			a := account.Answer{Swapped: row.Bool(0), Version: row.Int(1), State: row.Blob(2)}
			answers, now = append(answers, a), row.Int(3)
		}
		return nil
	})
	return answers, now, wrap(err, "share the accounts of upstreams with other nodes")
}

// forgetAtOnce is how many rows Forget deletes in one statement.
const forgetAtOnce = 1000

// Forget deletes rows that nobody has missed for a day. It reports whether there may be more.
func (s *SharedAccounts) Forget(ctx context.Context) (more bool, err error) {
	err = s.ask(ctx, func(conn *postgres.Conn) error {
		err := conn.Run(`DELETE FROM upstream_shared WHERE ctid IN (SELECT ctid FROM upstream_shared
			WHERE forget < (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint - 86400000000000
			LIMIT ? FOR UPDATE SKIP LOCKED)`, forgetAtOnce)
		more = err == nil && conn.Changes() == forgetAtOnce
		return err
	})
	return more, wrap(err, "forget accounts that nobody uses")
}
