package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
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
	if err := second.Add(t.Context(), small("m1")); err != nil {
		t.Fatal(err)
	}

	// It stands still, and the first one takes over.
	if err := second.write(t.Context(), func(t *tx) error {
		return t.Run("UPDATE node SET until = 1 WHERE name = 'b'")
	}); err != nil {
		t.Fatal(err)
	}
	again := open(t, a)
	for second.Writable() == nil { // it notices with its next beat
		time.Sleep(10 * time.Millisecond)
	}
	if err := second.Add(t.Context(), small("m2")); !errors.Is(err, ErrFailed) || !errors.Is(err, ErrNodeLives) {
		t.Errorf("a node that another took over from: %v", err)
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
