package selfservice

import (
	"html"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/config"
)

var secretShown = regexp.MustCompile(`<span class="secret"[^>]*>([^<]+)</span>`)

// shown is the password on a card.
func shown(t *testing.T, a testkit.Answer) string {
	t.Helper()
	m := secretShown.FindStringSubmatch(a.Text)
	if m == nil {
		t.Fatalf("no password is shown: %d\n%s", a.StatusCode, a.Text)
	}
	return html.UnescapeString(m[1])
}

// A person logs in with the password of the directory, makes a password, uses it and revokes it.
func TestOnePassword(t *testing.T) {
	r := newRig(t, "")
	r.want("nobody", "/", nil, 303, home)
	r.want("nobody", "/me", nil, 303, home)
	r.want("nobody", home, nil, 303, loginPath)
	r.want("the login", loginPath, nil, 200, "Sign in with your organisation&#39;s account")
	r.enter("anna@example.com")
	r.want("signed in", loginPath, nil, 303, home)
	empty := r.want("none yet", home, nil, 200, "There is none yet.")
	if !strings.Contains(empty.Text, "anna@example.com") || strings.Contains(empty.Text, "nobody") {
		t.Errorf("who is signed in does not stand there:\n%s", empty.Text)
	}
	r.want("the form", newPath, nil, 200, "You are at 127.0.0.1 now.")
	made := r.want("make", newPath, formOf("Scanner in the hall", "where", "networks", "networks",
		"127.0.0.1, 192.0.2.7/24"), 200, "relay.example.com")
	given := shown(t, made)
	for _, want := range []string{"465", "587", "SSL/TLS", "STARTTLS", "Scanner in the hall",
		"<li>anna@example.com</li>"} {
		if !strings.Contains(made.Text, want) {
			t.Errorf("the card lacks %s:\n%s", want, made.Text)
		}
	}
	if id, err := r.logins.Authenticate(t.Context(), "anna@example.com", given, here); err != nil ||
		id.AppName != "Scanner in the hall" {
		t.Errorf("%+v, %v", id, err)
	}
	list := r.want("the list", home, nil, 200, "Scanner in the hall")
	for _, want := range []string{">127.0.0.1<", "192.0.2.0/24", "never yet"} {
		if !strings.Contains(list.Text, want) {
			t.Errorf("the list lacks %s:\n%s", want, list.Text)
		}
	}
	if strings.Contains(list.Text+r.log.String(), given) {
		t.Error("the password is shown again")
	}
	revoke := revokePath + "?id=" + r.idOf("anna@example.com", "Scanner in the hall")
	r.want("asks first", revoke, nil, 200, "Revoke the password for Scanner in the hall?")
	id := url.Values{"id": {r.idOf("anna@example.com", "Scanner in the hall")}}
	r.want("not confirmed", revokePath, id, 303, revoke)
	id.Set("confirmed", "yes")
	r.want("revoke", revokePath, id, 303, home)
	r.want("said", home, nil, 200, "The password for Scanner in the hall is revoked.")
	r.want("again", revokePath, id, 303, home)
	r.want("said", home, nil, 200, "This password is gone already.")
	r.logins.Forget() // as the daemon does when it is told
	if _, err := r.logins.Authenticate(t.Context(), "anna@example.com", given, here); err == nil {
		t.Error("a password that was revoked is good")
	}
	r.want("log out", logoutPath, url.Values{}, 303, loginPath)
	r.want("after that", home, nil, 303, loginPath)
}

// What is wrong with a login is one answer, counted in the lockout.
func TestRefusedLogins(t *testing.T) {
	r := newRig(t, "")
	if _, err := auth.CheckLogin("carl"); err != nil {
		t.Fatal(err)
	}
	hash, err := auth.HashChosen(password)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.AddUser(t.Context(), auth.User{Login: "carl", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, login, password string }{
		{"wrong password", "anna@example.com", "battery staple"},
		{"nobody", "nobody@example.com", password},
		{"right, but of a source that is not for the page", "carl", password},
		{"empty", "", ""},
		{"not to be printed", "an\u202ena", "x"},
		{"very long", strings.Repeat("a", 5000), "x"},
	} {
		a := r.want(c.what, loginPath, credentials(c.login, c.password), 403, "The user name or the password is wrong.")
		if strings.Contains(a.Text, c.password) && c.password != "" && c.password != "x" {
			t.Errorf("%s: the password stands on the page", c.what)
		}
	}
	for i := range 5 {
		r.ask(loginPath, credentials("anna@example.com", strings.Repeat("x", i+1)))
	}
	a := r.want("locked out", loginPath, credentials("anna@example.com", password), 429, "Too many wrong attempts.")
	if a.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come back")
	}
	if r.logins.LockedUntil("anna@example.com", here).IsZero() {
		t.Error("the lockout is not that of the relay's logins")
	}
}

// A directory that does not answer is told apart, and held against nobody.
func TestSourceDown(t *testing.T) {
	r := newRig(t, "")
	r.directory.change(func() { r.directory.down = true })
	for range 8 {
		r.want("down", loginPath, credentials("anna@example.com", "wrong"), 503, "does not answer")
	}
	if !r.logins.LockedUntil("anna@example.com", here).IsZero() {
		t.Error("it is held against anna")
	}
	r.http = r.browser()
	r.issuer.SetDown(true)
	r.pass(time.Minute) // for the bound on logins
	r.want("provider down", startPath, nil, 502, "does not answer")
}

// Sessions end by time, with the person, with the account behind them and with the setting that let them in.
func TestSessionsEnd(t *testing.T) {
	for what, c := range map[string]struct {
		end  func(r *rig)
		want string
	}{
		"idle":  {func(r *rig) { r.pass(access.IdleFor) }, loginPath + "?why=idle"},
		"12 h":  {func(r *rig) { stay(r) }, loginPath + "?why=over"},
		"other": {func(r *rig) { r.change(func(c *config.Config) { c.SelfService.Sources = nil }) }, loginPath},
		"group": {func(r *rig) {
			r.change(func(c *config.Config) { c.SelfService.Groups = []string{"boss"} })
		}, loginPath},
		"gone": {func(r *rig) {
			r.directory.change(func() { delete(r.directory.people, "anna@example.com") })
		}, loginPath},
		"another password": {func(r *rig) {
			r.directory.change(func() {
				r.directory.people["anna@example.com"] = auth.Identity{Login: "anna@example.com",
					Changed: time.Now().Add(time.Hour)}
			})
		}, loginPath},
		"forgotten": {func(r *rig) {
			if _, err := r.store.ForgetPerson(r.t.Context(), "anna@example.com"); err != nil {
				r.t.Fatal(err)
			}
		}, loginPath},
		"locked": {func(r *rig) {
			if _, err := r.store.LockLogin(r.t.Context(), auth.LoginLock{Login: "anna@example.com"}); err != nil {
				r.t.Fatal(err)
			}
		}, loginPath},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, "")
			r.enter("anna@example.com")
			r.want("before", home, nil, 200, "There is none yet.")
			c.end(r)
			a := r.want(what, home, nil, 303, loginPath)
			if got := a.Header.Get("Location"); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: sent to %s", what, got)
			}
			r.want("what it may do", newPath, formOf("x"), 303, loginPath)
		})
	}
}

// stay uses a session for 12 hours.
func stay(r *rig) {
	for range 12 * 3 {
		r.pass(20 * time.Minute)
		r.ask(home, nil)
	}
}

// A directory that is down ends no session, and each login has a cookie of its own.
func TestSessionsStay(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	first := r.kept(sessionCookie)
	r.directory.change(func() { r.directory.down = true })
	r.want("while the directory is down", home, nil, 200, "There is none yet.")
	r.directory.change(func() { r.directory.down = false })
	r.pass(time.Minute)
	r.enter("anna@example.com")
	if second := r.kept(sessionCookie); second == first || second == "" {
		t.Errorf("the cookie is %q after %q", second, first)
	}
	if _, _, err := r.store.PersonSession(t.Context(), digestOf(first)); err == nil {
		t.Error("the session before goes on")
	}
	token := r.kept(sessionCookie)
	r.http = r.browser()
	a := r.ask(loginPath, nil, "Cookie", "postern="+token)
	if a.StatusCode != 200 {
		t.Errorf("a cookie by the name of the console's counts here: %d", a.StatusCode)
	}
}

// Logins by OpenID Connect: what comes back is judged, once.
func TestOIDC(t *testing.T) {
	r := newRig(t, "")
	anna := claims("Anna@Example.net", "4711")
	back := r.toProvider(anna)
	flow := r.kept(flowCookie)
	r.want("right", back, nil, 303, home)
	r.want("signed in", home, nil, 200, "anna@example.net")
	r.http = r.browser()
	r.want("the same answer again", back, nil, 403, "That took too long", "Cookie", string(flowCookie)+"="+flow)
	p, err := r.store.Person(t.Context(), "anna@example.net")
	if err != nil || p.Subject != r.issuer.URL+" 4711" || !slices.Equal(p.Groups, []string{"staff"}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, c := range []struct {
		what   string
		claims map[string]any
		change func(q url.Values)
		want   string
	}{
		{"another subject with the login", claims("anna@example.net", "666"), nil, "belongs to somebody else here"},
		{"the subject with another login", claims("ben@example.net", "4711"), nil, "you had another one before"},
		{"a login of the directory", claims("ben@example.com", "12"), nil, "belongs to somebody else here"},
		{"no login", map[string]any{"sub": "13"}, nil, "no user name that can be used"},
		{"a hostile login", claims("<script>alert(1)</script>", "14"), nil, "no user name that can be used"},
		{"refused there", nil, nil, "cannot be used. Begin again."},
		{"another state", anna, func(q url.Values) { q.Set("state", "x") }, "cannot be used. Begin again."},
		{"another issuer", anna, func(q url.Values) { q.Set("iss", "https://evil.example") }, "cannot be used."},
		{"another code", anna, func(q url.Values) { q.Set("code", "x") }, "cannot be used. Begin again."},
		{"a token of another issuer", claims("anna@example.net", "4711", "iss", "https://evil.example"), nil,
			"cannot be used. Begin again."},
		{"a token for another", claims("anna@example.net", "4711", "aud", "shop"), nil, "cannot be used. Begin again."},
		{"another nonce", claims("anna@example.net", "4711", "nonce", "x"), nil, "cannot be used. Begin again."},
	} {
		r.http = r.browser()
		r.pass(time.Minute)
		to, err := url.Parse(r.toProvider(c.claims))
		if err != nil {
			t.Fatal(err)
		}
		q := to.Query()
		if c.change != nil {
			c.change(q)
		}
		r.want(c.what, oidcPath+"?"+q.Encode(), nil, 403, html.EscapeString(c.want))
		if r.kept(sessionCookie) != "" {
			t.Errorf("%s: there is a session", c.what)
		}
	}
	r.http = r.browser()
	r.pass(time.Minute)
	other := r.toProvider(anna)
	r.http = r.browser()
	r.want("in another browser", other, nil, 403, "the browser keeps no cookies")

	for what, change := range map[string]func(c *config.Config){
		"the group is not enough": func(c *config.Config) { c.SelfService.Groups = []string{"boss"} },
		"another issuer": func(c *config.Config) {
			o := *c.SelfService.OIDC
			o.Issuer = "https://elsewhere.example"
			c.SelfService.OIDC = &o
		},
		"no issuer": func(c *config.Config) { c.SelfService.OIDC = nil },
	} {
		r.configure("")
		r.http = r.browser()
		r.pass(time.Minute)
		r.want("in again", r.toProvider(anna), nil, 303, home)
		r.want("in again", home, nil, 200, "anna@example.net")
		r.change(change)
		r.want(what, home, nil, 303, loginPath)
	}
	r.configure(`groups = ["boss"]`)
	r.pass(time.Minute)
	r.want("in no group", r.toProvider(anna), nil, 403, "you belong to no group")
	r.change(func(c *config.Config) { c.SelfService.OIDC = nil })
	r.want("switched off", oidcPath+"?code=x&state=y", nil, 403, "cannot be used")
	if a := r.ask(loginPath, nil); strings.Contains(a.Text, startPath) {
		t.Error("there is a button without a provider")
	}
}

// What is typed wrong is said beside its field, and comes back escaped.
func TestFormFaults(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	many := strings.Repeat("192.0.2.1\n", maxNetworks+1)
	for _, c := range []struct {
		what string
		form url.Values
		want string
	}{
		{"no name", formOf(" "), `id="name-fault"`},
		{"a long name", formOf(strings.Repeat("x", 101)), "more than 100 characters"},
		{"markup", formOf("<script>alert(1)</script>\x1b"), "&lt;script&gt;"},
		{"no network", formOf("a", "where", "networks"), "Write at least one network"},
		{"no such network", formOf("a", "where", "networks", "networks", "the <b>hall</b>"),
			"the &lt;b&gt;hall&lt;/b&gt; is no network"},
		{"many", formOf("a", "where", "networks", "networks", many), "Write at most 20 networks"},
		{"a zone", formOf("a", "where", "networks", "networks", "fe80::1%eth0"), `id="networks-fault"`},
		{"no end", formOf("a", "lasts", ""), "Choose how long"},
		{"longer than allowed", formOf("a", "lasts", "315360000"), "Choose how long"},
	} {
		a := r.want(c.what, newPath, c.form, 422, c.want)
		if strings.Contains(a.Text, "<script>alert") || strings.Contains(a.Text, "<b>hall") {
			t.Errorf("%s: not escaped", c.what)
		}
	}
	for _, name := range []string{"one", "two"} {
		r.want(name, newPath, formOf(name), 200, "The password for "+name)
	}
	r.want("the same name", newPath, formOf("two"), 409, "You have a password of this name already.")
	r.want("three", newPath, formOf(`<img src=x> "three"`), 200, "&lt;img src=x&gt;")
	r.want("too many", newPath, formOf("four"), 409, "You have as many passwords as there may be (3)")
	a := r.want("the list", home, nil, 200, "You have 3 passwords, which is as many as there may be.")
	if strings.Contains(a.Text, "<img src") || strings.Contains(a.Text, newPath) {
		t.Errorf("not escaped, or a way to make another:\n%s", a.Text)
	}
	// What others have cannot be seen or revoked.
	id := r.idOf("anna@example.com", "one")
	r.http = r.browser()
	r.pass(time.Minute)
	r.enter("ben@example.com")
	r.want("somebody else's", revokePath+"?id="+id, nil, 303, home)
	r.want("somebody else's", revokePath, url.Values{"id": {id}, "confirmed": {"yes"}}, 303, home)
	if a := r.ask(home, nil); strings.Contains(a.Text, "one</strong>") {
		t.Error("ben sees what anna has")
	}
	r.idOf("anna@example.com", "one")
}

// Pages of other sites do nothing here, and the bounds hold.
func TestOtherSites(t *testing.T) {
	r := newRig(t, "")
	r.enter("anna@example.com")
	for _, path := range []string{newPath, revokePath, logoutPath, loginPath} {
		for range 30 { // that cost nobody a login
			r.want("another site", path, formOf("x"), 403, "came from another web site", "Sec-Fetch-Site", "cross-site")
		}
	}
	r.want("still signed in", home, nil, 200, "There is none yet.")
	r.want("too much", newPath, url.Values{"name": {strings.Repeat("x", maxForm)}}, 400, "too much at once")
	r.want("nothing else", "/queue", nil, 404, "")
	r.want("nothing else", home+"nothing", nil, 404, "There is no such page.")
	r.want("not so", home, url.Values{}, 405, "cannot be used in this way")
	h := r.ask(home, nil).Header
	if h.Get("Cache-Control") != "no-store" ||
		!strings.Contains(h.Get("Content-Security-Policy"), "form-action 'self'") {
		t.Errorf("%v", h)
	}
	for range 25 {
		r.ask(loginPath, credentials("nobody@example.com", "x"))
	}
	r.want("too many logins", loginPath, credentials("anna@example.com", password), 429, "Too many logins at once.")
	r.change(func(c *config.Config) { c.SelfService = config.SelfService{} })
	r.want("switched off", home, nil, 404, "")
	for _, c := range r.ask(loginPath, nil).Cookies() {
		t.Error(c)
	}
}

// Behind a proxy that is trusted it is the client who is seen, and locked out.
func TestBehindAProxy(t *testing.T) {
	r := newRig(t, "")
	client := []string{"X-Forwarded-For", "203.0.113.5, 192.0.2.9"}
	r.want("not trusted", loginPath, credentials("anna@example.com", password), 303, home, client...)
	r.want("not trusted", newPath, nil, 200, "You are at 127.0.0.1 now.", client...)
	r.change(func(c *config.Config) {
		c.Admin.TrustedProxies = config.Networks{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	})
	r.want("trusted", newPath, nil, 200, "You are at 192.0.2.9 now.", client...)
	r.http = r.browser()
	for i := range 5 {
		r.ask(loginPath, credentials("ben@example.com", strings.Repeat("x", i+1)), client...)
	}
	for where, locked := range map[string]bool{"192.0.2.9": true, "127.0.0.1": false, "203.0.113.5": false} {
		if got := !r.logins.LockedUntil("nobody", netip.MustParseAddr(where)).IsZero(); got != locked {
			t.Errorf("%s is locked out: %v", where, got)
		}
	}
}

// The cookie is this host's alone, and none of the console's.
func TestCookie(t *testing.T) {
	r := newRig(t, "")
	a := r.ask(loginPath, credentials("anna@example.com", password))
	for _, c := range a.Cookies() {
		if c.Name == "postern-me" && (!c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/") {
			t.Errorf("%+v", c)
		}
	}
	if r.kept(sessionCookie) == "" {
		t.Error("there is none")
	}
}
