//go:build unix

package testkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/filelock"
)

// kept looks for what must not be lost.
type kept struct {
	t   *testing.T
	url func() string
}

func keep(t *testing.T, pg *PG) kept {
	t.Helper()
	k := kept{t: t, url: func() string { return pg.URL() }}
	SQL(t, k.url(), "CREATE TABLE kept (v text)")
	return k
}

func (k kept) add(v string) {
	k.t.Helper()
	SQL(k.t, k.url(), "INSERT INTO kept VALUES ('"+v+"')")
}

func (k kept) want(values ...string) {
	k.t.Helper()
	var got []string
	for _, row := range SQL(k.t, k.url(), "SELECT v FROM kept ORDER BY v") {
		got = append(got, row[0])
	}
	if !slices.Equal(got, values) {
		k.t.Errorf("has %q, want %q", got, values)
	}
}

func connect(t *testing.T, address string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func do(t *testing.T, conn *pgconn.PgConn, sql string) error {
	_, err := conn.Exec(t.Context(), sql).ReadAll()
	return err
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	pg := PostgreSQL(t)
	k := keep(t, pg)
	k.add("a")
	pg.Restart()
	k.want("a")

	open := connect(t, pg.URL())
	if err := do(t, open, "BEGIN; INSERT INTO kept VALUES ('never committed')"); err != nil {
		t.Fatal(err)
	}
	k.add("b")
	pid := pg.server.process.Pid()
	children := childrenOf(pid)
	if len(children) < 4 { // checkpointer, writers, ours
		t.Errorf("children %v", children)
	}
	pg.Kill()
	for _, p := range append(children, pid) {
		if !gone(p) {
			t.Errorf("process %d is still there", p)
		}
	}
	if _, err := pgconn.Connect(t.Context(), pg.URL()); err == nil {
		t.Error("it still takes connections")
	}
	pg.Start()
	if !strings.Contains(pg.Log(), "automatic recovery in progress") {
		t.Errorf("it did not recover:\n%s", pg.Log())
	}
	k.want("a", "b")

	t.Run("the account is an ordinary one", func(t *testing.T) {
		rows := SQL(t, pg.URL(), "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles "+
			"WHERE rolname = current_user")
		if rows[0][0] != "f" {
			t.Error("it may do what a user's may not")
		}
	})
	t.Run("texts are in a person's order", func(t *testing.T) {
		version, err := exec.Command(pgTool(t, "initdb"), "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		if major := pgMajor(string(version)); major == 0 {
			t.Errorf("no version in %q", version)
		} else if major >= pgOrderSince && SQL(t, pg.URL(), "SELECT 'a' < 'B'")[0][0] != "t" {
			t.Error("they are in the order of their octets")
		}
	})
	t.Run("a wrong password", func(t *testing.T) {
		_, err := pgconn.Connect(t.Context(), pg.url(PGUser, "wrong", PGDatabase))
		if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "28P01" {
			t.Errorf("%v", err)
		}
	})
	t.Run("by its socket", func(t *testing.T) {
		conn := connect(t, Through(t, pg.URL(), "")+"&host="+pg.Socket()+fmt.Sprint("&port=", pg.server.port))
		if err := do(t, conn, "SELECT 1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("terminate", func(t *testing.T) {
		conn := connect(t, pg.URL())
		if n := pg.Terminate(); n != 1 {
			t.Errorf("terminated %d", n)
		}
		if err := do(t, conn, "SELECT 1"); err == nil {
			t.Error("the connection lives")
		}
	})
	t.Run("read-only", func(t *testing.T) {
		conn := connect(t, pg.URL())
		for range 3 {
			pg.SetReadOnly(true)
			err := do(t, conn, "INSERT INTO kept VALUES ('c')")
			if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
				t.Errorf("%v", err)
			}
			pg.NewDatabase(t) // by the superuser
			pg.SetReadOnly(false)
			if err := do(t, conn, "DELETE FROM kept WHERE v = 'c'"); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNewDatabase(t *testing.T) {
	t.Parallel()
	pg := SharedPostgreSQL(t)
	var first string
	t.Run("of a test", func(t *testing.T) {
		first = pg.NewDatabase(t)
		second := SharedPostgreSQL(t).NewDatabase(t)
		for _, url := range []string{first, second} {
			SQL(t, url, "CREATE TABLE its_own (v int)")
		}
		connect(t, first) // does not keep it from being dropped
	})
	_, err := pgconn.Connect(t.Context(), first)
	if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "3D000" {
		t.Errorf("after the test: %v", err)
	}
	for name, f := range map[string]func(*PG){
		"URL": func(p *PG) { p.URL() }, "Kill": (*PG).Kill, "Stop": (*PG).Stop, "Start": (*PG).Start,
		"Restart": (*PG).Restart, "Terminate": func(p *PG) { p.Terminate() },
		"SetReadOnly": func(p *PG) { p.SetReadOnly(true) }, "Standby": func(p *PG) { p.Standby(t, false) },
	} {
		probe := &recorder{TB: t}
		p := *pg
		p.t = probe
		if probe.run(func() { f(&p) }); !probe.failed {
			t.Errorf("%s of the server of all tests", name)
		}
	}
}

// TestPostgreSQLEndsWithBinary runs a test binary that is killed.
func TestPostgreSQLEndsWithBinary(t *testing.T) {
	if os.Getenv("TESTKIT_POSTGRES_DIES") != "" {
		for _, pg := range []*PG{PostgreSQL(t), SharedPostgreSQL(t)} {
			fmt.Println("serves", pg.server.process.Pid(), pg.server.dir.Path)
		}
		fmt.Println("ready")
		select {}
	}
	t.Parallel()
	pgTool(t, "postgres")
	cmd := Start(t, []string{"TESTKIT_POSTGRES_DIES=1"}, os.Args[0], "-test.run=^TestPostgreSQLEndsWithBinary$")
	cmd.WaitLog("ready")
	processes, dirs := []int{}, []string{}
	for _, m := range regexp.MustCompile(`serves (\d+) (\S+)`).FindAllStringSubmatch(cmd.Log(), -1) {
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		processes, dirs = append(append(processes, pid), childrenOf(pid)...), append(dirs, m[2])
	}
	if len(dirs) != 2 || len(processes) < 8 {
		t.Fatalf("processes %v in %q", processes, dirs)
	}
	cmd.Kill()
	for _, pid := range processes {
		waitGone(pid)
	}
	for _, dir := range dirs { // another test of this machine may have swept already
		if _, err := os.Stat(dir + "/data/postmaster.pid"); !os.IsNotExist(err) {
			t.Errorf("it ended without removing its shared memory: %v", err)
		}
	}
	sweep()
	for _, dir := range dirs {
		lock := filepath.Join(dir, pgLock)
		if f, err := os.OpenFile(lock, os.O_RDWR, 0); err == nil {
			err = filelock.Wait(f) // another test may be at it
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
		if left, err := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("nothing swept up: %v, %v", left, err)
		}
	}
}

func TestSweepLeavesTheLiving(t *testing.T) {
	t.Parallel()
	pg := PostgreSQL(t)
	sweep()
	if _, err := os.Stat(pg.server.dir.Data()); err != nil {
		t.Error(err)
	}
}

// TestKilledForGood is a server that the test kills and leaves: its shared memory must not stay.
func TestKilledForGood(t *testing.T) {
	t.Parallel()
	var segment string
	var dir string
	t.Run("inner", func(t *testing.T) {
		pg := PostgreSQL(t)
		dir = pg.server.dir.Path
		text, err := os.ReadFile(pg.server.dir.Data() + "/postmaster.pid")
		if err != nil {
			t.Fatal(err)
		}
		segment = strings.Fields(strings.Split(string(text), "\n")[6])[1]
		if !segments(t)[segment] {
			t.Fatalf("no segment %s", segment)
		}
		pg.Kill()
		if !segments(t)[segment] {
			t.Fatalf("no segment %s after kill -9", segment)
		}
	})
	if segments(t)[segment] {
		t.Errorf("segment %s is still there", segment)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("directory: %v", err)
	}
}

func segments(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 {
			ids[fields[1]] = true
		}
	}
	return ids
}

// TestStoppedServerEnds is one that a test stopped with SIGSTOP and left.
func TestStoppedServerEnds(t *testing.T) {
	t.Parallel()
	var pid int
	t.Run("inner", func(t *testing.T) {
		pg := PostgreSQL(t)
		pid = pg.server.process.Pid()
		syscall.Kill(pid, syscall.SIGSTOP)
	})
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("after the test: %v", err)
	}
}

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := PostgreSQL(t)
	k := keep(t, primary)
	k.add("a")
	later := primary.Standby(t, false)
	synchronous := primary.Standby(t, true)
	k.add("b")
	later.CatchUp(primary)
	kept{t, func() string { return later.URL() }}.want("a", "b")
	k.add("c")
	primary.Kill()
	all := kept{t, func() string { return primary.URL(later, synchronous) }}
	if _, err := pgconn.Connect(t.Context(), all.url()); err == nil {
		t.Error("a standby took itself for a primary")
	}
	synchronous.Promote()
	all.want("a", "b", "c")
	all.add("d") // waits for no standby
	synchronous.Restart()
	all.want("a", "b", "c", "d")
}

func TestPgBouncer(t *testing.T) {
	t.Parallel()
	pg := PostgreSQL(t)
	k := keep(t, pg)
	bouncer := PgBouncer(t, pg)
	through := kept{t, func() string { return bouncer.URL(pg.URL()) }}
	through.add("a")
	k.want("a")

	one, two := connect(t, through.url()), connect(t, through.url())
	pid := func(conn *pgconn.PgConn) string {
		results, err := conn.Exec(t.Context(), "SELECT pg_backend_pid()").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return string(results[0].Rows[0][0])
	}
	if pid(one) != pid(two) {
		t.Error("two clients, one after the other, have not the same connection: not by transaction")
	}
	bouncer.Kill()
	if err := do(t, one, "SELECT 1"); err == nil {
		t.Error("a connection lives on")
	}
	bouncer.Start()
	through.want("a")
	if _, err := pgconn.Connect(t.Context(), bouncer.URL(pg.url(PGUser, "wrong", PGDatabase))); err == nil {
		t.Error("a wrong password")
	}
}
