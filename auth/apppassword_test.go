package auth

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// apps is an AppStore in memory.
type apps struct {
	mu      sync.Mutex // guards all below
	persons map[string]Person
	list    []AppPassword
	err     error
	during  func() // called when one was read
}

func (s *apps) find(is func(AppPassword) bool) (Person, AppPassword, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Person{}, AppPassword{}, s.err
	}
	for _, k := range s.list {
		if is(k) {
			if s.during != nil {
				s.during()
			}
			return s.persons[k.Login], k, nil
		}
	}
	return Person{}, AppPassword{}, ErrUnknownLogin
}

func (s *apps) AppPassword(_ context.Context, hash Secret) (Person, AppPassword, error) {
	return s.find(func(k AppPassword) bool { return k.Hash == hash })
}

func (s *apps) AppPasswordOf(_ context.Context, id string) (Person, AppPassword, error) {
	return s.find(func(k AppPassword) bool { return k.ID == id })
}

func (s *apps) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *apps) revoke(id string) {
	s.set(func() {
		for i, k := range s.list {
			if k.ID == id {
				s.list = append(s.list[:i:i], s.list[i+1:]...)
				return
			}
		}
	})
}

// addApps gives a rig app passwords: of the store's anna, office and locked, of bert and lost in the directory, and of
// oda, who comes by OpenID Connect. Each password is "app-" and the login.
func addApps(r *rig) *apps {
	s := &apps{persons: map[string]Person{}}
	for _, p := range []Person{
		{Login: "anna", Source: "store"}, {Login: "office", Source: "store"}, {Login: "locked", Source: "store"},
		{Login: "gone", Source: "store"}, {Login: "bert", Source: "office"}, {Login: "lost", Source: "office"},
		{Login: "oda", Source: "oidc", Subject: "1", Groups: []string{"sales"}, Senders: []string{"oda@example.com"}},
	} {
		s.persons[p.Login] = p
		s.list = append(s.list, AppPassword{ID: "id-" + p.Login, Login: p.Login, Name: "printer of " + p.Login,
			Hash: HashGenerated(testPepper, "app-"+p.Login), Created: time.Now().Add(-time.Hour),
			Expires: time.Now().Add(365 * 24 * time.Hour)})
	}
	r.apps, r.pepper, r.Authenticator.locks = s, testPepper, &lockKeeper{locks: map[string]string{}}
	return s
}

func (s *apps) edit(login string, change func(*AppPassword)) {
	s.set(func() {
		for i := range s.list {
			if s.list[i].Login == login {
				change(&s.list[i])
			}
		}
	})
}

// TestAppPasswords: who gets in with one, and as whom.
func TestAppPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := newRemoteRig(t, 0)
		s := addApps(r)
		used := ""
		r.onApp = func(id string, client netip.Addr) { used += fmt.Sprintln(id, client) }
		r.onRight = func(id Identity, _ string) { t.Errorf("SCRAM keys would be made for %+v", id) }
		for i, c := range []struct {
			login, password, groups, senders string
			why                              error
		}{
			{"anna", "app-anna", "[]", "[anna@example.com]", nil},
			{"ANNA", "APP ANNA", "[]", "[anna@example.com]", nil},
			{"bert", "app-bert", "[staff]", "[]", nil},
			{"oda", "app-oda", "[sales]", "[oda@example.com]", nil},
			{"anna", "app-oda", "", "", ErrWrongPassword},
			{"oda", "app-anna", "", "", ErrUnknownLogin},
			{"locked", "app-locked", "", "", ErrLocked},
			{"lost", "app-lost", "", "", ErrLocked},
			{"gone", "app-gone", "", "", ErrUnknownLogin},
			{"nobody", "app-anna", "", "", ErrUnknownLogin},
		} {
			for range 2 { // from the cache too
				id, err := r.Authenticate(t.Context(), c.login, c.password, from(i))
				if c.why != nil {
					wantRefusal(t, err, 535, c.why)
					continue
				}
				wantOK(t, err)
				login := strings.ToLower(c.login)
				if id.Login != login || id.App != "id-"+login || id.AppName != "printer of "+login ||
					id.Source != AppSource || fmt.Sprint(id.Groups) != c.groups || fmt.Sprint(id.Senders) != c.senders {
					t.Errorf("%+v", id)
				}
			}
		}
		if n := strings.Count(used, "id-anna 203.0.0."); n != 4 {
			t.Errorf("%d uses in\n%s", n, used)
		}
		r.onRight = nil
		wantOK(t, r.try("anna", "right", here)) // the one of the account goes on
		s.set(func() { s.err = errRefused })
		wantRefusal(t, r.try("anna", "another", here), 454, errRefused)
	})
}

// TestAppPasswordEnds: revoked, expired, locked, and when the login has become somebody else's.
func TestAppPasswordEnds(t *testing.T) {
	for name, c := range map[string]struct {
		login string
		end   func(r *rig, dir *remote, s *apps)
		why   error // of the next login, and of an open session
	}{
		"revoked":               {"oda", func(r *rig, _ *remote, s *apps) { s.revoke("id-oda") }, ErrUnknownLogin},
		"revoked, of the store": {"anna", func(r *rig, _ *remote, s *apps) { s.revoke("id-anna") }, nil},
		"the person is locked":  {"oda", func(r *rig, _ *remote, _ *apps) { r.lockLogin("oda") }, ErrLocked},
		"the account is locked": {"anna", func(r *rig, _ *remote, _ *apps) { r.lockUser("anna") }, ErrLocked},
		"the account is gone": {"anna", func(r *rig, _ *remote, _ *apps) { delete(r.users.m, "anna") },
			ErrUnknownLogin},
		"it left the directory": {"bert", func(_ *rig, d *remote, _ *apps) { delete(d.know, "bert") },
			ErrUnknownLogin},
		"it is locked there":      {"bert", func(_ *rig, d *remote, _ *apps) { d.lock["bert"] = true }, ErrLocked},
		"an account took it":      {"oda", func(r *rig, _ *remote, _ *apps) { r.addUser("oda") }, nil},
		"the store took it":       {"bert", func(r *rig, _ *remote, _ *apps) { r.addUser("bert") }, nil},
		"its source left":         {"bert", func(r *rig, _ *remote, _ *apps) { r.onlyStore() }, ErrUnknownLogin},
		"it is of another source": {"anna", func(_ *rig, _ *remote, s *apps) { s.move("anna", "office") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, dir, _ := newRemoteRig(t, time.Hour)
				s := addApps(r)
				began := time.Now()
				id, err := r.Authenticate(t.Context(), c.login, "app-"+c.login, here)
				wantOK(t, err)
				c.end(r, dir, s)
				r.Forget()
				wantRefusal(t, r.try(c.login, "app-"+c.login, here), 535, c.why)
				if _, err := r.Renew(t.Context(), id, began); err == nil {
					t.Error("its session goes on")
				}
			})
		})
	}
}

func (r *rig) addUser(login string) { r.users.put(User{Login: login, Hash: fakeChosen("other")}) }

func (r *rig) lockUser(login string) {
	r.users.put(User{Login: login, Hash: fakeChosen("right"), Locked: true})
}

func (r *rig) lockLogin(login string) { r.Authenticator.locks.(*lockKeeper).set(login, true) }

func (r *rig) onlyStore() {
	r.SetSources([]Source{&storeSource{users: r.users, pepper: testPepper, argon: r.argon}})
}

func (s *apps) move(login, source string) {
	s.set(func() {
		p := s.persons[login]
		p.Source = source
		s.persons[login] = p
	})
}

// TestAppPasswordExpires: at its hour, from the cache too, and sessions with it.
func TestAppPasswordExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := newRemoteRig(t, 0)
		began := time.Now()
		addApps(r).edit("oda", func(k *AppPassword) { k.Expires = began.Add(time.Minute) })
		id, err := r.Authenticate(t.Context(), "oda", "app-oda", here)
		wantOK(t, err)
		time.Sleep(time.Minute - 1)
		wantOK(t, r.try("oda", "app-oda", here))
		if _, err := r.Renew(t.Context(), id, began); err != nil {
			t.Error(err)
		}
		time.Sleep(1 * time.Nanosecond)
		err = r.try("oda", "app-oda", here)
		wantRefusal(t, err, 535, ErrUnknownLogin)
		if !strings.Contains(err.Error(), `the app password "printer of oda", which expired`) {
			t.Errorf("the log does not say why: %v", err)
		}
		if _, err := r.Renew(t.Context(), id, began); err == nil {
			t.Error("its session goes on")
		}
	})
}

// TestAppPasswordNetworks: those of the password and those of the account both count.
func TestAppPasswordNetworks(t *testing.T) {
	for _, c := range []struct {
		login, networks, client string
		ok                      bool
	}{
		{"oda", "192.0.2.0/24", "192.0.2.9", true}, {"oda", "192.0.2.0/24", "198.51.100.1", false},
		{"office", "", "192.0.2.9", true}, {"office", "", "198.51.100.1", false},
		{"office", "192.0.2.128/25", "192.0.2.200", true}, {"office", "192.0.2.128/25", "192.0.2.9", false},
		{"office", "192.0.0.0/16", "192.0.2.9", true}, {"office", "192.0.0.0/16", "192.0.3.9", false},
		{"office", "198.51.100.0/24", "198.51.100.1", false}, {"office", "198.51.100.0/24", "192.0.2.9", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, _, _ := newRemoteRig(t, 0)
			addApps(r).edit(c.login, func(k *AppPassword) {
				if c.networks != "" {
					k.Networks = prefixes(c.networks)
				}
			})
			for range 2 {
				if err := r.try(c.login, "app-"+c.login, netip.MustParseAddr(c.client)); (err == nil) != c.ok {
					t.Errorf("%+v: %v", c, err)
				}
			}
		})
	}
}

// TestAppPasswordsPassLocks: strangers who lock a login do not keep its app passwords out.
func TestAppPasswordsPassLocks(t *testing.T) {
	r := newRig(t, Options{Lockout: threeStrikes})
	addApps(r)
	for i := range 3 {
		guess(t, r, "anna", 1, from(i))
	}
	wantRefusal(t, r.try("anna", "right", there), 535, ErrLockedOut)
	wantOK(t, r.try("anna", "app-anna", there))
}

// TestAppPasswordsOfADirectoryThatIsDown: 454, or as long as stale_ok says who was verified; one that was revoked
// never.
func TestAppPasswordsOfADirectoryThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, time.Hour)
		s := addApps(r)
		began := time.Now()
		id, err := r.Authenticate(t.Context(), "bert", "app-bert", here)
		wantOK(t, err)
		dir.set(func() { dir.err = errRefused })
		r.Forget()
		time.Sleep(50 * time.Minute)
		wantOK(t, r.try("bert", "app-bert", here))
		if _, err := r.Renew(t.Context(), id, began); err != nil {
			t.Error(err)
		}
		wantOK(t, r.try("oda", "app-oda", here)) // nobody has to be asked
		s.revoke("id-bert")
		r.Forget()
		wantRefusal(t, r.try("bert", "app-bert", here), 454, errRefused)
		if _, err := r.Renew(t.Context(), id, began); err == nil {
			t.Error("its session goes on")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		addApps(r)
		dir.set(func() { dir.err = errRefused })
		wantRefusal(t, r.try("bert", "app-bert", here), 454, errRefused)
		if len(r.locks) != 0 {
			t.Errorf("locked out: %v", r.locks)
		}
	})
}

// TestRevokedAppPasswordIsNotRemembered: one that is revoked while it is being verified is not in the cache afterwards.
func TestRevokedAppPasswordIsNotRemembered(t *testing.T) {
	r := newRig(t, Options{})
	s := addApps(r)
	s.during = func() { // the mutex is held: what was read is of before
		s.during = nil
		s.list = nil
		r.Forget()
	}
	wantOK(t, r.try("oda", "app-oda", here))
	wantRefusal(t, r.try("oda", "app-oda", here), 535, ErrUnknownLogin)
}

// TestRevokeAgainstLogins: with hundreds of parallel logins, none that begins after the revocation is known gets in.
func TestRevokeAgainstLogins(t *testing.T) {
	r := newRig(t, Options{})
	s := addApps(r)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.try("anna", "app-anna", here)
				}
			}
		})
	}
	for range 200 {
		wantOK(t, r.try("anna", "app-anna", here))
		var kept AppPassword
		s.set(func() { kept = s.list[0] })
		s.revoke(kept.ID)
		r.Forget()
		if err := r.try("anna", "app-anna", here); err == nil {
			t.Fatal("revoked, and still good")
		}
		s.set(func() { s.list = append([]AppPassword{kept}, s.list...) })
		r.Forget()
	}
	close(stop)
	wg.Wait()
}

// TestAppPasswordsAreOfOneLogin: whatever logins and passwords there are, one opens its own login and no other.
func TestAppPasswordsAreOfOneLogin(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	r := newRig(t, Options{Sources: []Source{}})
	s := &apps{persons: map[string]Person{}}
	r.apps, r.pepper, r.Authenticator.locks = s, testPepper, &lockKeeper{locks: map[string]string{}}
	owner := map[string]string{}
	var logins []string
	for i := range 30 {
		login := fmt.Sprintf("p%d@example.com", i)
		logins = append(logins, login, strings.ToUpper(login), login+".", "x"+login)
		s.persons[login] = Person{Login: login, Source: "oidc", Subject: login}
		for n := range random.IntN(4) {
			password := GenerateDevicePassword()
			owner[password] = login
			s.list = append(s.list, AppPassword{ID: fmt.Sprint(i, ".", n), Login: login,
				Hash: HashGenerated(testPepper, password), Expires: time.Now().Add(time.Hour)})
		}
	}
	for password, whose := range owner {
		for _, login := range logins {
			id, err := r.Authenticate(t.Context(), login, password, from(random.IntN(1<<16)))
			if want := strings.ToLower(login) == whose; (err == nil) != want || err == nil && id.Login != whose {
				t.Errorf("%s with one of %s: %v, %v", login, whose, id, err)
			}
		}
	}
}
