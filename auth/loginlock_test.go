package auth

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockKeeper is a LockKeeper in memory.
type lockKeeper struct {
	mu    sync.Mutex
	locks map[string]string // login to reason
	err   error
}

func (k *lockKeeper) LoginLock(_ context.Context, logins ...string) (LoginLock, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range logins {
		if why, is := k.locks[l]; is && k.err == nil {
			return LoginLock{Login: l, Reason: why}, nil
		}
	}
	if k.err != nil {
		return LoginLock{}, k.err
	}
	return LoginLock{}, ErrUnknownLogin
}

func (k *lockKeeper) set(login string, locked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if delete(k.locks, login); locked {
		k.locks[login] = "left the office"
	}
}

// renaming is a source that has another name for a login.
type renaming struct {
	remote
	called map[string]string
}

func (r *renaming) Verify(ctx context.Context, login, password string) (Identity, error) {
	id, err := r.remote.Verify(ctx, login, password)
	if err == nil {
		id.Login = r.called[login]
	}
	return id, err
}

func (r *renaming) Lookup(_ context.Context, login string) (Identity, error) {
	if _, known := r.know[login]; !known {
		return Identity{}, ErrUnknownLogin
	}
	return Identity{Login: r.called[login]}, nil
}

// TestLoginLock: a login of a remote source is locked whatever it calls itself, also in the cache, in open sessions and
// while its source is down, and comes in again when it is unlocked.
func TestLoginLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keeper := &lockKeeper{locks: map[string]string{}}
		source := &renaming{remote{name: "ldap", know: map[string]string{"carl": "pw", `corp\carl`: "pw"},
			stale: time.Hour}, map[string]string{"carl": "carl", `corp\carl`: "carl"}}
		r := newRig(t, Options{Sources: []Source{source}, Locks: keeper})
		spellings := []string{"carl", `corp\carl`, "CARL"}
		for _, login := range spellings {
			wantOK(t, r.try(login, "pw", here))
		}
		id, err := r.Authenticate(t.Context(), `corp\carl`, "pw", here)
		wantOK(t, err)
		keeper.set("carl", true)
		r.Forget()
		for _, login := range spellings {
			wantRefusal(t, r.try(login, "pw", here), 535, ErrLocked)
		}
		_, err = r.Renew(t.Context(), id, time.Now())
		wantRefusal(t, err, 550, ErrLocked)
		_, err = r.Lookup(t.Context(), `corp\carl`)
		wantRefusal(t, err, 550, ErrLocked)
		keeper.set("carl", false)
		r.Forget()
		for _, login := range spellings {
			wantOK(t, r.try(login, "pw", here))
		}
		source.mu.Lock()
		source.err = errors.New("no route")
		source.mu.Unlock()
		r.Forget()
		wantOK(t, r.try("carl", "pw", here))
		keeper.set("carl", true)
		r.Forget()
		wantRefusal(t, r.try("carl", "pw", here), 454, nil)
		keeper.err = errors.New("disk")
		wantRefusal(t, r.try("carl", "pw", here), 454, nil)
	})
}

// TestLoginLockCosts: a lock of a login that another source vouches for costs as much as a wrong password.
func TestLoginLockCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keeper := &lockKeeper{locks: map[string]string{"carl": "lost"}}
		costs := func(password string) int64 {
			source := &remote{name: "ldap", know: map[string]string{"carl": "pw"}}
			r := newRig(t, Options{Sources: []Source{source}, Locks: keeper})
			began := time.Now()
			wantRefusal(t, r.try("carl", password, here), 535, nil)
			if took := time.Since(began); took != refuseStep {
				t.Errorf("%s: refused after %s", password, took)
			}
			return r.hashes.Load()
		}
		if right, wrong := costs("pw"), costs("other"); right != wrong {
			t.Errorf("the right password costs %d hashes, a wrong one %d", right, wrong)
		}
	})
}
