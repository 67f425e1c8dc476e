//go:build unix

package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/release"
	"postern/internal/testkit"
	"postern/relay/store/internal/db"
)

// What childVersion is told by variables: the database, if any; the node; a step of the schema that it knows and this
// binary does not; whether it is a command; the longest file that it may write, in octets.
const (
	urlVariable     = "POSTERN_STORE_TEST_URL"
	nodeVariable    = "POSTERN_STORE_TEST_NODE"
	stepVariable    = "POSTERN_STORE_TEST_STEP"
	commandVariable = "POSTERN_STORE_TEST_COMMAND"
	limitVariable   = "POSTERN_STORE_TEST_LIMIT"
)

// childVersion is a Postern, perhaps a newer one. It says "open", then adds the messages that it is told, one a line,
// until its input ends or it must end itself.
func childVersion(dir string) error {
	o := Options{Dir: dir, Node: os.Getenv(nodeVariable), Daemon: os.Getenv(commandVariable) == ""}
	if step := os.Getenv(stepVariable); step != "" {
		migrations = append(migrations, migration{file: step, server: step})
	}
	if limit, _ := strconv.ParseUint(os.Getenv(limitVariable), 10, 63); limit > 0 {
		if err := limitFiles(limit); err != nil {
			return err
		}
	}
	var err error
	if url := os.Getenv(urlVariable); url != "" {
		if o, err = toServer(o, url); err != nil {
			return err
		}
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("open")
	told := make(chan string)
	go func() {
		defer close(told)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			told <- in.Text()
		}
	}()
	look := time.NewTicker(20 * time.Millisecond)
	for {
		select {
		case id, more := <-told:
			if !more {
				return nil
			}
			if err := s.Add(context.Background(), small(id)); err != nil {
				return err
			}
			fmt.Println("added", id)
		case <-look.C:
			if err := s.Ousted(); err != nil {
				return err
			}
		}
	}
}

func init() { children["version"] = childVersion }

// version is a running childVersion.
type version struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts one; ready waits until it is open.
func start(t *testing.T, dir string, env ...string) *version {
	t.Helper()
	cmd := child(t, "version", dir, 0)
	cmd.Env = append(cmd.Env, env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait(); out.Close() })
	return &version{t, cmd, in, bufio.NewReader(out)}
}

func (v *version) says(want string) {
	v.t.Helper()
	if line, err := v.out.ReadString('\n'); err != nil || line != want+"\n" {
		rest, _ := io.ReadAll(v.out)
		v.t.Fatalf("%q (%v), want %q\n%s", line, err, want, rest)
	}
}

func (v *version) add(id string) {
	v.t.Helper()
	fmt.Fprintln(v.in, id)
	v.says("added " + id)
}

// ends waits for the end and returns what was said before.
func (v *version) ends() (said string) {
	v.t.Helper()
	v.in.Close()
	b, err := io.ReadAll(v.out)
	if err = errors.Join(err, v.cmd.Wait()); err != nil {
		return string(b)
	}
	return string(b) + "good"
}

// fails starts one that must not open.
func fails(t *testing.T, want, dir string, env ...string) {
	t.Helper()
	if said := start(t, dir, env...).ends(); !strings.Contains(said, want) || strings.Contains(said, "good") ||
		strings.Count(said, "\n") != 1 {
		t.Errorf("%q, want %q", said, want)
	}
}

// opens starts one that must open and end.
func opens(t *testing.T, dir string, env ...string) {
	t.Helper()
	if said := start(t, dir, env...).ends(); said != "open\ngood" {
		t.Error(said)
	}
}

const (
	newStep   = stepVariable + "=CREATE TABLE later (n INTEGER)"
	isCommand = commandVariable + "=1"
)

func tooOld() string {
	return fmt.Sprintf("the store is of an older Postern (%s, schema %d): the next start of this one",
		release.Version(), len(migrations))
}

func tooNew() string {
	return fmt.Sprintf("it was written by %s (schema %d), and this is %[1]s, which knows schema %[3]d at most: install",
		release.Version(), len(migrations)+1, len(migrations))
}

// A command of a newer version leaves an older store alone, whether a daemon runs or not, and so does a second daemon.
// The next daemon brings it up to date, and the older version does not use it any more.
func TestNewerBesideOlder(t *testing.T) {
	once(t)
	dir := filepath.Join(t.TempDir(), "data")
	old := start(t, dir)
	old.says("open")
	fails(t, fmt.Sprintf("the store is of an older Postern (%s, schema %d), which still runs", release.Version(),
		len(migrations)), dir, newStep, isCommand)
	fails(t, ErrLocked.Error(), dir, newStep)
	old.add("m1")
	if said := old.ends(); said != "good" {
		t.Error(said)
	}
	fails(t, tooOld(), dir, newStep, isCommand)
	opens(t, dir, newStep)
	opens(t, dir, newStep, isCommand)
	fails(t, tooNew(), dir)
	fails(t, tooNew(), dir, isCommand)
	now := start(t, dir, newStep)
	now.says("open")
	now.add("m2")
}

// While an older node lives, a newer one does not change the database under it, and nothing else does: the older one
// works on. After it has ended the newer one begins, and an older one that comes back says what to do.
func TestNewerNodeBesideOlder(t *testing.T) {
	once(t)
	url := urlVariable + "=" + testkit.SharedPostgreSQL(t).NewDatabase(t)
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	old := start(t, a, url, nodeVariable+"=a")
	old.says("open")
	want := "changes the database: stop the nodes that use it (a on "
	fails(t, want, b, url, nodeVariable+"=b", newStep)
	fails(t, tooOld(), b, url, newStep, isCommand)
	fails(t, tooOld(), a, url, newStep, isCommand) // on the machine of the older one
	old.add("m1")
	opens(t, b, url, nodeVariable+"=b") // of the same version
	if said := old.ends(); said != "good" {
		t.Error(said)
	}
	now := start(t, b, url, nodeVariable+"=b", newStep)
	now.says("open")
	fails(t, tooNew(), a, url, nodeVariable+"=a")
	fails(t, tooNew(), a, url, isCommand)
	now.add("m2")
	opens(t, a, url, nodeVariable+"=a", newStep)
}

// A node that was killed is no other node for the one that follows it in its data directory.
func TestNewerNodeAfterAKill(t *testing.T) {
	once(t)
	url := urlVariable + "=" + testkit.SharedPostgreSQL(t).NewDatabase(t)
	dir := filepath.Join(t.TempDir(), "a")
	old := start(t, dir, url, nodeVariable+"=a")
	old.says("open")
	old.add("m1")
	if err := old.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = old.cmd.Wait()
	fails(t, "(a on ", filepath.Join(t.TempDir(), "b"), url, nodeVariable+"=b", newStep)
	opens(t, dir, url, nodeVariable+"=a", newStep)
}

// A node that stood still while a newer one changed the database ends when it wakes up, and says why.
func TestOlderNodeWakesUp(t *testing.T) {
	once(t)
	database := testkit.SharedPostgreSQL(t).NewDatabase(t)
	url := urlVariable + "=" + database
	old := start(t, filepath.Join(t.TempDir(), "a"), url, nodeVariable+"=a")
	old.says("open")
	old.add("m1")
	if err := old.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testkit.SQL(t, database, "UPDATE node SET until = 1") // as after ten seconds
	now := start(t, filepath.Join(t.TempDir(), "b"), url, nodeVariable+"=b", newStep)
	now.says("open")
	if err := old.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(old.out) // it ends by itself
	if said := string(b); err != nil || !strings.Contains(said, tooNew()) || old.cmd.Wait() == nil {
		t.Errorf("%q, %v", said, err)
	}
	now.add("m2")
	if rows := testkit.SQL(t, database, "SELECT count(*) FROM message"); rows[0][0] != "2" {
		t.Errorf("%s messages", rows[0][0])
	}
}

// slowStep takes until it is ended.
const slowStep = stepVariable + "=CREATE TABLE later (b BLOB); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT " +
	"n + 1 FROM c WHERE n < 10000000000) INSERT INTO later SELECT zeroblob(100000) FROM c"

// A step of the schema that is killed leaves nothing of itself, and is made by the next start.
func TestKillWhileTheSchemaChanges(t *testing.T) {
	once(t)
	dir := filepath.Join(t.TempDir(), "data")
	old := start(t, dir)
	old.says("open")
	old.add("m1")
	old.ends()
	half := start(t, dir, slowStep)
	until(t, "the log is written", func() bool { return sizeOf(filepath.Join(dir, FileName)+"-wal") > 4<<20 })
	if err := half.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = half.cmd.Wait()
	opens(t, dir) // the older version still can
	opens(t, dir, newStep)
	fails(t, tooNew(), dir)
}

func TestKillWhileTheDatabaseChanges(t *testing.T) {
	once(t)
	database := testkit.SharedPostgreSQL(t).NewDatabase(t)
	url, dir := urlVariable+"="+database, filepath.Join(t.TempDir(), "data")
	opens(t, dir, url, nodeVariable+"=a")
	half := start(t, dir, url, nodeVariable+"=a", stepVariable+"=CREATE TABLE later (n bigint); SELECT pg_sleep(600)")
	const running = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
	until(t, "the step runs", func() bool { return len(testkit.SQL(t, database, "SELECT pid "+running)) > 0 })
	if err := half.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = half.cmd.Wait()
	testkit.SQL(t, database, "SELECT pg_terminate_backend(pid) "+running) // which sleeps without us
	opens(t, dir, url, nodeVariable+"=a")
	opens(t, dir, url, nodeVariable+"=a", newStep)
	fails(t, tooNew(), dir, url, nodeVariable+"=a")
}

// A disk that is full meanwhile is named, and nothing is left of the step.
func TestFullDiskWhileTheSchemaChanges(t *testing.T) {
	once(t)
	dir := filepath.Join(t.TempDir(), "data")
	opens(t, dir)
	fails(t, "make room and start again", dir, slowStep, limitVariable+"=8000000")
	opens(t, dir)
	opens(t, dir, newStep)
}

// A daemon says in its log which version it follows, and a store knows which one has used it last.
func TestUpgradeIsTold(t *testing.T) {
	dir := t.TempDir()
	by := func(version string) {
		t.Helper()
		s := open(t, Options{Dir: dir})
		must := func(run func(*tx) error) {
			t.Helper()
			if err := s.write(t.Context(), run); err != nil {
				t.Fatal(err)
			}
		}
		must(func(tx *tx) error { return tx.Run("UPDATE migration SET program = ?", version) })
		if s.Shared() {
			must(func(tx *tx) error { return tx.Run("UPDATE node SET version = ?", version) })
		}
		s.Close()
	}
	starts := func(want string) {
		t.Helper()
		l := &logged{}
		s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true, Logger: l.logger()}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if l.count("from=") > 0 != (want != "") || l.count(want) == 0 {
			t.Errorf("%q, want %q", l.String(), want)
		}
		err = s.readers.read(t.Context(), func(conn db.Conn) error {
			if found, err := readOrigin(conn); err != nil || found != this() {
				t.Errorf("%v, %v", found, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	starts("")
	starts("")
	by("v0.0.1")
	starts("msg=upgraded from=v0.0.1 to=" + release.Version())
	starts("")
	if by("v99.0.0"); !onServer() { // where another node may have been that
		starts(`msg="this version is older than the one before" from=v99.0.0`)
	}
}
