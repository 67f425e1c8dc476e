package operate

import (
	"context"
	"errors"
	"slices"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/store"
)

// mayBeElsewhere reports whether a login that has no account in the store may be one all the same: of another source,
// or of who has logged in to the page of app passwords.
func (d *desk) mayBeElsewhere(ctx context.Context, login string) bool {
	login, _ = auth.NormalizeLogin(login)
	if _, err := d.Store.Person(ctx, login); err == nil {
		return true
	}
	c := d.Config()
	return slices.ContainsFunc(c.Auth.Sources, func(s config.AuthSource) bool {
		return s.Type != config.SourceStore
	})
}

// lookupFor bounds how long a lock waits for what sources call a login.
const lookupFor = 5 * time.Second

// lockElsewhere locks a login that has no account in the store. One that a source calls by another name is a Conflict:
// the lock of an alias keeps nobody out who types another. Whether any source knows it does not matter: one that is
// down, or tells nothing without a password, must not keep anybody from locking.
func (d *desk) lockElsewhere(ctx context.Context, by Actor, login, reason string) (string, error) {
	login, err := CheckLogin(login)
	if err != nil {
		return "", err
	}
	asking, cancel := context.WithTimeout(ctx, lookupFor)
	id, err := d.lookup(asking, login)
	cancel()
	if own, ok := auth.NormalizeLogin(id.Login); err == nil && ok && own != login {
		return "", fault(Conflict, "the source %s calls %s by the login %s: lock that, which holds for every spelling",
			id.Source, mail.Printable(login), mail.Printable(own))
	}
	_, err = d.Store.LockLogin(ctx, auth.LoginLock{Login: login, Reason: reason, By: by.words(), At: time.Now()})
	if errors.Is(err, store.ErrTooMany) {
		return "", fault(Conflict, "%v", err)
	}
	return login, err
}

// Locked is a login that is locked and has no account in the store, as JSON has it in a list of accounts.
type Locked struct {
	Kind   string    `json:"kind"` // "lock"
	Login  string    `json:"login"`
	Locked bool      `json:"locked"`
	Reason string    `json:"lock_reason,omitempty"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
}

// ShownLocks returns locks as JSON has them.
func ShownLocks(locks []auth.LoginLock) (list []Locked) {
	for _, l := range locks {
		list = append(list, Locked{"lock", l.Login, true, l.Reason, l.By, l.At})
	}
	return list
}

// LockedElsewhere returns the logins that are locked and have no account in the store: none among the devices.
func (a Accounts) LockedElsewhere(ctx context.Context, by Actor, of Among) ([]auth.LoginLock, error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	if of != Everybody {
		return nil, nil
	}
	return a.Store.LoginLocks(ctx)
}
