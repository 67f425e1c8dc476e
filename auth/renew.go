package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/mail"
)

// ErrNoLookup is what Lookup of a source returns that is set up so that it can say nothing without a password.
var ErrNoLookup = errors.New("the source knows logins only with their passwords")

// noLookupLife is how long a session goes on whose source cannot be asked about a login without its password.
const noLookupLife = time.Hour

var errExpired = errors.New("what the session logged in with has expired")

var replyAgain = mail.R(421, "4.7.0", "log in again")

// Renew returns who a session that logged in as was, at since, is now: as Lookup, but of the source that vouched for it
// then, or of one before it that has come to know the login. A source that is down, or cannot look up, keeps a session
// for a bounded time. Its errors are *mail.Error.
func (a *Authenticator) Renew(ctx context.Context, was Identity, since time.Time) (Identity, error) {
	if !was.Expires.IsZero() && !time.Now().Before(was.Expires) {
		return Identity{}, mail.Refuse(replyAgain, errExpired)
	}
	return a.recalled(ctx, cmp.Or(was.asked, was.Login), was.App, func() (Identity, error) {
		return a.renew(ctx, was, since)
	})
}

func (a *Authenticator) renew(ctx context.Context, was Identity, since time.Time) (Identity, error) {
	if was.App != "" {
		return a.renewApp(ctx, was, since)
	}
	members := a.roster.Load().members
	i := slices.IndexFunc(members, func(m *member) bool { return m.Name() == was.Source })
	if i < 0 {
		return Identity{}, mail.Refuse(replyAgain, fmt.Errorf("%w: its source %s is not in the configuration any more",
			ErrUnknownLogin, was.Source))
	}
	id, err := a.lookupIn(ctx, members[:i+1], cmp.Or(was.asked, was.Login))
	if err == nil {
		return id, nil
	}
	if locked := a.unlocked(ctx, was.Source, was.asked, was.Login); locked != nil {
		return Identity{}, lookupRefusal(was.Login, locked)
	}
	m, age := members[i], time.Since(since)
	if m.lookup == nil && errors.Is(err, ErrUnknownLogin) || errors.Is(err, ErrNoLookup) {
		return a.unasked(was, age)
	}
	if d, ok := errors.AsType[*downError](err); ok && d.source == was.Source && age < d.stale {
		return was, nil
	}
	return Identity{}, lookupRefusal(was.Login, err)
}

// unasked keeps a session for a while whose source knows logins only with their passwords.
func (a *Authenticator) unasked(was Identity, age time.Duration) (Identity, error) {
	if age < noLookupLife {
		return was, nil
	}
	return Identity{}, mail.Refuse(replyAgain, fmt.Errorf("%w after %s", ErrNoLookup, noLookupLife))
}
