package auth

import (
	"context"
	"errors"
	"time"
)

// OfLogin adds to a refusal what the source itself calls the login. Directories take many spellings for one name; with
// it the lockout counts one account however it is spelled. nil stays nil.
func OfLogin(own string, err error) error {
	name, ok := NormalizeLogin(own)
	if err == nil || !ok {
		return err
	}
	return &ownName{name, err}
}

type ownName struct {
	login string
	err   error
}

func (e *ownName) Error() string { return e.err.Error() }
func (e *ownName) Unwrap() error { return e.err }

// lockedByOwnName returns an error when an account that was found is locked under its own name: only then, since
// nobody but its source knows the spellings. Who is known with the spelling has a counter of their own.
func (a *Authenticator) lockedByOwnName(ctx context.Context, now time.Time, t attempt, id Identity) error {
	if id.Login == t.login || a.lockout.isKnown(now, t.login, t.place) {
		return nil
	}
	t.login = id.Login
	return a.lockedOut(ctx, now, t, answer{})
}

// chargeOwnName counts a refused credential for the login that its source says it is of.
func (a *Authenticator) chargeOwnName(now time.Time, t attempt, why error) {
	own, ok := errors.AsType[*ownName](why)
	if !ok || own.login == t.login || a.lockout.isKnown(now, t.login, t.place) {
		return
	}
	t.login = own.login
	a.charge(now, t)
}
