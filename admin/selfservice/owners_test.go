package selfservice

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/trace"
)

// A login that becomes one of another source is another person's: the app passwords of who had it before are gone, and
// the trace says so.
func TestLoginOfAnotherSource(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	old := shown(t, r.want("make", newPath, formOf("Printer"), 200, ""))
	if _, err := r.logins.Authenticate(t.Context(), "anna@example.com", old, here); err != nil {
		t.Fatal(err)
	}
	hash, err := auth.HashChosen(password)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.AddUser(t.Context(), auth.User{Login: "anna@example.com", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	r.logins.Forget()
	if _, err := r.logins.Authenticate(t.Context(), "anna@example.com", old, here); err == nil {
		t.Error("before the other logs in")
	}
	r.change(func(c *config.Config) { c.SelfService.Sources = []string{"store", "directory"} })
	r.http = r.browser()
	r.enter("anna@example.com")
	r.logins.Forget()
	if id, err := r.logins.Authenticate(t.Context(), "anna@example.com", old, here); err == nil {
		t.Errorf("an app password of somebody else's opens the account: %+v", id)
	}
	r.want("what the other sees", home, nil, 200, "There is none yet.")
	events, err := r.store.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Operator}})
	told := slices.ContainsFunc(events, func(e trace.Event) bool {
		return strings.HasPrefix(e.Detail, "app password ended (Printer), since the login is one of source store now")
	})
	if err != nil || !told {
		t.Errorf("the trace does not say why: %v", err)
	}
}

// Names that the store would take for no login may log in to the page when a directory or the provider has them, but
// nothing that could be taken for a pattern or for markup comes from a provider.
func TestNamesOfOthers(t *testing.T) {
	r := newRig(t, "")
	const obrien = "o'brien@example.com"
	r.directory.change(func() { r.directory.people[obrien] = auth.Identity{Login: obrien} })
	r.enter("O'Brien@example.com")
	r.want("made", newPath, formOf("Printer"), 200, "o&#39;brien@example.com")
	for i, c := range []struct {
		login string
		want  int
	}{
		{"D'Arcy@example.net", 303}, {"*@example.net", 403}, {"a b@example.net", 403}, {"@example.net", 403},
		{"anna@example.net,ben@example.net", 403}, {"a\r\nb@example.net", 403}, {"'", 403},
	} {
		r.http = r.browser()
		r.pass(time.Minute)
		r.want(c.login, r.toProvider(claims(c.login, fmt.Sprint(i))), nil, c.want, "")
	}
	if p, err := r.store.Person(t.Context(), "d'arcy@example.net"); err != nil || p.Subject == "" {
		t.Errorf("%+v, %v", p, err)
	}
}
