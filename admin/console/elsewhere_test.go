package console

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
)

// TestLoginElsewherePage: who has app passwords and no account here has a page, on which they can be locked.
func TestLoginElsewherePage(t *testing.T) {
	r := newRig(t)
	_, err := r.store.PutPerson(t.Context(), auth.Person{Login: "dora", Source: "oidc", Subject: "x 1",
		Seen: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	page := r.page("/logins/dora")
	for _, want := range []string{"login of another source", "/logins/act/lock"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, none := range []string{"/logins/act/edit", "/logins/act/password", "/logins/act/remove",
		"/logins/dora/client"} {
		if strings.Contains(page, none) {
			t.Errorf("%q is there", none)
		}
	}
}

// TestLockedElsewhere: logins of other sources that are locked stand in the list, whatever they are called, and whoever
// may unlock does so there.
func TestLockedElsewhere(t *testing.T) {
	r := newRig(t, office(t))
	const hostile = `o'brien"><script>alert(1)</script>`
	for _, login := range []string{"carl@example.com", hostile} {
		_, err := r.store.LockLogin(t.Context(), auth.LoginLock{Login: login, Reason: "<b>left</b>\u202e", By: "root",
			At: time.Now()})
		r.must(err)
	}
	const heading = "Locked logins of other sources"
	for role, may := range map[operate.Role]bool{operate.Viewer: false, operate.Operator: true} {
		page := r.ask(person(role), "GET", "/logins", nil).Body.String()
		_, section, there := strings.Cut(page, `<section aria-labelledby="locked">`)
		section, _, _ = strings.Cut(section, "</section>")
		if !there || !strings.Contains(section, heading) || !strings.Contains(section, "carl@example.com") ||
			!strings.Contains(section, "&lt;b&gt;left&lt;/b&gt;?") || strings.Contains(section, "<script>") {
			t.Errorf("%s:\n%s", role, section)
		}
		for _, login := range []string{"carl@example.com", hostile} {
			field := `name="who" value="` + html.EscapeString(login) + `"`
			if got := strings.Contains(section, field); got != may {
				t.Errorf("%s may unlock %s: %v\n%s", role, login, got, section)
			}
		}
	}
	for _, login := range []string{"carl@example.com", hostile} {
		form := url.Values{"who": {login}, "back": {"/logins"}}
		if w := r.ask(person(operate.Viewer), "POST", "/logins/act/unlock", form); w.Code != http.StatusForbidden {
			t.Errorf("a viewer unlocks: %d", w.Code)
		}
		if w := r.ask(person(operate.Operator), "POST", "/logins/act/unlock", form); w.Code != http.StatusSeeOther {
			t.Errorf("%s: %d", login, w.Code)
		}
	}
	if strings.Contains(r.page("/logins"), heading) {
		t.Error("nobody is locked, and the list says so")
	}
	if locks, err := r.store.LoginLocks(t.Context()); err != nil || len(locks) > 0 {
		t.Errorf("%+v, %v", locks, err)
	}
}
