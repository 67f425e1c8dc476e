package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var errNoDatabase = errors.New("the database is away")

// outageRig is a rig whose store can go away.
type outageRig struct {
	*rig
	gone error
}

func newOutageRig(t *testing.T, o Options) *outageRig {
	t.Helper()
	r := &outageRig{}
	o.StoreAway = func() error { return r.gone }
	r.rig = newRig(t, o)
	return r
}

func (r *outageRig) leave()  { r.gone = errNoDatabase; r.users.fail(errNoDatabase) }
func (r *outageRig) comeIn() { r.gone = nil; r.users.fail(nil) }

// While the store is away, whose password was right lately gets in, and nobody else does, but for a while only.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOutageRig(t, Options{})
		wantOK(t, r.try("anna", "right", here))
		wantOK(t, r.try("printer", "k3m9p-right", here))
		wantOK(t, r.try("office", "right", here))
		time.Sleep(time.Hour) // no verified credential is fresh
		r.leave()
		wantOK(t, r.try("Anna", "right", there))
		wantOK(t, r.try("printer", "k3m9p-right", here))
		wantRefusal(t, r.try("anna", "wrong", here), 454, errNoDatabase)
		wantRefusal(t, r.try("bea", "right", here), 454, errNoDatabase)
		wantRefusal(t, r.try("office", "right", there), 454, errNoDatabase) // not in its networks: nobody learns that
		if n := r.Stats().Stale; n != 2 {
			t.Errorf("%d let in by what was verified before", n)
		}
		time.Sleep(outageTrust - time.Hour)
		wantRefusal(t, r.try("anna", "right", here), 454, errNoDatabase)
		r.comeIn()
		wantOK(t, r.try("anna", "right", here))
		wantRefusal(t, r.try("anna", "wrong again", here), 535, ErrWrongPassword)
	})
}

// Without the option, or while the store is not known to be away, its failure is a temporary refusal for all.
func TestNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, away := range []func() error{nil, func() error { return nil }} {
			r := newRig(t, Options{StoreAway: away})
			wantOK(t, r.try("anna", "right", here))
			time.Sleep(time.Hour)
			r.users.fail(errNoDatabase)
			wantRefusal(t, r.try("anna", "right", here), 454, errNoDatabase)
			if _, err := r.Lookup(t.Context(), "anna"); !errors.Is(err, errNoDatabase) {
				t.Errorf("Lookup: %v", err)
			}
		}
	})
}

// What is known to have changed before the store went away lets nobody in, nor does what cannot be known.
func TestOutageAfterChange(t *testing.T) {
	for name, change := range map[string]func(*outageRig){
		"named":   func(r *outageRig) { r.Forget("anna") },
		"unread":  func(r *outageRig) { r.Forget(); r.Doubt() },
		"changed": func(r *outageRig) { r.users.put(User{Login: "anna", Hash: fakeChosen("new")}); r.Forget("anna") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newOutageRig(t, Options{})
			wantOK(t, r.try("anna", "right", here))
			change(r)
			r.leave()
			wantRefusal(t, r.try("anna", "right", here), 454, errNoDatabase)
			_, err := r.Lookup(t.Context(), "anna")
			wantRefusal(t, err, 451, errNoDatabase)
		})
	}
	r := newOutageRig(t, Options{})
	wantOK(t, r.try("anna", "right", here))
	r.Forget() // others have changed
	r.DoubtApps()
	r.leave()
	wantOK(t, r.try("anna", "right", here))
}

// Guesses count as ever while the store is away, as far as one could hit.
func TestOutageLockout(t *testing.T) {
	r := newOutageRig(t, Options{Lockout: Lockout{Failures: 3, Window: time.Hour, Duration: time.Hour}})
	wantOK(t, r.try("anna", "right", here))
	r.leave()
	for i := range 10 { // nobody is known by this name: the password may be right
		wantRefusal(t, r.try("bea", fmt.Sprint("perhaps ", i), there), 454, errNoDatabase)
	}
	for i := range 3 {
		wantRefusal(t, r.try("anna", fmt.Sprint("guess ", i), there), 454, errNoDatabase)
	}
	wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
	wantOK(t, r.try("anna", "right", here))
	if len(r.locks) != 1 {
		t.Errorf("locks: %+v", r.locks)
	}
}

// Sessions and listeners without login go on with who was known lately.
func TestOutageLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOutageRig(t, Options{})
		began := time.Now()
		id, err := r.Authenticate(t.Context(), "anna", "right", here)
		wantOK(t, err)
		if _, err := r.Lookup(t.Context(), "printer"); err != nil {
			t.Fatal(err)
		}
		r.leave()
		for name, look := range map[string]func() (Identity, error){
			"anna":    func() (Identity, error) { return r.Renew(t.Context(), id, began) },
			"printer": func() (Identity, error) { return r.Lookup(t.Context(), "printer") },
		} {
			if got, err := look(); err != nil || got.Login != name {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
		_, err = r.Lookup(t.Context(), "office")
		wantRefusal(t, err, 451, errNoDatabase)
		time.Sleep(outageTrust)
		_, err = r.Renew(t.Context(), id, began)
		wantRefusal(t, err, 451, errNoDatabase)
	})
}

// A source elsewhere still decides about its people, whatever the store said of them.
func TestOutageAsksOtherSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		directory := &remote{name: "directory", know: map[string]string{"carl": "right", "dora": "right"},
			lock: map[string]bool{}}
		u := &users{m: map[string]User{}}
		r := newOutageRig(t, Options{Locks: noLocks{}, Sources: []Source{&storeSource{users: u, pepper: testPepper,
			argon: fakeArgon}, directory}})
		r.users = u
		for _, login := range []string{"carl", "dora"} {
			wantOK(t, r.try(login, "right", here))
			if _, err := r.Lookup(t.Context(), login); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		r.leave()
		wantOK(t, r.try("carl", "right", here))
		directory.set(func() { directory.nets = []netip.Prefix{netip.PrefixFrom(there, 32)} })
		wantRefusal(t, r.try("carl", "right", here), 454, errNoDatabase) // the directory says where from, now
		wantOK(t, r.try("carl", "right", there))
		directory.set(func() { directory.nets = nil })
		directory.set(func() { directory.know["carl"], directory.lock["dora"] = "new", true })
		wantRefusal(t, r.try("carl", "right", here), 535, ErrWrongPassword)
		wantRefusal(t, r.try("dora", "right", here), 535, ErrLocked)
		_, err := r.Lookup(t.Context(), "dora")
		wantRefusal(t, err, 550, ErrLocked)
		wantRefusal(t, r.try("carl", "new", here), 454, errNoDatabase) // it was never verified
		directory.set(func() { directory.know["carl"], directory.err = "right", errors.New("down, too") })
		wantRefusal(t, r.try("dora", "right", here), 454, nil)
	})
}

type noLocks struct{}

func (noLocks) LoginLock(context.Context, ...string) (LoginLock, error) {
	return LoginLock{}, ErrUnknownLogin
}

// App passwords count like others, unless one was made or revoked since, or has expired.
func TestOutageAppPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, directory, _ := newRemoteRig(t, 0)
		s, away := addApps(r), error(nil)
		r.storeAway = func() error { return away }
		began, sessions := time.Now(), map[string]Identity{}
		all := []string{"anna", "bert", "oda"}
		for _, login := range all {
			id, err := r.Authenticate(t.Context(), login, "app-"+login, here)
			wantOK(t, err)
			sessions[login] = id
		}
		time.Sleep(time.Hour)
		away = errNoDatabase
		s.set(func() { s.err = errNoDatabase })
		r.users.fail(errNoDatabase)
		for _, login := range all {
			wantOK(t, r.try(login, "app-"+login, here))
			if got, err := r.Renew(t.Context(), sessions[login], began); err != nil || got.App != "id-"+login {
				t.Errorf("the session of %s: %+v, %v", login, got, err)
			}
		}
		directory.set(func() { directory.lock["bert"] = true })
		wantRefusal(t, r.try("bert", "app-bert", here), 535, ErrLocked)
		r.DoubtApps()
		wantRefusal(t, r.try("anna", "app-anna", here), 454, errNoDatabase)
		_, err := r.Renew(t.Context(), sessions["anna"], began)
		wantRefusal(t, err, 451, errNoDatabase)
	})
}
