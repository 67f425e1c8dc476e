package access

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/operate"
)

const another = "another horse staple"

// TestOwnPassword: it takes the old one and the second factor, ends the other sessions and keeps one's own.
func TestOwnPassword(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, first := r.join("anna", operate.Viewer)
	second, err := r.login("anna", secret)
	refused(t, "second session", err, "")
	s := r.session("", second, "")
	change := func(old, fresh string) (string, error) { return r.Own.SetPassword(ctx, s, old, fresh, client) }
	for _, c := range []struct {
		what, old, fresh string
		want             Reason
	}{
		{"wrong old one", "wrong horse battery", another, ReasonWrong},
		{"none", "", another, ReasonWrong},
		{"too short", password, "short", ReasonPassword},
		{"the same", password, password, ReasonPassword},
		{"the name", password, "anna", ReasonPassword},
	} {
		_, err := change(c.old, c.fresh)
		refused(t, c.what, err, c.want)
	}
	if got := r.audited(opPassword); !strings.HasPrefix(got, "anna refused") {
		t.Errorf("the audit has %q", got)
	}
	began := s.Began
	cookie, err := change(password, another)
	refused(t, "right", err, "")
	r.session("the other session", first, ReasonSession)
	r.session("the cookie before", second, ReasonSession)
	if s := r.session("the new cookie", cookie, ""); s != nil && !s.Began.Equal(began) {
		t.Errorf("a new password gives another 12 hours: %v, %v", s.Began, began)
	}
	if got := r.audited(opPassword); !strings.HasPrefix(got, "anna done") {
		t.Errorf("the audit has %q", got)
	}
	r.clock.pass(time.Minute)
	_, err = r.login("anna", secret)
	refused(t, "the old one", err, ReasonWrong)
	_, err = r.Logins.Login(ctx, Credentials{"anna", another, r.code(secret)}, client)
	refused(t, "the new one", err, "")
	_, err = change(another, password)
	refused(t, "from a session that has ended", err, ReasonSession)
}

// TestOwnIsAsStrong: what changes a way in asks for the second factor that was given just now.
func TestOwnIsAsStrong(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, cookie := r.join("anna", operate.Admin)
	r.clock.pass(StrongFor)
	s := r.session("", cookie, "")
	for what, f := range map[string]func() error{
		"password": func() error { _, err := r.Own.SetPassword(ctx, s, password, another, client); return err },
		"app":      func() error { _, err := r.Own.SetApp(ctx, s, r.code(r.Own.App(s).Secret), client); return err },
		"passkey":  func() error { _, _, err := r.Own.BeginPasskey(s, client); return err },
		"add":      func() error { return r.Own.AddPasskey(ctx, s, "", nil, "x", client) },
		"remove":   func() error { _, err := r.Own.RemovePasskey(ctx, s, "x", client); return err },
	} {
		if err := f(); !errors.Is(err, operate.ErrStrong) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestOwnGuessing: the old password is guessed within the same lockout as at the login, and whoever is locked out
// changes nothing.
func TestOwnGuessing(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, cookie := r.join("anna", operate.Admin)
	s := r.session("", cookie, "")
	var err error
	for i := range 5 {
		_, err = r.Own.SetPassword(ctx, s, fmt.Sprintf("wrong horse battery %d", i), another, client)
	}
	refused(t, "the fifth", err, ReasonLockedOut)
	_, err = r.Own.SetPassword(ctx, s, password, another, client)
	refused(t, "the right one", err, ReasonLockedOut)
	_, err = r.Own.SetApp(ctx, s, r.code(r.Own.App(s).Secret), client)
	refused(t, "another app", err, ReasonLockedOut)
	_, err = r.login("anna", secret)
	refused(t, "the login", err, ReasonLockedOut)
	r.session("the session stays", cookie, "")
}

// TestOwnApp: another authenticator takes the place of the one before.
func TestOwnApp(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	before, cookie := r.join("anna", operate.Admin)
	s := r.session("", cookie, "")
	app := r.Own.App(s)
	if app.Secret == before || app.Secret != r.Own.App(s).Secret || !strings.Contains(app.URI, app.Secret) {
		t.Errorf("%+v, before %s", app, before)
	}
	_, err := r.Own.SetApp(ctx, s, r.code(before), client)
	refused(t, "a code of the old one", err, ReasonCode)
	other, err := r.login("anna", before)
	refused(t, "the old one works still", err, "")
	cookie, err = r.Own.SetApp(ctx, s, r.code(app.Secret), client)
	refused(t, "right", err, "")
	r.session("the other session", other, ReasonSession)
	r.clock.pass(time.Minute)
	_, err = r.login("anna", before)
	refused(t, "the old one", err, ReasonWrong)
	_, err = r.login("anna", app.Secret)
	refused(t, "the new one", err, "")
	if r.Own.App(r.session("", cookie, "")).Secret == app.Secret {
		t.Error("the next authenticator would have the same secret")
	}
}

// TestOwnPasskeys: add, name, log in with it, remove; the last way in stays.
func TestOwnPasskeys(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	first, second := newDevice(), newDevice()
	cookie := r.joinWithPasskey("anna", first)
	s := r.session("", cookie, "")
	if _, err := r.Own.RemovePasskey(ctx, s, s.Passkeys()[0].ID, client); ReasonOf(err) != ReasonLastWay {
		t.Errorf("the only passkey is removed: %v", err)
	}
	options, flow, err := r.Own.BeginPasskey(s, client)
	refused(t, "begin", err, "")
	if !strings.Contains(string(options), "excludeCredentials") {
		t.Error("the same authenticator could make a second passkey")
	}
	made := second.create(t, options)
	refused(t, "a forged cookie", r.Own.AddPasskey(ctx, s, flow+"A", made, "x", client), ReasonFlow)
	refused(t, "add", r.Own.AddPasskey(ctx, s, flow, made, " Key\u202e on\nmy ring ", client), "")
	refused(t, "add again", r.Own.AddPasskey(ctx, s, flow, made, "x", client), ReasonFlow)
	s = r.session("adding ends no session", cookie, "")
	keys := s.Passkeys()
	if len(keys) != 2 || strings.ContainsAny(keys[1].Label, "\n\u202e") || !strings.Contains(keys[1].Label, "ring") {
		t.Fatalf("%+v", keys)
	}
	refused(t, "rename", r.Own.NamePasskey(ctx, s, keys[0].ID, "Laptop", client), "")
	refused(t, "rename what is not there", r.Own.NamePasskey(ctx, s, "x", "Laptop", client), ReasonNoSuch)

	options, flow, err = r.Passkeys.Begin(ctx, "anna")
	refused(t, "begin", err, "")
	second.AddCredential(second.key)
	other, err := r.Passkeys.Finish(ctx, flow, second.get(t, options), client)
	refused(t, "log in with the second", err, "")
	keys = r.session("", other, "").Passkeys()
	if keys[0].Label != "Laptop" || !strings.Contains(keys[1].Label, "ring") || keys[1].Used.IsZero() {
		t.Errorf("a login loses the names: %+v", keys)
	}
	cookie, err = r.Own.RemovePasskey(ctx, s, keys[0].ID, client)
	refused(t, "remove", err, "")
	r.session("the other session", other, ReasonSession)
	s = r.session("", cookie, "")
	if keys = s.Passkeys(); len(keys) != 1 || keys[0].Label == "Laptop" {
		t.Errorf("%+v", keys)
	}
	_, err = r.Own.RemovePasskey(ctx, s, keys[0].ID, client)
	refused(t, "the last one", err, ReasonLastWay)
	for _, op := range []string{opAddPasskey, opNamePasskey, opRemovePasskey} {
		if got := r.audited(op); !strings.HasPrefix(got, "anna done") {
			t.Errorf("%s: the audit has %q", op, got)
		}
	}
}

// TestOwnPasskeysAreBounded: nobody fills the store with them.
func TestOwnPasskeysAreBounded(t *testing.T) {
	r := newRig(t)
	_, cookie := r.join("anna", operate.Admin)
	s := r.session("", cookie, "")
	for i := range maxPasskeys + 1 {
		options, flow, err := r.Own.BeginPasskey(s, client)
		if err == nil {
			err = r.Own.AddPasskey(t.Context(), s, flow, newDevice().create(t, options), "", client)
		}
		want := Reason("")
		if i == maxPasskeys {
			want = ReasonTooMany
		}
		refused(t, fmt.Sprint("passkey ", i), err, want)
	}
	if got := r.session("", cookie, "").Passkeys()[2].Label; got != "Passkey 3" {
		t.Errorf("without a name it is %q", got)
	}
}

// TestLastWayAfterWrongCodes: an authenticator whose codes are used up is no way in.
func TestLastWayAfterWrongCodes(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, cookie := r.join("anna", operate.Admin)
	s := r.session("", cookie, "")
	options, flow, err := r.Own.BeginPasskey(s, client)
	refused(t, "begin", err, "")
	refused(t, "add", r.Own.AddPasskey(ctx, s, flow, newDevice().create(t, options), "", client), "")
	u, err := r.store.ConsoleUser(ctx, "anna")
	if err != nil {
		t.Fatal(err)
	}
	u.WrongCodes = maxWrongCodes
	r.put(u)
	s = r.session("", cookie, "")
	_, err = r.Own.RemovePasskey(ctx, s, s.Passkeys()[0].ID, client)
	refused(t, "the only one that works", err, ReasonLastWay)
	u.WrongCodes = 0
	r.put(u)
	_, err = r.Own.RemovePasskey(ctx, s, s.Passkeys()[0].ID, client)
	refused(t, "beside an authenticator", err, "")
}

// TestOwnSessions: people see and end their own, and nobody else's.
func TestOwnSessions(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, cookie := r.join("anna", operate.Viewer)
	_, ben := r.join("ben", operate.Viewer)
	r.clock.pass(time.Minute)
	second, err := r.login("anna", secret)
	refused(t, "second", err, "")
	r.clock.pass(time.Minute)
	third, err := r.login("anna", secret)
	refused(t, "third", err, "")
	s := r.session("", third, "")
	list, err := r.Own.Sessions(ctx, s)
	if err != nil || len(list) != 3 || !list[0].This || list[1].This || list[0].Client != client {
		t.Fatalf("%+v, %v", list, err)
	}
	others, err := r.Own.Sessions(ctx, r.session("", ben, ""))
	if err != nil || len(others) != 1 {
		t.Fatalf("%+v, %v", others, err)
	}
	refused(t, "one of somebody else", r.Own.EndSession(ctx, s, others[0].ID, client), ReasonNoSuch)
	r.session("ben's", ben, "")
	refused(t, "the second", r.Own.EndSession(ctx, s, list[1].ID, client), "")
	r.session("ended", second, ReasonSession)
	r.session("not ended", cookie, "")
	refused(t, "all others", r.Own.EndOthers(ctx, s, client), "")
	r.session("ended", cookie, ReasonSession)
	r.session("one's own", third, "")
	if got := r.audited(opEndSessions); !strings.HasPrefix(got, "anna done") {
		t.Errorf("the audit has %q", got)
	}
	r.clock.pass(IdleFor)
	if list, err = r.Own.Sessions(ctx, s); err != nil || len(list) != 0 {
		t.Errorf("idle ones are shown: %+v, %v", list, err)
	}
}
