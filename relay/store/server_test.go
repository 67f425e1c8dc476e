package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// once is for tests that have a server whatever the package's tests run on.
func once(t *testing.T) {
	t.Helper()
	if onServer() {
		t.Skip("it is run once")
	}
	t.Parallel() // they wait more than they work
}

// logged is what a store logs.
type logged struct{ testkit.Log }

func (l *logged) count(what string) int { return strings.Count(l.String(), what) }

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

const (
	lineAway = `msg="the database is away`
	lineBack = `msg="the database is back`
)

// until waits for something that has to come.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline, look := time.Now().Add(time.Minute), time.NewTicker(5*time.Millisecond)
	defer look.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-look.C
	}
}

// leased is a message that its owner may finish.
func leased(id string) queue.NewMessage {
	n := small(id)
	n.Message.LeaseOwner, n.Message.LeaseUntil = "a", time.Now().Add(time.Hour)
	return n
}

// traffic adds messages and finishes them, and knows what it was told.
type traffic struct {
	s    *Store
	name string
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	want     map[string]bool // is it there; one in doubt is not in it
	did      int             // writes that were confirmed
	failures []error
}

func newTraffic(s *Store, name string, writers int) *traffic {
	r := &traffic{s: s, name: name, stop: make(chan struct{}), want: map[string]bool{}}
	for w := range writers {
		r.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-r.stop:
					return
				default:
				}
				r.one(fmt.Sprintf("%s-%d-%d", r.name, w, i), i%3 == 0)
			}
		})
	}
	return r
}

// one is a message. Some are finished, others stay.
func (r *traffic) one(id string, finish bool) {
	err := r.s.Add(context.Background(), leased(id))
	r.note(id, true, false, err)
	if err != nil {
		select { // as who tries again
		case <-r.stop:
		case <-time.After(time.Millisecond):
		}
	}
	if err == nil && finish {
		err = r.s.Finish(context.Background(), attempt(1, id), "a", queue.Outcome{Remove: true})
		r.note(id, false, true, err)
	}
}

// note is told that a message is there after a success, and what it was before.
func (r *traffic) note(id string, there, before bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.want[id] = there
		r.did++
		return
	case errors.Is(err, errDoubt):
		delete(r.want, id)
	default:
		r.want[id] = before
	}
	r.failures = append(r.failures, err)
}

func (r *traffic) confirmed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.did
}

func (r *traffic) errors() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failures)
}

func (r *traffic) failed() int { return len(r.errors()) }

// flows waits until writes are confirmed again.
func (r *traffic) flows(t *testing.T) {
	t.Helper()
	n := r.confirmed()
	until(t, "writes are confirmed", func() bool { return r.confirmed() > n+10 })
}

// end stops it and compares what is stored with what it was told.
func (r *traffic) end(t *testing.T) {
	t.Helper()
	close(r.stop)
	r.wg.Wait()
	there := map[string]bool{}
	for _, id := range ids(t, r.s) {
		there[id] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, want := range r.want {
		if there[id] != want {
			t.Errorf("%s: it is there: %v; as was confirmed: %v", id, there[id], want)
		}
	}
	for _, err := range r.failures {
		if !errors.Is(err, ErrAway) {
			t.Errorf("an error that does not tell the database is away: %v", err)
		}
	}
	st, err := r.s.Stats(t.Context())
	if err != nil || st.Messages != int64(len(there)) {
		t.Errorf("%d messages are counted, %d are there: %v", st.Messages, len(there), err)
	}
	t.Logf("%d writes were confirmed, %d not", r.did, len(r.failures))
}

func ids(t *testing.T, s *Store) []string {
	t.Helper()
	all, err := readAll(t.Context(), s.readers, text, "SELECT id FROM message ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever the server does while mail comes and goes: what was confirmed is there, what was refused is not, and no
// restart of ours is needed.
func TestServerGoesAndComes(t *testing.T) {
	once(t)
	pg := testkit.PostgreSQL(t)
	var log logged
	o := ofServer(t, pg.URL(), "a", true)
	o.Logger = log.logger()
	o.limits.outcome = 2 * time.Second
	s := open(t, o)
	r := newTraffic(s, "m", 8)
	defer func() { r.end(t) }()
	r.flows(t)

	for range 6 {
		pg.Terminate()
		r.flows(t)
	}
	if n := log.count(lineAway); n > 0 {
		t.Errorf("connections that are replaced at once: away %d times", n)
	}
	for _, err := range r.errors() {
		if !errors.Is(err, errDoubt) {
			t.Errorf("a connection that is replaced at once: %v", err)
		}
	}

	for name, outage := range map[string]func(){
		"restart": pg.Restart,
		"kill":    func() { pg.Kill(); pg.Start() },
	} {
		before := log.count(lineAway)
		outage()
		r.flows(t)
		if away, back := log.count(lineAway), log.count(lineBack); away > before+1 || away != back {
			t.Errorf("%s: away %d times, back %d times", name, away-before, back)
		}
	}

	before, failed := log.count(lineAway), r.failed()
	pg.Stop()
	until(t, "writes fail", func() bool { return r.failed() > failed+100 }) // quickly: nobody waits for the server
	if err := s.Writable(); !errors.Is(err, ErrAway) {
		t.Errorf("Writable: %v", err)
	}
	if _, err := s.Stats(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("reading: %v", err)
	}
	pg.Start()
	r.flows(t)
	if err := s.Writable(); err != nil {
		t.Errorf("Writable afterwards: %v", err)
	}
	if away, back := log.count(lineAway), log.count(lineBack); away != before+1 || away != back {
		t.Errorf("stop and start: away %d times, back %d times", away-before, back)
	}
}

// While the server is away no mail is taken. The store notices by itself when it is back.
func TestServerComesBackUnasked(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	s := open(t, ofServer(t, gate.URL(pg.NewDatabase(t)), "a", true))
	gate.Cut()
	if err := s.Add(t.Context(), small("")); !errors.Is(err, ErrAway) || errors.Is(err, errDoubt) {
		t.Fatal(err)
	}
	if err := s.Writable(); !errors.Is(err, ErrAway) {
		t.Fatal(err)
	}
	gate.Pass()
	until(t, "it is back", func() bool { return s.Writable() == nil })
}

// An answer that was lost is no reason to refuse what was done, or to do it twice.
func TestLostAnswers(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	var log logged
	o := ofServer(t, gate.URL(pg.NewDatabase(t)), "a", true)
	o.Logger = log.logger()
	s := open(t, o)
	user := func(login string) error { return s.AddUser(t.Context(), auth.User{Login: login}) }
	for _, request := range []string{"BEGIN", "pg_advisory_xact_lock", `INTO "user"`, "COMMIT"} {
		lost := gate.LoseAnswer(request)
		login := strings.ToLower(strings.Trim(request, `"`))
		login = strings.NewReplacer(" ", "-", `"`, "").Replace(login)
		if err := user(login); err != nil {
			t.Errorf("%s: %v", request, err)
		}
		<-lost
		if u, err := s.User(t.Context(), login); err != nil || u.Login != login {
			t.Errorf("%s: %+v, %v", request, u, err)
		}
	}

	now := time.Now()
	life := func(id string) []func() error {
		kept := queue.Outcome{NextAttempt: now.Add(time.Hour), Recipients: small("").Message.Recipients, WaitingFor: id}
		return []func() error{
			func() error { return s.Add(t.Context(), small(id), small(id+"-2")) },
			func() error {
				return s.Lease(t.Context(), attempt(0, id), "a", now.Add(time.Minute), now.Add(time.Hour))
			},
			func() error { return s.Extend(t.Context(), attempt(1, id), "a", now.Add(2*time.Hour)) },
			func() error { return s.Finish(t.Context(), attempt(1, id), "a", kept) },
			func() error {
				return s.Lease(t.Context(), attempt(1, id), "a", now.Add(3*time.Hour), now.Add(4*time.Hour))
			},
			func() error { return s.Finish(t.Context(), attempt(2, id), "a", queue.Outcome{Remove: true}) },
		}
	}
	for name, lose := range map[string]func() <-chan struct{}{
		"answer":  func() <-chan struct{} { return gate.LoseAnswer("UPDATE counter") },
		"request": func() <-chan struct{} { return gate.CutAfter(testkit.ToServer, 1) },
		"half":    func() <-chan struct{} { return gate.CutAfter(testkit.ToServer, 400) },
		"partly":  func() <-chan struct{} { return gate.CutAfter(testkit.ToClient, 8) },
	} {
		for i, do := range life(name) {
			lost := lose()
			if err := do(); err != nil {
				t.Errorf("%s: write %d: %v", name, i, err)
			}
			<-lost
		}
		lost := lose()
		err := s.Finish(t.Context(), attempt(1, name), "a", queue.Outcome{NextAttempt: now})
		if !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%s: a message that is gone: %v", name, err)
		}
		<-lost
		lost = lose()
		err = s.Lease(t.Context(), attempt(0, name), "a", now, now.Add(time.Hour))
		if !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%s: a message that is gone: %v", name, err)
		}
		<-lost
		if got := ids(t, s); len(got) != 1 || got[0] != name+"-2" {
			t.Errorf("%s: %q are there", name, got)
		}
		if st, err := s.Stats(t.Context()); err != nil || st.Messages != 1 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		if err := errors.Join(s.Lease(t.Context(), attempt(0, name+"-2"), "a", now, now.Add(time.Hour)),
			s.Finish(t.Context(), attempt(1, name+"-2"), "a", queue.Outcome{Remove: true})); err != nil {
			t.Error(err)
		}
	}

	// The request itself is lost: nothing took place, and it is done again.
	runs := 0
	if err := s.write(t.Context(), func(tx *tx) error {
		err := tx.Run("INSERT INTO limit_state VALUES ('x', 'y', 1.0, 0, 0)")
		if runs++; runs == 1 {
			gate.CutAfter(testkit.ToServer, 1)
		}
		return err
	}); err != nil || runs != 2 {
		t.Errorf("after %d runs: %v", runs, err)
	}
	if n := log.count(lineAway); n > 0 {
		t.Errorf("away %d times, though the server was there", n)
	}
}

// Where the network is silent nobody waits for ever, nor does Close.
func TestSilentNetwork(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	o := ofServer(t, gate.URL(pg.NewDatabase(t)), "a", true)
	o.limits = limits{statement: time.Second, outcome: time.Second}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), leased("m1")); err != nil {
		t.Fatal(err)
	}
	gate.Stall()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := s.Add(t.Context(), small("")); !errors.Is(err, ErrAway) {
				t.Errorf("Add: %v", err)
			}
		})
		all.Go(func() {
			if err := s.AddUser(t.Context(), auth.User{Login: fmt.Sprint("u", i)}); !errors.Is(err, ErrAway) {
				t.Errorf("AddUser: %v", err)
			}
		})
		all.Go(func() {
			if _, err := s.Stats(t.Context()); !errors.Is(err, ErrAway) {
				t.Errorf("Stats: %v", err)
			}
		})
	}
	all.Wait()
	if err := s.Close(); err != nil && !errors.Is(err, ErrAway) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	gate.Pass()
	s = open(t, o)
	if got := ids(t, s); len(got) == 0 || got[len(got)-1] != "m1" {
		t.Errorf("%q are there", got)
	}
}

// When the primary dies, its synchronous standby has all that was confirmed, and the store goes on there.
func TestFailover(t *testing.T) {
	once(t)
	primary := testkit.PostgreSQL(t)
	standby := primary.Standby(t, true)
	if s, err := Open(t.Context(), ofServer(t, standby.URL(), "a", true)); err == nil || s != nil ||
		!strings.Contains(err.Error(), "name the primary, or all hosts, in [store] url") {
		t.Fatalf("a standby alone: %v", err)
	}
	var log logged
	o := ofServer(t, primary.URL(standby), "a", true)
	o.Logger = log.logger()
	s := open(t, o)
	r := newTraffic(s, "m", 4)
	r.flows(t)
	primary.Kill()
	until(t, "it is away", func() bool { return log.count(lineAway) == 1 })
	standby.Promote()
	r.flows(t)
	r.end(t)
	if away, back := log.count(lineAway), log.count(lineBack); away != 1 || back != 1 {
		t.Errorf("away %d times, back %d times", away, back)
	}
}

// A batch of a former life that takes place late is not taken for one of this life whose answer was lost.
func TestLateBatchOfAFormerLife(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	url := pg.NewDatabase(t)
	s := open(t, ofServer(t, gate.URL(url), "a", true))
	if err := s.Add(t.Context(), small("m1")); err != nil {
		t.Fatal(err)
	}
	testkit.SQL(t, url, "UPDATE counter SET batch = batch + 1 WHERE k = 1")
	lost := gate.CutAfter(testkit.ToServer, 1)
	err := s.Add(t.Context(), small("m2"))
	<-lost
	if there := len(ids(t, s)) == 2; err == nil && !there {
		t.Error("a message that is not there is taken for stored")
	}
	if err := s.Add(t.Context(), small("m3")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What was committed on the primary alone, because the wait for the standby was ended with its connection, is not taken
// for stored before a standby has it.
func TestLostAnswersOfTheStandby(t *testing.T) {
	once(t)
	for name, do := range map[string]func(*Store) error{
		"batch": func(s *Store) error { return s.Add(t.Context(), small("m1")) },
		"alone": func(s *Store) error { return s.AddUser(t.Context(), auth.User{Login: "anna"}) },
	} {
		t.Run(name, func(t *testing.T) {
			pg := testkit.PostgreSQL(t)
			s := open(t, ofServer(t, pg.URL(), "a", true))
			still(s) // its row is a commit, too
			waits := func() bool {
				return pg.Exec("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")[0][0] == "1"
			}
			pg.Configure("synchronous_standby_names", "one_that_is_gone")
			done := make(chan error, 1)
			go func() { done <- do(s) }()
			until(t, "the commit waits", waits)
			pg.Terminate()
			until(t, "it waits again, or is done", func() bool { return len(done) > 0 || waits() })
			if len(done) > 0 {
				t.Fatalf("no standby has it, and it is done: %v", <-done)
			}
			pg.Configure("synchronous_standby_names", "")
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A server that turns read-only takes no mail, but what is there can be read; and it is used again by itself.
func TestServerTurnsReadOnly(t *testing.T) {
	once(t)
	pg := testkit.PostgreSQL(t)
	var log logged
	o := ofServer(t, pg.URL(), "a", true)
	o.Logger = log.logger()
	s := open(t, o)
	if err := s.Add(t.Context(), leased("m1")); err != nil {
		t.Fatal(err)
	}
	pg.SetReadOnly(true)
	for name, write := range map[string]func() error{
		"Add":     func() error { return s.Add(t.Context(), leased("m2")) },
		"AddUser": func() error { return s.AddUser(t.Context(), auth.User{Login: "anna"}) },
		"Finish":  func() error { return s.Finish(t.Context(), attempt(1, "m1"), "a", queue.Outcome{Remove: true}) },
	} {
		err := write()
		if !errors.Is(err, ErrAway) || errors.Is(err, errDoubt) || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := ids(t, s); len(got) != 1 {
		t.Errorf("%q are there", got)
	}
	pg.SetReadOnly(false)
	until(t, "it is back", func() bool { return s.Writable() == nil })
	if err := s.Add(t.Context(), leased("m2")); err != nil {
		t.Error(err)
	}
	if away, back := log.count(lineAway), log.count(lineBack); away != 1 || back != 1 {
		t.Errorf("away %d times, back %d times", away, back)
	}
}

// Each reason why a store cannot be opened is one sentence that says what to do, and changes nothing.
func TestServerRefuses(t *testing.T) {
	once(t)
	pg := testkit.PostgreSQL(t)
	gone := testkit.NewGate(t, pg.Address())
	gone.Cut()
	filled := func(t *testing.T) string { // the URL of a database with a store
		url := pg.NewDatabase(t)
		s := open(t, ofServer(t, url, "a", true))
		if _, err := s.Secret(t.Context(), "pepper", 32); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return url
	}
	admin := func(url string) string { return pg.AdminURL(databaseOf(url)) }
	type opening = func(t *testing.T) (o Options, url string)
	for name, test := range map[string]struct {
		options opening // and the URL of a database that is to stay as it is
		want    string
		there   bool // a store is there, as far as can be told
	}{
		"wrong password": {want: "check user and password in [store] url", options: func(t *testing.T) (o Options,
			at string) {
			at = pg.NewDatabase(t)
			o = ofServer(t, at, "a", true)
			o.Password = "wrong"
			return o, at
		}},
		"unknown database": {want: "create the database, owned by Postern's role", options: func(t *testing.T) (Options,
			string) {
			return ofServer(t, strings.Replace(pg.URL(), "/postern?", "/missing?", 1), "a", true), ""
		}},
		"no privilege": {want: "needs to own Postern's tables", options: func(t *testing.T) (Options, string) {
			url := pg.NewDatabase(t)
			testkit.SQL(t, admin(url), "ALTER DATABASE "+databaseOf(url)+
				" OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
			return ofServer(t, url, "a", true), url
		}},
		"tables of others": {want: "name an empty database in [store] url", options: func(t *testing.T) (Options,
			string) {
			url := pg.NewDatabase(t)
			testkit.SQL(t, admin(url), "CREATE TABLE article (id integer)")
			return ofServer(t, url, "a", true), url
		}},
		"newer schema": {want: "at most: install", there: true, options: func(t *testing.T) (Options, string) {
			url := filled(t)
			testkit.SQL(t, admin(url), "INSERT INTO migration VALUES (9999, 0)")
			return ofServer(t, url, "a", true), url
		}},
		"no server": {want: "the database cannot be reached", options: func(t *testing.T) (Options, string) {
			return ofServer(t, gone.URL(pg.URL()), "a", true), ""
		}},
		"other seal key": {want: "than seal_key of [store]: write the one that the other nodes have", there: true,
			options: func(t *testing.T) (Options, string) {
				url := filled(t)
				o := ofServer(t, url, "b", true)
				o.SealKey = auth.Secret(strings.Repeat("x", 32))
				return o, url
			}},
	} {
		t.Run(name, func(t *testing.T) {
			o, url := test.options(t)
			before := contents(t, admin, url)
			for _, daemon := range []bool{true, false} {
				o.Daemon = daemon
				s, err := Open(t.Context(), o)
				if err == nil {
					s.Close()
					t.Fatal("it was opened")
				}
				if text := err.Error(); !strings.Contains(text, test.want) || strings.Contains(text, "\n") ||
					strings.Contains(text, "p@ss") || strings.Count(text, test.want) != 1 {
					t.Errorf("%v", err)
				}
			}
			there, err := o.There(t.Context())
			if there != test.there || (err == nil) != test.there {
				t.Errorf("is it there: %v, %v", there, err)
			}
			if s, err := OpenThere(t.Context(), o); s != nil || err == nil ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("opened where it is there: %v", err)
			}
			if after := contents(t, admin, url); !maps.Equal(before, after) {
				t.Errorf("before: %v\nafter: %v", before, after)
			}
			if Serving(o) {
				t.Error("the data directory stays locked")
			}
		})
	}
}

// databaseOf is the name of the database in a URL of testkit.
func databaseOf(url string) string {
	return url[strings.LastIndexByte(url, '/')+1 : strings.IndexByte(url, '?')]
}

// contents counts the rows of the tables of a database.
func contents(t *testing.T, admin func(string) string, url string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if url == "" {
		return all
	}
	for _, row := range testkit.SQL(t, admin(url), "SELECT tablename, (xpath('/row/c/text()', query_to_xml("+
		"'SELECT count(*) AS c FROM ' || quote_ident(tablename), false, true, '')))[1] FROM pg_tables "+
		"WHERE schemaname = 'public'") {
		all[row[0]] = row[1]
	}
	return all
}

// A command that only looks makes nothing where nothing is.
func TestOpenThereMakesNoTables(t *testing.T) {
	once(t)
	o := ofServer(t, testkit.SharedPostgreSQL(t).NewDatabase(t), "", false)
	for range 2 {
		if s, err := OpenThere(t.Context(), o); s != nil || err != nil {
			t.Fatalf("%v, %v", s, err)
		}
	}
	open(t, o)
	s, err := OpenThere(t.Context(), o)
	if s == nil || err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// What is confirmed is on disk, whatever is the default of the role.
func TestServerCommitsAreSynced(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	testkit.SQL(t, url, "ALTER ROLE CURRENT_USER IN DATABASE "+
		databaseOf(url)+" SET synchronous_commit = off")
	s := open(t, ofServer(t, url, "a", true))
	if err := s.write(t.Context(), func(tx *tx) error {
		for row, err := range tx.Rows("SELECT current_setting('synchronous_commit'::text)") {
			if err != nil || row.Text(0) != "on" {
				t.Errorf("synchronous_commit is %q: %v", row.Text(0), err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Through a pooler of connections, in transaction mode, all works, and goes on after its restart.
func TestServerBehindPooler(t *testing.T) {
	once(t)
	pg := testkit.PostgreSQL(t)
	bouncer := testkit.PgBouncer(t, pg)
	var log logged
	o := ofServer(t, bouncer.URL(pg.URL()), "a", true)
	o.Logger = log.logger()
	s := open(t, o)
	r := newTraffic(s, "m", 4)
	r.flows(t)
	if err := s.AddUser(t.Context(), auth.User{Login: "anna"}); err != nil {
		t.Error(err)
	}
	n := leased("large")
	body := bytes.Repeat([]byte("x"), 3<<20)
	n.Content = mail.BytesContent(body)
	if err := s.Add(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	c, err := s.Content(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := octets(c); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d octets came back, %v", len(got), err)
	}
	if err := s.readers.snapshot(t.Context(), func(conn db.Conn) error {
		first, _, err := conn.Int("SELECT count(*) FROM message")
		r.flows(t)
		second, _, err2 := conn.Int("SELECT count(*) FROM message")
		if first != second {
			t.Errorf("a snapshot sees %d messages, and then %d", first, second)
		}
		return errors.Join(err, err2)
	}); err != nil {
		t.Error(err)
	}
	interrupted(t, s)
	if err := s.Finish(t.Context(), attempt(1, "large"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Error(err)
	}
	bouncer.Kill()
	until(t, "it is away", func() bool { return log.count(lineAway) == 1 })
	bouncer.Start()
	r.flows(t)
	r.end(t)
	if away, back := log.count(lineAway), log.count(lineBack); away != 1 || back != 1 {
		t.Errorf("away %d times, back %d times", away, back)
	}
}

// interrupted reads until its context ends.
func interrupted(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.readers.read(ctx, func(conn db.Conn) error {
		time.AfterFunc(50*time.Millisecond, cancel)
		_, _, err := conn.Int("SELECT count(*) FROM pg_sleep(60)")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a read whose context ends: %v", err)
	}
}

// Processes that open an empty database at the same moment make its tables once.
func TestTablesAreMadeOnce(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	var all sync.WaitGroup
	for range 6 {
		o := ofServer(t, url, "", false)
		all.Go(func() {
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s := open(t, ofServer(t, url, "a", true))
	if n, err := readAll(t.Context(), s.readers, text, "SELECT version FROM migration"); err != nil ||
		len(n) != len(migrations) {
		t.Errorf("versions %q: %v", n, err)
	}
}

// A process that brings the tables up to date may take its time: another one waits, as long as its context lasts.
func TestTablesWaitForOthers(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	other := session(t, url)
	if err := errors.Join(other.Run("BEGIN"), other.Run(schemaLock)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := ofServer(t, url, "a", true)
	done := make(chan error, 1)
	go func() {
		_, err := Open(ctx, o)
		done <- err
	}()
	waiting := func() bool {
		return testkit.SQL(t, url, "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "+
			"WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()")[0][0] == "1"
	}
	until(t, "it waits", waiting)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("when its context ends: %v", err)
	}
	if err := other.Run("COMMIT"); err != nil {
		t.Fatal(err)
	}
	open(t, o)
}

// session is a connection of somebody else.
func session(t *testing.T, url string) *postgres.Conn {
	t.Helper()
	conn, err := postgres.Open(t.Context(), postgres.Config{URL: url, IdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A lock that somebody else holds for too long makes a write fail for the time being. Nothing of it is stored.
func TestHeldLocks(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	o := ofServer(t, url, "a", true)
	o.limits.lock = 100 * time.Millisecond
	s := open(t, o)
	if err := s.Add(t.Context(), leased("m1"), leased("m2")); err != nil {
		t.Fatal(err)
	}
	other := session(t, url)
	users := func() (errs []error) {
		release := stall(t, s)
		var all sync.WaitGroup
		errs = make([]error, 3)
		for i := range errs {
			all.Go(func() { errs[i] = s.AddUser(t.Context(), auth.User{Login: fmt.Sprint("u", i)}) })
		}
		waitFor(t, s, len(errs), 0)
		release()
		all.Wait()
		return errs
	}
	// What needs the lock of all writes waits; mail does not.
	if err := errors.Join(other.Run("BEGIN"), other.Run("SELECT pg_advisory_lock(1347638350, 1)")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.AddUser(t.Context(), auth.User{Login: fmt.Sprint("u", i)}); db.KindOf(err) != db.Busy ||
			!strings.Contains(err.Error(), "it is tried again") {
			t.Errorf("while the lock is held: %v", err)
		}
		if err := s.Add(t.Context(), leased(fmt.Sprint("n", i))); err != nil {
			t.Errorf("mail while the lock is held: %v", err)
		}
	}
	if err := errors.Join(other.Run("COMMIT"), other.Run("SELECT pg_advisory_unlock(1347638350, 1)")); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Users(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := errors.Join(users()...); err != nil {
		t.Errorf("when the lock is free: %v", err)
	}

	// A message that somebody else looks after.
	if err := errors.Join(other.Run("BEGIN"),
		other.Run("SELECT FROM message WHERE id = ? FOR UPDATE", "m1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), attempt(1, "m1"), "a", queue.Outcome{Remove: true}); db.KindOf(err) != db.Busy {
		t.Errorf("while its row is locked: %v", err)
	}
	if err := s.Finish(t.Context(), attempt(1, "m2"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Errorf("another message: %v", err)
	}
	if err := other.Run("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), attempt(1, "m1"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Errorf("when its row is free: %v", err)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 3 {
		t.Errorf("%+v, %v", st, err)
	}
}

// Two daemons in one data directory are refused, also if their databases differ.
func TestServerKeepsLockOfDirectory(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	o := ofServer(t, pg.NewDatabase(t), "a", true)
	open(t, o)
	second := ofServer(t, pg.NewDatabase(t), "b", true)
	second.Dir = o.Dir
	if _, err := Open(t.Context(), second); !errors.Is(err, ErrLocked) {
		t.Errorf("a second daemon: %v", err)
	}
	if there, err := second.There(t.Context()); there || err != nil {
		t.Errorf("it made tables: %v, %v", there, err)
	}
	if !Serving(o) {
		t.Error("nobody is known to serve")
	}
}

// Connections for reading that the server has ended are replaced before anybody notices.
func TestReadersOfServer(t *testing.T) {
	once(t)
	pg := testkit.PostgreSQL(t)
	s := open(t, ofServer(t, pg.URL(), "a", true))
	everywhere := func() { // each of the connections
		t.Helper()
		var ready, all sync.WaitGroup
		ready.Add(maxReaders)
		for range maxReaders {
			all.Go(func() {
				here := sync.OnceFunc(ready.Done)
				defer here()
				if err := s.readers.read(t.Context(), func(conn db.Conn) error {
					here()
					ready.Wait()
					_, _, err := conn.Int("SELECT count(*) FROM message")
					return err
				}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	everywhere()
	for range 3 {
		pg.Terminate()
		everywhere()
	}
	pg.Restart()
	everywhere()

	// Whoever has seen enough does not get the rest.
	gate := testkit.NewGate(t, pg.Address())
	s = open(t, ofServer(t, gate.URL(pg.URL()), "", false))
	all := gate.CutAfter(testkit.ToClient, 8<<20)
	errEnough := errors.New("enough")
	for range 3 {
		err := s.readers.read(t.Context(), func(conn db.Conn) error {
			for _, err := range conn.Rows("SELECT repeat('x'::text, 1000) FROM generate_series(1, 100000)") {
				return errors.Join(err, errEnough)
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Error(err)
		}
	}
	select {
	case <-all:
		t.Error("rows were read that nobody wanted")
	default:
	}
	gate.Pass()
	interrupted(t, s)
	everywhere()
}
