package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// fastSource is a Source that can tell some right passwords at next to no cost, so that they need
// neither a slot nor an unlocked login.
type fastSource interface {
	// VerifyFast returns ok for a right password; known says that the login is one of this source's,
	// whose Verify decides if it is not ok.
	VerifyFast(ctx context.Context, login, password string) (id Identity, ok, known bool, err error)
}

// lookupSource is a Source that can be asked who a login is.
type lookupSource interface {
	Lookup(ctx context.Context, login string) (Identity, error)
}

// downError is a source that could not answer.
type downError struct {
	source string
	err    error
}

func (e *downError) Error() string { return fmt.Sprintf("source %s: %v", e.source, e.err) }
func (e *downError) Unwrap() error { return e.err }

// verify asks the sources in order. One that is down ends the search: it may be the one that knows
// the login, and a later one must not let in whom it has locked.
func (a *Authenticator) verify(ctx context.Context, t attempt) (Identity, error) {
	for _, s := range a.sources {
		id, err := s.Verify(ctx, t.login, t.password)
		switch {
		case err == nil:
			return named(id, t.login), nil
		case errors.Is(err, ErrUnknownLogin):
			continue
		case errors.Is(err, ErrWrongPassword), errors.Is(err, ErrLocked):
			return Identity{}, err
		}
		return Identity{}, &downError{s.Name(), err}
	}
	dummy(a.argon, t.password)
	return Identity{}, ErrUnknownLogin
}

// verifyFast asks the leading sources that can tell fast.
func (a *Authenticator) verifyFast(ctx context.Context, t attempt) (Identity, bool, error) {
	for _, s := range a.sources {
		fast, can := s.(fastSource)
		if !can {
			break
		}
		id, ok, known, err := fast.VerifyFast(ctx, t.login, t.password)
		if err != nil {
			return Identity{}, false, &downError{s.Name(), err}
		}
		if known {
			return named(id, t.login), ok, nil
		}
	}
	return Identity{}, false, nil
}

func (a *Authenticator) lookup(ctx context.Context, login string) (Identity, error) {
	for _, s := range a.sources {
		l, can := s.(lookupSource)
		if !can {
			continue
		}
		id, err := l.Lookup(ctx, login)
		switch {
		case err == nil:
			return named(id, login), nil
		case errors.Is(err, ErrUnknownLogin):
			continue
		case errors.Is(err, ErrLocked):
			return Identity{}, err
		}
		return Identity{}, &downError{s.Name(), err}
	}
	return Identity{}, ErrUnknownLogin
}

func named(id Identity, login string) Identity {
	id.Login = cmp.Or(id.Login, login)
	return id
}
