package console

import (
	"html"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
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

// TestAppPasswordsOfALogin: those of a login are on its page, whatever source it is of, in German too; an operator
// revokes one after a question, and a viewer sees them.
func TestAppPasswordsOfALogin(t *testing.T) {
	now := time.Now()
	for _, login := range []string{"dora@example.com", "anna@example.com"} {
		r := newRig(t)
		p := auth.Person{Login: login, Source: "oidc", Subject: "x 1", Seen: now}
		if login == "anna@example.com" {
			r.must(r.store.AddUser(t.Context(), auth.User{Login: login}))
			p.Source, p.Subject = "store", ""
		}
		_, err := r.store.PutPerson(t.Context(), p)
		r.must(err)
		for i, k := range []auth.AppPassword{{ID: "scanner1", Name: "Scanner <b>", Expires: now.Add(time.Hour),
			Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}, {ID: "laptop22", Name: "Laptop",
			Expires: now.Add(-time.Minute)}} {
			k.Login, k.Hash, k.Created = login, auth.Secret(k.ID), now.Add(time.Duration(i-9)*time.Hour)
			_, err := r.store.AddAppPassword(t.Context(), p, k, 20, k.Created)
			r.must(err)
		}
		r.store.Hurry()
		r.must(r.store.SaveAppUses(t.Context(), []store.AppUse{{ID: "scanner1", At: now, From: "192.0.2.7"}}))

		body := r.page("/logins/"+login, in("de"))
		for _, want := range []string{"App-Passw", "Scanner &lt;b&gt;", "von 192.0.2.7", "noch nie", "Laptop",
			"abgelaufen", "scanner1"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in %s", login, want, body)
			}
		}
		if body := r.page2(operate.Viewer, "/logins/"+login); strings.Contains(body, "/logins/act/revoke") ||
			!strings.Contains(body, "scanner1") {
			t.Errorf("%s: a viewer gets a button, or does not see the app password", login)
		}
		form := url.Values{"login": {login}, "id": {"scanner1"}, "confirmed": {"yes"}}
		if w := r.ask(person(operate.Viewer), "POST", "/logins/act/revoke", form); w.Code != http.StatusForbidden {
			t.Errorf("%s: a viewer revokes: %d", login, w.Code)
		}
		form.Del("confirmed")
		question, next := r.confirmedBy(person(operate.Operator), "/logins/act/revoke", form)
		if !strings.Contains(question, "Revoke the password for Scanner &lt;b&gt;?") ||
			next != "/logins/"+login+"#apps" {
			t.Errorf("%s: leads to %s, after %s", login, next, question)
		}
		left, err := r.store.AppPasswords(t.Context(), login)
		if r.must(err); len(left) != 1 || left[0].ID != "laptop22" {
			t.Errorf("%s: %+v", login, left)
		}
		form.Set("confirmed", "yes")
		for _, bad := range []string{"scanner1", hostile, ""} {
			form.Set("id", bad)
			w := r.ask(person(operate.Operator), "POST", "/logins/act/revoke", form)
			if harmless(t, bad, w.Body.String()); w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest {
				t.Errorf("%s: %q: %d", login, bad, w.Code)
			}
		}
	}
}

// TestLockedElsewhere: logins of other sources that are locked stand in the list, whatever they are called, and whoever
// may unlock does so there.
func TestLockedElsewhere(t *testing.T) {
	r := newRig(t, office(t))
	const odd = `o'brien"><script>alert(1)</script>`
	for _, login := range []string{"carl@example.com", odd} {
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
		for _, login := range []string{"carl@example.com", odd} {
			field := `name="who" value="` + html.EscapeString(login) + `"`
			if got := strings.Contains(section, field); got != may {
				t.Errorf("%s may unlock %s: %v\n%s", role, login, got, section)
			}
		}
	}
	for _, login := range []string{"carl@example.com", odd} {
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
