package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/alert"
	"postern/relay/trace"
)

const directory = testkit.SlapdEntries + `dn: uid=bert,dc=example,dc=com
objectClass: inetOrgPerson
uid: bert
cn: Bert
sn: B
mail: bert@example.com
userPassword: right

dn: uid=dora,dc=example,dc=com
objectClass: inetOrgPerson
uid: dora
cn: Dora
sn: D
mail: dora@example.com
userPassword: right

dn: cn=inner,dc=example,dc=com
objectClass: groupOfNames
cn: inner
member: uid=bert,dc=example,dc=com

dn: cn=outer,dc=example,dc=com
objectClass: groupOfNames
cn: outer
member: cn=inner,dc=example,dc=com
`

// tryLogin logs in and leaves; the error is the reply.
func (r *rig) tryLogin(login, password string) error {
	c, err := r.loggedIn(login, password)
	if err == nil {
		c.Close()
	}
	return err
}

func (r *rig) loggedIn(login, password string) (*smtp.Client, error) {
	r.t.Helper()
	c, err := smtp.DialStartTLS(r.server.Addresses()["submission"], &tls.Config{ServerName: "localhost",
		RootCAs: r.roots})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.Auth(sasl.NewPlainClient("", login, password)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func wantCode(t *testing.T, what string, err error, want int) {
	t.Helper()
	var e *smtp.SMTPError
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("%s: %v, want %d", what, err, want)
	}
}

// officeSource is a source of a directory.
func officeSource(slapd *testkit.Slapd, ca *testkit.CA) string {
	return fmt.Sprintf(`[[auth.source]]
		[[auth.source]]
		type = "ldap"
		name = "office"
		urls = [%q]
		ca_file = %q
		bind_dn = "cn=relay,dc=example,dc=com"
		bind_password = "relay password"
		base_dn = "dc=example,dc=com"
		timeout = "2s"
`, slapd.TLS, ca.File)
}

// TestADirectory: a login of a real directory sends with its addresses and nested groups. While the directory is gone,
// logins get 454 and an alert, nobody is locked out, accounts of the store work, and so does who was verified before.
func TestADirectory(t *testing.T) {
	t.Parallel()
	hook, p, ca := newReceiver(t), newProvider(t), testkit.NewCA(t)
	slapd := testkit.NewSlapd(t, ca, directory)
	r := newRig(t, p, officeSource(slapd, ca)+fmt.Sprintf(`
		[auth.lockout]
		failures = 3
		[[policy]]
		groups = ["outer"]
		recipients = ["*@example.net"]
		limits = ["3 messages/day"]
		over_limit = "lock"
		%s`, hook.block()))
	c, err := r.loggedIn("bert@example.com", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close() }()
	const text = "From: bert@example.com\nSubject: x\n\nhello\n"
	if _, err := sendOn(c, "bert@example.com", []string{"b@example.net"}, text); err != nil {
		t.Fatal(err)
	}
	_, err = sendOn(c, "bert@example.com", []string{"b@example.org"}, text)
	wantCode(t, "what the policy of the outer group denies", err, 550)
	c.Reset()
	_, err = sendOn(c, "anna@example.com", []string{"b@example.net"}, text)
	wantCode(t, "an address of somebody else", err, 550)
	c.Reset()
	c.Reset()
	for range 3 {
		_, err = sendOn(c, "bert@example.com", []string{"b@example.net"}, text)
	}
	wantCode(t, "over the limit", err, 550)
	if d := hook.wait(r, alert.LoginLocked, "login bert, over a limit", 1); !strings.Contains(d.Summary,
		"was locked") {
		t.Errorf("%+v", d)
	}
	for _, spelling := range []string{"bert", "bert@example.com", "BERT@example.com"} {
		wantCode(t, "locked: "+spelling, r.tryLogin(spelling, "right"), 535)
	}
	if was, err := r.server.store.UnlockLogin(t.Context(), "bert"); err != nil || !was {
		t.Fatalf("unlock: %v, %v", was, err)
	}
	r.eventually("bert may log in again", func() bool { return r.tryLogin("bert@example.com", "right") == nil })
	c.Close()
	if c, err = r.loggedIn("bert@example.com", "right"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "a wrong password", r.tryLogin("bert", "hunter2"), 535)
	r.eventually("the trace has the reason", func() bool {
		for _, e := range r.events(trace.AuthFail) {
			if strings.Contains(e.Detail, "source office: wrong password") {
				return true
			}
		}
		return false
	})

	testARemovedAccount(t, r, slapd, c)

	slapd.Kill()
	for i := range 10 {
		wantCode(t, "the directory is gone", r.tryLogin("bert", fmt.Sprint("guess", i)), 454)
	}
	if err := r.tryLogin("bert@example.com", "right"); err != nil {
		t.Errorf("who was verified before: %v", err)
	}
	if err := r.tryLogin(rigLogin, rigPassword); err != nil {
		t.Errorf("an account of the store: %v", err)
	}
	d := hook.wait(r, alert.LoginSource, "source office", 1)
	if d.Resolved || !strings.Contains(d.Summary, "454") || !strings.Contains(d.Summary, "connection refused") {
		t.Errorf("%+v", d)
	}
	if n := len(hook.about(alert.LoginLocked, "address 127.0.0.1")); n != 0 {
		t.Error("an outage locked somebody out")
	}
	slapd.Start()
	if d := hook.wait(r, alert.LoginSource, "source office", 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
	if err := r.tryLogin("bert", "right"); err != nil {
		t.Errorf("it is back: %v", err)
	}
	if log := r.log.String(); strings.Contains(log, "hunter2") || strings.Contains(log, "relay password") {
		t.Error("the log has a password")
	}
}

// testARemovedAccount: an open session of who is gone from the directory sends nothing any more, once it is looked at.
func testARemovedAccount(t *testing.T, r *rig, slapd *testkit.Slapd, bert *smtp.Client) {
	t.Helper()
	dora, err := r.loggedIn("dora", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer dora.Close()
	slapd.Tool("ldapdelete", "", "uid=dora,dc=example,dc=com")
	r.adopts(func() { r.addUser(auth.User{Login: "eve@example.com"}) }) // whereupon sessions look at theirs again
	wantCode(t, "an account that is gone", dora.Mail("dora@example.com", nil), 421)
	bert.Reset()
	if err := bert.Mail("bert@example.com", nil); err != nil {
		t.Errorf("an account that stays: %v", err)
	}
}

const (
	bcryptRight = "$2y$05$I1tTl9PUPKtibRbIBZzBSOzj2.tvjQ.NrAPWcHmSQQQBIGeli7Lqm" // of "right"
	sha512Right = "$6$Ojs.sY50DNh0pTdb$07jOGgHCDnoTOu4YzBfBvNKvc4osUO5.htjJ2/3Nzvq8.lETr5h36KCV3zI30Sj5LnRowpnvzeaGlt" +
		"HOE.0tD0"
)

// TestAPasswordFile: it is read again when it changes, which ends the sessions of who is gone; a broken line is told of
// and changes nothing.
func TestAPasswordFile(t *testing.T) {
	t.Parallel()
	hook, p := newReceiver(t), newProvider(t)
	path := filepath.Join(t.TempDir(), "users")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put("bert@example.com:" + bcryptRight + "\ncleo@example.com:" + bcryptRight + "\n")
	r := newRig(t, p, fmt.Sprintf("[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = %q\n%s", path,
		hook.block()))
	bert, err := r.loggedIn("bert@example.com", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer bert.Close()
	cleo, err := r.loggedIn("cleo@example.com", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer cleo.Close()

	put("bert@example.com:broken\ncleo@example.com:" + bcryptRight + "\n")
	d := hook.wait(r, alert.LoginSource, "source file", 1)
	if !strings.Contains(d.Summary, path+":1: ") {
		t.Errorf("%+v", d)
	}
	if err := bert.Mail("bert@example.com", nil); err != nil {
		t.Errorf("a broken line ended a session: %v", err)
	}
	bert.Reset()

	put("cleo@example.com:" + bcryptRight + "\ndora@example.com:" + sha512Right + "\n")
	if d := hook.wait(r, alert.LoginSource, "source file", 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
	wantCode(t, "the session of who is gone", bert.Mail("bert@example.com", nil), 421)
	if err := cleo.Mail("cleo@example.com", nil); err != nil {
		t.Errorf("the session of who stays: %v", err)
	}
	wantCode(t, "a login that is gone", r.tryLogin("bert@example.com", "right"), 535)
	if err := r.tryLogin("dora@example.com", "right"); err != nil {
		t.Errorf("a new login: %v", err)
	}

	// A reload that takes the source out ends what it let in.
	r.write(hook.block())
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	cleo.Reset()
	wantCode(t, "the session of a source that is gone", cleo.Mail("cleo@example.com", nil), 421)
	wantCode(t, "a login of a source that is gone", r.tryLogin("cleo@example.com", "right"), 535)
}
