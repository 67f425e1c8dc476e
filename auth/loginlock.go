package auth

import (
	"context"
	"fmt"
	"time"
)

// LoginLock keeps a login out whose account is in another source than the store, until it is unlocked.
type LoginLock struct {
	Login  string // normalised
	Reason string // one plain sentence, or ""
	By     string // who locked it
	At     time.Time
}

// LockKeeper keeps the locks of logins of any source.
type LockKeeper interface {
	// LoginLock returns the lock of the first of these normalised logins that has one; ErrUnknownLogin if none has.
	LoginLock(ctx context.Context, logins ...string) (LoginLock, error)
}

// unlocked returns why whom a source vouches for may not come in: what they call themselves is locked, or what the
// source calls them. The store has its locks in its accounts. The error wraps ErrLocked, or is a *downError.
func (a *Authenticator) unlocked(ctx context.Context, source string, logins ...string) error {
	if a.locks == nil || source == storeName {
		return nil
	}
	names := make([]string, 0, len(logins))
	for _, l := range logins {
		if n, ok := NormalizeLogin(l); ok {
			names = append(names, n)
		}
	}
	l, err := a.locks.LoginLock(ctx, names...)
	switch {
	case err == nil:
		return l.err()
	case decided(err):
		return nil
	}
	return &downError{source: "locks", err: err}
}

func (l LoginLock) err() error {
	if l.Reason == "" {
		return ErrLocked
	}
	return fmt.Errorf("%w: %s", ErrLocked, l.Reason)
}
