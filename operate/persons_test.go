package operate_test

import (
	"strings"
	"testing"
	"time"

	"postern/operate"
	"postern/relay/store"
)

// TestEnrolConflicts: a login has one person, and a person one login; accounts of a source are nobody else's.
func TestEnrolConflicts(t *testing.T) {
	o := newOffice(t)
	o.must(o.Accounts.Lock(t.Context(), root, "ben", "")) // locked accounts are taken, too
	enrol := func(login, subject string) error {
		_, err := o.AppPasswords.Enrol(t.Context(), operate.Actor{Channel: operate.SelfService}, operate.Person{
			Login: login, Source: operate.OIDCSource, Issuer: "https://login.example.com", Subject: subject})
		return err
	}
	o.must(enrol("dora@example.com", "4")) // again
	for _, c := range []struct {
		login, subject string
		kind           operate.Kind
		says           string
	}{
		{"ben", "9", operate.Conflict, "already"},
		{"dora@example.com", "5", operate.Conflict, "belongs to somebody else"},
		{"dora.new@example.com", "4", operate.Conflict, "postern app-password forget dora@example.com"},
		{"emil@example.com", "", operate.Invalid, "sub"},
		{"emil@example.com", strings.Repeat("x", 600), operate.Invalid, "sub"},
	} {
		err := enrol(c.login, c.subject)
		if kind, ok := operate.KindOf(err); !ok || kind != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %.10q: %v", c.login, c.subject, err)
		}
	}
	if people, err := o.store.Persons(t.Context()); err != nil || len(people) != 1 {
		t.Errorf("%+v, %v", people, err)
	}
}

// TestFirstLoginIsRecorded: the audit has the first login of each person to the page, by whom the login provider or the
// source says that they are, with what was stored of them or not at all; later logins are not in it.
func TestFirstLoginIsRecorded(t *testing.T) {
	o := newOffice(t)
	enrol := func(p operate.Person) {
		t.Helper()
		_, err := o.AppPasswords.Enrol(t.Context(), operate.Actor{Channel: operate.SelfService, Client: "192.0.2.7"}, p)
		o.must(err)
	}
	cleo := operate.Person{Login: "Cleo@example.com", Source: operate.OIDCSource, Issuer: "https://login.example.com",
		Subject: "5"}
	for range 3 {
		enrol(cleo)
		cleo.Groups = append(cleo.Groups, "more")
	}
	// An operator makes one for ben, who was not on the page by that.
	_, err := o.Accounts.Unlock(t.Context(), root, "ben")
	o.must(err)
	_, err = o.AppPasswords.Add(t.Context(), root, operate.NewAppPassword{Login: "ben", Name: "printer"})
	o.must(err)
	for range 2 {
		enrol(operate.Person{Login: "ben", Source: "store"})
	}
	entries, err := o.store.Audit(t.Context(), store.AuditQuery{Operation: operate.EnrolPerson.Name})
	if err != nil || len(entries) != 2 {
		t.Fatalf("%+v, %v", entries, err)
	}
	for i, want := range []store.AuditEntry{{Actor: "ben", Detail: "by source store"},
		{Actor: "cleo@example.com", Detail: "by https://login.example.com, sub 5"}} {
		e := entries[i]
		if e.Actor != want.Actor || e.Subject != want.Actor || e.Detail != want.Detail || e.Client != "192.0.2.7" ||
			e.Channel != string(operate.SelfService) || e.Outcome != store.AuditDone {
			t.Errorf("%+v", e)
		}
	}
}

// TestAppPasswordChecks: names and times that are no good are told, and a day too long is cut to the last moment.
func TestAppPasswordChecks(t *testing.T) {
	o := newOffice(t)
	now, most := time.Now(), o.AppPasswords.Config().SelfService.MaxAge.Std()
	for _, c := range []struct {
		name    string
		expires time.Time
		says    string // "": it is made
	}{
		{"  ", time.Time{}, "a name is needed"},
		{strings.Repeat("ü", 101), time.Time{}, "101 characters"},
		{"a\x1bb", time.Time{}, "cannot be printed"},
		{"gone", now.Add(-time.Hour), "would have expired"},
		{"long", now.Add(most + 25*time.Hour), "may not last longer"},
		{strings.Repeat("ü", 100), now.Add(most + 23*time.Hour), ""},
	} {
		made, err := o.AppPasswords.Add(t.Context(), root, operate.NewAppPassword{Login: "dora@example.com",
			Name: c.name, Expires: c.expires})
		switch {
		case c.says == "" && (err != nil || made.AppPassword.Expires.After(time.Now().Add(most))):
			t.Errorf("%+v, %v", made.AppPassword, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: %v", c.name, err)
		}
	}
}

// TestSendersOfAProvider: what a login provider says that somebody may send as are addresses. People edit theirs at
// many providers, and a pattern would let them send as others.
func TestSendersOfAProvider(t *testing.T) {
	o := newOffice(t)
	_, err := o.AppPasswords.Enrol(t.Context(), operate.Actor{Channel: operate.SelfService}, operate.Person{
		Login: "emil@example.com", Source: operate.OIDCSource, Issuer: "https://login.example.com", Subject: "77",
		Senders: []string{"*@example.com", "emil@example.com", "@staff", "emil@*.example.com", "b*@example.com", "*",
			"<>", "{login}", "{login}@example.org", "!dora@example.com", "no address", "", "E.Mil@Example.com",
			"a@b@example.com"}})
	o.must(err)
	p, err := o.store.Person(t.Context(), "emil@example.com")
	o.must(err)
	if got := strings.Join(p.Senders, " "); got != "emil@example.com E.Mil@Example.com" {
		t.Errorf("%q", got)
	}
}
