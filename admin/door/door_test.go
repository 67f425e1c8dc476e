package door

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	"postern/operate"
)

// TestInvitation: a link works once, for 15 minutes, until a newer one; what is wrong with what was brought is said on
// the page, and uses nothing up.
func TestInvitation(t *testing.T) {
	r := newRig(t)
	path := r.link("anna", operate.Viewer)
	secret := r.secretOf(path)
	form := func(password, repeat, code string) url.Values {
		return url.Values{"password": {password}, "repeat": {repeat}, "code": {code}}
	}
	page := r.want("the page", path, nil, 200, "Welcome, anna")
	if got := page.Header.Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("Referrer-Policy is %q", got)
	}
	for _, want := range []string{"data:image/png;base64,", "otpauth://totp/Postern", grouped(secret)} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	r.want("looked at by a scanner", path, nil, 200, "Welcome, anna")
	r.want("not the same", path, form(password, "other than that", r.code(secret)), 422, "not the same")
	r.want("short", path, form("short", "short", r.code(secret)), 422, "at least 10 characters")
	r.want("wrong code", path, form(password, password, "000000"), 422, "The code does not fit")
	r.want("no code", path, form(password, password, ""), 422, "A second factor is needed")
	r.want("wrong code for a password that cannot be taken", path, form("short", "short", "000000"), 422,
		"at least 10 characters")
	kept := r.kept("wrong code", path, form(password, password, "000000"))
	again := func(kept, code string) url.Values { return url.Values{"kept": {kept}, "code": {code}} }
	if still := r.kept("wrong once more", path, again(kept, "000000")); still != kept {
		t.Error("the password is kept anew for each wrong code")
	}
	r.want("another's", r.link("eve", operate.Viewer), again(kept, "000000"), 422, "The code does not fit")
	eve := r.link("eve", operate.Viewer)
	r.want("kept for another link", eve, again(kept, r.code(r.secretOf(eve))), 403, "Begin again")
	r.want("made up", path, again(`"><b>`, r.code(secret)), 403, "Begin again")
	r.want("neither", path, again("", r.code(secret)), 422, "at least 10 characters")
	ok := r.want("right", path, again(kept, r.code(secret)), 303, "/")
	r.pass(time.Minute)
	r.http = r.browser()
	r.want("in with that password", "/login", r.login("anna", secret), 303, "/")
	cookie(t, ok, "postern", false)
	r.want("replayed", path, form(password, password, r.code(secret)), 410, "was used already")
	r.want("opened again", path, nil, 410, "was used already")
	r.want("unknown", access.InvitePath+"nothing", nil, 404, "is not known here")
	r.want("hostile", access.InvitePath+url.PathEscape(`"><script>alert(1)</script>`), nil, 404, "is not known here")

	old := r.link("bert", operate.Viewer)
	newer := r.link("bert", operate.Viewer)
	r.want("replaced", old, nil, 410, "A newer link took the place")
	late := r.kept("wrong code", newer, form(password, password, "000000"))
	r.pass(access.FlowFor)
	r.want("kept for too long", newer, again(late, r.code(r.secretOf(newer))), 403, "Begin again")
	r.pass(access.InviteFor - access.FlowFor)
	r.want("expired", newer, nil, 410, "has expired")
	r.want("expired, form", newer, form(password, password, "000000"), 410, "has expired")
	r.want("expired, in German", newer, nil, 410, "abgelaufen", "Accept-Language", "de")
	if log := r.log.String(); strings.Contains(log, strings.TrimPrefix(path, access.InvitePath)) ||
		strings.Contains(log, password) {
		t.Error("the log has a link or a password")
	}
}

// kept posts a form whose password is right and whose code is not, and returns what the page keeps of the password.
func (r *rig) kept(what, path string, form url.Values) string {
	r.t.Helper()
	a := r.want(what, path, form, 422, "The code does not fit")
	m := regexp.MustCompile(`name="kept" value="([\w-]+)"`).FindStringSubmatch(a.body)
	if m == nil || strings.Contains(a.body, password) || strings.Contains(a.body, `name="password"`) {
		r.t.Fatalf("%s: the page asks for the password again, or shows it:\n%s", what, a.body)
	}
	return m[1]
}

// cookie expects the cookie of a session with its flags.
func cookie(t *testing.T, a answer, name string, secure bool) {
	t.Helper()
	for _, c := range a.Cookies() {
		if c.Name != name || c.Value == "" {
			continue
		}
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.Secure != secure ||
			c.MaxAge != int(access.SessionFor.Seconds()) {
			t.Errorf("the cookie is %s", c)
		}
		return
	}
	t.Errorf("no cookie %s, but %v", name, a.Cookies())
}

// TestLogin: in, out, and every wrong thing is one answer.
func TestLogin(t *testing.T) {
	r := newRig(t)
	secret := r.join("anna", operate.Operator)
	r.want("the login page of somebody who is in", "/login?next=/queue", nil, 303, "/queue")
	r.want("out", "/logout", url.Values{}, 303, "/login")
	r.want("out is said", "/login", nil, 200, "You are signed out.")
	r.want("nobody", "/queue?to=x", nil, 303, "/login?next=%2Fqueue%3Fto%3Dx")
	wrong := r.login("anna", secret)
	wrong.Set("password", "wrong horse battery")
	first := r.want("wrong password", "/login", wrong, 403, "The name, the password or the code is wrong.")
	nobody := r.login("nobody", secret)
	second := r.want("wrong name", "/login", nobody, 403, "The name, the password or the code is wrong.")
	if strings.ReplaceAll(first.body, "anna", "nobody") != second.body {
		t.Error("whether a name exists shows")
	}
	if strings.Contains(first.body, "wrong horse") {
		t.Error("the page shows the password")
	}
	in := r.login("anna", secret)
	in.Set("next", "/queue?held=1")
	ok := r.want("in", "/login", in, 303, "/queue?held=1")
	cookie(t, ok, "postern", false)
	r.want("the page", "/queue", nil, 200, "Queue")
	r.pass(access.IdleFor)
	r.want("idle", "/held", nil, 303, "why=idle")
	r.want("idle is said", "/login?why=idle", nil, 200, "30 minutes")
	r.want("nothing else is said", "/login?why=%3Cb%3Elocked-out", nil, 200, "Sign in")

	// A proxy speaks TLS to the browser, and says the host that the browser asked.
	proxied := r.want("by a proxy", "/login", r.login("anna", secret), 303, "/", "Host", "relay.example.com")
	cookie(t, proxied, "__Host-postern", true)
}

// TestOpenRedirect: after a login the browser stays here, whatever it was told to ask for.
func TestOpenRedirect(t *testing.T) {
	r := newRig(t)
	secret := r.join("anna", operate.Admin)
	for _, next := range []string{"https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example",
		"javascript:alert(1)", "/\t/evil.example", "https:evil.example", "", "login", "/\r\nX: y"} {
		for what, a := range map[string]answer{
			"login page": r.ask("/login?next="+url.QueryEscape(next), nil),
			"step-up":    r.ask("/step-up?next="+url.QueryEscape(next), nil),
		} {
			if to := a.Header.Get("Location"); a.StatusCode == 303 && to != "/" || strings.Contains(a.body, "evil") {
				t.Errorf("%s, %q: leads to %q", what, next, to)
			}
		}
		form := r.login("anna", secret)
		form.Set("next", next)
		if a := r.ask("/login", form); a.StatusCode != 303 || a.Header.Get("Location") != "/" {
			t.Errorf("login, %q: %d, leads to %q", next, a.StatusCode, a.Header.Get("Location"))
		}
		r.pass(time.Minute)
	}
}

// TestBruteForce: who guesses is locked out, for as long as the page says, and the bound on logins holds before that.
func TestBruteForce(t *testing.T) {
	r := newRig(t)
	secret := r.join("anna", operate.Admin)
	r.ask("/logout", url.Values{})
	var last answer
	for i := range 6 {
		last = r.ask("/login", url.Values{"name": {"anna"}, "password": {fmt.Sprintf("guess %d", i)}, "code": {"1"}})
	}
	if last.StatusCode != 429 || !strings.Contains(last.body, "Too many wrong attempts. Try again in 59 min.") ||
		last.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v\n%s", last.StatusCode, last.Header, last.body)
	}
	r.want("the right one meanwhile", "/login", r.login("anna", secret), 429, "Too many wrong attempts")
	for range 30 {
		last = r.ask("/login/passkey/options", url.Values{"name": {"anna"}})
	}
	if last.StatusCode != 429 || !strings.Contains(last.body, "Too many logins at once") ||
		last.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v\n%s", last.StatusCode, last.Header, last.body)
	}
	r.want("by links", r.link("bert", operate.Viewer), url.Values{}, 429, "Too many logins at once")
	r.want("looking is free", "/login", nil, 200, "Sign in")
}

// TestOtherSites: what another site's page makes a browser send is not done, and costs its owner no logins.
func TestOtherSites(t *testing.T) {
	r := newRig(t)
	secret := r.join("anna", operate.Admin)
	for _, path := range []string{"/login", "/logout", "/step-up", "/people/invite", "/tokens/add", "/people/remove",
		"/login/passkey", "/login/passkey/options", r.link("bert", operate.Viewer)} {
		for range 5 {
			r.want(path, path, url.Values{"name": {"x"}}, 403, "another web site", "Sec-Fetch-Site", "cross-site")
		}
		r.want(path+", old browser", path, url.Values{"name": {"x"}}, 403, "another web site", "Origin",
			"https://evil.example")
	}
	r.want("still signed in", "/people", nil, 200, "anna")
	r.want("a link from there", "/people", nil, 200, "anna", "Sec-Fetch-Site", "cross-site")
	r.want("our own form", "/login", r.login("anna", secret), 303, "/", "Sec-Fetch-Site", "same-origin")
}

// TestHeaders: every answer has them, whoever gives it; and what is for everybody is little.
func TestHeaders(t *testing.T) {
	r := newRig(t)
	signedIn := newRig(t)
	signedIn.join("anna", operate.Admin)
	inline := regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=|javascript:`)
	for _, each := range []struct {
		r      *rig
		path   string
		form   url.Values
		status int
	}{
		{r, "/login", nil, 200}, {r, "/login", url.Values{}, 403}, {r, "/", nil, 303}, {r, "/people", nil, 303},
		{r, "/nothing", nil, 303}, {r, "/login/nothing", nil, 404}, {r, "/login/oidc", nil, 403},
		{r, "/login/oidc/start", nil, 403}, {r, "/logout", url.Values{}, 303}, {r, "/step-up", nil, 303},
		{r, "/invite/", nil, 404}, {r, "/invite/x/y", nil, 404}, {r, "/invite/x", nil, 404},
		{r, r.link("carl", operate.Viewer), nil, 200}, {r, "/api/v1/queue", nil, 401}, {r, "/static/x/y", nil, 404},
		{r, "/login/passkey", url.Values{}, 403}, {r, "/people/invite", url.Values{}, 303},
		{signedIn, "/", nil, 200}, {signedIn, "/people", nil, 200}, {signedIn, "/tokens", nil, 200},
		{signedIn, "/people/invite", nil, 200}, {signedIn, "/tokens/add", nil, 200}, {signedIn, "/nothing", nil, 404},
		{signedIn, "/people/change?name=anna", nil, 200}, {signedIn, "/people/change?name=x", nil, 404},
		{signedIn, "/people/role", nil, 405}, {signedIn, "/logout", nil, 405}, {signedIn, "/api/v1/queue", nil, 200},
	} {
		a := each.r.ask(each.path, each.form)
		if a.StatusCode != each.status {
			t.Errorf("%s: %d, want %d", each.path, a.StatusCode, each.status)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
			"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "frame-ancestors 'none'"} {
			if got := a.Header.Get(name); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q", each.path, name, got)
			}
		}
		if p := a.Header.Get("Referrer-Policy"); p != "same-origin" && p != "no-referrer" {
			t.Errorf("%s: Referrer-Policy is %q", each.path, p)
		}
		if found := inline.FindString(a.body); found != "" {
			t.Errorf("%s: the page has %s", each.path, found)
		}
	}
	r.want("health", "/healthz", nil, 200, "ok")
	r.want("another host", "/login", nil, 421, "", "Host", "evil.example")
	r.want("another host, link", r.link("dora", operate.Viewer), nil, 421, "", "Host", "evil.example")
	r.want("too much", "/login", url.Values{"name": {strings.Repeat("x", maxForm)}}, 400, "too much at once")
}

// TestHostileNames: whatever somebody calls themselves, or a token, is text.
func TestHostileNames(t *testing.T) {
	r := newRig(t)
	r.join("anna", operate.Admin)
	for _, name := range []string{`<img src=x onerror=alert(1)>`, `"><script>alert(1)</script>`, "a\x00b",
		"x\u202egnp",
		strings.Repeat("x", 5000), `{{.}}`, "%s%d%!"} {
		for what, a := range map[string]answer{
			"login":  r.browserless("/login", url.Values{"name": {name}, "password": {"x"}, "code": {"1"}}),
			"invite": r.ask("/people/invite", url.Values{"name": {name}, "role": {"viewer"}}),
			"role":   r.ask("/people/invite?name="+url.QueryEscape(name)+"&role="+url.QueryEscape(name), nil),
			"change": r.ask("/people/change?name="+url.QueryEscape(name), nil),
			"remove": r.ask("/people/remove", url.Values{"name": {name}}),
			"token": r.ask("/tokens/add", url.Values{"name": {name}, "scope": {"read"}, "networks": {name},
				"days": {"30"}}),
			"revoke": r.ask("/tokens/revoke", url.Values{"name": {name}}),
		} {
			if a.StatusCode >= 500 || strings.Contains(a.body, "<script>alert") ||
				strings.Contains(a.body, "<img src=x") ||
				strings.Contains(a.body, "\x00") || strings.Contains(a.body, "\u202e") || len(a.body) > 40_000 {
				t.Errorf("%s, %.20q: %d, %d octets\n%.3000s", what, name, a.StatusCode, len(a.body), a.body)
			}
		}
	}
	for _, name := range []string{`<b>bert</b>`, `c&d"e`} {
		r.ask("/tokens/add", url.Values{"name": {name}, "scope": {"read"}, "days": {"30"}})
	}
	if a := r.ask("/tokens", nil); strings.Contains(a.body, "<b>") || !strings.Contains(a.body, "&lt;b&gt;bert") {
		t.Errorf("the list shows names as markup, or not at all:\n%s", a.body)
	}
}

// browserless is ask without cookies, which end no session.
func (r *rig) browserless(path string, form url.Values) answer {
	kept := r.http
	defer func() { r.http = kept }()
	r.http = r.browser()
	return r.ask(path, form)
}

// TestRoles: the two pages are for admins, in the menu too, and what changes something asks for the second factor.
func TestRoles(t *testing.T) {
	for _, role := range []operate.Role{operate.Viewer, operate.Helpdesk, operate.Operator, operate.Admin} {
		r := newRig(t)
		secret := r.join("anna", role)
		r.pass(access.StrongFor)
		admin := role == operate.Admin
		first := r.ask("/", nil)
		for _, path := range []string{"/people", "/tokens"} {
			if strings.Contains(first.body, `href="`+path+`"`) != admin {
				t.Errorf("%s: the menu has %s, or lacks it", role, path)
			}
			if a := r.ask(path, nil); (a.StatusCode == 200) != admin || !admin && a.StatusCode != 403 {
				t.Errorf("%s: %s: %d", role, path, a.StatusCode)
			}
		}
		for _, path := range []string{"/people/invite", "/people/role", "/people/disable", "/people/remove",
			"/tokens/add"} {
			a := r.ask(path, url.Values{"name": {"anna"}, "role": {"viewer"}, "scope": {"read"}},
				"Referer", r.base+"/people/change?name=anna")
			to := a.Header.Get("Location")
			if !admin && a.StatusCode != 403 ||
				admin && (a.StatusCode != 303 || to != "/step-up?next=%2Fpeople%2Fchange%3Fname%3Danna") {
				t.Errorf("%s: %s: %d, leads to %q", role, path, a.StatusCode, to)
			}
		}
		if !admin {
			continue
		}
		r.want("a wrong code", "/step-up", url.Values{"code": {"000000"}, "next": {"/people"}}, 403,
			"The code is wrong")
		before := r.ask("/step-up", url.Values{"code": {r.code(secret)}, "next": {"/people/change?name=anna"}})
		if before.Header.Get("Location") != "/people/change?name=anna" {
			t.Errorf("the second factor leads to %q", before.Header.Get("Location"))
		}
		cookie(t, before, "postern", false)
		r.want("then", "/people/change?name=anna", nil, 200, "This is you.")
		r.want("the last admin", "/people/role", url.Values{"name": {"anna"}, "role": {"viewer"}}, 409,
			"last administrator")
		r.want("removed", "/people/remove", url.Values{"name": {"anna"}, "confirmed": {"yes"}}, 409,
			"last administrator")
	}
}

// TestPeople: what is done on the page is done, and the audit says by whom.
func TestPeople(t *testing.T) {
	r := newRig(t)
	r.join("anna", operate.Admin)
	a := r.want("invite", "/people/invite", url.Values{"name": {" Bert "}, "role": {"helpdesk"}}, 200, "/invite/")
	path := regexp.MustCompile(`/invite/[\w-]+`).FindString(a.body)
	if _, err := r.Invitations.Get(t.Context(), strings.TrimPrefix(path, access.InvitePath)); err != nil {
		t.Errorf("the link does not work: %v", err)
	}
	r.want("no role", "/people/invite", url.Values{"name": {"carl"}, "role": {"king"}}, 422, "is no role")
	r.want("no name", "/people/invite", url.Values{"name": {""}, "role": {"viewer"}}, 422, "")
	r.want("there already", "/people/invite", url.Values{"name": {"anna"}, "role": {"viewer"}}, 422, "already")
	r.want("role", "/people/role", url.Values{"name": {"bert"}, "role": {"operator"}}, 303, "/people")
	r.want("said", "/people", nil, 200, "The role of bert is changed.")
	r.want("off", "/people/disable", url.Values{"name": {"bert"}}, 303, "/people")
	r.want("shown", "/people", nil, 200, "switched off")
	r.want("on", "/people/disable", url.Values{"name": {"bert"}, "on": {"1"}}, 303, "/people")
	r.want("asked", "/people/remove", url.Values{"name": {"bert"}}, 200, "Remove bert?")
	r.want("gone", "/people/remove", url.Values{"name": {"bert"}, "confirmed": {"yes"}}, 303, "/people")
	r.want("gone already", "/people/remove", url.Values{"name": {"bert"}, "confirmed": {"yes"}}, 404,
		"Nobody has the name")
	users, err := r.Users.List(t.Context(), owner)
	if err != nil || len(users) != 1 {
		t.Errorf("%v, %v", users, err)
	}
}

// TestTokens: a token from the page gets into the API, from where it may, and none after it was revoked.
func TestTokens(t *testing.T) {
	r := newRig(t)
	r.join("anna", operate.Admin)
	form := url.Values{"name": {"mon"}, "scope": {"read", "queue"}, "networks": {"127.0.0.1, ::1; 10.1.2.3/8"},
		"days": {"30"}}
	a := r.want("add", "/tokens/add", form, 200, access.TokenPrefix)
	token := regexp.MustCompile(access.TokenPrefix + `\w+`).FindString(a.body)
	r.want("twice", "/tokens/add", form, 422, "already")
	r.want("no scope", "/tokens/add", url.Values{"name": {"x"}, "days": {"30"}}, 422, "a scope")
	r.want("no network", "/tokens/add", url.Values{"name": {"x"}, "scope": {"read"}, "networks": {"office"}}, 422,
		"with a comma between them")
	list := r.want("list", "/tokens", nil, 200, "127.0.0.1/32, ::1/128, 10.0.0.0/8")
	if strings.Contains(list.body, token) {
		t.Error("the list shows the token")
	}
	signedIn := r.http
	r.http = r.browser()
	r.want("the API", "/api/v1/queue", nil, 200, "API for mon", "Authorization", "Bearer "+token)
	r.want("a page that needs the second factor", "/people/invite", nil, 403, "", "Authorization", "Bearer "+token)
	r.http = signedIn
	r.want("asked", "/tokens/revoke", url.Values{"name": {"mon"}}, 200, "Revoke the token mon?")
	r.want("revoked", "/tokens/revoke", url.Values{"name": {"mon"}, "confirmed": {"yes"}}, 303, "/tokens")
	r.http = r.browser()
	r.want("the API afterwards", "/api/v1/queue", nil, 401, "token", "Authorization", "Bearer "+token)
}

// TestLinksOfThisMachine: a link that no other machine can follow is warned of.
func TestLinksOfThisMachine(t *testing.T) {
	for link, warned := range map[string]bool{"http://localhost:8587/invite/x": true, "http://127.0.0.1/x": true,
		"http://[::1]:1/x": true, "https://relay.example.com/x": false, "http://192.0.2.1:8587/x": false} {
		if isHere(link) != warned {
			t.Errorf("%s: %v", link, !warned)
		}
	}
}
