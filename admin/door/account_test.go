package door

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	"postern/operate"
)

const another = "another horse staple"

// TestOwnAccount: a viewer sees and changes what is their own, with the second factor before each form.
func TestOwnAccount(t *testing.T) {
	r := newRig(t)
	r.want("nobody", "/account", nil, 303, "/login?next=%2Faccount")
	secret := r.join("anna", operate.Viewer)
	first := r.http
	page := r.want("the page", "/account", nil, 200, "Your account")
	if !strings.Contains(page.body, `href="/account" aria-current="page"`) {
		t.Error("the header does not lead here")
	}
	r.http = r.browser()
	r.want("elsewhere", "/login", r.login("anna", secret), 303, "/")
	r.pass(access.StrongFor + time.Minute)
	for _, path := range []string{"/account/password", "/account/app", "/account/passkey",
		"/account/passkey/remove?id=x"} {
		r.want(path, path, nil, 303, "/step-up?next="+url.QueryEscape(path))
	}
	form := func(old, fresh, repeat string) url.Values {
		return url.Values{"old": {old}, "password": {fresh}, "repeat": {repeat}}
	}
	r.want("without the second factor", "/account/password", form(password, another, another), 303, "/step-up")
	r.want("the second factor", "/step-up", url.Values{"code": {r.code(secret)}, "next": {"/account/password"}}, 303,
		"/account/password")
	r.want("the form", "/account/password", nil, 200, "Present password")
	r.want("wrong", "/account/password", form("wrong horse battery", another, another), 403,
		"present password is wrong")
	r.want("not twice the same", "/account/password", form(password, another, password), 422, "not the same")
	weak := r.want("short", "/account/password", form(password, "short", "short"), 422, "at least 10 characters")
	if strings.Contains(weak.body, password) {
		t.Error("the page shows the password")
	}
	changed := r.want("right", "/account/password", form(password, another, another), 303, "/account")
	cookie(t, changed, "postern", false)
	r.want("the session goes on", "/account", nil, 200, "The password is changed.")
	mine := r.http
	r.http = first
	r.want("the other one has ended", "/account", nil, 303, "/login")
	r.pass(time.Minute)
	in := r.login("anna", secret)
	in.Set("password", another)
	r.want("in with the new one", "/login", in, 303, "/")
	r.http = mine
	page = r.want("both", "/account", nil, 200, "End all others")
	id := regexp.MustCompile(`name="id" value="([0-9a-f]{16})"`).FindStringSubmatch(page.body)
	if id == nil {
		t.Fatal(page.body)
	}
	r.want("end it", "/account/session/end", url.Values{"id": {id[1]}}, 303, "/account")
	r.want("again", "/account/session/end", url.Values{"id": {id[1]}}, 404, "not there any more")
	r.http = first
	r.want("it has ended", "/account", nil, 303, "/login")
	r.http = mine
	r.want("all others", "/account/session/others", url.Values{}, 303, "/account")
	r.want("this one stays", "/account", nil, 200, "All other sessions have ended.")
}

// TestOwnAuthenticator: without JavaScript, one takes the place of the other.
func TestOwnAuthenticator(t *testing.T) {
	r := newRig(t)
	before := r.join("anna", operate.Viewer)
	page := r.want("the form", "/account/app", nil, 200, "data:image/png;base64,")
	secret := regexp.MustCompile(`class="key">([A-Z2-7 ]+)<`).FindStringSubmatch(page.body)
	if secret == nil {
		t.Fatal(page.body)
	}
	r.want("wrong", "/account/app", url.Values{"code": {r.code(before)}}, 422, secret[1])
	r.want("right", "/account/app", url.Values{"code": {r.code(secret[1])}}, 303, "/account")
	r.want("said", "/account", nil, 200, "The new authenticator app counts")
	r.pass(time.Minute)
	r.want("the old one", "/login", r.login("anna", before), 403, "wrong")
	r.want("the new one", "/login", r.login("anna", secret[1]), 303, "/")
	r.want("no such passkey", "/account/passkey/remove", url.Values{"id": {"x"}}, 404, "not there any more")
	r.want("no such passkey, asked", "/account/passkey/remove?id=x", nil, 404, "not there any more")
	r.want("no such passkey, renamed", "/account/passkey/name", url.Values{"id": {"x"}}, 404, "not there any more")
}

// TestOwnAccountIsNoTokens: a program has no account.
func TestOwnAccountIsNoTokens(t *testing.T) {
	r := newRig(t)
	token, err := r.Tokens.Add(t.Context(), owner, access.NewToken{Name: "x", Scopes: operate.Scopes})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/account", "/account/password"} {
		r.want(path, path, nil, 303, "/login", "Authorization", "Bearer "+token)
	}
	r.want("sessions", "/account/session/others", url.Values{}, 303, "/login", "Authorization", "Bearer "+token)
}
