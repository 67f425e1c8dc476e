package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"postern/auth"
	"postern/internal/logline"
	"postern/relay/config"
	"postern/relay/monitor"
	"postern/relay/sources"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// accounts joins the Authenticator, which knows passwords and lockouts, to the store, which has the accounts and is
// changed from outside.
type accounts struct {
	*auth.Authenticator
	store      *relaystore.Store
	monitor    *monitor.Monitor
	trace      *trace.Recorder
	log        *slog.Logger
	generation atomic.Uint64
	pepper     []byte
	keys       keyMaker
	room       *monitor.Room
	unread     atomic.Bool // accounts have changed, and it is not known yet which
	apps       *appUses

	seen map[string]auth.User // as forgive saw them

	mu      sync.Mutex // guards what follows
	sources []auth.Source
	broken  map[string]error // password files, by name, that could not be read again
}

// open restores what the last process knew: known client addresses and lockouts.
func (a *accounts) open(ctx context.Context, c *config.Config) (err error) {
	if a.pepper, err = a.store.Secret(ctx, auth.PepperName, auth.PepperSize); err != nil {
		return err
	}
	a.broken = map[string]error{}
	if a.sources, err = sources.New(c, a.store, a.pepper, nil); err != nil {
		return err
	}
	if err := a.keys.open(ctx, c, a.store, a.log); err != nil {
		return err
	}
	a.apps = newAppUses(a.store)
	a.Authenticator = auth.New(auth.Options{
		Sources: a.sources, Lockout: lockout(c), OnLock: a.lockedOut, OnSource: a.sourceChanged,
		OnPassword: a.keys.want, ScramSecret: a.keys.secret, Apps: a.store, Pepper: a.pepper, OnApp: a.apps.used,
		Locks: a.store, StoreAway: a.storeAway(c),
	})
	key, err := a.store.Secret(ctx, auth.PlaceKeyName, auth.PlaceKeySize)
	if err != nil {
		return err
	}
	if err := a.store.LoginLockout().Restore(ctx, a.Authenticator, key, time.Now()); err != nil {
		return err
	}
	users, err := a.store.Users(ctx)
	elsewhere, err2 := a.store.LockedElsewhere(ctx)
	a.seen = byLogin(append(users, elsewhere...))
	return errors.Join(err, err2)
}

// storeAway is what the Authenticator asks. While changes are being read nobody is let in by what was known before.
func (a *accounts) storeAway(c *config.Config) func() error {
	if !handsOff(c) {
		return nil
	}
	return func() error {
		if a.unread.Load() {
			return nil
		}
		return a.room.Away()
	}
}

func lockout(c *config.Config) auth.Lockout {
	l := c.Auth.Lockout
	return auth.Lockout{Failures: l.Failures, Window: l.Window.Std(), Duration: l.Duration.Std()}
}

// Generation rises when accounts change.
func (a *accounts) Generation() uint64 { return a.generation.Load() }

// Lock locks a login that went over a limit whose policy says so.
func (a *accounts) Lock(ctx context.Context, login, why string) {
	err := a.store.UpdateUser(ctx, login, func(u *auth.User) error {
		if u.Locked {
			return errLockedAlready
		}
		u.Locked, u.LockReason = true, why
		return nil
	})
	if errors.Is(err, errLockedAlready) {
		return
	}
	if errors.Is(err, auth.ErrUnknownLogin) { // its account is in another source, which we cannot change
		fresh := false
		fresh, err = a.store.LockLogin(ctx, auth.LoginLock{Login: login, Reason: why, By: "over_limit", At: time.Now()})
		if err == nil && !fresh {
			return
		}
	}
	if err != nil {
		a.log.Error("cannot lock the login", "login", login, "err", err)
		return
	}
	a.Forget(login)
	a.generation.Add(1)
	a.log.Warn("login locked", "login", login, "reason", why)
	a.monitor.LimitReached(login, why)
}

var errLockedAlready = errors.New("the login is locked already")

// lockedOut records that somebody is guessing passwords.
func (a *accounts) lockedOut(l auth.Lock) {
	a.monitor.LockedOut(l)
	e := trace.Event{Time: time.Now(), Kind: trace.AuthFail, Login: l.Login,
		Detail: fmt.Sprintf("too many different wrong passwords: locked out until %s", l.Until.Format(time.RFC3339))}
	if l.Client.IsValid() {
		e.Client = l.Client.String()
		if l.Client.IsSingleIP() {
			e.Client = l.Client.Addr().String()
		}
	}
	if a.trace.Refusal(e) {
		a.log.Warn("locked out", logline.Pairs("login", e.Login, "client", e.Client,
			"distinct_wrong_passwords", l.Failures, "until", l.Until.UTC().Format(time.RFC3339))...)
	}
}

// changed discards what is cached about all logins.
func (a *accounts) changed() {
	a.Forget()
	a.generation.Add(1)
}

func byLogin(users []auth.User) map[string]auth.User {
	all := make(map[string]auth.User, len(users))
	for _, u := range users {
		all[u.Login] = u
	}
	return all
}

// forgive ends the lockouts of accounts whose password or lock was changed since it was last called. When that was says
// the clock of who changed them, so it is compared with nothing but itself. Of accounts that differ in anything, or are
// gone, nothing that was verified before counts any more.
func (a *accounts) forgive(users []auth.User, since time.Time) {
	seen := byLogin(users)
	for login, u := range seen {
		before, known := a.seen[login]
		switch {
		case !known, !before.Changed.Equal(u.Changed):
			a.Forget(login)
		case !reflect.DeepEqual(before, u):
			a.Doubt(login)
		}
	}
	for login := range a.seen {
		if _, there := seen[login]; !there {
			a.Doubt(login)
		}
	}
	a.seen = seen
	a.monitor.Accounts(users, since)
}

// saveLockout writes down what changed since the last time.
func (a *accounts) saveLockout(ctx context.Context) error {
	return a.store.LoginLockout().Keep(ctx, a.Authenticator, time.Now())
}

// lockoutsLifted adopts lockouts that an operator has lifted, and those that another node has begun.
func (a *accounts) lockoutsLifted(ctx context.Context) bool {
	lifted, err := a.store.LoginLockout().Adopt(ctx, a.Authenticator, time.Now())
	if err != nil {
		if ctx.Err() == nil {
			a.log.Error("lockouts that were lifted or begun elsewhere are not here", "err", err)
		}
		return false
	}
	for _, l := range lifted {
		a.log.Info("lockout lifted by a person", "login", l.Login, "client", l.Client)
		a.monitor.Lifted(l)
	}
	return true
}
