package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/queue"
)

func openJournal(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func note(n int) queue.Note {
	return queue.Note{ID: fmt.Sprintf("M%05d", n), Attempt: n%3 + 1, Results: []mail.Result{
		{Recipient: 0, Class: mail.Delivered, Stage: mail.StageDot, Reply: mail.R(250, "2.0.0", "taken\nas %d", n),
			Upstream: "office", RelayedDSN: true},
		{Recipient: 1, Class: mail.RecipientFault, Stage: mail.StageRcpt, Reply: mail.R(550, "5.1.1", "no “such” user"),
			Upstream: "office"},
	}}
}

func wantNotes(t *testing.T, j *Journal, want ...queue.Note) {
	t.Helper()
	got, err := j.Notes()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d notes, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("note %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

// What is noted is there for whoever opens the journal next, without a word from the one before.
func TestJournalOutlivesItsProcess(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	for n := range 3 {
		if _, err := j.Note(note(n)); err != nil {
			t.Fatal(err)
		}
	}
	next := openJournal(t, dir) // the first is not closed, as after a kill
	wantNotes(t, next, note(0), note(1), note(2))
	if err := next.Clear(); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, openJournal(t, dir))
	info, err := os.Stat(filepath.Join(dir, "answers.0"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A line that was cut or damaged is passed over, and hides none of the others.
func TestJournalDamaged(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	for n := range 3 {
		if _, err := j.Note(note(n)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "answers.0")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[1][20] ^= 1
	damaged := append(bytes.Join(lines[:3], nil), lines[0][:30]...) // and the last one cut
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, openJournal(t, dir), note(0), note(2))
}

// The files stay short however many notes come, as long as they are forgotten; nothing that is not is lost by that.
func TestJournalStaysShort(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	kept := note(70_000)
	if _, err := j.Note(kept); err != nil {
		t.Fatal(err)
	}
	for n := range 5000 {
		forget, err := j.Note(note(n))
		if err != nil {
			t.Fatal(err)
		}
		forget()
	}
	total := int64(0)
	for i := range j.files {
		info, err := j.files[i].Stat()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 3*journalSize {
		t.Errorf("the journal has %d octets", total)
	}
	notes, err := j.Notes()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, n := range notes {
		found = found || n.ID == kept.ID
	}
	if !found {
		t.Error("a note that nobody forgot is gone")
	}
}

// Closing in order leaves nothing behind, unless something is owed still.
func TestJournalCloses(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	forget, err := j.Note(note(1))
	if err != nil {
		t.Fatal(err)
	}
	forget()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"answers.0", "answers.1"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	j = openJournal(t, dir)
	if _, err := j.Note(note(2)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, openJournal(t, dir), note(2))
}

// A process that ends before it has recorded what the one before noted leaves it for the next.
func TestJournalOutlivesAStartThatFails(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	for n := range 2 {
		if _, err := j.Note(note(n)); err != nil {
			t.Fatal(err)
		}
	}
	failed := openJournal(t, dir)
	if err := failed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "aside"), 0o700); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "answers.1")
	if err := os.Rename(other, filepath.Join(dir, "aside", "answers.1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if broken, err := OpenJournal(dir); err == nil {
		broken.Close()
		t.Fatal("a directory was opened as a journal")
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	next := openJournal(t, dir)
	wantNotes(t, next, note(0), note(1))
	if err := next.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, openJournal(t, dir))
}

// A journal that cannot be written says so each time, and the next note is whole when it can again.
func TestJournalCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	if _, err := j.Note(note(1)); err != nil {
		t.Fatal(err)
	}
	good := j.files[0].File
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	j.files[0].File = full
	if _, err := j.Note(note(2)); !errors.Is(err, errno.NoSpace) {
		t.Errorf("error %v", err)
	}
	j.files[0].File = good
	if _, err := good.WriteAt([]byte("half a li"), j.files[0].size); err != nil { // what the disk had room for
		t.Fatal(err)
	}
	if _, err := j.Note(note(3)); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, j, note(1), note(3))
}

func TestJournalRefusesOtherThings(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "answers.1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if j, err := OpenJournal(dir); err == nil {
		j.Close()
		t.Error("a directory was opened as a journal")
	}
}

func FuzzDecodeNote(f *testing.F) {
	line, err := encodeNote(note(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte("00000000 \n"))
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		n, ok := decodeNote(line)
		if !ok {
			return
		}
		again, err := encodeNote(n)
		if err != nil {
			t.Fatal(err)
		}
		if back, ok := decodeNote(again); !ok || !reflect.DeepEqual(n, back) {
			t.Errorf("%+v became %+v", n, back)
		}
	})
}

func BenchmarkNote(b *testing.B) {
	j := openJournal(b, b.TempDir())
	n := note(1)
	b.ReportAllocs()
	for b.Loop() {
		forget, err := j.Note(n)
		if err != nil {
			b.Fatal(err)
		}
		forget()
	}
}
