package store

import (
	"errors"
	"testing"

	"postern/auth"
)

// noAudit lets no entry be written or changed.
const noAudit = `CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit'); END`

// A change and its entry are both there, or neither.
func TestRecordIsWrittenWithItsChange(t *testing.T) {
	s := open(t, Options{})
	detail := ""
	r := &Record{Entry: func() AuditEntry {
		return AuditEntry{Time: eventTime, Actor: "anna", Operation: "user add", Detail: detail, Outcome: AuditDone}
	}}
	ctx := Recorded(t.Context(), r)
	entries := func() []AuditEntry {
		t.Helper()
		list, err := s.Audit(t.Context(), AuditQuery{})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if _, err := s.Secret(ctx, "x", 16); err != nil || len(entries()) != 0 {
		t.Errorf("a secret of our own is recorded: %+v, %v", entries(), err)
	}
	if err := s.DeleteUser(ctx, "ben", nil); !errors.Is(err, auth.ErrUnknownLogin) || len(entries()) != 0 {
		t.Errorf("a refusal is recorded as done: %+v, %v", entries(), err)
	}
	none := func(auth.Lock) bool { return false }
	if _, err := s.LiftLockouts(ctx, eventTime, none); err != nil || len(entries()) != 0 {
		t.Errorf("what changed nothing is recorded as done: %+v, %v", entries(), err)
	}
	commits := s.Commits()
	detail = "a user"
	if err := s.AddUser(ctx, auth.User{Login: "ben"}); err != nil {
		t.Fatal(err)
	}
	if got := entries(); len(got) != 1 || got[0].Detail != "a user" || s.Commits() != commits+1 {
		t.Errorf("%+v, %d commits", got, s.Commits()-commits)
	}
	if err := s.AddUser(ctx, auth.User{Login: "cleo"}); err != nil || len(entries()) != 1 {
		t.Errorf("a second change has an entry of its own: %+v, %v", entries(), err)
	}
	if err := s.WriteRecord(t.Context(), r); err != nil || s.Commits() != commits+2 {
		t.Errorf("the same entry is written again: %v", err)
	}
	detail = "two users"
	if err := s.WriteRecord(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := entries(); len(got) != 1 || got[0].Detail != "two users" {
		t.Errorf("%+v", got)
	}
}

// Where the entry cannot be written, nothing is changed, and the writes of others are.
func TestNoChangeWithoutItsRecord(t *testing.T) {
	fileOnly(t)
	s := open(t, Options{})
	if err := s.write(t.Context(), func(tx *tx) error { return tx.Exec(noAudit) }); err != nil {
		t.Fatal(err)
	}
	r := &Record{Entry: func() AuditEntry { return AuditEntry{Time: eventTime, Outcome: AuditDone} }}
	release := stall(t, s)
	done := make(chan error)
	go func() { done <- s.AddUser(Recorded(t.Context(), r), auth.User{Login: "ben"}) }()
	go func() { done <- s.AddUser(t.Context(), auth.User{Login: "cleo"}) }()
	waitFor(t, s, 2, 0)
	release()
	if err := errors.Join(<-done, <-done); err == nil {
		t.Error("a change whose entry cannot be written is made")
	}
	users, err := s.Users(t.Context())
	if err != nil || len(users) != 1 || users[0].Login != "cleo" {
		t.Errorf("%+v, %v", users, err)
	}
	if err := s.WriteRecord(t.Context(), r); err == nil {
		t.Error("an entry that cannot be written is")
	}
}
