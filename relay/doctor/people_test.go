package doctor

import (
	"testing"
	"time"

	"postern/auth"
	"postern/relay/finding"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// TestIdleAppPasswords: who has app passwords and was not heard of for more than 90 days is named. Who is on the page,
// uses or makes one, sends in another way or is locked is not, nor is anybody whose app passwords are over.
func TestIdleAppPasswords(t *testing.T) {
	w := newWard(t, plainUpstream)
	s, day := w.daemon(nil), 24*time.Hour
	now := time.Now().Truncate(time.Second)
	clock := now
	w.o.now = func() time.Time { return clock }
	old := now.Add(-200 * day)
	for _, p := range []struct {
		login, source, subject string
		seen, made, expires    time.Time
	}{
		{"oda@example.com", "oidc", "https://login.example.com 1", now, old, now.Add(165 * day)},
		{"paul@example.com", "office", "", time.Time{}, old, now.Add(165 * day)}, // by an operator
		{"over@example.com", "oidc", "https://login.example.com 2", old, old, now.Add(-time.Hour)},
		{"locked@example.com", "oidc", "https://login.example.com 3", old, old, now.Add(165 * day)},
		{"sends@example.com", "office", "", old, old, now.Add(165 * day)},
		{"new@example.com", "office", "", time.Time{}, now, now.Add(365 * day)},
	} {
		person := auth.Person{Login: p.login, Source: p.source, Subject: p.subject, Seen: p.seen}
		if _, err := s.PutPerson(t.Context(), person); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddAppPassword(t.Context(), person, auth.AppPassword{ID: p.login, Login: p.login,
			Name: "printer", Hash: auth.Secret(p.login), Created: p.made, Expires: p.expires}, 20, p.made); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.LockLogin(t.Context(), auth.LoginLock{Login: "locked@example.com", Reason: "left",
		At: now}); err != nil {
		t.Fatal(err)
	}
	if err := s.AppendEventsNow(t.Context(), []trace.Event{{Time: now.Add(time.Hour), Kind: trace.Accepted,
		Login: "sends@example.com", ID: "m1"}}); err != nil {
		t.Fatal(err)
	}
	idle := func(logins ...string) (list []finding.Finding) {
		t.Helper()
		list = w.examine("accounts")
		n := 0
		for _, f := range list {
			if f.Code == codeAppPasswordsIdle {
				n++
			}
		}
		for _, login := range logins {
			want(t, list, codeAppPasswordsIdle, finding.Advice, login, "postern user lock "+login,
				"app-password revoke "+login)
		}
		if n != len(logins) {
			t.Errorf("%d findings, want %q:\n%s", n, logins, text(list))
		}
		return list
	}
	want(t, idle("paul@example.com"), codeAppPasswordsIdle, finding.Advice, "source office has the login")
	want(t, w.examine("accounts"), codeAccountsOK, finding.Healthy, "in other sources") // with none in the store
	clock = now.Add(90 * day)
	idle("paul@example.com")
	clock = now.Add(90*day + time.Minute)
	list := idle("paul@example.com", "oda@example.com", "new@example.com")
	want(t, list, codeAppPasswordsIdle, finding.Advice, "oda@example.com", "the login provider cannot be asked",
		"since "+now.Local().Format(time.DateOnly), now.Add(165*day).Local().Format(time.DateOnly))
	s.Hurry()
	if err := s.SaveAppUses(t.Context(), []relaystore.AppUse{{ID: "oda@example.com", At: clock,
		From: "192.0.2.1"}}); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(2 * time.Hour)
	addUser(t, s, auth.User{Login: "anna@example.com"})
	list = idle("paul@example.com", "new@example.com", "sends@example.com")
	not(t, list, codeAccountNone)
}
