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

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/seal"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// asked is a context that does something whenever it is asked for its error, which a copy does between its steps.
type asked struct {
	context.Context
	do func()
}

func (a asked) Err() error { a.do(); return a.Context.Err() }

// openCopy opens a snapshot as a store of its own.
func openCopy(t *testing.T, from *Store, path string) *Store {
	t.Helper()
	dir := t.TempDir()
	key, err := os.ReadFile(filepath.Join(from.opts.Dir, seal.KeyFile))
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, seal.KeyFile), key, 0o600),
			os.Rename(path, filepath.Join(dir, FileName)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return open(t, Options{Dir: dir, Daemon: true})
}

func idsOf(t *testing.T, s *Store) (ids []string) {
	t.Helper()
	all, err := s.List(t.Context(), queue.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	return ids
}

// A snapshot has one moment, and mail is taken and leaves while it is made: what is written between two of its steps
// is committed at once, and is not in it.
func TestSnapshotBesideMail(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{Daemon: true})
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	fillToMove(t, s, now)
	big := small("big")
	big.Content = content0("big", 3*copyStep*pageSize)
	if err := s.Add(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	before, n := idsOf(t, s), 0
	ctx := asked{t.Context(), func() {
		n++
		if err := s.Add(t.Context(), small(fmt.Sprint("later", n))); err != nil {
			t.Error(err)
		}
		if n == 2 {
			if deleted, err := s.Delete(t.Context(), queue.Filter{IDs: []string{"big"}}); deleted != 1 || err != nil {
				t.Error(deleted, err)
			}
		}
	}}
	path := filepath.Join(t.TempDir(), "copy")
	c, err := s.Snapshot(ctx, path, SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n < 3 || c.Messages != int64(len(before)) || c.Schema != len(migrations) || len(c.Answers) != 0 {
		t.Errorf("%d steps: %+v", n, c)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside it are %v, %v", left, err)
	}
	if err := errors.Join(Proves(s.sealer, c.Proof), examineTwin(t, path)); err != nil {
		t.Error(err)
	}
	into := openCopy(t, s, path)
	if got := idsOf(t, into); !slices.Equal(got, before) {
		t.Errorf("the copy has %v, not %v", got, before)
	}
	content, err := into.Content(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	r, err := content.Open()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, content0("big", 3*copyStep*pageSize)) {
		t.Errorf("%d octets, %v", len(b), err)
	}
}

// examineTwin looks at a snapshot under the name that ExamineFile looks for.
func examineTwin(t *testing.T, path string) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.Link(path, filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	return ExamineFile(t.Context(), dir)
}

// Without mail there is nothing of it in the file, and all else is.
func TestSnapshotWithoutMail(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{})
	now := time.Now().Truncate(time.Second).Add(-time.Minute)
	fillToMove(t, s, now)
	n := small("secretive")
	n.Content = mail.BytesContent("Subject: x\r\n\r\nnobody may read this\r\n")
	if err := s.Add(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginAnswer(t.Context(), time.Now(), [32]byte{1}, [32]byte{2}, [32]byte{3}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy")
	c, err := s.Snapshot(t.Context(), path, SnapshotOptions{WithoutMail: true})
	if err != nil || c.Messages != 0 || c.Octets != 0 || c.LeftOut != int64(len(idsOf(t, s))) {
		t.Fatalf("%+v, %v", c, err)
	}
	if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte("nobody may read this")) {
		t.Errorf("the content is in it, %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside it are %v, %v", left, err)
	}
	if err := examineTwin(t, path); err != nil {
		t.Error(err)
	}
	into := openCopy(t, s, path)
	if prior, err := into.BeginAnswer(t.Context(), time.Now(), [32]byte{1}, [32]byte{2}, [32]byte{3}); prior != nil ||
		err != nil {
		t.Errorf("an answer about mail that is not there: %+v, %v", prior, err)
	}
	if ids := idsOf(t, into); len(ids) != 0 {
		t.Errorf("it has %v", ids)
	}
	if events, err := into.Events(t.Context(), trace.Query{Limit: 1000}); err != nil || len(events) != 400 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if got := stagesOf(t, into); got != "r1=signing" {
		t.Error(got)
	}
}

// emptying is a connection at whose first transaction the journal is emptied: the outcomes in it were committed.
type emptying struct {
	db.Conn
	dir   string
	times int
}

func (e *emptying) Run(query string, args ...any) error {
	if query == "BEGIN" {
		if e.times++; e.times == 1 {
			line, _ := encodeNote(queue.Note{ID: "second", Attempt: 1})
			if err := os.WriteFile(journalPath(e.dir, 0), line, 0o600); err != nil {
				return err
			}
		}
	}
	return e.Conn.Run(query, args...)
}

// An answer is in the copied state or among the notes, also where the journal is emptied just then.
func TestSnapshotAndTheJournal(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{})
	for _, id := range []string{"m1", "m2"} {
		if err := s.Add(t.Context(), small(id)); err != nil {
			t.Fatal(err)
		}
	}
	j, err := OpenJournal(s.opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"m1", "gone"} {
		_, err := j.Note(queue.Note{ID: id, Attempt: 1, Results: []mail.Result{{Class: mail.Delivered}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := s.Snapshot(t.Context(), filepath.Join(t.TempDir(), "copy"), SnapshotOptions{})
	if notes := decodeNotes(c.Answers); err != nil || len(notes) != 1 || notes[0].ID != "m1" {
		t.Errorf("%q, %v", c.Answers, err)
	}
	conn, err := openConn(s.engine.(*file).path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e := &emptying{Conn: conn, dir: s.opts.Dir}
	notes, err := choose(e, s.opts.Dir)
	if err != nil || e.times != 2 || len(notes) != 1 || notes[0].ID != "second" {
		t.Errorf("after %d transactions %v, %v", e.times, notes, err)
	}
}

// A store at a server says so, and a damaged one is not copied as if it were whole.
func TestSnapshotRefuses(t *testing.T) {
	s := open(t, Options{})
	path := filepath.Join(t.TempDir(), "copy")
	if onServer() {
		if _, err := s.Snapshot(t.Context(), path, SnapshotOptions{}); !errors.Is(err, ErrAtServer) {
			t.Error(err)
		}
		return
	}
	if err := s.Add(t.Context(), small("m1")); err != nil {
		t.Fatal(err)
	}
	// An index that lacks a row is damage that no reader of the table meets.
	err := s.write(t.Context(), func(tx *tx) error {
		return errors.Join(tx.Exec("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = " +
			"'CREATE INDEX message_due ON message (login, next)' WHERE name = 'message_due'"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(t.Context(), path, SnapshotOptions{}); err == nil ||
		!strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged store was copied: %v", err)
	}
}

// What waited is dropped, and the trace says so of each recipient, but of those whom the journal knows as served.
func TestDropAll(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{Daemon: true})
	for i := range 2*actionBatch + 3 {
		n := small(fmt.Sprintf("m%04d", i))
		n.Message.LeaseOwner, n.Message.LeaseUntil, n.Message.Held = s.Owner(), time.Now().Add(time.Hour), i%2 == 0
		n.Message.Recipients = append(n.Message.Recipients[:1:1], queue.Recipient{Status: queue.Delivered})
		if err := s.Add(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	line, err := encodeNote(queue.Note{ID: "m0001", Attempt: 1, Results: []mail.Result{{Class: mail.Delivered,
		Upstream: "office"}, {Recipient: 1, Class: mail.Delivered}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journalPath(s.opts.Dir, 0), line, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginAnswer(t.Context(), time.Now(), [32]byte{1}, [32]byte{2}, [32]byte{3}); err != nil {
		t.Fatal(err)
	}
	n, err := s.DropAll(t.Context(), "dropped")
	if err != nil || n != 2*actionBatch+3 || len(idsOf(t, s)) != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Messages != 0 || st.Held != 0 || st.Bytes != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	prior, err := s.BeginAnswer(t.Context(), time.Now(), [32]byte{1}, [32]byte{2}, [32]byte{3})
	if prior != nil || err != nil {
		t.Errorf("an answer about mail that was dropped: %+v, %v", prior, err)
	}
	events, err := s.Events(t.Context(), trace.Query{Limit: 10_000})
	served := 0
	for _, e := range events {
		if e.Kind == trace.Delivered && e.ID == "m0001" && e.Upstream == "office" {
			served++
		} else if e.Kind != trace.Operator || e.Detail != "dropped" || e.To == "" {
			t.Errorf("%+v", e)
		}
	}
	if err != nil || len(events) != 2*actionBatch+3 || served != 1 {
		t.Errorf("%d events, %d served, %v", len(events), served, err)
	}
}

// A file of a newer version, or of something else, is not taken.
func TestExamineRefuses(t *testing.T) {
	fileOnly(t)
	for want, change := range map[string]string{
		"written by a newer postern (schema 999": "INSERT INTO migration (version, applied) VALUES (999, 1)",
		"no store of postern":                    "PRAGMA application_id = 7",
		"schema version cannot be read":          "DELETE FROM migration",
		"it counts 3 messages, and has 0":        "UPDATE counter SET messages = 3",
	} {
		dir := t.TempDir()
		s, err := Open(t.Context(), Options{Dir: dir, Daemon: true})
		if err == nil {
			err = errors.Join(s.Close(), ExamineFile(t.Context(), dir))
		}
		if err != nil {
			t.Fatal(err)
		}
		conn, err := openConn(filepath.Join(dir, FileName))
		if err == nil {
			err = errors.Join(conn.Exec(change), conn.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ExamineFile(t.Context(), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// Who was logged in is so no more, and no invitation opens anything.
func TestEndSessions(t *testing.T) {
	s := open(t, Options{})
	now := time.Now()
	err := s.AddPersonSession(t.Context(), PersonSession{Digest: [32]byte{1}, Login: "anna", Created: now, Used: now},
		now.Add(-time.Hour), now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keep(t.Context(), "anna", now, now.Add(time.Hour), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.EndSessions(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"console_session", "person_session", "console_invite", "console_keepsake"} {
		err := s.readers.read(t.Context(), func(conn db.Conn) error {
			if _, some, err := conn.Int("SELECT 1 FROM " + name); some || err != nil {
				return fmt.Errorf("%s has rows, %w", name, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
