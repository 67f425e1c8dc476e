package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Remote is a source that others run: it can be slow or down. While it is down, logins that it would decide get 454,
// and after a failure it is left alone for a while, so that nobody waits for it in vain.
type Remote interface {
	Source
	// Probe reports why the source could not answer now.
	Probe(ctx context.Context) error
	// StaleOK is how long after its verification a credential may be used while the source is down; 0: not at all.
	StaleOK() time.Duration
}

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

// dummySource is a Source that hashes passwords itself.
type dummySource interface {
	// Dummy does the work of refusing a password for a login that the source does not know.
	Dummy(login, password string)
}

// downError is a source that could not answer.
type downError struct {
	source string
	stale  time.Duration // its StaleOK
	err    error
}

func (e *downError) Error() string { return fmt.Sprintf("source %s: %v", e.source, e.err) }
func (e *downError) Unwrap() error { return e.err }

// remoteRecheck is how long a session goes on before a remote source is asked whether its login still stands.
const remoteRecheck = 10 * time.Minute

// storeName is the source whose every refusal costs the same.
const storeName = "store"

// member is a Source and what it can do.
type member struct {
	Source
	fast   fastSource   // or nil, as those below
	lookup lookupSource //
	dummy  dummySource  //
	remote Remote       //
	health *health      // of remote
	scram  scramSource  //
	cram   cramSource   //
	tokens TokenSource  // it knows no passwords
}

// roster is the sources in the order in which they are asked. It never changes.
type roster struct {
	members []*member
	remote  bool // one of them is
	uneven  bool // what a refusal costs depends on who refuses: the time must be evened out
}

func newRoster(sources []Source) *roster {
	r := &roster{}
	for _, s := range sources {
		m := &member{Source: s}
		m.fast, _ = s.(fastSource)
		m.lookup, _ = s.(lookupSource)
		m.dummy, _ = s.(dummySource)
		if m.remote, _ = s.(Remote); m.remote != nil {
			m.health = &health{}
		}
		m.scram, _ = s.(scramSource)
		m.cram, _ = s.(cramSource)
		if m.tokens, _ = s.(TokenSource); m.tokens != nil { // passwords do not wait for it
			r.members = append(r.members, m)
			continue
		}
		r.remote = r.remote || m.remote != nil
		r.uneven = r.uneven || m.remote != nil || m.dummy != nil && s.Name() != storeName
		r.members = append(r.members, m)
	}
	return r
}

// SetSources replaces the sources and has every credential verified again. It closes those that are gone and can be
// closed; what they verified opens nothing for another source that has the name now.
func (a *Authenticator) SetSources(sources []Source) {
	fresh := newRoster(sources)
	gone := a.roster.Swap(fresh)
	a.cache.forget(nil)
	for _, m := range gone.members {
		kept := slices.ContainsFunc(fresh.members, func(f *member) bool { return f.Source == m.Source })
		if kept {
			continue
		}
		a.cache.forgetSource(m.Name())
		if c, can := m.Source.(io.Closer); can {
			c.Close()
		}
	}
}

// said names the source in the reason for a refusal.
func (m *member) said(err error) error {
	if m.Name() == storeName {
		return err
	}
	return fmt.Errorf("source %s: %w", m.Name(), err)
}

// named completes an identity that the source vouches for.
func (m *member) named(id Identity, login string) Identity {
	id.Login, id.asked = cmp.Or(id.Login, login), login
	id.Source = m.Name()
	if m.remote != nil {
		id.Recheck = remoteRecheck
	}
	return id
}

func (m *member) down(err error) *downError {
	d := &downError{source: m.Name(), err: err}
	if m.remote != nil && !errors.Is(err, ErrUndecided) {
		d.stale = m.remote.StaleOK()
	}
	return d
}

// decided reports whether an answer is about the login, and not about the source.
func decided(err error) bool {
	return err == nil || errors.Is(err, ErrUnknownLogin) || errors.Is(err, ErrWrongPassword) ||
		errors.Is(err, ErrLocked) || errors.Is(err, ErrNoLookup) || errors.Is(err, ErrToken)
}

// ask asks a source by call, unless it was down a moment ago.
func (a *Authenticator) ask(ctx context.Context, m *member, call func() (Identity, error)) (Identity, error) {
	if m.health == nil {
		return call()
	}
	round, err := m.health.admit(time.Now())
	if err != nil {
		return Identity{}, err
	}
	id, err := call()
	why := err
	switch {
	case decided(err), errors.Is(err, ErrUndecided):
		why = nil
	case errors.Is(ctx.Err(), context.Canceled): // whoever asked has gone: that says nothing about the source
		return id, err
	}
	if m.health.answered(time.Now(), round, why) {
		a.tellSource(m.Name(), why)
	}
	return id, err
}

func (a *Authenticator) tellSource(name string, err error) {
	if a.onSource != nil {
		a.onSource(name, err)
	}
}

// verify asks the sources in order. One that is down ends the search: it may be the one that knows
// the login, and a later one must not let in whom it has locked.
func (a *Authenticator) verify(ctx context.Context, t attempt) (Identity, error) {
	for i, m := range t.roster.members {
		if m.tokens != nil {
			continue
		}
		id, err := a.verifyBy(ctx, m, t)
		if err == nil {
			err = a.unlocked(ctx, m.Name(), t.login, id.Login)
		}
		if d, ok := errors.AsType[*downError](err); ok {
			return Identity{}, d
		}
		switch {
		case err == nil:
			return a.own(ctx, t.roster.members[:i], m, id, t.login)
		case errors.Is(err, ErrUnknownLogin):
			continue
		case errors.Is(err, ErrBusy):
			return Identity{}, err
		case decided(err):
			if busy := a.dummies(ctx, t, m); busy != nil {
				return Identity{}, busy
			}
			return Identity{}, m.said(err)
		}
		return Identity{}, m.down(err)
	}
	if busy := a.dummies(ctx, t, nil); busy != nil {
		return Identity{}, busy
	}
	return Identity{}, ErrUnknownLogin
}

func (a *Authenticator) verifyBy(ctx context.Context, m *member, t attempt) (id Identity, err error) {
	call := func() (Identity, error) { return m.Verify(ctx, t.login, t.password) }
	if m.remote != nil {
		return a.ask(ctx, m, call)
	}
	if busy := a.hashing(ctx, t.roster, func() { id, err = call() }); busy != nil {
		return Identity{}, busy
	}
	return id, err
}

// hashing runs f in a slot to hash in. Without remote sources the whole verification is in one.
func (a *Authenticator) hashing(ctx context.Context, r *roster, f func()) error {
	if r.remote {
		if err := a.slots.acquire(ctx); err != nil {
			return err
		}
		defer a.slots.release()
	}
	f()
	return nil
}

// dummies does the work of the sources that have not refused, so that each refusal costs as much whoever it comes from:
// by is the one that refused, nil if no source knows the login.
func (a *Authenticator) dummies(ctx context.Context, t attempt, by *member) error {
	hashed := by != nil && by.remote == nil
	var work []func()
	for _, m := range t.roster.members {
		if m != by && m.dummy != nil {
			work = append(work, func() { m.dummy.Dummy(t.login, t.password) })
		}
	}
	if len(work) == 0 && !hashed {
		work = append(work, func() { dummy(a.argon, t.password) })
	}
	for _, f := range work {
		if err := a.hashing(ctx, t.roster, f); err != nil {
			return err
		}
	}
	return nil
}

// verifyFast asks the leading sources that can tell fast.
func (a *Authenticator) verifyFast(ctx context.Context, t attempt) (Identity, bool, error) {
	for _, m := range t.roster.members {
		if m.tokens != nil {
			continue
		}
		if m.fast == nil {
			break
		}
		id, ok, known, err := m.fast.VerifyFast(ctx, t.login, t.password)
		if err != nil {
			return Identity{}, false, m.down(err)
		}
		if ok {
			switch err := a.unlocked(ctx, m.Name(), t.login, id.Login); {
			case errors.Is(err, ErrLocked):
				ok = false
			case err != nil:
				return Identity{}, false, err
			}
		}
		if known {
			return m.named(id, t.login), ok, nil
		}
	}
	return Identity{}, false, nil
}

// lookup asks the sources who has a login.
func (a *Authenticator) lookup(ctx context.Context, login string) (Identity, error) {
	return a.lookupIn(ctx, a.roster.Load().members, login)
}

func (a *Authenticator) lookupIn(ctx context.Context, members []*member, login string) (Identity, error) {
	for i, m := range members {
		if m.lookup == nil {
			continue
		}
		id, err := a.ask(ctx, m, func() (Identity, error) { return m.lookup.Lookup(ctx, login) })
		if err == nil {
			err = a.unlocked(ctx, m.Name(), login, id.Login)
		}
		if d, ok := errors.AsType[*downError](err); ok {
			return Identity{}, d
		}
		switch {
		case err == nil:
			return a.own(ctx, members[:i], m, id, login)
		case errors.Is(err, ErrUnknownLogin), errors.Is(err, ErrNoLookup):
			continue
		case errors.Is(err, ErrLocked):
			return Identity{}, m.said(err)
		}
		return Identity{}, m.down(err)
	}
	return Identity{}, ErrUnknownLogin
}

// own completes an identity that m vouches for under login. The name that m has for it must not be that of an account
// of a source before, whose limits and policies it would get.
func (a *Authenticator) own(ctx context.Context, before []*member, m *member, id Identity, login string) (
	Identity, error) {
	if id = m.named(id, login); id.Login == login {
		return id, nil
	}
	if err := a.ownedBy(ctx, before, id.Login); err != nil {
		return Identity{}, err
	}
	return id, nil
}
