package access

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/operate"
	"postern/relay/store"
)

func TestInvitations(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	token := r.invite("Anna", operate.Admin)
	i, err := r.Invitations.Get(ctx, token)
	if err != nil || i.Name != "anna" || i.Role != operate.Admin || !strings.HasPrefix(i.URI,
		"otpauth://totp/Postern") {
		t.Fatalf("%+v, %v", i, err)
	}
	if again, err := r.Invitations.Get(ctx, token); err != nil || again.Secret != i.Secret {
		t.Errorf("shown again, the secret is another one: %v", err)
	}
	if png, err := i.QR(200); err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
		t.Errorf("the picture: %v", err)
	}
	for _, c := range []struct {
		what string
		got  Acceptance
		want Reason
	}{
		{"no factor", Acceptance{Password: password}, ReasonNoFactor},
		{"wrong code", Acceptance{Password: password, Code: "000000"}, ReasonCode},
		{"short password", Acceptance{Password: "123456789", Code: r.code(i.Secret)}, ReasonPassword},
		{"no password", Acceptance{Code: r.code(i.Secret)}, ReasonPassword},
		{"unprintable password", Acceptance{Password: "1234567890\a", Code: r.code(i.Secret)}, ReasonPassword},
		{"passkey without a ceremony", Acceptance{Password: password, Passkey: []byte("{}")}, ReasonFlow},
		{"right", Acceptance{Password: password, Code: r.code(i.Secret)}, ""},
		{"replayed", Acceptance{Password: password, Code: r.code(i.Secret)}, ReasonLinkUsed},
	} {
		_, err := r.Invitations.Accept(ctx, token, c.got, client)
		refused(t, c.what, err, c.want)
	}
	_, err = r.Invitations.Get(ctx, token)
	refused(t, "shown after use", err, ReasonLinkUsed)
	_, err = r.Invitations.Get(ctx, token+"x")
	refused(t, "unknown", err, ReasonLinkUnknown)

	ben := r.invite("ben", operate.Viewer)
	newer := r.invite("ben", operate.Helpdesk)
	_, err = r.Invitations.Get(ctx, ben)
	refused(t, "replaced", err, ReasonLinkReplaced)
	r.clock.pass(InviteFor - time.Second)
	_, err = r.Invitations.Get(ctx, newer)
	refused(t, "in time", err, "")
	r.clock.pass(time.Second)
	_, err = r.Invitations.Accept(ctx, newer, Acceptance{Password: password, Code: "000000"}, client)
	refused(t, "expired", err, ReasonLinkExpired)

	cleo := r.invite("cleo", operate.Viewer)
	if err := r.Users.Remove(ctx, owner, "cleo"); err != nil {
		t.Fatal(err)
	}
	_, err = r.Invitations.Get(ctx, cleo)
	refused(t, "of somebody who was removed", err, ReasonLinkReplaced)
	if _, err := r.Users.Invite(ctx, owner, "anna", operate.Viewer); err == nil {
		t.Error("somebody who is active is invited")
	}
	for _, name := range []string{"", "an na", "a:b", "-a"} {
		if _, err := r.Users.Invite(ctx, owner, name, operate.Viewer); err == nil {
			t.Errorf("%q is invited", name)
		}
	}
}

func TestLogin(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, _ := r.join("anna", operate.Operator)
	r.invite("invited", operate.Admin)
	code := r.code(secret)
	for _, c := range []struct {
		what string
		Credentials
		want Reason
	}{
		{"nobody", Credentials{"nobody", password, code}, ReasonWrong},
		{"not accepted yet", Credentials{"invited", password, code}, ReasonWrong},
		{"wrong password", Credentials{"anna", "wrong", code}, ReasonWrong},
		{"no code", Credentials{"anna", password, ""}, ReasonWrong},
		{"wrong code", Credentials{"anna", password, "12345"}, ReasonWrong},
		{"right", Credentials{"ANNA", password, code[:3] + " " + code[3:]}, ""},
		{"replayed", Credentials{"anna", password, code}, ReasonWrong},
	} {
		_, err := r.Logins.Login(ctx, c.Credentials, client)
		refused(t, c.what, err, c.want)
	}
	for _, c := range []struct {
		what string
		pass time.Duration // since the last code
		off  time.Duration // of the phone's clock
		want Reason
	}{
		{"half a minute late", 2 * time.Minute, -30 * time.Second, ""},
		{"half a minute early", 2 * time.Minute, 30 * time.Second, ""},
		{"a minute late", 2 * time.Minute, -time.Minute, ReasonWrong},
		{"a minute early", 2 * time.Minute, time.Minute, ReasonWrong},
		{"of a step before one that was taken", 0, -30 * time.Second, ""},
	} {
		r.clock.pass(c.pass)
		phone := rig{Access: r.Access, t: t, clock: &clock{r.clock.now.Add(c.off)}}
		_, err := r.Logins.Login(ctx, Credentials{"anna", password, phone.code(secret)}, client)
		refused(t, c.what, err, c.want)
	}
	_, err := r.login("anna", secret)
	refused(t, "the next step", err, "")
	phone := rig{Access: r.Access, t: t, clock: &clock{r.clock.now.Add(-30 * time.Second)}}
	_, err = r.Logins.Login(ctx, Credentials{"anna", password, phone.code(secret)}, client)
	refused(t, "a step before the one that was taken", err, ReasonWrong)
	if got := r.audited(opLogin); !strings.HasPrefix(got, "anna done") {
		t.Errorf("the audit has %q", got)
	}
}

func TestBruteForce(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, _ := r.join("anna", operate.Operator)
	try := func(password, code, from string) error {
		_, err := r.Logins.Login(ctx, Credentials{"anna", password, code}, from)
		return err
	}
	const guesser = "198.51.100.1"
	for i := range 5 {
		refused(t, "a guess", try(fmt.Sprint("guess", i), "000000", guesser), map[bool]Reason{true: ReasonLockedOut,
			false: ReasonWrong}[i == 4])
	}
	err := try(password, r.code(secret), guesser)
	refused(t, "the right password from where too many were guessed", err, ReasonLockedOut)
	if refusal, _ := errors.AsType[*Refusal](err); refusal.Until.IsZero() {
		t.Error("it does not say until when")
	}
	refused(t, "from elsewhere", try(password, r.code(secret), client), "")

	// Whoever has the password guesses codes: a place is locked like one that guesses passwords.
	const thief = "203.0.113.1"
	r.clock.pass(time.Hour)
	for i := range 5 {
		refused(t, "a wrong code", try(password, fmt.Sprintf("%06d", i), thief), ReasonWrong)
	}
	refused(t, "the next one", try(password, r.code(secret), thief), ReasonLockedOut)
	// From many places there is an end too.
	for i := range maxWrongCodes - 5 {
		refused(t, "from many places", try(password, fmt.Sprintf("%06d", i), fmt.Sprintf("203.0.113.%d", 2+i)),
			ReasonWrong)
	}
	refused(t, "after a hundred", try(password, r.code(secret), client), ReasonCodesUsedUp)
	link, err := r.Users.Reset(ctx, owner, "anna")
	if err != nil {
		t.Fatal(err)
	}
	i, err := r.Invitations.Get(ctx, r.tokenOf(link))
	if err != nil || i.Secret == secret {
		t.Fatalf("%v", err)
	}
	_, err = r.Invitations.Accept(ctx, r.tokenOf(link), Acceptance{Password: password, Code: r.code(i.Secret)}, client)
	refused(t, "accepted after a reset", err, "")
	r.clock.pass(time.Minute)
	_, err = r.login("anna", i.Secret)
	refused(t, "login after a reset", err, "")
	// However much was guessed, the audit has little of it.
	entries, err := r.store.Audit(ctx, store.AuditQuery{Operation: opLogin, Limit: 1000})
	if err != nil || len(entries) > 8 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestSessions(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, first := r.join("anna", operate.Admin)
	s := r.session("after the invitation", first, "")
	if s.Name != "anna" || s.Role != operate.Admin || !s.HasCode || s.HasPasskey || !s.Actor(client,
		r.clock.now).Strong {
		t.Errorf("%+v", s)
	}
	r.clock.pass(StrongFor)
	if s := r.session("later", first, ""); s.Actor(client, r.clock.now).Strong {
		t.Error("after five minutes the second factor still counts")
	}
	_, err := r.Logins.StepUp(ctx, s, "000000", client)
	refused(t, "step-up with a wrong code", err, ReasonWrong)
	code := r.code(secret)
	second, err := r.Logins.StepUp(ctx, s, code, client)
	refused(t, "step-up", err, "")
	r.session("the cookie before the step-up", first, ReasonSession)
	s = r.session("the one after", second, "")
	if !s.Actor(client, r.clock.now).Strong {
		t.Error("the second factor does not count")
	}
	_, err = r.Logins.StepUp(ctx, s, code, client)
	refused(t, "step-up with the same code", err, ReasonWrong)

	// Idle, and kept alive by use but not by a page that looks by itself.
	used := second
	for range 3 {
		r.clock.pass(IdleFor - time.Minute)
		if _, err := r.Logins.Session(ctx, used, true); err != nil {
			t.Fatalf("in use: %v", err)
		}
	}
	r.clock.pass(IdleFor / 2)
	r.session("looked at", used, "")
	r.clock.pass(IdleFor / 2)
	r.session("idle", used, ReasonIdle)

	third, err := r.login("anna", secret)
	refused(t, "login", err, "")
	began := r.clock.now
	for r.clock.now.Sub(began) < SessionFor-10*time.Minute {
		r.clock.pass(10 * time.Minute)
		if s, err = r.Logins.Session(ctx, third, true); err != nil {
			t.Fatalf("in use for %s: %v", r.clock.now.Sub(began), err)
		}
	}
	// A step-up makes no new twelve hours.
	fourth, err := r.Logins.StepUp(ctx, s, r.code(secret), client)
	refused(t, "late step-up", err, "")
	r.clock.pass(10 * time.Minute)
	r.session("after twelve hours", fourth, ReasonOver)

	fifth, err := r.login("anna", secret)
	refused(t, "login", err, "")
	if err := r.Logins.Logout(ctx, r.session("", fifth, ""), client); err != nil {
		t.Fatal(err)
	}
	r.session("after logout", fifth, ReasonSession)
	r.session("no cookie of ours", "", ReasonSession)
	if _, err := r.Logins.StepUp(ctx, s, "000000", client); err == nil {
		t.Error("a session that is gone steps up")
	}
}

func TestChangesEndSessions(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	for i, change := range []func(name string) error{
		func(name string) error { return r.Users.SetRole(ctx, owner, name, operate.Viewer) },
		func(name string) error { _, err := r.Users.Reset(ctx, owner, name); return err },
		func(name string) error { return r.Users.Disable(ctx, owner, name, true) },
		func(name string) error { return r.Users.Remove(ctx, owner, name) },
	} {
		name := fmt.Sprint("user", i)
		secret, cookie := r.join(name, operate.Operator)
		s := r.session("before", cookie, "")
		if err := change(name); err != nil {
			t.Fatal(err)
		}
		r.session(fmt.Sprint("after change ", i), cookie, ReasonSession)
		if _, err := r.Logins.StepUp(ctx, s, r.code(secret), client); err == nil {
			t.Errorf("change %d: the session steps up", i)
		}
		if i > 0 {
			r.clock.pass(time.Minute)
			_, err := r.login(name, secret)
			refused(t, fmt.Sprint("login after change ", i), err, ReasonWrong)
		}
	}
	if _, err := r.Users.Reset(ctx, owner, "user2"); err == nil {
		t.Error("who is switched off is reset, and so let in again")
	}
	if err := r.Users.Disable(ctx, owner, "user2", false); err != nil {
		t.Error(err)
	}
}

func TestLastAdminStays(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.join("anna", operate.Admin)
	r.invite("late", operate.Admin) // who never came is no administrator
	anna := operate.Actor{Name: "anna", Channel: operate.Console, Role: operate.Admin, Strong: true}
	all := func() []error {
		return []error{r.Users.SetRole(ctx, anna, "anna", operate.Operator), r.Users.Disable(ctx, anna, "anna", true),
			r.Users.Remove(ctx, anna, "anna")}
	}
	for _, err := range all() {
		if !errors.Is(err, ErrLastAdmin) {
			t.Errorf("the last administrator: %v", err)
		}
	}
	if _, err := r.Users.Reset(ctx, anna, "anna"); !errors.Is(err, operate.ErrForbidden) {
		t.Errorf("reset in the console: %v", err)
	}
	r.join("ben", operate.Admin)
	for _, err := range all() {
		if err != nil {
			t.Errorf("one of two: %v", err)
		}
	}
	if err := r.Users.Remove(ctx, owner, "ben"); err != nil {
		t.Errorf("on the command line: %v", err)
	}
	if err := r.Users.Remove(ctx, owner, "ben"); !errors.Is(err, store.ErrNoConsoleUser) {
		t.Errorf("again: %v", err)
	}
}

func TestOperationsAreForAdministrators(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.join("anna", operate.Admin)
	for _, who := range []operate.Actor{
		{Name: "op", Channel: operate.Console, Role: operate.Operator, Strong: true},
		{Name: "token", Channel: operate.API, Scopes: operate.Scopes},
		{Name: "weak", Channel: operate.Console, Role: operate.Admin},
	} {
		_, invite := r.Users.Invite(ctx, who, "eve", operate.Admin)
		_, reset := r.Users.Reset(ctx, who, "anna")
		_, token := r.Tokens.Add(ctx, who, NewToken{Name: "t", Scopes: operate.Scopes})
		for i, err := range []error{invite, reset, token, r.Users.SetRole(ctx, who, "anna", operate.Viewer),
			r.Users.Remove(ctx, who, "anna"), r.Users.Disable(ctx, who, "anna", true)} {
			if !errors.Is(err, operate.ErrForbidden) && !errors.Is(err, operate.ErrStrong) {
				t.Errorf("%s, %d: %v", who.Name, i, err)
			}
		}
	}
	if got := r.audited(operate.RemoveUser.Name); !strings.HasPrefix(got, "token refused") {
		t.Errorf("the audit has %q", got)
	}
	if users, err := r.Users.List(ctx, owner); err != nil || len(users) != 1 || len(users[0].TOTP) > 3 ||
		len(users[0].Hash) > 3 {
		t.Errorf("%v, %v", users, err)
	}
}

// TestChangedElsewhere: what the command line changes, in another process, ends what this one remembers.
func TestChangedElsewhere(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, _ := r.join("anna", operate.Admin)
	if err := r.Changed(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := r.login("anna", secret) // so that what follows counts for anna from here, and not for the address
	refused(t, "login", err, "")
	r.clock.pass(time.Minute)
	for i := range 5 {
		_, _ = r.Logins.Login(ctx, Credentials{"anna", fmt.Sprint("guess", i), ""}, client)
	}
	_, err = r.login("anna", secret)
	refused(t, "locked out", err, ReasonLockedOut)
	other, err := New(ctx, Options{Store: r.store, URL: r.URL(), Now: func() time.Time { return r.clock.now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Users.SetRole(ctx, owner, "anna", operate.Viewer); err != nil {
		t.Fatal(err)
	}
	if err := r.Changed(ctx); err != nil {
		t.Fatal(err)
	}
	if until := r.auth.LockedUntil("anna", addrOf(client)); !until.IsZero() {
		t.Errorf("locked until %s after a change", until)
	}
	_, err = r.login("anna", secret)
	refused(t, "not locked out any more", err, "")
}
