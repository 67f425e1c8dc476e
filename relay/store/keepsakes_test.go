package store

import (
	"bytes"
	"testing"
	"time"
)

// What one node keeps another hands out: once, in time, and to its owner.
func TestKeepsakes(t *testing.T) {
	dir := t.TempDir()
	a, b, now := open(t, Options{Dir: dir}), open(t, Options{Dir: dir}), time.Now()
	file := []byte("login,password\nanna,secret-words\n")
	keep := func(at time.Time) string {
		t.Helper()
		token, err := a.Keep(t.Context(), "anna", at, at.Add(10*time.Minute), file)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	fetch := func(what string, s *Store, owner, token string, at time.Time, want bool) {
		t.Helper()
		got, err := s.Fetch(t.Context(), owner, token, at)
		if err != nil || bytes.Equal(got, file) != want || !want && got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	token := keep(now)
	fetch("somebody else", b, "ben", token, now, false)
	fetch("another token", b, "anna", token+"x", now, false)
	fetch("the other node", b, "anna", token, now, true)
	fetch("again", a, "anna", token, now, false)
	token = keep(now)
	fetch("late", b, "anna", token, now.Add(10*time.Minute), false)
	var tokens []string
	for i := range maxKeepsakes + 1 {
		tokens = append(tokens, keep(now.Add(time.Duration(i)*time.Second)))
	}
	fetch("the oldest of too many", b, "anna", tokens[0], now, false)
	fetch("the next", b, "anna", tokens[1], now, true)
}
