package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
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

// beat has nodes look at one another now.
func beat(t *testing.T, nodes ...*Store) {
	t.Helper()
	for _, s := range nodes {
		if err := s.member.beat(t.Context(), s.readers, s.engine.(*server)); err != nil {
			t.Fatal(err)
		}
	}
}

// still has a node do nothing by itself any more, as a process that stands still.
func still(s *Store) {
	s.member.leave()
	<-s.member.ended
}

// share is Share as a test writes it.
func share(s *Store) string {
	rank, of := s.Share()
	return fmt.Sprintf("%d of %d", rank, of)
}

// leading names the nodes that lead.
func leading(nodes ...*Store) (names []string) {
	for _, s := range nodes {
		if s.Leads() {
			names = append(names, s.opts.Node)
		}
	}
	return names
}

// Nodes with names of their own work at the same time, and each knows its share.
func TestNodesTogether(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a := open(t, ofServer(t, url, "a", true))
	if got := share(a); got != "0 of 1" {
		t.Errorf("alone it has %s", got)
	}
	b := open(t, ofServer(t, url, "b", true))
	before := a.Membership()
	beat(t, a)
	if a.Membership() == before {
		t.Error("a second node is no change of the membership")
	}
	if share(a) != "0 of 2" || share(b) != "1 of 2" {
		t.Errorf("%s, %s", share(a), share(b))
	}
	before = a.Membership()
	if beat(t, a); a.Membership() != before {
		t.Error("it changes though nothing did")
	}
	for i, s := range []*Store{a, b} {
		if err := s.Add(t.Context(), small(fmt.Sprint("m", i))); err != nil {
			t.Error(err)
		}
		now := time.Now()
		if err := s.Lease(t.Context(), attempt(0, fmt.Sprint("m", i)), s.Owner(), now, now.Add(time.Hour)); err != nil {
			t.Error(err)
		}
	}
	command := open(t, ofServer(t, url, "", false)) // works beside them
	if command.Owner() != "local" || share(command) != "0 of 1" || command.Leads() {
		t.Errorf("a command: %q, %s, leads %t", command.Owner(), share(command), command.Leads())
	}
	nodes, err := command.Nodes(t.Context())
	if err != nil || len(nodes) != 2 || nodes[0].Name != "a" || nodes[1].Name != "b" {
		t.Fatalf("%+v, %v", nodes, err)
	}
	for i, n := range nodes {
		if !n.Alive || n.Drained || n.Leads != (i == 0) || !n.Alike || n.Leased != 1 ||
			time.Since(n.Started).Abs() > time.Minute || time.Since(n.Seen).Abs() > time.Minute {
			t.Errorf("%+v", n)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if beat(t, a); share(a) != "0 of 1" {
		t.Errorf("alone again it has %s", share(a))
	}
	open(t, ofServer(t, url, "c", true))
	if rows := testkit.SQL(t, url, "SELECT string_agg(k::text, ' ' ORDER BY name) FROM node"); rows[0][0] != "1 2 3" {
		t.Errorf("numbers: %q", rows)
	}
}

// A name is one process's. Another one with another data directory is refused while that lives, and takes over when it
// has ended or stood still; the one that stood still then begins nothing any more.
func TestNodesOfOneName(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	first := open(t, ofServer(t, url, "a", true))
	other := ofServer(t, url, "a", true)
	if _, err := Open(t.Context(), other); !errors.Is(err, ErrNodeName) || !strings.Contains(err.Error(), "a on ") {
		t.Fatalf("a second node of the same name: %v", err)
	}
	tried := small("tried")
	tried.Message.LeaseOwner, tried.Message.LeaseUntil = first.Owner(), time.Now().Add(time.Hour)
	if err := first.Add(t.Context(), small("m1"), tried); err != nil {
		t.Fatal(err)
	}
	still(first)
	testkit.SQL(t, url, "UPDATE node SET until = 1")
	second := open(t, other)
	if first.Owner() == second.Owner() || !strings.HasPrefix(second.Owner(), "a/") || len(second.Owner()) != 10 {
		t.Errorf("%q and %q have leases", first.Owner(), second.Owner())
	}
	if second.Leads() { // the first one may think still that it does
		t.Error("two lead")
	}
	beat(t, first)
	for what, err := range map[string]error{
		"Ousted":   first.Ousted(),
		"Writable": first.Writable(),
		"Add":      first.Add(t.Context(), small("m2")),
		"Lease": first.Lease(t.Context(), attempt(0, "m1"), first.Owner(), time.Now().Add(time.Minute),
			time.Now().Add(time.Hour)),
	} {
		if !errors.Is(err, ErrNodeName) {
			t.Errorf("%s of a node that another took over from: %v", what, err)
		}
	}
	if first.Leads() || share(first) != "-1 of 0" || second.Ousted() != nil {
		t.Errorf("it leads: %t, %s; the second: %v", first.Leads(), share(first), second.Ousted())
	}
	// What it had under way ends: else the other one would send again what was taken.
	if err := first.Finish(t.Context(), attempt(1, "tried"), first.Owner(), queue.Outcome{Remove: true}); err != nil {
		t.Errorf("it does not record what an upstream took: %v", err)
	}
	if st, err := second.Stats(t.Context()); err != nil || st.Messages != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := first.Close(); err != nil { // which is not the end of the second
		t.Error(err)
	}
	if beat(t, second); second.Ousted() != nil || share(second) != "0 of 1" {
		t.Errorf("%v, %s", second.Ousted(), share(second))
	}
}

// A process that was killed leaves its row. The next one in its data directory need not wait for that to lapse, nor for
// its leases and its term.
func TestNodeAfterItsDeath(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a := ofServer(t, url, "a", true)
	s := open(t, a)
	before := s.Owner()
	still(s) // dies without a word
	s.member = nil
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	testkit.SQL(t, url, "UPDATE node SET host = 'another', until = until + 3600000000000")
	if _, err := Open(t.Context(), a); !errors.Is(err, ErrNodeName) {
		t.Fatalf("with a copy of the data directory of another machine: %v", err)
	}
	testkit.SQL(t, url, "UPDATE node SET host = convert_to('"+hostname(t)+"', 'UTF8')")
	s = open(t, a)
	if s.Owner() != before || !s.Leads() {
		t.Errorf("%q after %q, leads: %t", s.Owner(), before, s.Leads())
	}
}

func hostname(t *testing.T) string {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// One leads, until it ends or its term does.
func TestLeader(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	var all []*Store
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, open(t, ofServer(t, url, name, true)))
	}
	a, b, c := all[0], all[1], all[2]
	for _, s := range all {
		still(s) // looks when the test says so
	}
	leads := func(when, want string) {
		t.Helper()
		if got := leading(all...); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q lead, want %q", when, got, want)
		}
	}
	beat(t, b, a, c, a)
	leads("at first", "a")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	leads("after the end of the leader", "")
	beat(t, b, c)
	leads("when others have looked", "b")

	beat(t, c)
	leads("while the term lasts", "b")
	testkit.SQL(t, url, "UPDATE leader SET until = until - 15000000000")
	b.member.standing.Store(&standing{leads: time.Now().Add(-time.Nanosecond)}) // so much later
	leads("when the term is over", "")
	beat(t, c)
	leads("when another has looked", "c")
	beat(t, b)
	leads("when the former leader is back", "c")

	until := c.member.standing.Load().leads
	if left := time.Until(until); left > leaderTerm-leaderSpare {
		t.Errorf("it counts on %s", left)
	}
	beat(t, c)
	if !c.member.standing.Load().leads.After(until) {
		t.Error("the term is not renewed")
	}
}

// A node that is drained has no share and does not lead, also after a restart, unless nobody else is there.
func TestDrainedNode(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	at := ofServer(t, url, "a", true)
	a, b := open(t, at), open(t, ofServer(t, url, "b", true))
	command := open(t, ofServer(t, url, "", false))
	drain := func(name string, on bool) {
		t.Helper()
		if err := command.DrainNode(t.Context(), name, on); err != nil {
			t.Fatal(err)
		}
		beat(t, a, b)
	}
	drain("a", true)
	if !a.Drained() || b.Drained() || share(a) != "-1 of 1" || share(b) != "0 of 1" || a.Leads() {
		t.Errorf("a: %t, %s, leads %t; b: %t, %s", a.Drained(), share(a), a.Leads(), b.Drained(), share(b))
	}
	if b.Leads() { // the former leader may be at work for a moment
		t.Error("another leads before the end of the term")
	}
	testkit.SQL(t, url, "UPDATE leader SET until = 1")
	if beat(t, a, b); a.Leads() || !b.Leads() {
		t.Errorf("a leads: %t, b: %t", a.Leads(), b.Leads())
	}
	if nodes, err := command.Nodes(t.Context()); err != nil || !nodes[0].Drained || nodes[1].Drained {
		t.Errorf("%+v, %v", nodes, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if a = open(t, at); !a.Drained() || share(a) != "-1 of 1" {
		t.Errorf("after a restart: %t, %s", a.Drained(), share(a))
	}

	drain("b", true)
	if share(a) != "0 of 2" || share(b) != "1 of 2" {
		t.Errorf("both drained: %s, %s", share(a), share(b))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if beat(t, a); !a.Drained() || share(a) != "0 of 1" || !a.Leads() {
		t.Errorf("drained and alone: %t, %s, leads %t", a.Drained(), share(a), a.Leads())
	}
	if err := command.DrainNode(t.Context(), "a", false); err != nil {
		t.Fatal(err)
	}
	if beat(t, a); a.Drained() {
		t.Error("it is drained still")
	}
	if err := command.DrainNode(t.Context(), "nobody", true); !errors.Is(err, ErrNoNode) {
		t.Errorf("of a node that is not there: %v", err)
	}
	file := open(t, Options{Dir: t.TempDir(), Daemon: true})
	if err := file.DrainNode(t.Context(), "a", true); !errors.Is(err, ErrNoNodes) {
		t.Errorf("of a file: %v", err)
	}
	if !file.Leads() || share(file) != "0 of 1" || file.Membership() != 0 || file.Drained() || file.Ousted() != nil {
		t.Errorf("a file leads: %t, %s, drained %t", file.Leads(), share(file), file.Drained())
	}
}

// Nodes see that others have other settings.
func TestSettingsOfNodes(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a, b, c := open(t, ofServer(t, url, "a", true)), open(t, ofServer(t, url, "b", true)),
		open(t, ofServer(t, url, "c", true))
	for s, digest := range map[*Store]string{a: "one", b: "two"} { // c says nothing yet
		if err := s.SetSettings(t.Context(), []byte(digest)); err != nil {
			t.Fatal(err)
		}
	}
	beat(t, a, b, c)
	if !slices.Equal(a.Differ(), []string{"b"}) || !slices.Equal(b.Differ(), []string{"a"}) || len(c.Differ()) > 0 {
		t.Errorf("%q, %q, %q", a.Differ(), b.Differ(), c.Differ())
	}
	nodes, err := a.Nodes(t.Context())
	if err != nil || len(nodes) != 3 || !nodes[0].Alike || nodes[1].Alike || !nodes[2].Alike { // like the leader
		t.Errorf("%+v, %v", nodes, err)
	}
	if err := b.SetSettings(t.Context(), []byte("one")); err != nil {
		t.Fatal(err)
	}
	if beat(t, a, b); len(a.Differ())+len(b.Differ()) > 0 {
		t.Errorf("%q, %q", a.Differ(), b.Differ())
	}
}

// Nodes that ended long ago are forgotten, and what they have counted stays. A number is the lowest that is free.
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
	if err != nil || len(nodes) != 3 || nodes[0].Name != "d" || s.member.number != 3 {
		t.Errorf("%+v, %v", nodes, err)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 3 || st.Bytes == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if rows := testkit.SQL(t, url, "SELECT k FROM counter ORDER BY k"); len(rows) != 4 {
		t.Errorf("counters: %q", rows)
	}
}

// There are 63 nodes at most. One that has ended makes room, the one that was seen longest ago first.
func TestMostNodes(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	s := open(t, ofServer(t, url, "a", true))
	testkit.SQL(t, url, `INSERT INTO node (name, k, boot, home, host, version, started, seen, until)
		SELECT convert_to('n' || i, 'UTF8'), i, '', '', '', '', 1,
			(extract(epoch FROM now())::bigint - 100 - i) * 1000000000, 9e18
			FROM generate_series(2, 63) i`)
	if _, err := Open(t.Context(), ofServer(t, url, "b", true)); err == nil ||
		!strings.Contains(err.Error(), "63 nodes use this database") {
		t.Fatalf("the 64th: %v", err)
	}
	testkit.SQL(t, url, "UPDATE node SET until = 0 WHERE k IN (7, 30, 31)")
	if b := open(t, ofServer(t, url, "b", true)); b.member.number != 31 {
		t.Errorf("it is number %d", b.member.number)
	}
	if nodes, err := s.Nodes(t.Context()); err != nil || len(nodes) != 63 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}

// Of two nodes each is told of its share, both of what is left for a while, and one alone of everything.
func TestDueOfTwoNodes(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	first, second := open(t, ofServer(t, url, "a", true)), open(t, ofServer(t, url, "b", true))
	beat(t, first, second)
	now := time.Now()
	var news []queue.NewMessage
	for i := range 64 {
		n := small(mail.NewID(now))
		n.Message.Login = fmt.Sprint("login", i%3)
		n.Message.NextAttempt = now
		news = append(news, n)
	}
	if err := first.Add(t.Context(), news...); err != nil {
		t.Fatal(err)
	}
	due := func(s *Store, at time.Time, limit int) []string {
		t.Helper()
		found, _, err := s.Due(t.Context(), at, "", limit, limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range found {
			ids = append(ids, m.ID)
		}
		return ids
	}
	for _, limit := range []int{100, 40, 5} { // all of them, and by login
		a, b := due(first, now, limit), due(second, now, limit)
		for _, id := range a {
			if slices.Contains(b, id) {
				t.Errorf("limit %d: both have %s", limit, id)
			}
		}
		if len(a)+len(b) != min(64, 2*limit) && limit != 40 || len(a) == 0 || len(b) == 0 {
			t.Errorf("limit %d: %d and %d of 64 are due", limit, len(a), len(b))
		}
	}
	_, next, err := first.Due(t.Context(), now, "", 100, 100)
	if err != nil || next.Sub(now.Add(leftFor)).Abs() > time.Second {
		t.Errorf("the first looks again at %v, %v", next, err)
	}
	if n := len(due(second, now.Add(leftFor+time.Second), 100)); n != 64 {
		t.Errorf("%d messages are due that nobody took for a while", n)
	}
	if err := second.DrainNode(t.Context(), "a", true); err != nil {
		t.Fatal(err)
	}
	beat(t, first, second)
	if a, b := len(due(first, now, 100)), len(due(second, now, 100)); a != 0 || b != 64 {
		t.Errorf("the drained node has %d, the other one %d", a, b)
	}
}
