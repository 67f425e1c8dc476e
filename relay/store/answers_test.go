package store

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/relay/store/internal/db"
)

var answered = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func begin(t *testing.T, s *Store, at time.Time, key byte) *Answer {
	t.Helper()
	a, err := s.BeginAnswer(t.Context(), at, [32]byte{1}, [32]byte{key}, [32]byte{key, 9})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if a := begin(t, s, answered, 1); a != nil {
		t.Fatalf("answered already: %+v", a)
	}
	if a := begin(t, s, answered, 1); a == nil || a.Status != 0 || a.Request != [32]byte{1, 9} || a.Body != nil {
		t.Fatalf("begun: %+v", a)
	}
	body := []byte(`{"to":"anna@example.com"}`)
	if err := s.FinishAnswer(t.Context(), [32]byte{1}, 201, body); err != nil {
		t.Fatal(err)
	}
	if a := begin(t, s, answered.Add(AnswersFor-1), 1); a == nil || a.Status != 201 || !bytes.Equal(a.Body, body) {
		t.Fatalf("answered: %+v", a)
	}
	if a := begin(t, s, answered.Add(AnswersFor), 1); a != nil {
		t.Fatalf("kept for too long: %+v", a)
	}
	for i, body := range [][]byte{nil, make([]byte, MaxAnswerBody+1)} {
		key := byte(10 + i)
		begin(t, s, answered, key)
		if err := s.FinishAnswer(t.Context(), [32]byte{key}, 200, body); err != nil {
			t.Fatal(err)
		}
		if a := begin(t, s, answered, key); a == nil || a.Status != 200 || a.Body != nil {
			t.Errorf("a body that is not kept: %+v", a)
		}
	}
	begin(t, s, answered, 20)
	if err := s.FinishAnswer(t.Context(), [32]byte{20}, 204, []byte{}); err != nil {
		t.Fatal(err)
	}
	if a := begin(t, s, answered, 20); a == nil || a.Status != 204 || a.Body == nil || len(a.Body) != 0 {
		t.Errorf("an empty body: %+v", a)
	}
	if err := s.DropAnswer(t.Context(), [32]byte{10}); err != nil {
		t.Fatal(err)
	}
	if a := begin(t, s, answered, 10); a != nil {
		t.Errorf("dropped: %+v", a)
	}
	fileOnly(t)
	for _, name := range []string{FileName, FileName + "-wal"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(b, []byte("anna@example")) {
			t.Errorf("%s has the answer in clear, or cannot be read: %v", name, err)
		}
	}
}

// fillAnswers gives a caller n answers, the first the oldest.
func fillAnswers(t *testing.T, s *Store, caller byte, n int) {
	t.Helper()
	err := s.write(t.Context(), func(tx *tx) error {
		for i := range n {
			key := answerKey(caller, i)
			who := [32]byte{caller}
			if err := tx.Run("INSERT INTO api_answer VALUES (?, ?, ?, 200, ?, ?)", key[:], key[:],
				unixNano(answered.Add(time.Duration(i))), []byte{}, who[:]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func answerKey(caller byte, i int) (key [32]byte) {
	key[0] = 100 + caller
	binary.BigEndian.PutUint64(key[24:], uint64(i))
	return key
}

// answersOf counts those of a caller, and says whether it has its i-th still.
func answersOf(t *testing.T, s *Store, caller byte, i int) (n int64, has bool) {
	t.Helper()
	who, key := [32]byte{caller}, answerKey(caller, i)
	err := s.readers.read(t.Context(), func(conn db.Conn) (err error) {
		if n, _, err = conn.Int("SELECT count(*) FROM api_answer WHERE caller = ?", who[:]); err == nil {
			_, has, err = conn.Int("SELECT 1 FROM api_answer WHERE key = ?", key[:])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, has
}

func TestAnswersAreBounded(t *testing.T) {
	s := open(t, Options{})
	fillAnswers(t, s, 1, MaxAnswers)
	begin(t, s, answered.Add(time.Hour), 1)
	if n, has := answersOf(t, s, 1, 0); n != MaxAnswers || has {
		t.Errorf("%d are kept, the oldest: %v", n, has)
	}
	if a := begin(t, s, answered.Add(time.Hour), 1); a == nil {
		t.Error("the newest is forgotten")
	}
}

// TestAnswersAreShared: a caller pushes out nobody's answers but its own, unless others have more than it.
func TestAnswersAreShared(t *testing.T) {
	s := open(t, Options{})
	const few = 3
	fillAnswers(t, s, 2, few)
	fillAnswers(t, s, 1, MaxAnswers-few)
	ask := func(caller byte, i int) {
		t.Helper()
		key := answerKey(caller, i)
		prior, err := s.BeginAnswer(t.Context(), answered.Add(time.Hour), [32]byte{caller}, key, key)
		if prior != nil || err != nil {
			t.Fatal(prior, err)
		}
	}
	for i := range 20 {
		ask(1, MaxAnswers+i)
	}
	if n, has := answersOf(t, s, 2, 0); n != few || !has {
		t.Errorf("of the one with %d are left %d", few, n)
	}
	for i := range 20 {
		ask(3, i)
	}
	if n, has := answersOf(t, s, 3, 0); n != 20 || !has {
		t.Errorf("of the new one are kept %d", n)
	}
	if n, has := answersOf(t, s, 1, 22); n != MaxAnswers-few-20 || has {
		t.Errorf("of the one that has most are left %d", n)
	}
}
