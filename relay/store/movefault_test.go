package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
)

// childMigrate moves a store that prepareMove has described in a directory, and prints each step.
func childMigrate(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "url"))
	if err != nil {
		return err
	}
	if limit := os.Getenv("POSTERN_STORE_TEST_LIMIT"); limit != "" {
		most, err := strconv.ParseUint(limit, 10, 63)
		if err != nil {
			return err
		}
		if err := limitFiles(most); err != nil {
			return err
		}
	}
	from := Options{Dir: filepath.Join(dir, "data")}
	to, err := toServer(from, string(text))
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "back")); err == nil {
		from, to = to, Options{Dir: filepath.Join(dir, "new")}
	}
	_, err = Migrate(context.Background(), from, to, MigrateOptions{Progress: func(what string) { fmt.Println(what) }})
	return err
}

// prepareMove makes a directory for childMigrate, with a filled store in a file.
func prepareMove(t *testing.T, now time.Time) (dir string, inFile, atServer Options) {
	t.Helper()
	if onServer() {
		t.Skip("it is run once")
	}
	dir = t.TempDir()
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	if err := os.WriteFile(filepath.Join(dir, "url"), []byte(url), 0o600); err != nil {
		t.Fatal(err)
	}
	inFile = Options{Dir: filepath.Join(dir, "data")}
	atServer, err := toServer(inFile, url)
	if err != nil {
		t.Fatal(err)
	}
	with(t, inFile, func(s *Store) { fillToMove(t, s, now) })
	return dir, inFile, atServer
}

// A process that moves a store is killed, after each of some steps: the next one ends what it began, and until then
// nobody takes the copy for whole.
func TestMigrateKilled(t *testing.T) {
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	dir, inFile, atServer := prepareMove(t, now)
	killed := 0
	for _, step := range []string{"empty", "copy event", "copy messages", "read acme_item",
		"read messages of postgres"} {
		cmd := child(t, "migrate", dir, 0)
		pipe, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(pipe)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("it ended before the step %q", step)
			}
			if strings.HasPrefix(line, step) {
				break
			}
		}
		cmd.Process.Kill()
		io.Copy(io.Discard, lines)
		cmd.Wait()
		if usable(t, atServer) { // it was faster than we
			break
		}
		killed++
		with(t, inFile, func(*Store) {}) // it can be served where it was
	}
	if killed == 0 {
		t.Fatal("nothing was broken off: the test tests nothing")
	}
	if !usable(t, atServer) {
		migrateTo(t, inFile, atServer)
	}
	with(t, atServer, func(s *Store) { wantMoved(t, s, now) })
	if _, err := Open(t.Context(), inFile); !errors.Is(err, ErrMoved) {
		t.Error(err)
	}
}

// usable reports whether a store can be used, and fails if it cannot for another reason than that it is a copy.
func usable(t *testing.T, o Options) bool {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err == nil {
		s.Close()
	} else if !errors.Is(err, ErrUnfinished) {
		t.Fatal(err)
	}
	return err == nil
}

// A disk that is full ends a move with an error that says so. With room it ends well.
func TestMigrateToFullDisk(t *testing.T) {
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	dir, inFile, atServer := prepareMove(t, now)
	migrateTo(t, inFile, atServer)
	if err := os.WriteFile(filepath.Join(dir, "back"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := child(t, "migrate", dir, 0)
	cmd.Env = append(cmd.Env, "POSTERN_STORE_TEST_LIMIT=4000000")
	out, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); !ended || !strings.Contains(string(out), "full") ||
		!strings.Contains(string(out), "run this again") {
		t.Errorf("%v: %s", err, out)
	}
	with(t, atServer, func(s *Store) { wantMoved(t, s, now) })
	cmd = child(t, "migrate", dir, 0)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	with(t, Options{Dir: filepath.Join(dir, "new")}, func(s *Store) { wantMoved(t, s, now) })
}

// A database that goes away in the middle may end a move, whichever side it is. Once it is back, the move ends well.
func TestMigrateLosesTheDatabase(t *testing.T) {
	inFile, atServer := places(t)
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	with(t, inFile, func(s *Store) { fillToMove(t, s, now) })
	elsewhere := Options{Dir: t.TempDir()}
	for _, way := range []struct{ from, to Options }{{inFile, atServer}, {atServer, elsewhere}} {
		cut := false
		_, err := Migrate(t.Context(), way.from, way.to, MigrateOptions{Progress: func(what string) {
			if cut = cut || what == "copy messages"; what == "copy messages" {
				cutAll(t, atServer)
			}
		}})
		if !cut || err != nil && db.KindOf(err) != db.Gone && !errors.Is(err, ErrAway) {
			t.Errorf("to %s: %v", way.to.Place(), err)
		}
		if err != nil { // or a transaction of which nothing was stored was tried again, and the move went on
			migrateTo(t, way.from, way.to)
		}
	}
	with(t, elsewhere, func(s *Store) { wantMoved(t, s, now) })
}

// cutAll ends all connections to a database.
func cutAll(t *testing.T, o Options) {
	t.Helper()
	conn, err := postgres.Open(t.Context(), newServer(o, &fuse{}).config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n, _, err := conn.Int("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = " +
		"current_database() AND pid <> pg_backend_pid()")
	if err != nil || n == 0 {
		t.Fatalf("%d were ended, %v", n, err)
	}
}

// Times that go by the clock of the database go by that of the destination, and no others do.
func TestMigrateShiftsTimes(t *testing.T) {
	fileOnly(t)
	s, now := open(t, Options{}), time.Now()
	fillToMove(t, s, now)
	const hour = int64(time.Hour)
	err := eachMessage(t.Context(), s, hour, func(m *movedMessage) error {
		was, err := s.Get(t.Context(), m.id)
		if err == nil && (m.received != unixNano(was.Received)+hour || m.expires != unixNano(was.Expires)+hour ||
			m.next != unixNano(was.NextAttempt)+hour) {
			t.Errorf("%s: %+v", m.id, m)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for n, want := range map[int64]int64{0: 0, math.MaxInt64: math.MaxInt64, math.MinInt64: math.MinInt64,
		5: 5 + hour} {
		if got := later(n, hour); got != want {
			t.Errorf("%d is %d", n, got)
		}
	}
	tables, err := movedTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, tb := range tables {
		if tb.name != "api_answer" && tb.name != "audit" {
			continue
		}
		rows, _, err := tb.page(t.Context(), s, nil, 1)
		if err != nil || len(rows) != 1 {
			t.Fatal(err)
		}
		at := tb.at("at")
		before := rows[0][at].(int64)
		if err := tb.clearRow(s, rows[0], hour); err != nil {
			t.Fatal(err)
		}
		if after := rows[0][at].(int64); (after == before+hour) != (tb.name == "api_answer") {
			t.Errorf("%s: %d is %d", tb.name, before, after)
		}
	}
}
