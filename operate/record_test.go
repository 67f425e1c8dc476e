package operate_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	"postern/operate"
	"postern/relay/backup"
	"postern/relay/dnscheck"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/queue"
	"postern/relay/store"
)

// deed is an operation that the audit keeps, done once.
type deed struct {
	do func(o *office) error
	// outside reports whether something was done that is not in the store: nil where all of it is.
	outside func(o *office) bool
}

var some = queue.Filter{IDs: []string{"M1", "M2"}}

// errNothing: it came to nothing.
var errNothing = errors.New("nothing was returned")

func action(a operate.Action) deed {
	return deed{do: func(o *office) error {
		n, err := o.Queue.Do(o.Context(), root, a, some, operate.Order{Reason: "because"})
		if err == nil && n == 0 {
			return errNothing
		}
		return err
	}}
}

// deeds are all operations that the audit keeps.
func deeds() map[string]deed {
	all := map[string]deed{}
	for _, a := range operate.Actions {
		all[a.Name] = action(a)
	}
	var seen int
	all["queue headers"] = deed{func(o *office) error {
		h, err := o.Queue.Headers(o.Context(), root, "M1")
		seen = len(h)
		return err
	}, func(*office) bool { return seen > 0 }}
	all["queue content"] = deed{func(o *office) error {
		c, err := o.Queue.Content(o.Context(), root, "M1")
		if seen = 0; c != nil {
			seen = 1
		}
		return err
	}, func(*office) bool { return seen > 0 }}
	all["doctor"] = deed{func(o *office) error {
		_, err := o.Doctor.Examine(o.Context(), root)
		return err
	}, func(o *office) bool { r, _ := o.Doctor.Last(root); return r != nil }}
	all["dns"] = deed{func(o *office) error {
		w := o.world
		_, _, err := o.Domains.Look(o.Context(), root, "example.org", operate.LookOptions{Resolver: &dnscheck.Resolver{
			Servers: []netip.AddrPort{w.Resolver}, AuthorityPort: w.Port}})
		return err
	}, func(o *office) bool { return o.world.Asked() > 0 }}
	all["alert test"] = deed{func(o *office) error {
		_, err := o.Alerts.Test(o.Context(), root, 0)
		return err
	}, func(o *office) bool { return o.posted.Load() > 0 }}
	all["dkim check"] = deed{func(o *office) error {
		_, err := o.Keys.Check(o.Context(), root, "")
		return err
	}, func(o *office) bool { return o.dns.asked.Load() > 0 }}
	accountDeeds(all)
	appPasswordDeeds(all)
	otherDeeds(all)
	all["node drain"] = deed{do: func(o *office) error {
		_, err := o.Nodes.Drain(o.Context(), root, "mail-1")
		return err
	}}
	all["node undrain"] = deed{do: func(o *office) error {
		_, err := o.Nodes.Undrain(o.Context(), root, "mail-2")
		return err
	}}
	return all
}

func accountDeeds(all map[string]deed) {
	all["user add"] = deed{do: func(o *office) error {
		c, err := o.Accounts.Add(o.Context(), root, operate.NewAccount{Login: "cleo", WithoutSender: true})
		return secretOnlyWithout(err, c.Password)
	}}
	all["user import"] = deed{do: func(o *office) error {
		done, err := o.Accounts.Import(o.Context(), root, []byte("login\ncleo\n"), operate.Import{})
		secret := ""
		for _, c := range done.Passwords {
			secret += c.Password
		}
		return secretOnlyWithout(err, secret)
	}}
	all["user set"] = deed{do: func(o *office) error {
		_, _, err := o.Accounts.Edit(o.Context(), root, operate.Everybody, "ben",
			operate.AccountEdit{Groups: operate.ListEdit{Add: []string{"g"}}})
		return err
	}}
	all["user password"] = deed{do: func(o *office) error {
		c, err := o.Accounts.Password(o.Context(), root, operate.Everybody, "ben", "")
		return secretOnlyWithout(err, c.Password)
	}}
	all["user lock"] = deed{do: func(o *office) error { return o.Accounts.Lock(o.Context(), root, "ben", "lost") }}
	all["user unlock"] = deed{do: func(o *office) error {
		_, err := o.Accounts.Unlock(o.Context(), root, "ben")
		if err == nil {
			_, err = o.Accounts.Unlock(o.Context(), root, "192.0.2.1")
		}
		return err
	}}
	all["user remove"] = deed{do: func(o *office) error {
		return o.Accounts.Remove(o.Context(), root, operate.Everybody, "ben")
	}}
}

func appPasswordDeeds(all map[string]deed) {
	all["app-password add"] = deed{do: func(o *office) error {
		c, err := o.AppPasswords.Add(o.Context(), root, operate.NewAppPassword{Login: "dora@example.com", Name: "new"})
		return secretOnlyWithout(err, c.Password)
	}}
	all["app-password revoke"] = deed{do: func(o *office) error {
		_, err := o.AppPasswords.RevokeAll(o.Context(), root, "dora@example.com")
		return err
	}}
	all["app-password enrol"] = deed{do: func(o *office) error {
		cleo := operate.Actor{Name: "cleo@example.com", Channel: operate.SelfService, Client: "192.0.2.7"}
		_, err := o.AppPasswords.Enrol(o.Context(), cleo, operate.Person{Login: cleo.Name, Source: operate.OIDCSource,
			Issuer: "https://login.example.com", Subject: "5"})
		return err
	}}
	all["app-password forget"] = deed{do: func(o *office) error {
		_, err := o.AppPasswords.Forget(o.Context(), root, "dora@example.com")
		return err
	}}
}

func otherDeeds(all map[string]deed) {
	all["device learn"] = deed{do: func(o *office) error {
		_, err := o.Devices.Learn(o.Context(), root, operate.LearnRequest{Network: "10.0.5.0/26", For: time.Hour})
		return err
	}}
	all["device accept"] = deed{do: func(o *office) error {
		done, err := o.Devices.Accept(o.Context(), root, operate.Acceptance{Address: "10.0.5.7", Name: "scanner",
			Senders: []string{"scanner@example.com"}})
		return secretOnlyWithout(err, done.Password)
	}}
	all["device forget"] = deed{do: func(o *office) error {
		_, err := o.Devices.Forget(o.Context(), root, operate.Forgetting{Address: "10.0.5.130"})
		return err
	}}
	all["cert renew"] = deed{do: func(o *office) error {
		_, _, err := o.Certificates.Renew(o.Context(), root, "")
		return err
	}}
	var records int
	all["cert dns"] = deed{func(o *office) error {
		list, err := o.Certificates.Records(o.Context(), root)
		records = len(list)
		return err
	}, func(*office) bool { return records > 0 }}
	all["dkim add"] = deed{do: func(o *office) error {
		_, err := o.Keys.Add(o.Context(), root, "example.com", "", []string{"ed25519"})
		return err
	}}
	all["dkim rotate"] = deed{do: func(o *office) error {
		_, err := o.Keys.Rotate(o.Context(), root, "example.org", nil)
		return err
	}}
	all["dkim retire"] = deed{do: func(o *office) error {
		return o.Keys.Retire(o.Context(), root, "example.org", "s1", true)
	}}
	all["dkim remove"] = deed{do: func(o *office) error {
		return o.Keys.Remove(o.Context(), root, "example.org", "s1", true)
	}}
	all["trace reindex"] = deed{do: func(o *office) error { return o.Trace.Reindex(o.Context(), root) }}
	var file string
	all["backup"] = deed{func(o *office) error {
		file = filepath.Join(o.TempDir(), "backup")
		_, err := o.Backups.Make(o.Context(), root, backup.Options{File: file})
		return err
	}, func(*office) bool {
		_, err := os.Stat(file)
		return err == nil
	}}
	all["restore"] = deed{do: func(o *office) error {
		_, err := o.Backups.Settle(o.Context(), root, operate.HoldQueue, &backup.Manifest{Made: time.Now()})
		return err
	}}
	all["trace forget"] = deed{do: func(o *office) error {
		_, err := o.Trace.Forget(o.Context(), root, "ben@example.com")
		return err
	}}
	all["console invite"] = deed{do: func(o *office) error {
		link, err := o.access.Users.Invite(o.Context(), root, "dora", operate.Admin)
		return secretOnlyWithout(err, link.URL)
	}}
	all["console reset"] = deed{do: func(o *office) error {
		link, err := o.access.Users.Reset(o.Context(), root, "anna")
		return secretOnlyWithout(err, link.URL)
	}}
	all["console role"] = deed{do: func(o *office) error {
		return o.access.Users.SetRole(o.Context(), root, "anna", operate.Admin)
	}}
	all["console disable"] = deed{do: func(o *office) error {
		return o.access.Users.Disable(o.Context(), root, "anna", true)
	}}
	all["console remove"] = deed{do: func(o *office) error { return o.access.Users.Remove(o.Context(), root, "anna") }}
	all["token add"] = deed{do: func(o *office) error {
		secret, err := o.access.Tokens.Add(o.Context(), root, access.NewToken{Name: "new", Scopes: operate.Scopes})
		return secretOnlyWithout(err, secret)
	}}
	all["token revoke"] = deed{do: func(o *office) error { return o.access.Tokens.Revoke(o.Context(), root, "old") }}
}

// errBoth: a secret was returned with an error.
var errBoth = errors.New("a secret was returned together with an error")

func secretOnlyWithout(err error, secret string) error {
	if err != nil && secret != "" {
		return errors.Join(errBoth, err)
	}
	return err
}

// TestSecretsOutliveTheTrace: what fails once a password is stored is a warning beside it. With an error it would be
// lost, and after an import all of them.
func TestSecretsOutliveTheTrace(t *testing.T) {
	o := newOffice(t)
	o.spoil("event")
	c, err := o.Accounts.Add(t.Context(), root, operate.NewAccount{Login: "dora", WithoutSender: true})
	o.kept("user add", c.Password, c.Warning, err)
	c, err = o.Accounts.Password(t.Context(), root, operate.Everybody, "ben", "")
	o.kept("user password", c.Password, c.Warning, err)
	done, err := o.Devices.Accept(t.Context(), root, operate.Acceptance{Address: "10.0.5.7", Name: "scanner",
		Senders: []string{"scanner@example.com"}})
	o.kept("device accept", done.Password, done.Warning, err)
	all, err := o.Accounts.Import(t.Context(), root, []byte("login\ncleo\n"), operate.Import{})
	if len(all.Passwords) != 1 {
		t.Fatalf("user import: %+v, %v", all, err)
	}
	o.kept("user import", all.Passwords[0].Password, all.Warning, err)
	want := "user import: done,device accept: done,user password: done,user add: done"
	if got := strings.Join(o.outcomes(), ","); got != want {
		t.Errorf("the audit has %s", got)
	}
}

// kept checks that a password came with a warning, and without an error.
func (o *office) kept(op, password, warning string, err error) {
	o.Helper()
	if err != nil || password == "" || !strings.Contains(warning, "the trace could not be written") {
		o.Errorf("%s: password %q, warning %q, error %v", op, password, warning, err)
	}
}

// leaving is the context of somebody who goes away once a login is there.
type leaving struct {
	context.Context
	o     *office
	login string
}

func (l leaving) Err() error {
	if len(l.o.behind.rows("SELECT 1 FROM user WHERE login = '"+l.login+"'")) == 0 {
		return nil
	}
	return context.Canceled
}

// TestAcceptIsWholeOrNotAtAll: where only half of it was done when its client went away, nothing is left of it.
func TestAcceptIsWholeOrNotAtAll(t *testing.T) {
	o := newOffice(t)
	done, err := o.Devices.Accept(leaving{t.Context(), o, "scanner"}, root, operate.Acceptance{Address: "10.0.5.7",
		Name: "scanner", Senders: []string{"scanner@example.com"}})
	if !errors.Is(err, context.Canceled) || done.Password != "" {
		t.Errorf("%+v, %v", done, err)
	}
	if users, err := o.store.Users(t.Context()); err != nil || len(users) != 1 {
		t.Errorf("%+v, %v", users, err)
	}
}

// forEach runs check for each operation that the audit keeps, on an office of its own.
func forEach(t *testing.T, check func(o *office, op operate.Operation, d deed)) {
	all := deeds()
	for _, op := range operate.All {
		d, ok := all[op.Name]
		if !op.Audit {
			continue
		}
		if !ok {
			t.Errorf("%s is kept in the audit, and not tried here", op.Name)
			continue
		}
		t.Run(op.Name, func(t *testing.T) {
			open := newOffice
			if op == operate.DrainNode || op == operate.UndrainNode {
				open = newOfficeOfNodes
			}
			o := open(t)
			if op.Name == operate.LookAtDomain.Name {
				o.world = dnstest.Start(t, dnstest.Zone("example.org"))
			}
			check(o, op, d)
		})
	}
}

// TestEachDeedIsRecorded: without disturbance each does something, and the audit says that it is done.
func TestEachDeedIsRecorded(t *testing.T) {
	forEach(t, func(o *office, op operate.Operation, d deed) {
		before := o.state()
		o.must(d.do(o))
		if d.outside == nil && o.state() == before || d.outside != nil && !d.outside(o) {
			o.Error("nothing was done, so that the other tests prove nothing")
		}
		if got := o.outcomes(); len(got) == 0 || strings.Join(slices.Compact(got), ",") != op.Name+": done" {
			o.Errorf("the audit has %q", got)
		}
	})
}

// TestNothingIsDoneWithoutItsRecord: where the audit cannot be written, nothing is changed, sent, asked or shown.
func TestNothingIsDoneWithoutItsRecord(t *testing.T) {
	forEach(t, func(o *office, _ operate.Operation, d deed) {
		o.spoil("audit")
		before := o.state()
		if err := d.do(o); err == nil || errors.Is(err, errBoth) {
			o.Errorf("the error is %v", err)
		}
		if after := o.state(); after != before {
			o.Errorf("it was changed:\n%s\nwas\n%s", after, before)
		}
		if d.outside != nil && d.outside(o) {
			o.Error("it was done outside of the store")
		}
	})
}

// TestFailedChangesAreNotDone: where the change fails, the audit does not say that it is done.
func TestFailedChangesAreNotDone(t *testing.T) {
	forEach(t, func(o *office, op operate.Operation, d deed) {
		if d.outside != nil {
			return // the store has no change that could fail
		}
		o.spoil(o.tables()...)
		before := o.state()
		if err := d.do(o); err == nil || errors.Is(err, errBoth) || o.state() != before {
			o.Errorf("the error is %v", err)
		}
		got := o.outcomes()
		if len(got) != 1 || !strings.HasPrefix(got[0], op.Name+": ") || strings.HasSuffix(got[0], ": done") ||
			strings.HasSuffix(got[0], ": begun") {
			o.Errorf("the audit has %q", got)
		}
	})
}

// TestStagedIsBegunFirst: while it runs, and so after a crash, the audit says that it was begun.
func TestStagedIsBegunFirst(t *testing.T) {
	o := newOffice(t)
	ledger := operate.NewLedger(o.store, time.Now)
	op := operate.DeleteMessages
	err := ledger.Do(t.Context(), root, op, "x", func(ctx context.Context, detail *string) error {
		if got := o.outcomes(); len(got) != 1 || got[0] != op.Name+": "+store.AuditBegun {
			t.Errorf("while it runs the audit has %q", got)
		}
		*detail = "2 messages"
		_, err := o.store.Delete(ctx, some)
		return err
	})
	entries, auditErr := o.store.Audit(t.Context(), store.AuditQuery{})
	if err != nil || auditErr != nil || len(entries) != 1 || entries[0].Detail != "2 messages" ||
		entries[0].Outcome != store.AuditDone {
		t.Errorf("%+v, %v, %v", entries, err, auditErr)
	}
}
