package doctor

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/internal/disk"
	"postern/internal/testkit"
	"postern/relay/config"
	"postern/relay/finding"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// atServer is a [store] at a database of testkit.
func atServer(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	return fmt.Sprintf("[store]\nurl = %q\npassword = %q\nseal_key = %q\nnode = \"node-1\"\n", u, password,
		"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
}

// A store at a server is in order, lacks rights, and is out of reach. Nothing is said of files and of the room that
// they would need.
func TestAStoreAtAServer(t *testing.T) {
	pg := testkit.SharedPostgreSQL(t)
	gate := testkit.NewGate(t, pg.Address())
	address := pg.NewDatabase(t)
	w := newWard(t, atServer(t, gate.URL(address))+plainUpstream)
	w.o.machine.room = func(string) (disk.Room, error) { return disk.Room{Free: 150e6}, nil }
	want(t, w.examine("store"), codeStoreOK, finding.Healthy, "There is no store yet")
	s, err := relaystore.Open(t.Context(), relaystore.Of(w.config()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	list := w.examine("store", "disk")
	want(t, list, codeStoreOK, finding.Healthy, "PostgreSQL", "the database has")
	want(t, list, codeDiskOK, finding.Healthy)
	for _, word := range []string{"min_free", "must stay", "postern.db", "VACUUM", "all of it read"} {
		if strings.Contains(text(list), word) {
			t.Errorf("%q in\n%s", word, text(list))
		}
	}
	w.o.machine.room = func(string) (disk.Room, error) { return disk.Room{Free: 10e6}, nil }
	want(t, w.examine("disk"), codeDiskFull, finding.Danger, "wait for the database")

	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	testkit.SQL(t, pg.AdminURL(strings.TrimPrefix(u.Path, "/")), "ALTER TABLE alert OWNER TO postgres")
	want(t, w.examine("store"), codeServerRights, finding.Danger, "OWNER (tables)")
	gate.Cut()
	want(t, w.examine("store"), codeStoreUnreadable, finding.Danger, "psql", gate.Address())
}

// What the daemon says of a server: that it takes no mail, and that the queue is nearly full.
func TestRoomAtAServer(t *testing.T) {
	w := newWard(t, atServer(t, "postgres://postern@127.0.0.1:1/postern?sslmode=disable")+plainUpstream)
	x := &exam{Options: w.o, c: w.config(), report: &status.Report{Disk: status.Disk{Refuses: true,
		Problem: "the database is away"}}}
	x.machine = healthyMachine()
	want(t, diskExam{x}.disk(t.Context()), codeDiskRefuses, finding.Danger, "the database is away", "psql")
	x.report.Disk = status.Disk{Queued: 8e9, MaxSize: 10e9}
	want(t, diskExam{x}.disk(t.Context()), codeQueueNearlyFull, finding.Fault, "If the server has the room")
}

func TestServerFindings(t *testing.T) {
	w := newWard(t, atServer(t, "postgres://postern@db.example.com/postern?sslmode=prefer")+plainUpstream)
	x := storeExam{&exam{Options: w.o, c: w.config()}}
	well := relaystore.ServerFacts{Version: 150018, Encrypted: true, Commit: "on", Fsync: true, MayCreate: true,
		Owner: true, Ahead: 1900 * time.Millisecond}
	if list := x.serverFindings("db", &well); len(list) != 0 {
		t.Errorf("where all is well:\n%s", text(list))
	}
	for _, c := range []struct {
		change func(*relaystore.ServerFacts)
		code   string
		weight finding.Weight
		word   string
	}{
		{func(f *relaystore.ServerFacts) { f.Fsync = false }, codeServerFsync, finding.Danger, "fsync = on"},
		{func(f *relaystore.ServerFacts) { f.Copies = 1 }, codeServerStandby, finding.Advice, "'ANY 1 (*)'"},
		{func(f *relaystore.ServerFacts) { f.Encrypted = false }, codeServerClear, finding.Fault, "verify-full"},
		{func(f *relaystore.ServerFacts) { f.Ahead = 3 * time.Second }, codeServerClock, finding.Fault, "3s behind"},
		{func(f *relaystore.ServerFacts) { f.Ahead = -time.Minute }, codeServerClock, finding.Fault, "1m0s ahead"},
		{func(f *relaystore.ServerFacts) { f.MayCreate = false }, codeServerRights, finding.Danger, "CREATE (schema)"},
		{func(f *relaystore.ServerFacts) { f.Superuser = true }, codeServerSuperuser, finding.Advice, "superuser"},
	} {
		f := well
		c.change(&f)
		list := x.serverFindings("db", &f)
		if want(t, list, c.code, c.weight, c.word); len(list) != 1 {
			t.Errorf("%s has company:\n%s", c.code, text(list))
		}
	}
	for _, change := range []func(*relaystore.ServerFacts){ // a standby that is waited for, and a pooler
		func(f *relaystore.ServerFacts) { f.Copies, f.Standbys = 1, "ANY 1 (*)" },
		func(f *relaystore.ServerFacts) { f.Encrypted, f.Pooled = false, true },
	} {
		f := well
		change(&f)
		if list := x.serverFindings("db", &f); len(list) != 0 {
			t.Errorf("found\n%s", text(list))
		}
	}
}

func (w *ward) config() *config.Config {
	w.t.Helper()
	c, err := config.Read(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}
