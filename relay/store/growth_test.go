package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/testkit"
	"postern/relay/queue"
)

// growth is a store at a server of its own, whose work is counted in pages of the tables of the queue.
type growth struct {
	t   *testing.T
	pg  *testkit.PG
	url string
}

// growthRound is how many messages are added, leased and finished between two looks, at once.
const growthRound = 20

func newGrowth(t *testing.T) *growth {
	t.Helper()
	pg := testkit.SharedPostgreSQL(t)
	g := &growth{t, pg, pg.NewDatabase(t)}
	g.store().Close()                                           // makes the tables
	for _, table := range []string{"message", "message_body"} { // vacuum reads pages, too, when it likes to
		testkit.SQL(t, g.url, "ALTER TABLE "+table+" SET (autovacuum_enabled = off)")
	}
	return g
}

func (g *growth) store() *Store {
	g.t.Helper()
	s, err := Open(g.t.Context(), ofServer(g.t, g.url, "a", true))
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// fill queues n messages that wait for a later attempt.
func (g *growth) fill(n int) {
	g.t.Helper()
	testkit.SQL(g.t, g.url, fmt.Sprintf(`
		INSERT INTO message SELECT convert_to(lpad(i::text, 16, '0'), 'UTF8'), 'bob'::bytea, 1,
			%d + i * 1000, '', 0, '', 0, 0, 0, '' FROM generate_series(1, %d) i;
		INSERT INTO message_body SELECT id, 1, 1, 1000, 0, 1, '', '', repeat('x', 200)::bytea FROM message;
		UPDATE counter SET messages = %[2]d WHERE k = 0`, time.Now().Add(time.Hour).UnixNano(), n))
	testkit.SQL(g.t, g.url, "VACUUM ANALYZE message, message_body")
}

// pages is how many pages of the tables have been looked at, so far.
func (g *growth) pages() int {
	g.t.Helper()
	// A connection counts when it ends: what is left of the store's is waited for.
	testkit.SQL(g.t, g.url, `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
		AND state <> 'idle in transaction'`)
	n, err := strconv.Atoi(testkit.SQL(g.t, g.url, `SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read +
		idx_blks_hit) FROM pg_statio_user_tables WHERE relname IN ('message', 'message_body')`)[0][0])
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// cost is how many pages a call looks at.
func (g *growth) cost(calls int, do func(s *Store)) float64 {
	g.t.Helper()
	before := g.pages()
	s := g.store()
	for range calls {
		do(s)
	}
	if err := s.Close(); err != nil {
		g.t.Error(err)
	}
	return float64(g.pages()-before) / float64(calls)
}

func (g *growth) due(s *Store) {
	g.t.Helper()
	if _, _, err := s.Due(g.t.Context(), time.Now(), "", 10, 100); err != nil {
		g.t.Error(err)
	}
}

// round adds messages, leases them, records a failed attempt of each, leases them again and removes them.
func (g *growth) round(s *Store) {
	var group sync.WaitGroup
	for range growthRound {
		group.Go(func() {
			m := small("")
			now := time.Now()
			until := now.Add(5 * time.Minute)
			id := m.Message.ID
			m.Message.NextAttempt = now
			err := errors.Join(
				s.Add(g.t.Context(), m),
				s.Lease(g.t.Context(), attempt(0, id), "a", now, until),
				s.Finish(g.t.Context(), attempt(1, id), "a", queue.Outcome{NextAttempt: now}),
				s.Lease(g.t.Context(), attempt(1, id), "a", now, until),
				s.Finish(g.t.Context(), attempt(2, id), "a", queue.Outcome{Remove: true}))
			if err != nil {
				g.t.Error(err)
			}
		})
	}
	group.Wait()
}

const (
	// The life of a message in round searches indexes some 8 times and makes some 12 entries in them. Each may go two
	// levels deeper into an index that has grown from one page to a million entries.
	growthMessage = 2 * 20
	// A look searches 4 times, and what plans it looks up where indexes begin and end.
	growthLook = 60
)

// A message costs with a million queued what it costs with none, but for the levels of the indexes.
func TestCostBesideALongQueue(t *testing.T) {
	once(t)
	g := newGrowth(t)
	queued := 1_000_000
	if testing.Short() {
		queued = 100_000
	}
	empty, emptyLook := g.cost(20, g.round)/growthRound, g.look()
	g.fill(queued)
	full, fullLook := g.cost(20, g.round)/growthRound, g.look()
	t.Logf("pages for a message: %.1f with none queued, %.1f with %d; for a look: %.1f and %.1f", empty, full, queued,
		emptyLook, fullLook)
	if full > empty+growthMessage {
		t.Errorf("a message costs %.1f pages with %d queued, and %.1f with none", full, queued, empty)
	}
	if fullLook > emptyLook+growthLook {
		t.Errorf("a look costs %.1f pages with %d queued, and %.1f with none", fullLook, queued, emptyLook)
	}
}

// look is what a look for due messages costs when nothing is due and vacuum has been there.
func (g *growth) look() float64 {
	g.t.Helper()
	// Vacuum would leave few dead in the indexes of a large table, for the first look to meet.
	testkit.SQL(g.t, g.url, "VACUUM (INDEX_CLEANUP ON) message, message_body")
	return g.cost(20, g.due)
}

// While somebody keeps an old snapshot nothing that died since can be cleared. What messages cost stays the same; a
// look for due ones meets the dead, so that its cost grows with them and no faster. It is over with the snapshot.
func TestCostBesideAnOldSnapshot(t *testing.T) {
	once(t)
	g := newGrowth(t)
	empty, emptyLook := g.cost(20, g.round)/growthRound, g.look()
	release := pin(t, g.url)
	const rounds = 50
	for dead := rounds; dead <= 4*rounds; dead += rounds { // a round leaves growthRound messages dead
		pinned := g.cost(rounds, g.round) / growthRound
		look := g.look() // vacuum can do nothing
		t.Logf("pages for a message: %.1f, for a look: %.1f beside %d dead messages", pinned, look, dead*growthRound)
		if pinned > empty+growthMessage {
			t.Errorf("a message costs %.1f pages beside an old snapshot, and %.1f without", pinned, empty)
		}
		if most := emptyLook + growthDead*float64(dead*growthRound); look > most {
			t.Errorf("a look costs %.1f pages beside %d dead messages, over %.1f", look, dead*growthRound, most)
		}
	}
	release()
	if look := g.look(); look > emptyLook+growthLook {
		t.Errorf("a look costs %.1f pages after the snapshot, and %.1f before", look, emptyLook)
	}
}

// growthDead is how many pages a look may read for a dead message, which left two entries among the due and two among
// the leases.
const growthDead = 4

// pin keeps a snapshot of now, as a backup or a forgotten session does: what dies from now on stays.
func pin(t *testing.T, url string) (release func()) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { conn.Close(context.Background()) })
	t.Cleanup(release)
	const begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM message"
	if _, err := conn.Exec(t.Context(), begin).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return release
}
