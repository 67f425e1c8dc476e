package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
)

// remote is a Remote in memory.
type remote struct {
	mu    sync.Mutex // guards all below
	name  string
	know  map[string]string // login to password
	lock  map[string]bool
	nets  []netip.Prefix // that logins may come from; nil: any
	err   error
	slow  time.Duration
	stale time.Duration
	asked int
}

func (r *remote) Name() string           { return r.name }
func (r *remote) StaleOK() time.Duration { return r.stale }
func (r *remote) Probe(ctx context.Context) error {
	_, err := r.ask(ctx)
	return err
}

func (r *remote) ask(ctx context.Context) (map[string]string, error) {
	r.mu.Lock()
	r.asked++
	know, err, slow := r.know, r.err, r.slow
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(slow):
	}
	return know, err
}

func (r *remote) Verify(ctx context.Context, login, password string) (Identity, error) {
	know, err := r.ask(ctx)
	if err != nil {
		return Identity{}, err
	}
	want, known := know[login]
	switch {
	case !known:
		return Identity{}, ErrUnknownLogin
	case r.lock[login]:
		return Identity{}, ErrLocked
	case want != password:
		return Identity{}, ErrWrongPassword
	}
	return Identity{Login: login + "@example.com", Groups: []string{"staff"}, Networks: r.nets}, nil
}

func (r *remote) Lookup(ctx context.Context, login string) (Identity, error) {
	know, err := r.ask(ctx)
	if err != nil {
		return Identity{}, err
	}
	if _, known := know[login]; !known {
		return Identity{}, ErrUnknownLogin
	}
	if r.lock[login] {
		return Identity{}, ErrLocked
	}
	return Identity{Groups: []string{"staff"}}, nil
}

func (r *remote) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

var errRefused = errors.New("connection refused")

// newRemoteRig has the store first and a directory behind it.
func newRemoteRig(t testing.TB, stale time.Duration) (*rig, *remote, *[]string) {
	t.Helper()
	dir := &remote{name: "office", know: map[string]string{"bert": "right", "lost": "right"},
		lock: map[string]bool{"lost": true}, stale: stale}
	r := newRig(t, Options{Lockout: threeStrikes})
	store := &storeSource{users: r.users, pepper: testPepper, argon: r.argon}
	r.SetSources([]Source{store, dir})
	told := &[]string{}
	r.Authenticator.onSource = func(name string, err error) { *told = append(*told, fmt.Sprint(name, ": ", err)) }
	return r, dir, told
}

// TestSourceThatIsDown: 454, told once, no lockout, nobody waits for it in vain, and the store goes on.
func TestSourceThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, told := newRemoteRig(t, 0)
		dir.set(func() { dir.err = errRefused })
		for i := range 20 {
			wantRefusal(t, r.try("bert", fmt.Sprint("guess", i), there), 454, errRefused)
		}
		if dir.asked != 1 {
			t.Errorf("asked %d times in a moment", dir.asked)
		}
		wantRefusal(t, r.try("anna", "wrong", here), 535, ErrWrongPassword)
		wantOK(t, r.try("anna", "right", here))
		wantOK(t, r.try("printer", "k3m9p-right", here))
		if len(r.locks) != 0 {
			t.Errorf("lockouts for an outage: %v", r.locks)
		}
		if want := []string{"office: connection refused"}; !slices.Equal(*told, want) {
			t.Errorf("told %q", *told)
		}
		dir.set(func() { dir.err = nil })
		time.Sleep(downMost)
		r.ProbeDown(t.Context())
		if want := []string{"office: connection refused", "office: <nil>"}; !slices.Equal(*told, want) {
			t.Errorf("told %q", *told)
		}
		wantOK(t, r.try("bert", "right", there))
	})
}

// TestWaitsGrow: a source that stays down is asked at growing distances.
func TestWaitsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, told := newRemoteRig(t, 0)
		dir.set(func() { dir.err = errRefused })
		for range 3600 {
			r.try("bert", "right", there)
			r.ProbeDown(t.Context())
			time.Sleep(time.Second)
		}
		if dir.asked < 110 || dir.asked > 140 { // 1, 2, 4, 8, 16, then each 30 s
			t.Errorf("asked %d times in an hour", dir.asked)
		}
		if len(*told) != 1 {
			t.Errorf("told %d times", len(*told))
		}
		states := r.SourceStates()
		if len(states) != 1 || states[0].Name != "office" || states[0].Err == nil || states[0].Since.IsZero() ||
			time.Since(states[0].Since) < 50*time.Minute {
			t.Errorf("%+v", states)
		}
	})
}

// TestFailingTogether: many logins that fail at once are one failure; the next is asked after the first wait.
func TestFailingTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		dir.set(func() { dir.err, dir.slow = errRefused, time.Second })
		var wait sync.WaitGroup
		for i := range 30 {
			wait.Go(func() { r.try("bert", fmt.Sprint("guess", i), from(i)) })
		}
		wait.Wait()
		dir.set(func() { dir.err, dir.slow = nil, 0 })
		time.Sleep(downFirst)
		wantOK(t, r.try("bert", "right", there))
	})
}

// TestStale: who was verified before gets in for a while although the source is down; others do not.
func TestStale(t *testing.T) {
	const most = 4 * time.Hour
	for name, c := range map[string]struct {
		after func(r *rig, dir *remote) // bert was verified, and before the source goes down
		age   time.Duration
		let   bool
	}{
		"soon":                          {nil, time.Hour, true},
		"at the end":                    {nil, most - time.Second, true},
		"too late":                      {nil, most, false},
		"not allowed":                   {func(_ *rig, dir *remote) { dir.stale = 0 }, time.Hour, false},
		"accounts of the store changed": {func(r *rig, _ *remote) { r.Forget() }, time.Hour, true},
		"a person forgot it":            {func(r *rig, _ *remote) { r.Forget("bert") }, time.Hour, false},
		"locked since": {func(r *rig, dir *remote) {
			dir.lock["bert"] = true
			r.Forget()
			r.try("bert", "right", there)
		}, time.Hour, false},
		"gone since": {func(r *rig, dir *remote) {
			delete(dir.know, "bert")
			r.Forget()
			r.try("bert", "right", there)
		}, time.Hour, false},
		"another password since": {func(r *rig, dir *remote) {
			dir.know["bert"] = "newer"
			r.Forget()
			r.try("bert", "right", there)
		}, time.Hour, false},
		"in the store since": {func(r *rig, _ *remote) {
			r.users.put(User{Login: "bert", Hash: fakeChosen("other")})
			r.Forget()
		}, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, dir, _ := newRemoteRig(t, most)
				wantOK(t, r.try("bert", "right", there))
				began := time.Now()
				if c.after != nil {
					c.after(r, dir)
				}
				dir.set(func() { dir.err = errRefused })
				time.Sleep(c.age - time.Since(began))
				err := r.try("bert", "right", there)
				if c.let {
					wantOK(t, err)
				} else if err == nil {
					t.Error("let in")
				}
				if r.Stats().Stale != map[bool]uint64{true: 1}[c.let] {
					t.Errorf("stale: %d", r.Stats().Stale)
				}
				if err := r.try("bert", "wrong", there); err == nil {
					t.Error("a wrong password is let in")
				}
			})
		})
	}
}

// TestRefusalsLeaveOnAGrid: where sources take different times to refuse, refusals leave at the same ones.
func TestRefusalsLeaveOnAGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		dir.slow = 37 * time.Millisecond
		seen := map[string]bool{}
		for _, login := range []string{"anna", "locked", "bert", "lost", "nobody", "printer", "lockedprinter"} {
			for _, password := range []string{"wrong", "again"} {
				began, hashes := time.Now(), r.hashes.Load()
				reply, _ := mail.ReplyFor(r.try(login, password, from(len(seen)+int(hashes))))
				seen[fmt.Sprint(reply, time.Since(began), r.hashes.Load()-hashes)] = true
			}
		}
		if len(seen) != 1 {
			t.Errorf("an outsider sees %v", seen)
		}
		began := time.Now()
		wantOK(t, r.try("bert", "right", there))
		if took := time.Since(began); took != dir.slow {
			t.Errorf("a right password took %s", took)
		}
	})
}

// TestUndecided: trouble with one login is temporary, and no outage.
func TestUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, told := newRemoteRig(t, time.Hour)
		wantOK(t, r.try("bert", "right", there))
		r.Forget()
		dir.set(func() { dir.err = fmt.Errorf("%w: too many groups", ErrUndecided) })
		for range 5 {
			wantRefusal(t, r.try("bert", "right", there), 454, ErrUndecided)
		}
		if dir.asked != 6 || len(*told) != 0 || len(r.locks) != 0 {
			t.Errorf("asked %d, told %q, locks %v", dir.asked, *told, r.locks)
		}
	})
}

// TestSlowSourceHoldsUpNobodyElse: all wait for the directory, and passwords of the store are verified all the same.
func TestSlowSourceHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, 0)
		dir.slow = 10 * time.Second
		var wait sync.WaitGroup
		for i := range 8 {
			wait.Go(func() { r.try("bert", fmt.Sprint("guess", i), from(i)) })
		}
		time.Sleep(time.Second)
		began := time.Now()
		wantOK(t, r.try("anna", "right", here))
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		wait.Wait()
	})
}

// TestRenew: a session goes on while its source says so, and a bounded time if it cannot.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir, _ := newRemoteRig(t, time.Hour)
		id, err := r.Authenticate(t.Context(), "bert", "right", there)
		wantOK(t, err)
		if id.Login != "bert@example.com" || id.Source != "office" || id.Recheck != remoteRecheck {
			t.Fatalf("%+v", id)
		}
		since := time.Now()
		renew := func() error { _, err := r.Renew(t.Context(), id, since); return err }
		wantOK(t, renew())
		dir.set(func() { dir.err = errRefused })
		wantOK(t, renew())
		time.Sleep(time.Hour)
		wantRefusal(t, renew(), 451, errRefused)
		dir.set(func() { dir.err = nil })
		time.Sleep(downMost)
		dir.set(func() { dir.lock["bert"] = true })
		wantRefusal(t, renew(), 550, ErrLocked)
		dir.set(func() { delete(dir.know, "bert") })
		wantRefusal(t, renew(), 451, ErrUnknownLogin)
		r.SetSources([]Source{&storeSource{users: r.users, pepper: testPepper, argon: r.argon}})
		wantRefusal(t, renew(), 421, ErrUnknownLogin)

		anna, err := r.Authenticate(t.Context(), "anna", "right", here)
		wantOK(t, err)
		if anna.Source != "store" || anna.Recheck != 0 {
			t.Errorf("%+v", anna)
		}
	})
}

// TestParallelLoginsThroughAnOutage runs logins, outages, reloads and changes at once; for the race detector.
func TestParallelLoginsThroughAnOutage(t *testing.T) {
	r, dir, told := newRemoteRig(t, time.Hour)
	var mu sync.Mutex // guards told
	r.Authenticator.onSource = func(string, error) { mu.Lock(); *told = append(*told, "x"); mu.Unlock() }
	wantOK(t, r.try("bert", "right", there))
	store := &storeSource{users: r.users, pepper: testPepper, argon: r.argon}
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			switch {
			case i%20 == 0:
				dir.set(func() { dir.err = map[bool]error{true: errRefused}[i%40 == 0] })
			case i%20 == 1:
				r.SetSources([]Source{store, dir})
			case i%20 == 2:
				r.Forget()
			case i%20 == 3:
				r.ProbeDown(t.Context())
			}
			if err := r.try("bert", "right", there); err != nil {
				if reply, _ := mail.ReplyFor(err); reply.Code != 454 {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wait.Wait()
	if len(r.locks) != 0 {
		t.Errorf("%v", r.locks)
	}
}
