package store

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var answered = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func begin(t *testing.T, s *Store, at time.Time, key byte) *Answer {
	t.Helper()
	a, err := s.BeginAnswer(t.Context(), at, [32]byte{key}, [32]byte{key, 9})
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
	for _, name := range []string{FileName, FileName + "-wal"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(b, []byte("anna@example")) {
			t.Errorf("%s has the answer in clear, or cannot be read: %v", name, err)
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	s := open(t, Options{})
	err := s.write(t.Context(), func(t *tx) error {
		for i := range MaxAnswers {
			key := binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i)+1)
			if err := t.Run("INSERT INTO api_answer VALUES (?, ?, ?, 200, ?)", key, key,
				unixNano(answered.Add(time.Duration(i))), []byte{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, s, answered.Add(time.Hour), 1)
	var oldest [32]byte
	oldest[31] = 1
	if a, err := s.BeginAnswer(t.Context(), answered.Add(time.Hour), oldest, oldest); a != nil || err != nil {
		t.Errorf("the oldest is kept: %+v, %v", a, err)
	}
	if a := begin(t, s, answered.Add(time.Hour), 1); a == nil {
		t.Error("the newest is forgotten")
	}
}
