package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/policy"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// SharedLimits counts limits in PostgreSQL, for all nodes together.
type SharedLimits struct {
	ask      askServer
	maxKnown int64
	at       func() int64 // in nanoseconds since 1970; nil: the clock of the database
}

var _ policy.SharedLimits = (*SharedLimits)(nil)

// askServer runs a function with a connection to PostgreSQL that is in no transaction, unless the context is done.
type askServer func(context.Context, func(*postgres.Conn) error) error

// newSharedLimits returns the limits on a server. Of each login the maxKnown recipients used last are remembered.
func newSharedLimits(ask askServer, maxKnown int64) *SharedLimits {
	return &SharedLimits{ask: ask, maxKnown: maxKnown}
}

// SharedLimits counts limits for all nodes together; nil with SQLite, whose one daemon counts in memory.
func (s *Store) SharedLimits() *SharedLimits {
	e, ok := s.engine.(*server)
	if !ok {
		return nil
	}
	return newSharedLimits(e.ask, s.opts.MaxKnown)
}

// ask runs a function with a connection of its own that is in no transaction. While the database is away it is not
// asked: who waits is a client.
func (s *server) ask(ctx context.Context, f func(*postgres.Conn) error) error {
	if err := reason(&s.away, &s.silent); err != nil {
		return err
	}
	return s.asking.read(ctx, func(conn db.Conn) error { return f(conn.(*postgres.Conn)) })
}

// lockLimits makes messages of a login that are being counted wait for the transaction.
func (s *server) lockLimits(t *tx, login string) error {
	return t.Run("SELECT limit_lock(ARRAY[?::bytea])", login)
}

// schemaSharedLimits is for PostgreSQL alone, after the tables limit_state, known and known_count.
//
// A limit is counted as GCRA does: all that is kept is when it will be full again. One of count per window that is full
// at T is at T + n*window/count after n were taken, counted from now if T has passed, and lets them pass if that is no
// later than now + window. A bucket of count tokens decides in the same way. The time is exact: full_at in whole
// nanoseconds and part in 1/count of one, computed as numeric. tokens and at say the same for those who read.
//
// All statements lock in the same order: the logins (an advisory lock each, in the order of their hashes), their
// limits, known_count, known. Rows of known that somebody else deletes are left alone, so that nobody is waited for
// there.
const schemaSharedLimits = `
DROP INDEX IF EXISTS limit_state_full; -- full_at changes with each message: an index would make each a cold update
ALTER TABLE limit_state ADD COLUMN part bigint NOT NULL DEFAULT 0;
-- A few rows that change with each message: room for new versions on their page, and vacuumed soon.
ALTER TABLE limit_state SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE known_count SET (fillfactor = 50);

CREATE FUNCTION limit_lock(p_logins bytea[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	v_hash integer;
BEGIN
	FOR v_hash IN SELECT DISTINCT hashtext(encode(l, 'hex')) FROM unnest(p_logins) AS l ORDER BY 1 LOOP
		PERFORM pg_advisory_xact_lock(1818848617, v_hash); -- "limi", and nothing else of this database's
	END LOOP;
END $$;

CREATE FUNCTION limit_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) * 1000
$$;

-- p_demands is a list of {l: login, c: [{lim, c: count, w: window, n, new}], r: recipients, s: settle}, texts in hex.
-- p_at is 0 for now.
CREATE FUNCTION count_limits(p_demands bytea, p_max_known bigint, p_at bigint)
RETURNS TABLE (ok bigint, fresh bigint, exceeded bigint, wait bigint, never bigint, fulls bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	v_list    jsonb := convert_from(p_demands, 'UTF8');
	v_demand  jsonb;
	v_login   bytea;
	v_settle  boolean;
	v_now     bigint;
	v_new     bytea[]; -- recipients not known
	v_fresh   bigint;
	v_charge  record;
	v_n       bigint;
	v_total   numeric;
	v_tat     bigint;
	v_part    bigint;
	v_over    bigint;
	v_ok      boolean;
	v_which   bigint;
	v_wait    bigint;
	v_never   boolean;
	v_before  bigint[]; -- until full, in case of refusal
	v_after   bigint[];
	v_lims    bytea[];
	v_tokens  double precision[];
	v_tats    bigint[];
	v_parts   bigint[];
	v_spans   bigint[];
	v_mend    boolean;
	v_stale   boolean;
	v_rows    bigint;
BEGIN
	PERFORM limit_lock(ARRAY(SELECT decode(d->>'l', 'hex') FROM jsonb_array_elements(v_list) AS d));
	v_now := CASE WHEN p_at = 0 THEN limit_now() ELSE p_at END;
	FOR v_demand IN SELECT d FROM jsonb_array_elements(v_list) WITH ORDINALITY AS e (d, i) ORDER BY i LOOP
		v_login := decode(v_demand->>'l', 'hex');
		v_settle := v_demand->'s' = 'true';
		v_new := ARRAY(SELECT a
			FROM (SELECT decode(r, 'hex') AS a FROM jsonb_array_elements_text(v_demand->'r') AS r) AS given
			WHERE NOT EXISTS (SELECT FROM known WHERE login = v_login AND addr = a));
		v_fresh := cardinality(v_new);
		v_ok := true; v_which := -1; v_wait := 0; v_never := false; v_stale := false;
		v_before := '{}'; v_after := '{}';
		v_lims := '{}'; v_spans := '{}'; v_tokens := '{}'; v_tats := '{}'; v_parts := '{}';
		FOR v_charge IN
			SELECT i - 1 AS i, convert_to(c->>'lim', 'UTF8') AS lim, (c->>'c')::bigint AS count,
				(c->>'w')::bigint AS span, (c->>'n')::bigint AS n, c->'new' = 'true' AS new,
				coalesce(full_at, 0) AS full_at, coalesce(part, 0) AS part
			FROM jsonb_array_elements(v_demand->'c') WITH ORDINALITY AS e (c, i)
			LEFT JOIN limit_state ON login = v_login AND lim = convert_to(c->>'lim', 'UTF8') ORDER BY i
		LOOP
			v_n := CASE WHEN v_charge.new AND NOT v_settle THEN v_fresh ELSE v_charge.n END;
			v_tat := v_charge.full_at; v_part := v_charge.part;
			v_mend := v_tat - v_now > 2 * v_charge.span; -- of a clock that was wrong: all of it is used
			IF v_mend THEN
				v_tat := v_now + v_charge.span; v_part := 0; v_stale := true;
			ELSIF v_tat < v_now THEN
				v_tat := v_now; v_part := 0;
				v_n := CASE WHEN v_n < 0 THEN 0 ELSE v_n END; -- what is full takes nothing back
			END IF;
			v_before := v_before || v_tat - v_now + CASE WHEN v_part > 0 THEN 1 ELSE 0 END;
			IF v_settle THEN -- a debt of more than one window is forgotten
				v_n := greatest(least(v_n, 2 * v_charge.count), -2 * v_charge.count);
			END IF;
			IF v_n > v_charge.count AND NOT v_settle AND NOT v_never THEN
				v_ok := false; v_never := true; v_which := v_charge.i; v_wait := 0;
			ELSIF NOT v_never AND v_n <> 0 THEN
				v_total := v_n::numeric * v_charge.span + v_part;
				v_part := mod(mod(v_total, v_charge.count) + v_charge.count, v_charge.count);
				v_tat := v_tat + div(v_total - v_part, v_charge.count)::bigint;
				v_over := v_tat - v_now - v_charge.span + CASE WHEN v_part > 0 THEN 1 ELSE 0 END;
				IF v_settle AND v_over > v_charge.span THEN
					v_tat := v_now + 2 * v_charge.span; v_part := 0;
				ELSIF v_over > v_wait AND NOT v_settle THEN
					v_ok := false; v_which := v_charge.i; v_wait := v_over;
				END IF;
			END IF;
			v_after := v_after || greatest(v_tat - v_now + CASE WHEN v_part > 0 THEN 1 ELSE 0 END, 0);
			CONTINUE WHEN v_n = 0 AND NOT v_mend;
			v_lims := v_lims || v_charge.lim;
			v_spans := v_spans || v_charge.span;
			v_tats := v_tats || v_tat;
			v_parts := v_parts || v_part;
			v_tokens := v_tokens || greatest(v_charge.count - ((v_tat - v_now)::numeric * v_charge.count + v_part)
				/ v_charge.span, 0)::double precision;
		END LOOP;
		IF NOT v_ok AND v_stale THEN -- what was wrong is mended although nothing is taken
			UPDATE limit_state AS s SET tokens = 0, at = v_now, full_at = v_now + w, part = 0
				FROM unnest(v_lims, v_spans) AS t (l, w)
				WHERE s.login = v_login AND s.lim = l AND s.full_at - v_now > 2 * w;
		ELSIF v_ok THEN
			INSERT INTO limit_state (login, lim, tokens, at, full_at, part)
				SELECT v_login, l, t, v_now, f, p
				FROM unnest(v_lims, v_tokens, v_tats, v_parts) AS r (l, t, f, p) ORDER BY l
				ON CONFLICT (login, lim) DO UPDATE SET tokens = excluded.tokens, at = excluded.at,
					full_at = excluded.full_at, part = excluded.part;
			IF v_fresh > 0 THEN
				INSERT INTO known_count (login, n) VALUES (v_login, v_fresh)
					ON CONFLICT (login) DO UPDATE SET n = known_count.n + excluded.n;
				INSERT INTO known (login, addr, used) SELECT v_login, a, v_now FROM unnest(v_new) AS a ORDER BY a
					ON CONFLICT DO NOTHING;
				GET DIAGNOSTICS v_rows = ROW_COUNT;
				UPDATE known_count SET n = n - (v_fresh - v_rows) WHERE login = v_login AND v_rows < v_fresh;
				SELECT n - p_max_known INTO v_rows FROM known_count WHERE login = v_login;
				IF v_rows > 0 THEN
					DELETE FROM known WHERE login = v_login AND addr IN (SELECT addr FROM known WHERE login = v_login
						ORDER BY used LIMIT v_rows FOR UPDATE SKIP LOCKED);
					GET DIAGNOSTICS v_rows = ROW_COUNT;
					UPDATE known_count SET n = n - v_rows WHERE login = v_login;
				END IF;
			END IF;
			IF jsonb_array_length(v_demand->'r') > v_fresh THEN -- a day is exact enough for what is kept for months
				UPDATE known SET used = v_now WHERE login = v_login AND addr IN (SELECT addr FROM known
					WHERE login = v_login AND used < v_now - 86400000000000 AND addr IN
						(SELECT decode(r, 'hex') FROM jsonb_array_elements_text(v_demand->'r') AS r)
					FOR UPDATE SKIP LOCKED);
			END IF;
		END IF;
		RETURN QUERY SELECT v_ok::integer::bigint, v_fresh, v_which, v_wait, v_never::integer::bigint,
			convert_to(array_to_string(CASE WHEN v_ok THEN v_after ELSE v_before END, ','), 'UTF8');
	END LOOP;
END $$;
`

// demand is a policy.Demand as count_limits reads it.
type demand struct {
	Login      string   `json:"l"`
	Charges    []charge `json:"c"`
	Recipients []string `json:"r"`
	Settle     bool     `json:"s"`
}

type charge struct {
	Limit  string `json:"lim"`
	Count  int64  `json:"c"`
	Window int64  `json:"w"`
	N      int64  `json:"n"`
	New    bool   `json:"new"`
}

func demandOf(d policy.Demand) demand {
	out := demand{Login: hex.EncodeToString([]byte(d.Login)), Settle: d.Settle,
		Charges: make([]charge, len(d.Charges)), Recipients: make([]string, len(d.Recipients))}
	for i, c := range d.Charges {
		out.Charges[i] = charge{c.Limit.String(), c.Limit.Count, int64(c.Limit.Window), c.N,
			c.Limit.Unit == policy.NewRecipients}
	}
	for i, r := range d.Recipients {
		out.Recipients[i] = hex.EncodeToString([]byte(r))
	}
	return out
}

// CountLimits implements policy.SharedLimits.
func (s *SharedLimits) CountLimits(ctx context.Context, demands []policy.Demand) (answers []policy.Answer, err error) {
	list := make([]demand, len(demands))
	for i, d := range demands {
		list[i] = demandOf(d)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("count limits: %w", err)
	}
	at := int64(0)
	if s.at != nil {
		at = s.at()
	}
	asked := false
	err = s.ask(ctx, func(conn *postgres.Conn) error {
		asked, answers = true, nil
		// Not Rows: that would give the rows of a SELECT before it is committed.
		results, err := conn.Pipeline(ctx, []postgres.Call{{
			Query: "SELECT ok, fresh, exceeded, wait, never, fulls FROM count_limits(?, ?, ?)",
			Args:  []any{text, s.maxKnown, at},
		}})
		if err != nil {
			return err
		}
		for row := range results[0].Rows() {
			a, err := answerOf(row)
			if err != nil {
				return err
			}
			answers = append(answers, a)
		}
		return nil
	})
	if err != nil {
		if kind := db.KindOf(err); asked && (kind == db.Gone || kind == db.Interrupted) {
			err = fmt.Errorf("%w: %w", policy.ErrUnsure, err)
		}
		return nil, fmt.Errorf("count limits: %w", err)
	}
	return answers, nil
}

func answerOf(row db.Row) (policy.Answer, error) {
	a := policy.Answer{OK: row.Bool(0), New: row.Int(1), Exceeded: int(row.Int(2)), Wait: time.Duration(row.Int(3)),
		Never: row.Bool(4)}
	for s := range strings.SplitSeq(row.Text(5), ",") {
		if s == "" {
			continue // no charges
		}
		full, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return a, fmt.Errorf("read when a limit is full: %w", err)
		}
		a.Full = append(a.Full, time.Duration(full))
	}
	return a, nil
}

// DropFullLimits implements policy.SharedLimits. What another statement uses is not full, or soon dropped.
func (s *SharedLimits) DropFullLimits(ctx context.Context) error {
	at := int64(0)
	if s.at != nil {
		at = s.at()
	}
	err := s.ask(ctx, func(conn *postgres.Conn) error {
		return conn.Run(`DELETE FROM limit_state WHERE (login, lim) IN (SELECT login, lim FROM limit_state
			WHERE full_at < CASE WHEN CAST(? AS bigint) = 0 THEN limit_now() ELSE CAST(? AS bigint) END
			FOR UPDATE SKIP LOCKED)`, at, at)
	})
	if err != nil {
		return fmt.Errorf("drop full limits: %w", err)
	}
	return nil
}
