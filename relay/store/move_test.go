package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/keyring"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// places are a store in a file and one at an empty database, of one data directory.
func places(t *testing.T) (inFile, atServer Options) {
	t.Helper()
	if onServer() {
		t.Skip("it is run once")
	}
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	inFile = Options{Dir: t.TempDir()}
	atServer, err := toServer(inFile, url)
	if err != nil {
		t.Fatal(err)
	}
	return inFile, atServer
}

// with opens a store for a while, as a daemon.
func with(t *testing.T, o Options, use func(s *Store)) {
	t.Helper()
	o.Daemon = true
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	use(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func migrateTo(t *testing.T, from, to Options) *Migration {
	t.Helper()
	done, err := Migrate(t.Context(), from, to, MigrateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// moveRowsOf are rows of a table with whatever its columns can have, as clearRow leaves them.
func moveRowsOf(tb table, n int) (rows [][]any) {
	for i := range n {
		row := make([]any, len(tb.columns))
		for j, c := range tb.columns {
			switch c.kind {
			case "INTEGER":
				row[j] = int64(i*1000+j) - 1
			case "REAL":
				row[j] = float64(i) / 3
			case "TEXT":
				row[j] = fmt.Sprintf("%d %s é'\\\x00\xff", i, c.name)
			default:
				row[j] = bytes.Repeat([]byte{byte(i), byte(i >> 8), 0, 0xff, '\\', byte(j), 'x', 1}, 4)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func sumsOf(t *testing.T, s *Store) []sum {
	t.Helper()
	tables, err := movedTables()
	if err != nil {
		t.Fatal(err)
	}
	m := &mover{MigrateOptions: MigrateOptions{Progress: func(string) {}}, tables: tables}
	all, err := m.sums(t.Context(), s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every table that a store has is moved, with whatever its columns can have, and sealed with the key of the other
// place. A new table, or a new column with something sealed, is in this test without a word here.
func TestMigrateEveryTable(t *testing.T) {
	inFile, atServer := places(t)
	tables, err := movedTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range slices.Concat(keysOf(sealedColumns), keysOf(serverTimes)) {
		name, column, _ := strings.Cut(c, ".")
		i := slices.IndexFunc(tables, func(tb table) bool { return tb.name == name })
		if i < 0 || tables[i].at(column) < 0 {
			t.Errorf("there is no %s", c)
		}
	}
	var key []byte // what begins all that is sealed with the key of the file
	var before []sum
	var counted counters
	with(t, inFile, func(s *Store) {
		for _, tb := range tables {
			if tb.name == "search_state" || tb.name == "privacy_state" { // of one row
				continue
			}
			rows := moveRowsOf(tb, 700)
			for _, row := range rows {
				tb.sealRow(s, row)
			}
			err := s.write(t.Context(), func(tx *tx) error {
				if err := tb.insert(tx, rows); err != nil || tb.name != "event" {
					return err
				}
				return tx.countEvents(-1, 1<<40)
			})
			if err != nil {
				t.Fatalf("%s: %v", tb.name, err)
			}
		}
		key, before = s.sealer.Seal("", nil)[:5], sumsOf(t, s)
		if err := s.readers.read(t.Context(), func(conn db.Conn) error {
			counted, err = readCounters(conn, s.engine.layout())
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
	migrateTo(t, inFile, atServer)
	with(t, atServer, func(s *Store) {
		if shift := s.clock.ahead(); shift != 0 {
			t.Fatalf("the clock of this machine is not its own: %d", shift)
		}
		for i, after := range sumsOf(t, s) {
			if after != before[i] {
				t.Errorf("%s: %d rows were %d, or they are others", after.name, after.rows, before[i].rows)
			}
		}
		for _, tb := range tables {
			if _, err := tb.pages(t.Context(), s, func(rows [][]any) error {
				for _, row := range rows {
					for i, v := range row {
						if b, ok := v.([]byte); ok && bytes.HasPrefix(b, key) {
							return fmt.Errorf("%s.%s is sealed with the key of the file", tb.name, tb.columns[i].name)
						}
					}
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		if err := s.readers.read(t.Context(), func(conn db.Conn) error {
			now, err := readCounters(conn, s.engine.layout())
			if now != counted || counted.events != 700 {
				t.Errorf("counted %+v, and %+v before", now, counted)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		names, err := readAll(t.Context(), s.readers, text, "SELECT relname FROM pg_class WHERE "+
			"relkind IN (E'r', E'p') AND NOT relispartition AND relnamespace = current_schema()::regnamespace")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			known := slices.ContainsFunc(tables, func(tb table) bool { return tb.name == name })
			if !known && !notMoved[name] && !otherwise[name] {
				t.Errorf("nothing moves %s, which SQLite has not", name)
			}
		}
	})
}

func keysOf[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// content0 is a content of so many octets that is like no other.
func content0(id string, size int) mail.BytesContent {
	return mail.BytesContent(bytes.Repeat([]byte(id+"\x00\r\n"), size/(len(id)+3)+1)[:size])
}

var moveSizes = map[string]int{"empty": 0, "held": 12, "long": 3*chunkSize + 1, "even": 2 * chunkSize, "huge": 5 << 20,
	"leased": 100, "sleeping": 100, "returns": 7}

// fillToMove gives a store something of most things, by its own methods.
func fillToMove(t *testing.T, s *Store, now time.Time) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, size := range moveSizes {
		m := small(id)
		m.Message.Received, m.Message.Expires = now, now.Add(48*time.Hour)
		switch m.Content = content0(id, size); id {
		case "held":
			m.Message.Held, m.Message.HoldReason = true, "to be looked at"
		case "leased":
			m.Message.LeaseOwner, m.Message.LeaseUntil = "local", now.Add(time.Hour)
		case "sleeping":
			m.Message.WaitingFor = "office"
		case "returns":
			m.Message.Bounce = true
			m.Message.LastReply = mail.R(450, "4.2.0", "later")
		}
		must(s.Add(ctx, m))
	}
	must(s.AddUser(ctx, auth.User{Login: "anna", Hash: "one", Created: now, Changed: now}))
	must(s.AddKeys(ctx, testKey("a.example", "r1", "rsa-2048", keyring.Signing)))
	must(s.ACME().Store(ctx, "a/key", []byte("private")))
	putUser(t, s, ConsoleUser{Name: "anna", Role: "admin", TOTP: "SECRETSECRETSECRET", Created: now})
	must(s.AppendEventsNow(ctx, told(300, 3, now)))
	must(s.AppendAudit(ctx, AuditEntry{Time: now, Actor: "anna", Operation: "user.add", Outcome: AuditDone}))
	_, err := s.Secret(ctx, "pepper", 32)
	must(err)
	begin(t, s, now, 1)
	must(s.FinishAnswer(ctx, [32]byte{1}, 201, []byte("created")))
	begin(t, s, now, 2) // of which nothing came
}

// movedSecret is what a store has under "pepper".
func movedSecret(t *testing.T, s *Store) []byte {
	t.Helper()
	b, err := s.Secret(t.Context(), "pepper", 32)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantMoved looks at what fillToMove has filled in.
func wantMoved(t *testing.T, s *Store, now time.Time) {
	t.Helper()
	ctx := t.Context()
	octets := int64(0)
	for id, size := range moveSizes {
		octets += int64(size)
		m, err := s.Get(ctx, id)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if !m.Received.Equal(now) || m.LeaseOwner != "" || !m.LeaseUntil.IsZero() || m.Held != (id == "held") ||
			(m.WaitingFor == "office") != (id == "sleeping") || m.Bounce != (id == "returns") ||
			len(m.Recipients) == 0 {
			t.Errorf("%s: %+v", id, m)
		}
		c, err := s.Content(ctx, id)
		if err != nil {
			t.Error(err)
			continue
		}
		r, err := c.Open()
		if err != nil {
			t.Error(err)
			continue
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, content0(id, size)) {
			t.Errorf("%s: %d octets, %v", id, len(b), err)
		}
	}
	if st, err := s.Stats(ctx); err != nil || st.Messages != int64(len(moveSizes)) || st.Held != 1 ||
		st.Bytes != octets {
		t.Errorf("%+v, %v", st, err)
	}
	due, _, err := s.Due(ctx, now.Add(time.Hour), "", 0, 0)
	if err != nil || len(due) != len(moveSizes)-1 {
		t.Errorf("%d are due, %v", len(due), err)
	}
	if u, err := s.User(ctx, "anna"); err != nil || u.Hash != "one" {
		t.Errorf("%+v, %v", u, err)
	}
	if got := stagesOf(t, s); got != "r1=signing" {
		t.Error(got)
	}
	if b, err := s.ACME().Load(ctx, "a/key"); err != nil || string(b) != "private" {
		t.Errorf("%q, %v", b, err)
	}
	if u, err := s.ConsoleUser(ctx, "anna"); err != nil || u.TOTP != "SECRETSECRETSECRET" {
		t.Errorf("%v", err)
	}
	if a := begin(t, s, now, 1); a == nil || string(a.Body) != "created" {
		t.Errorf("%+v", a)
	}
	if a := begin(t, s, now, 2); a == nil || a.Status != 0 {
		t.Errorf("%+v", a)
	}
	if events, err := s.Events(ctx, trace.Query{Limit: 1000}); err != nil || len(events) != 400 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if kept, counted := tallied(t, s); kept != counted {
		t.Errorf("%+v are there, counted are %+v", kept, counted)
	}
	if all, err := s.Audit(ctx, AuditQuery{Limit: 10}); err != nil || len(all) != 1 || all[0].Actor != "anna" {
		t.Errorf("%+v, %v", all, err)
	}
}

// A store moves to PostgreSQL and back to a file, with all that it has. What it leaves behind is not used any more.
func TestMigrateThereAndBack(t *testing.T) {
	inFile, atServer := places(t)
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	var secret []byte
	with(t, inFile, func(s *Store) { fillToMove(t, s, now); secret = movedSecret(t, s) })
	check := func(want string) {
		t.Helper()
		done, err := Migrate(t.Context(), inFile, atServer, MigrateOptions{Check: true})
		if got := fmt.Sprint(err); !strings.Contains(got, want) ||
			err == nil && done.Messages != int64(len(moveSizes)) {
			t.Errorf("check: %+v, %v", done, err)
		}
	}
	check("<nil>")
	if there, err := atServer.There(t.Context()); there || err != nil {
		t.Errorf("a check has made a store: %v", err)
	}
	done := migrateTo(t, inFile, atServer)
	if done.Messages != int64(len(moveSizes)) || done.Octets < 5<<20 || done.From != inFile.Place() ||
		done.To != atServer.Place() || !slices.Contains(done.Tables, MovedTable{"event", 400}) {
		t.Errorf("%+v", done)
	}
	for _, daemon := range []bool{true, false} {
		inFile.Daemon = daemon
		if _, err := Open(t.Context(), inFile); !errors.Is(err, ErrMoved) || !strings.Contains(err.Error(), "reuse") {
			t.Errorf("the old one: %v", err)
		}
	}
	check("moved away to")
	with(t, atServer, func(s *Store) {
		wantMoved(t, s, now)
		if !bytes.Equal(movedSecret(t, s), secret) {
			t.Error("another secret")
		}
	})
	if _, err := Migrate(t.Context(), atServer, inFile, MigrateOptions{}); err == nil ||
		!strings.Contains(err.Error(), "move it away") {
		t.Errorf("back into what it came from: %v", err)
	}
	elsewhere := Options{Dir: t.TempDir()}
	migrateTo(t, atServer, elsewhere)
	with(t, elsewhere, func(s *Store) {
		wantMoved(t, s, now)
		if !bytes.Equal(movedSecret(t, s), secret) {
			t.Error("another secret")
		}
	})
	if _, err := Open(t.Context(), atServer); !errors.Is(err, ErrMoved) {
		t.Error(err)
	}
	if place, err := Reuse(t.Context(), atServer); err != nil || place != elsewhere.Place() {
		t.Errorf("%q, %v", place, err)
	}
	with(t, atServer, func(s *Store) { wantMoved(t, s, now) })
}

// What must not be moved, or not to there, stays as it is.
func TestMigrateRefuses(t *testing.T) {
	inFile, atServer := places(t)
	with(t, inFile, func(s *Store) { fillToMove(t, s, time.Now()) })
	refused := func(what string, from, to Options, want string) {
		t.Helper()
		for _, check := range []bool{true, false} {
			_, err := Migrate(t.Context(), from, to, MigrateOptions{Check: check})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s (check: %v): %v", what, check, err)
			}
		}
		with(t, inFile, func(*Store) {}) // it can be served still
	}
	refused("to itself", inFile, inFile, "same kind")
	refused("nothing", Options{Dir: t.TempDir()}, atServer, "there is no store")
	{
		daemon := inFile
		daemon.Daemon = true
		s := open(t, daemon)
		if _, err := Migrate(t.Context(), inFile, atServer, MigrateOptions{}); !errors.Is(err, ErrLocked) {
			t.Errorf("beside a daemon: %v", err)
		}
		s.Close()
	}
	otherNode := atServer
	otherNode.Dir, otherNode.Node = t.TempDir(), "node-2"
	with(t, otherNode, func(*Store) {
		if _, err := Migrate(t.Context(), inFile, atServer, MigrateOptions{}); !errors.Is(err, ErrNodeLives) {
			t.Errorf("beside another node: %v", err)
		}
	})
	with(t, otherNode, func(s *Store) {
		if err := s.AddUser(t.Context(), auth.User{Login: "ben"}); err != nil {
			t.Fatal(err)
		}
	})
	refused("to a store in use", inFile, atServer, "user is not empty")
	_, atServer = places(t)
	atServer.Dir = inFile.Dir

	j := openJournal(t, inFile.Dir)
	n := note(1)
	n.ID = "leased"
	if _, err := j.Note(n); err != nil {
		t.Fatal(err)
	}
	refused("with an answer in the journal", inFile, atServer, "start postern once")
	for i := range 2 {
		if err := os.Truncate(filepath.Join(inFile.Dir, fmt.Sprintf("answers.%d", i)), 0); err != nil {
			t.Fatal(err)
		}
	}
	keyFile := filepath.Join(inFile.Dir, "seal.key")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("with another key", inFile, atServer, "another key")
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := inFile
	newer.Dir = t.TempDir()
	with(t, newer, func(s *Store) {
		if err := s.write(t.Context(), func(tx *tx) error {
			return tx.Run("INSERT INTO migration (version, applied) VALUES (?, 0)", len(migrations)+1)
		}); err != nil {
			t.Fatal(err)
		}
	})
	refused("from a newer version", newer, atServer, "at most: install")
	migrateTo(t, inFile, atServer) // with nothing of this left
}

// A move that was broken off, at whatever moment, is begun again and ends well; until then the store can be served
// where it was, and the copy cannot.
func TestMigrateBrokenOff(t *testing.T) {
	inFile, atServer := places(t)
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	with(t, inFile, func(s *Store) { fillToMove(t, s, now) })
	steps := []string{"empty", "copy event", "copy user", "copy messages", "read event",
		"read messages of " + atServer.Place()}
	for i, step := range steps {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Migrate(ctx, inFile, atServer, MigrateOptions{Progress: func(what string) {
			if strings.HasPrefix(what, step) {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", step, err)
		}
		if _, err := Open(t.Context(), atServer); !errors.Is(err, ErrUnfinished) {
			t.Errorf("%s: the copy: %v", step, err)
		}
		if _, err := Reuse(t.Context(), atServer); !errors.Is(err, ErrUnfinished) {
			t.Errorf("%s: the copy: %v", step, err)
		}
		if _, err := Open(t.Context(), inFile); !errors.Is(err, ErrMoving) {
			t.Errorf("%s: a command beside it: %v", step, err)
		}
		if i%2 == 0 { // the next try is after a daemon was at work
			with(t, inFile, func(*Store) {})
			command, err := Open(t.Context(), inFile)
			if err != nil {
				t.Fatal(err)
			}
			command.Close()
		}
	}
	other := Options{Dir: t.TempDir()}
	with(t, other, func(*Store) {})
	if _, err := Migrate(t.Context(), other, atServer, MigrateOptions{}); !errors.Is(err, ErrUnfinished) {
		t.Errorf("another store to there: %v", err)
	}
	// As if it had been killed between the two last steps.
	migrateTo(t, inFile, atServer)
	state := moveState{}
	file := inFile
	file.moving = true
	with(t, file, func(s *Store) { state, _ = s.move(t.Context()) })
	with(t, atServer, func(s *Store) {
		state.state = moveArriving
		if err := s.setMove(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	})
	for _, o := range []Options{inFile, atServer} {
		if _, err := Open(t.Context(), o); err == nil {
			t.Error("it can be served")
		}
	}
	migrateTo(t, inFile, atServer)
	with(t, atServer, func(s *Store) { wantMoved(t, s, now) })
}

// A change that a command makes at the source meanwhile is noticed: nothing is lost without a word.
func TestMigrateNoticesChanges(t *testing.T) {
	inFile, atServer := places(t)
	with(t, inFile, func(s *Store) { fillToMove(t, s, time.Now()) })
	command := open(t, inFile)
	_, err := Migrate(t.Context(), inFile, atServer, MigrateOptions{Progress: func(what string) {
		if strings.HasPrefix(what, "read") {
			if _, err := command.Delete(t.Context(), queue.Filter{IDs: []string{"held"}}); err != nil {
				t.Error(err)
			}
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "the copy differs") {
		t.Errorf("%v", err)
	}
	migrateTo(t, inFile, atServer)
}
