package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/queue"
)

// ofServer is options for a node of its own at a database.
func ofServer(t *testing.T, url, node string, daemon bool) Options {
	t.Helper()
	o, err := toServer(Options{Dir: t.TempDir(), Node: node, Daemon: daemon}, url)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// One daemon has the database at a time. When it has ended, another takes over; when it stands still, after a while.
func TestOneNodeAtATime(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a, b := ofServer(t, url, "a", true), ofServer(t, url, "b", true)
	first := open(t, a)
	if _, err := Open(t.Context(), b); !errors.Is(err, ErrNodeLives) || !strings.Contains(err.Error(), "a on ") {
		t.Fatalf("a second node: %v", err)
	}
	if _, err := Open(t.Context(), ofServer(t, url, "a", true)); !errors.Is(err, ErrNodeLives) {
		t.Fatalf("a second node of the same name: %v", err)
	}
	command := open(t, ofServer(t, url, "", false)) // works beside it
	nodes, err := command.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || !nodes[0].Alive || nodes[0].Name != "a" ||
		time.Since(nodes[0].Started).Abs() > time.Minute {
		t.Errorf("%+v, %v", nodes, err)
	}
	if first.Owner() != "a" || command.Owner() != "local" {
		t.Errorf("%q, %q", first.Owner(), command.Owner())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, b)
	tried := small("tried")
	tried.Message.LeaseOwner, tried.Message.LeaseUntil = "b", time.Now().Add(time.Hour)
	if err := second.Add(t.Context(), small("m1"), tried); err != nil {
		t.Fatal(err)
	}

	// It stands still, and the first one takes over.
	if err := second.write(t.Context(), func(t *tx) error {
		return t.Run("UPDATE node SET until = 1 WHERE name = 'b'")
	}); err != nil {
		t.Fatal(err)
	}
	again := open(t, a)
	if second.beat(t.Context(), second.engine.(*server), second.member) {
		t.Error("it does not notice that it was taken over")
	}
	if err := second.Writable(); !errors.Is(err, ErrNodeLives) {
		t.Errorf("a node that another took over from takes mail: %v", err)
	}
	if err := second.Add(t.Context(), small("m2")); !errors.Is(err, ErrNodeLives) {
		t.Errorf("it adds: %v", err)
	}
	now := time.Now()
	err = second.Lease(t.Context(), "m1", "b", now.Add(time.Minute), now.Add(time.Hour))
	if !errors.Is(err, ErrNodeLives) {
		t.Errorf("it leases: %v", err)
	}
	// What it had under way ends: else the other one would send again what was taken.
	if err := second.Finish(t.Context(), "tried", "b", queue.Outcome{Remove: true}); err != nil {
		t.Errorf("it does not record what an upstream took: %v", err)
	}
	if st, err := again.Stats(t.Context()); err != nil || st.Messages != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// A process that was killed leaves its row. The next one in its data directory need not wait for that to lapse.
func TestNodeAfterItsDeath(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a := ofServer(t, url, "a", true)
	s := open(t, a)
	s.member.leave() // dies without a word
	<-s.member.ended
	s.member = nil
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, a)
}

// Nodes that ended long ago are forgotten, and what they have counted stays.
func TestNodesAreForgotten(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	for _, name := range []string{"a", "b", "c"} {
		s := open(t, ofServer(t, url, name, true))
		if err := s.Add(t.Context(), small("of-"+name)); err != nil {
			t.Fatal(err)
		}
		if name == "b" {
			testkit.SQL(t, url, "UPDATE node SET seen = seen - 8 * 86400 * 1000000000::bigint WHERE k = 1")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, ofServer(t, url, "d", true))
	nodes, err := s.Nodes(t.Context())
	if err != nil || len(nodes) != 3 || nodes[0].Name != "d" {
		t.Errorf("%+v, %v", nodes, err)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 3 || st.Bytes == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if rows := testkit.SQL(t, url, "SELECT k FROM counter ORDER BY k"); len(rows) != 4 {
		t.Errorf("counters: %q", rows)
	}
}

// What people see of a node: whether it is drained, whether it leads, and what it tries.
func TestNodesTellWhatEachDoes(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a := open(t, ofServer(t, url, "a", true))
	for id, owner := range map[string]string{"m1": "a", "m2": "a/2", "m3": "ab", "m4": ""} {
		m := small(id)
		if m.Message.LeaseOwner = owner; owner != "" {
			m.Message.LeaseUntil = time.Now().Add(time.Hour)
		}
		if err := a.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	testkit.SQL(t, url, "UPDATE leader SET node = 'a', until = "+
		"(extract(epoch FROM clock_timestamp()) + 60)::bigint * 1000000000")
	if err := a.DrainNode(t.Context(), "a", true); err != nil {
		t.Fatal(err)
	}
	nodes, err := a.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || !nodes[0].Drained || !nodes[0].Leads || nodes[0].Leased != 2 {
		t.Errorf("%+v, %v", nodes, err)
	}
	if err := a.DrainNode(t.Context(), "nobody", true); !errors.Is(err, ErrNoNode) {
		t.Errorf("a node that there is not: %v", err)
	}
	testkit.SQL(t, url, "UPDATE leader SET until = 1")
	if err := a.DrainNode(t.Context(), "a", false); err != nil {
		t.Fatal(err)
	}
	if nodes, err = a.Nodes(t.Context()); err != nil || nodes[0].Drained || nodes[0].Leads {
		t.Errorf("%+v, %v", nodes, err)
	}
	if err := open(t, Options{Dir: t.TempDir()}).DrainNode(t.Context(), "a", true); !errors.Is(err, ErrNoNode) {
		t.Errorf("with SQLite: %v", err)
	}
}
