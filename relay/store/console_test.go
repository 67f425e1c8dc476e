package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// putUser stores a user as it is given.
func putUser(t *testing.T, s *Store, want ConsoleUser) {
	t.Helper()
	err := s.ChangeConsoleUser(t.Context(), want.Name, func(u *ConsoleUser, _ bool, _ []ConsoleUser) (bool, error) {
		*u = want
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConsoleUsers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Daemon: true})
	ctx := t.Context()
	anna := ConsoleUser{Name: "anna", Role: "admin", Provider: "https://idp", Subject: "1", Hash: "$argon2id$x",
		TOTP: "SECRETSECRETSECRET", TOTPStep: 7, WrongCodes: 3, Passkeys: []json.RawMessage{[]byte(`{"id":1}`)},
		Disabled: true, Created: eventTime, LastLogin: eventTime.Add(time.Hour), Generation: 9}
	bumped(t, s, TopicConsole, 1, func() error { putUser(t, s, anna); return nil })
	if got, err := s.ConsoleUser(ctx, "anna"); err != nil || !reflect.DeepEqual(got, anna) {
		t.Errorf("got %#v, %v", got, err)
	}
	if _, err := s.ConsoleUser(ctx, "ben"); !errors.Is(err, ErrNoConsoleUser) {
		t.Errorf("somebody who is not there: %v", err)
	}
	failure := errors.New("no")
	err := s.ChangeConsoleUser(ctx, "anna", func(u *ConsoleUser, exists bool, all []ConsoleUser) (bool, error) {
		if !exists || len(all) != 1 {
			t.Errorf("%v, %v", exists, all)
		}
		u.Role = "viewer"
		return true, failure
	})
	if got, _ := s.ConsoleUser(ctx, "anna"); !errors.Is(err, failure) || got.Role != "admin" {
		t.Errorf("a change that was refused: %v, %+v", err, got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fileOnly(t)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil || bytes.Contains(b, []byte(anna.TOTP)) {
		t.Errorf("the file has the secret of codes in clear, %v", err)
	}
}

func TestConsoleIsBounded(t *testing.T) {
	fileOnly(t) // by SQL of SQLite
	s := open(t, Options{})
	script := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO %s FROM n"
	err := s.write(t.Context(), func(t *tx) error {
		return errors.Join(
			t.Run(fmt.Sprintf(script, maxConsoleUsers, "console_user SELECT 'user' || i, '{}', x''")),
			t.Run(fmt.Sprintf(script, maxTokens, "api_token SELECT randomblob(32), 'token' || i, '{}', 0")))
	})
	if err != nil {
		t.Fatal(err)
	}
	keep := func(*ConsoleUser, bool, []ConsoleUser) (bool, error) { return true, nil }
	if err := s.ChangeConsoleUser(t.Context(), "one too many", keep); !errors.Is(err, ErrTooMany) {
		t.Errorf("a user too many: %v", err)
	}
	if err := s.ChangeConsoleUser(t.Context(), "user7", keep); err != nil {
		t.Errorf("one who is there: %v", err)
	}
	if err := s.AddToken(t.Context(), APIToken{Name: "one too many"}); !errors.Is(err, ErrTooMany) {
		t.Errorf("a token too many: %v", err)
	}
}

func TestConsoleInvites(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	putUser(t, s, ConsoleUser{Name: "anna", Role: "viewer", Generation: 1})
	first := ConsoleInvite{Digest: [32]byte{1}, Name: "anna", Expires: eventTime.Add(time.Hour)}
	second := ConsoleInvite{Digest: [32]byte{2}, Name: "anna", Expires: eventTime.Add(time.Hour)}
	for _, i := range []ConsoleInvite{first, second} {
		if err := s.AddConsoleInvite(ctx, i, eventTime); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.ConsoleInvite(ctx, first.Digest); err != nil || !got.Void {
		t.Errorf("the first, after the second: %+v, %v", got, err)
	}
	if got, err := s.ConsoleInvite(ctx, second.Digest); err != nil || got != second {
		t.Errorf("%+v, %v", got, err)
	}
	accept := func(i ConsoleInvite, u *ConsoleUser) error {
		if !i.Used.IsZero() {
			return errors.New("used")
		}
		u.Hash = "x"
		return nil
	}
	bumped(t, s, TopicConsole, 1, func() error { return s.UseConsoleInvite(ctx, second.Digest, eventTime, accept) })
	if err := s.UseConsoleInvite(ctx, second.Digest, eventTime, accept); err == nil {
		t.Error("a link is used twice")
	}
	if err := s.UseConsoleInvite(ctx, [32]byte{9}, eventTime, accept); !errors.Is(err, ErrNoInvite) {
		t.Errorf("no link: %v", err)
	}
	if u, err := s.ConsoleUser(ctx, "anna"); err != nil || u.Hash != "x" {
		t.Errorf("%+v, %v", u, err)
	}
	late := ConsoleInvite{Digest: [32]byte{3}, Name: "anna", Expires: eventTime.Add(invitesFor + 2*time.Hour)}
	if err := s.AddConsoleInvite(ctx, late, eventTime.Add(invitesFor+2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ConsoleInvite(ctx, second.Digest); !errors.Is(err, ErrNoInvite) {
		t.Errorf("an old link is kept: %v", err)
	}
}

func TestConsoleSessions(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	putUser(t, s, ConsoleUser{Name: "anna", Role: "viewer", Hash: "x", TOTP: "y", Generation: 4})
	session := func(n int) ConsoleSession {
		at := eventTime.Add(time.Duration(n) * time.Minute)
		return ConsoleSession{Digest: [32]byte{byte(n)}, Name: "anna", Generation: 4, Created: at, Used: at,
			Client: "::1"}
	}
	none := time.Time{}
	for n := range sessionsOfUser + 2 {
		if err := s.AddConsoleSession(ctx, session(n), nil, none, none); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range map[int]error{0: ErrNoSession, 1: ErrNoSession, 2: nil, sessionsOfUser + 1: nil} {
		got, u, err := s.ConsoleSession(ctx, [32]byte{byte(n)})
		if !errors.Is(err, want) || err == nil && (got != session(n) || u.Name != "anna") {
			t.Errorf("session %d: %+v, %v, want %v", n, got, err, want)
		}
	}
	used := eventTime.Add(time.Hour)
	if err := s.TouchConsoleSession(ctx, [32]byte{5}, used); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.ConsoleSession(ctx, [32]byte{5}); err != nil || !got.Used.Equal(used) {
		t.Errorf("%+v, %v", got, err)
	}
	replaced := [32]byte{5}
	fresh := session(100)
	if err := s.AddConsoleSession(ctx, fresh, &replaced, none, eventTime.Add(10*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := s.AddConsoleSession(ctx, session(101), &replaced, none, none); !errors.Is(err, ErrNoSession) {
		t.Errorf("in the place of one that is gone: %v", err)
	}
	for n, want := range map[int]error{5: ErrNoSession, 9: ErrNoSession, 10: nil, 100: nil, 101: ErrNoSession} {
		if _, _, err := s.ConsoleSession(ctx, [32]byte{byte(n)}); !errors.Is(err, want) {
			t.Errorf("session %d: %v, want %v", n, err, want)
		}
	}
	list, err := s.ConsoleSessions(ctx, "anna", none, eventTime.Add(12*time.Minute))
	if err != nil || len(list) != 10 || list[0] != fresh || list[9] != session(13) {
		t.Errorf("those used since: %+v, %v", list, err)
	}
	other := session(120)
	other.Name = "ben"
	if err := s.AddConsoleSession(ctx, other, nil, none, none); err != nil {
		t.Fatal(err)
	}
	if err := s.EndOtherSessions(ctx, "anna", fresh.Digest, nil); err != nil {
		t.Fatal(err)
	}
	if list, err = s.ConsoleSessions(ctx, "anna", none, none); err != nil || len(list) != 1 || list[0] != fresh {
		t.Errorf("all others ended: %+v, %v", list, err)
	}
	if list, err = s.ConsoleSessions(ctx, "ben", none, none); err != nil || len(list) != 1 {
		t.Errorf("somebody else's: %+v, %v", list, err)
	}
	if err := s.EndConsoleSession(ctx, other.Digest); err != nil {
		t.Fatal(err)
	}
	putUser(t, s, ConsoleUser{Name: "anna", Role: "viewer", Hash: "x", TOTP: "y", Generation: 5})
	if _, _, err := s.ConsoleSession(ctx, fresh.Digest); !errors.Is(err, ErrNoSession) {
		t.Errorf("after a change of the user: %v", err)
	}
	if left, err := s.countRows("console_session"); err != nil || left != 0 {
		t.Errorf("%d sessions are kept, %v", left, err)
	}
}

// countRows counts what a table has.
func (s *Store) countRows(table string) (n int64, err error) {
	err = s.write(context.Background(), func(t *tx) error {
		n, _, err = t.Int("SELECT count(*) FROM " + table)
		return err
	})
	return n, err
}

func TestTokensAreKept(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	k := APIToken{Digest: [32]byte{1}, Name: "mon", Scopes: []string{"read"}, Created: eventTime, CreatedBy: "root",
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Expires: eventTime.Add(time.Hour)}
	bumped(t, s, TopicConsole, 1, func() error { return s.AddToken(ctx, k) })
	if err := s.AddToken(ctx, APIToken{Digest: [32]byte{2}, Name: "mon"}); !errors.Is(err, ErrExists) {
		t.Errorf("the same name again: %v", err)
	}
	k.Used = eventTime.Add(time.Minute)
	if err := s.TouchToken(ctx, k.Digest, k.Used); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Token(ctx, k.Digest); err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("got %+v, %v", got, err)
	}
	bumped(t, s, TopicConsole, 1, func() error { return s.RevokeToken(ctx, "mon") })
	if _, err := s.Token(ctx, k.Digest); !errors.Is(err, ErrNoToken) {
		t.Errorf("revoked: %v", err)
	}
	if err := s.RevokeToken(ctx, "mon"); !errors.Is(err, ErrNoToken) {
		t.Errorf("revoked again: %v", err)
	}
}

func TestAudit(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	entry := func(minute int, actor, op string) AuditEntry {
		return AuditEntry{Time: eventTime.Add(time.Duration(minute) * time.Minute), Actor: actor, Channel: "console",
			Client: "::1", Operation: op, Subject: "x", Detail: "y", Outcome: AuditDone}
	}
	var all []AuditEntry
	for i := range 10 {
		all = append(all, entry(i, []string{"anna", "ben"}[i%2], []string{"queue hold", "user add", "raw"}[i%3]))
	}
	all = append(all, all[9], entry(3, "anna", "late")) // the same moment twice, and a clock that went back
	if err := s.AppendAudit(ctx, all...); err != nil {
		t.Fatal(err)
	}
	var before int64
	var seen []AuditEntry
	for {
		page, err := s.Audit(ctx, AuditQuery{Before: before, Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		seen = append(seen, page...)
		before = page[len(page)-1].N
	}
	if len(seen) != len(all) || seen[0].Operation != "late" || seen[len(seen)-1].Operation != "queue hold" {
		t.Errorf("page by page: %+v", seen)
	}
	for _, c := range []struct {
		q    AuditQuery
		want int
	}{
		{AuditQuery{}, 12}, {AuditQuery{Actor: "anna"}, 6}, {AuditQuery{Operation: "raw"}, 3},
		{AuditQuery{Actor: "ben", Operation: "raw"}, 1}, {AuditQuery{Actor: "nobody"}, 0},
		{AuditQuery{Since: eventTime.Add(5 * time.Minute)}, 6}, {AuditQuery{Until: eventTime.Add(5 * time.Minute)}, 6},
		{AuditQuery{Since: eventTime.Add(time.Minute), Until: eventTime.Add(3 * time.Minute)}, 2},
	} {
		if got, err := s.Audit(ctx, c.q); err != nil || len(got) != c.want {
			t.Errorf("%+v: %d entries, %v, want %d", c.q, len(got), err, c.want)
		}
	}
	hostile := entry(20, "a\x1b[31mb", strings.Repeat("ä", 2000))
	if err := s.AppendAudit(ctx, hostile); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Audit(ctx, AuditQuery{Limit: 1}); err != nil || strings.Contains(got[0].Actor, "\x1b") ||
		len(got[0].Operation) > auditText+3 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAuditIsBounded(t *testing.T) {
	s := open(t, Options{})
	ctx := t.Context()
	for i := range 250 {
		err := s.AppendAudit(ctx, AuditEntry{Time: eventTime.Add(time.Duration(i) * time.Hour), Actor: "a",
			Operation: "o"})
		if err != nil {
			t.Fatal(err)
		}
	}
	now := eventTime.Add(LeastAudit + 10*time.Hour)
	if n, err := s.PruneAudit(ctx, now, now); err != nil || n != 10 {
		t.Errorf("%d are removed, %v, want the 10 that are older than a year", n, err)
	}
	if n, err := s.pruneAudit(ctx, time.Time{}, 50); err != nil || n != 190 {
		t.Errorf("%d are removed, %v, want what is over 50", n, err)
	}
	got, err := s.Audit(ctx, AuditQuery{Limit: 1000})
	if err != nil || len(got) != 50 || !got[0].Time.Equal(eventTime.Add(249*time.Hour)) {
		t.Errorf("%d are left, %v", len(got), err)
	}
}

// A clock that was wrong for a while misdates what it wrote, and nothing else. The order is that of writing.
func TestAuditAfterAWrongClock(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	times := []time.Time{eventTime, eventTime.Add(1000 * 24 * time.Hour), eventTime.Add(time.Hour), eventTime}
	for i, at := range times {
		if err := s.AppendAudit(ctx, AuditEntry{Time: at, Actor: fmt.Sprint("a", i), Outcome: AuditDone}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := s.Audit(ctx, AuditQuery{})
	if err != nil || len(entries) != len(times) {
		t.Fatalf("%+v, %v", entries, err)
	}
	for i, e := range entries {
		if j := len(times) - 1 - i; e.Actor != fmt.Sprint("a", j) || !e.Time.Equal(times[j]) {
			t.Errorf("%+v, want a%d of %s", e, j, times[j])
		}
	}
	if some, err := s.Audit(ctx, AuditQuery{Until: eventTime.Add(2 * time.Hour)}); err != nil || len(some) != 3 {
		t.Errorf("%+v, %v", some, err)
	}
	now := eventTime.Add(LeastAudit + 3*time.Hour)
	if n, err := s.PruneAudit(ctx, now, now); err != nil || n != 3 {
		t.Errorf("%d removed, %v", n, err)
	}
}
