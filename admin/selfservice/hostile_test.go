package selfservice

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/config"
)

// Many requests at once, from as many addresses, make no more passwords than there may be.
func TestNoMoreByManyAtOnce(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	r.change(func(c *config.Config) {
		c.Admin.TrustedProxies = config.Networks{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	})
	var all sync.WaitGroup
	var made atomic.Int32
	for i := range 50 {
		all.Go(func() {
			q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.base+newPath,
				strings.NewReader(formOf(fmt.Sprint("device ", i%10)).Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			q.Header.Set("X-Forwarded-For", fmt.Sprint("192.0.2.", i))
			a, err := r.http.Do(q)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Body.Close()
			switch a.StatusCode {
			case http.StatusOK:
				made.Add(1)
			case http.StatusConflict:
			default:
				t.Errorf("%d", a.StatusCode)
			}
		})
	}
	all.Wait()
	list, err := r.store.AppPasswords(t.Context(), "anna@example.com")
	if err != nil || len(list) != 3 || made.Load() != 3 {
		t.Errorf("%d were made, and %d are there: %v", made.Load(), len(list), err)
	}
}

// Nobody fills the audit by making and revoking passwords: after some in a row it takes as long as for a person.
func TestChangesAreBounded(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	for range 10 {
		r.want("make", newPath, formOf("printer"), 200, "")
		id := url.Values{"id": {r.idOf("anna@example.com", "printer")}, "confirmed": {"yes"}}
		r.want("revoke", revokePath, id, 303, home)
	}
	a := r.want("one more", newPath, formOf("printer"), 429, "Too many changes at once.")
	if a.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come back")
	}
	r.want("revoke, too", revokePath, url.Values{"id": {"x"}, "confirmed": {"yes"}}, 429, "Too many changes at once.")
	r.want("the list", home, nil, 200, "There is none yet.")
	r.want("the form", newPath, nil, 200, "")
	r.want("log out", logoutPath, url.Values{}, 303, loginPath)
	r.enter("ben@example.com")
	r.pass(time.Minute)
	r.want("later", newPath, formOf("printer"), 200, "")
	if list, err := r.store.AppPasswords(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// What a provider says of a person is taken as it is meant or not at all, and who is called nearly like somebody is not
// them.
func TestClaimsThatAreNone(t *testing.T) {
	r := newRig(t, "")
	anna := r.toProvider(claims("anna@example.net", "1"))
	r.want("anna", anna, nil, 303, home)
	made := shown(t, r.want("her password", newPath, formOf("Printer"), 200, ""))
	for what, c := range map[string]struct {
		claims map[string]any
		login  string // "": refused
	}{
		"no sub":             {claims("eve@example.net", "", "sub", ""), ""},
		"a list of logins":   {map[string]any{"sub": "2", "preferred_username": []string{"anna@example.net"}}, ""},
		"a number":           {map[string]any{"sub": "3", "preferred_username": 7}, ""},
		"null":               {map[string]any{"sub": "4", "preferred_username": nil}, ""},
		"the claim in caps":  {map[string]any{"sub": "5", "Preferred_Username": "anna@example.net"}, ""},
		"a list of subs":     {map[string]any{"sub": []string{"1"}, "preferred_username": "anna@example.net"}, ""},
		"the sub in caps":    {map[string]any{"sub": "SUB", "SUB": "1", "preferred_username": "anna@example.net"}, ""},
		"a line end":         {claims("anna@example.net\r\n", "6"), ""},
		"a blank":            {claims(" anna@example.net", "7"), ""},
		"a direction":        {claims("\u202eanna@example.net", "8"), ""},
		"invisible":          {claims("anna\u200b@example.net", "9"), ""},
		"capitals":           {claims("ANNA@EXAMPLE.NET", "10"), ""},
		"Cyrillic":           {claims("\u0430nna@example.net", "11"), "\u0430nna@example.net"},
		"wide":               {claims("\uff41nna@example.net", "12"), "\uff41nna@example.net"},
		"the sign of kelvin": {claims("\u212aim@example.net", "13"), "\u212aim@example.net"},
	} {
		r.http = r.browser()
		r.pass(time.Minute)
		back := r.toProvider(c.claims)
		a := r.ask(back, nil)
		if in := a.StatusCode == 303 && a.Header.Get("Location") == home; in != (c.login != "") {
			t.Errorf("%s: %d", what, a.StatusCode)
			continue
		}
		if c.login == "" {
			continue
		}
		p, err := r.store.Person(t.Context(), c.login)
		if err != nil || !strings.HasSuffix(p.Subject, c.claims["sub"].(string)) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
		if _, err := r.logins.Authenticate(t.Context(), c.login, made, here); err == nil {
			t.Errorf("%s: anna's app password is good for %q", what, c.login)
		}
		if list := r.ask(home, nil); strings.Contains(list.Text, "Printer") {
			t.Errorf("%s: sees what anna has", what)
		}
	}
	if _, err := r.logins.Authenticate(t.Context(), "Anna@Example.NET", made, here); err != nil {
		t.Error(err)
	}
}

// One answer of the provider opens one session, however often it comes together.
func TestAnswerThatComesTogether(t *testing.T) {
	r := newRig(t, "")
	back := r.toProvider(claims("anna@example.net", "1"))
	flow := r.kept(flowCookie)
	var all sync.WaitGroup
	var in atomic.Int32
	for range 8 {
		all.Go(func() {
			q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, back, nil)
			if err != nil {
				t.Error(err)
				return
			}
			q.AddCookie(&http.Cookie{Name: string(flowCookie), Value: flow})
			a, err := r.browser().Do(q)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Body.Close()
			if a.StatusCode == http.StatusSeeOther {
				in.Add(1)
			}
		})
	}
	all.Wait()
	if in.Load() != 1 {
		t.Errorf("%d sessions", in.Load())
	}
}

// Names that are made to lie are refused before anything is kept, and stand nowhere as they came.
func TestNamesThatLie(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	for what, name := range map[string]string{"a line end": "Printer\r\nSet-Cookie: x=1",
		"a direction": "Printer\u202egnp", "invisible": "Pri\u200bnter",
		"ten thousand": strings.Repeat("Printer", 1500), "no UTF-8": "Printer\xff",
		"a separator of lines": "Printer\u2028x", "NUL": "Printer\x00"} {
		a := r.want(what, newPath, formOf(name), 422, `id="name-fault"`)
		if strings.Contains(a.Text, name) {
			t.Errorf("%s: it stands on the page as it came", what)
		}
		if len(a.Text) > 20_000 {
			t.Errorf("%s: a page of %d octets", what, len(a.Text))
		}
	}
	if list, err := r.store.AppPasswords(t.Context(), ""); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	r.ask(loginPath, credentials("a\r\nlevel=INFO msg=\"self-service: logged in\"", "secret words"))
	if log := r.log.String(); strings.Contains(log, "\nlevel=INFO msg=\"self-service: logged in\"\n") ||
		strings.Contains(log, "secret words") {
		t.Errorf("%s", log)
	}
}

// A person is told nothing of a lock before they have proved who they are, and then gets no session.
func TestLockedPerson(t *testing.T) {
	r := newRig(t, "")
	r.want("before", r.toProvider(claims("oda@example.net", "1")), nil, 303, home)
	for _, login := range []string{"anna@example.com", "oda@example.net"} {
		if _, err := r.store.LockLogin(t.Context(), auth.LoginLock{Login: login, Reason: "left"}); err != nil {
			t.Fatal(err)
		}
	}
	r.want("the open session", home, nil, 303, loginPath)
	old := r.http
	r.http = r.browser()
	r.pass(time.Minute)
	a := r.want("right", loginPath, credentials("anna@example.com", password), 403, "")
	b := r.want("wrong", loginPath, credentials("anna@example.com", "wrong"), 403, "")
	if c := r.want("nobody", loginPath, credentials("nona@example.com", "wrong"), 403, ""); a.Text != b.Text ||
		strings.ReplaceAll(c.Text, "nona@", "anna@") != b.Text {
		t.Errorf("they are told apart:\n%s\n%s", a.Text, b.Text)
	}
	r.want("by the provider", r.toProvider(claims("oda@example.net", "1")), nil, 403, "")
	if r.kept(sessionCookie) != "" {
		t.Error("there is a session")
	}
	if _, err := r.store.UnlockLogin(t.Context(), "oda@example.net"); err != nil {
		t.Fatal(err)
	}
	r.http = old
	r.want("the session of before", home, nil, 303, loginPath)
	r.want("unlocked", r.toProvider(claims("oda@example.net", "1")), nil, 303, home)
}
