package selfservice

import (
	"slices"
	"strings"
	"testing"

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
