package access

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

const (
	password = "correct horse battery"
	client   = "192.0.2.1"
)

// owner is the command line.
var owner = operate.Actor{Name: "root", Channel: operate.CommandLine}

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

type rig struct {
	*Access
	t     *testing.T
	clock *clock
	store *store.Store
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	return newRigIn(t, filepath.Join(t.TempDir(), "data"), change...)
}

func newRigIn(t *testing.T, dir string, change ...func(*Options)) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &clock{now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	o := Options{Store: s, URL: &url.URL{Scheme: "https", Host: "relay.example.com:8587"},
		Lockout: auth.Lockout{Failures: 5, Window: time.Hour, Duration: time.Hour},
		Now:     func() time.Time { return c.now }}
	for _, f := range change {
		f(&o)
	}
	a, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Access: a, t: t, clock: c, store: s}
}

// invite returns what stands in a new link.
func (r *rig) invite(name string, role operate.Role) string {
	r.t.Helper()
	link, err := r.Users.Invite(r.t.Context(), owner, name, role)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.tokenOf(link)
}

func (r *rig) tokenOf(link Link) string {
	r.t.Helper()
	token, ok := strings.CutPrefix(link.URL, "https://relay.example.com:8587/invite/")
	if !ok || len(token) < 40 {
		r.t.Fatalf("the link is %s", link.URL)
	}
	return token
}

// code is what an authenticator shows now.
func (r *rig) code(secret string) string {
	r.t.Helper()
	code, err := totp.GenerateCode(secret, r.clock.now)
	if err != nil {
		r.t.Fatal(err)
	}
	return code
}

// join makes a user with password and authenticator, and returns its secret and the cookie of the first session.
func (r *rig) join(name string, role operate.Role) (secret, cookie string) {
	r.t.Helper()
	token := r.invite(name, role)
	i, err := r.Invitations.Get(r.t.Context(), token)
	if err != nil {
		r.t.Fatal(err)
	}
	cookie, err = r.Invitations.Accept(r.t.Context(), token, Acceptance{Password: password, Code: r.code(i.Secret)},
		client)
	if err != nil {
		r.t.Fatal(err)
	}
	r.clock.pass(time.Minute) // the code was used
	return i.Secret, cookie
}

// login logs in with password and code.
func (r *rig) login(name, secret string) (string, error) {
	return r.Logins.Login(r.t.Context(), Credentials{name, password, r.code(secret)}, client)
}

// refused expects a reason; "" expects none.
func refused(t *testing.T, what string, err error, want Reason) {
	t.Helper()
	if got := ReasonOf(err); got != want || want == "" && err != nil {
		t.Errorf("%s: %v (%q), want %q", what, err, got, want)
	}
}

// session expects that a cookie is of a session, or why not.
func (r *rig) session(what, cookie string, want Reason) *Session {
	r.t.Helper()
	s, err := r.Logins.Session(r.t.Context(), cookie, false)
	refused(r.t, what, err, want)
	return s
}

// audited returns outcome and detail of the newest entry about an operation.
func (r *rig) audited(op string) string {
	r.t.Helper()
	entries, err := r.store.Audit(context.Background(), store.AuditQuery{Operation: op, Limit: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(entries) == 0 {
		return ""
	}
	return entries[0].Actor + " " + entries[0].Outcome + " " + entries[0].Detail
}

// put stores a user as it is given.
func (r *rig) put(want store.ConsoleUser) {
	r.t.Helper()
	err := r.store.ChangeConsoleUser(r.t.Context(), want.Name,
		func(u *store.ConsoleUser, _ bool, _ []store.ConsoleUser) (bool, error) { *u = want; return true, nil })
	if err != nil {
		r.t.Fatal(err)
	}
}
