package relay

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/operate"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/trace"
)

// operations are those of the page, beside the daemon.
func (r *rig) operations() *operate.Operations {
	r.t.Helper()
	c, err := r.load()
	if err != nil {
		r.t.Fatal(err)
	}
	return operate.New(operate.Options{Config: func() *config.Config { return c }, Store: r.store(),
		Lookup: r.server.accounts.Lookup})
}

// oda is somebody whom only the login provider knows.
var oda = operate.Actor{Name: "oda@example.com", Channel: operate.SelfService, Client: "192.0.2.1"}

func enrolled(t *testing.T, ops *operate.Operations) {
	t.Helper()
	if _, err := ops.AppPasswords.Enrol(t.Context(), oda, operate.Person{Login: oda.Name, Source: operate.OIDCSource,
		Issuer: "https://login.example.com", Subject: "4", Groups: []string{"sales"}}); err != nil {
		t.Fatal(err)
	}
}

func made(t *testing.T, ops *operate.Operations, by operate.Actor, login, name string) operate.NewAppCredential {
	t.Helper()
	c, err := ops.AppPasswords.Add(t.Context(), by, operate.NewAppPassword{Login: login, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const odaText = "From: oda@example.com\nSubject: x\n\nhello\n"

// TestAppPasswordsOfAnOfficeWithoutAccounts: who is known to the login provider alone sends by app passwords, as the
// policy of its groups says; each ends alone and at once, open sessions and messages under way included.
func TestAppPasswordsOfAnOfficeWithoutAccounts(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	r := newRig(t, p, `[self_service]
		address = "127.0.0.1:0"
		[self_service.oidc]
		issuer = "https://login.example.com"
		client_id = "x"
		client_secret = "x"
		[[policy]]
		groups = ["sales"]
		recipients = ["*@example.net"]`)
	ops := r.operations()
	enrolled(t, ops)
	printer, program := made(t, ops, oda, oda.Name, "Canon in the hall"), made(t, ops, oda, oda.Name, "Thunderbird")
	c, err := r.loggedIn(oda.Name, printer.Password)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := sendOn(c, oda.Name, []string{"b@example.net"}, odaText); err != nil {
		t.Fatal(err)
	}
	_, err = sendOn(c, oda.Name, []string{"b@example.org"}, odaText)
	wantCode(t, "what the policy of its group denies", err, 550)
	c.Reset()
	_, err = sendOn(c, "ben@example.com", []string{"b@example.net"}, odaText)
	wantCode(t, "another sender", err, 550)
	c.Reset()
	r.eventually("the trace names the app password", func() bool {
		for _, e := range r.events(trace.Accepted) {
			if strings.Contains(e.Detail, `the app password "Canon in the hall"`) {
				return true
			}
		}
		return false
	})
	r.eventually("it is known when it was used", func() bool {
		list, err := ops.AppPasswords.List(t.Context(), oda, oda.Name)
		return err == nil && len(list) == 2 && list[0].LastUsed.IsZero() && !list[1].LastUsed.IsZero() &&
			list[1].LastFrom == "127.0.0.1"
	})

	if err := errors.Join(c.Mail(oda.Name, nil), c.Rcpt("b@example.net", nil)); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	r.adopts(func() {
		if err := ops.AppPasswords.Revoke(t.Context(), oda, oda.Name, printer.AppPassword.ID); err != nil {
			t.Fatal(err)
		}
	})
	wantCode(t, "a new login with it", r.tryLogin(oda.Name, printer.Password), 535)
	if _, err := w.Write([]byte(odaText)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil {
		t.Error("a message under way was taken")
	}
	if _, err := sendOn(c, oda.Name, []string{"b@example.net"}, odaText); err == nil {
		t.Error("its session goes on")
	}
	if err := r.tryLogin(oda.Name, program.Password); err != nil {
		t.Errorf("the other one: %v", err)
	}
	wantCode(t, "somebody else with it", r.tryLogin(rigLogin, program.Password), 535)
	if n := p.count(); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// TestOverLimitLocksAPerson: over_limit = "lock" ends all app passwords of who has no account, until somebody unlocks.
func TestOverLimitLocksAPerson(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := newRig(t, newProvider(t), `[[policy]]
		limits = ["1 messages/day"]
		over_limit = "lock"
		`+hook.block())
	ops := r.operations()
	enrolled(t, ops)
	printer := made(t, ops, oda, oda.Name, "printer")
	c, err := r.loggedIn(oda.Name, printer.Password)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		_, err = sendOn(c, oda.Name, []string{"b@example.net"}, odaText)
	}
	wantCode(t, "over the limit", err, 550)
	hook.wait(r, alert.LoginLocked, "login oda@example.com, over a limit", 1)
	wantCode(t, "locked", r.tryLogin(oda.Name, printer.Password), 535)
	root := operate.Actor{Channel: operate.CommandLine}
	if u, err := ops.Accounts.Unlock(t.Context(), root, oda.Name); err != nil || !u.Account {
		t.Errorf("%+v, %v", u, err)
	}
	r.eventually("it is unlocked", func() bool { return r.tryLogin(oda.Name, printer.Password) == nil })
	if d := hook.wait(r, alert.LoginLocked, "login oda@example.com, over a limit", 2); !d.Resolved {
		t.Errorf("%+v", d)
	}
}

// TestAppPasswordsOfAnAccount: one of the store's own logins, by the command line, ends with the account.
func TestAppPasswordsOfAnAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), "listener: mechanisms = [\"PLAIN\", \"SCRAM-SHA-256\"]")
	ops, root := r.operations(), operate.Actor{Channel: operate.CommandLine}
	program := made(t, ops, root, rigLogin, "Thunderbird")
	for _, password := range []string{program.Password, strings.ToUpper(program.Password), rigPassword} {
		if err := r.tryLogin(rigLogin, password); err != nil {
			t.Errorf("%s: %v", password, err)
		}
	}
	r.eventually("the keys of the account's own password are made", func() bool {
		with, err := r.store().WithScram(t.Context())
		return err == nil && with[rigLogin]
	})
	if _, keys, err := r.store().ScramUser(t.Context(), rigLogin); err != nil || keys.IsZero() {
		t.Error(keys.IsZero(), err)
	}
	if err := ops.Accounts.Remove(t.Context(), root, operate.Everybody, rigLogin); err != nil {
		t.Fatal(err)
	}
	r.addUser(auth.User{Login: rigLogin})
	r.eventually("it is refused", func() bool { return r.tryLogin(rigLogin, program.Password) != nil })
	if err := r.tryLogin(rigLogin, rigPassword); err != nil {
		t.Error(err)
	}
}

// TestAppUsesAreWrittenSparsely: not each login is a write; what could not be written comes again.
func TestAppUsesAreWrittenSparsely(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), "")
	ops := r.operations()
	enrolled(t, ops)
	id := made(t, ops, oda, oda.Name, "printer").AppPassword.ID
	s, now := r.store(), time.Now()
	s.Hurry()
	u := newAppUses(s)
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, step := range []struct {
		after  time.Duration
		client netip.Addr
		write  bool
	}{{0, here, true}, {time.Second, here, false}, {time.Second, there, false}, {time.Minute, there, true},
		{time.Minute, there, false}, {10 * time.Minute, there, true}} {
		now = now.Add(step.after)
		u.usedAt(now, id, step.client)
		if got := len(u.unsaved) == 1; got != step.write {
			t.Errorf("%+v: %v", step, got)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := u.save(gone); step.write && err == nil {
			t.Error("saved without a context")
		}
		if err := u.save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	list, err := ops.AppPasswords.List(t.Context(), oda, oda.Name)
	if err != nil || list[0].LastFrom != there.String() || !list[0].LastUsed.Equal(now) {
		t.Errorf("%+v, %v", list, err)
	}
}
