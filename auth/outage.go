package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// While the store is away it can say nothing about accounts, app passwords and locks. Where that is to be got through
// (Options.StoreAway), what it said before counts: a password that was right lately, of an account that is not known to
// have changed since. Everybody else gets a temporary refusal. Sources elsewhere are asked as ever.

// outageTrust is how long what was verified counts while the store is away.
const outageTrust = 24 * time.Hour

// storePatience is how long a login waits for a store that is perhaps about to be away.
const storePatience = 5 * time.Second

// away returns why the store is not asked now; nil: it is.
func (a *Authenticator) away() *downError {
	if a.storeAway == nil {
		return nil
	}
	if err := a.storeAway(); err != nil {
		return &downError{source: storeName, err: err}
	}
	return nil
}

// outage returns why the store is away if an error may be of that; nil: it is not.
func (a *Authenticator) outage(err error) *downError {
	if _, down := errors.AsType[*downError](err); !down {
		return nil
	}
	return a.away()
}

// decideNow is decide, also while the store is away.
func (a *Authenticator) decideNow(ctx context.Context, now time.Time, t attempt) (Identity, error) {
	away := a.away()
	if a.storeAway == nil {
		return a.decide(ctx, now, t)
	}
	if away == nil {
		generation := a.cache.current()
		asking, cancel := context.WithTimeout(ctx, storePatience)
		id, err := a.decide(asking, now, t)
		cancel()
		if err == nil {
			a.cache.meet(now, generation, t.login, id)
		}
		if away = a.outage(err); away == nil {
			return id, err
		}
	}
	return a.decideByMemory(ctx, now, t, away)
}

// decideByMemory lets in whose password was right lately. A password that was not is not known to be wrong, but where
// another one of the login was right it counts as a guess: who is let in and who is not would tell.
func (a *Authenticator) decideByMemory(ctx context.Context, now time.Time, t attempt, away *downError) (
	Identity, error) {
	t.roster, t.accounts = a.roster.Load(), a.cache.current()
	if until := a.lockout.locked(now, t.login, t.place); !until.IsZero() {
		return Identity{}, fmt.Errorf("%w until %s", ErrLockedOut, until.UTC().Format(time.RFC3339))
	}
	v, ok := a.cache.proof(now, t.cred)
	if !ok || !t.allows(v.identity) || expired(now, v.identity) {
		if a.cache.met(now, t.login) {
			a.charge(now, t)
		}
		return Identity{}, away
	}
	id, err := a.confirm(ctx, now, t, v)
	switch {
	case err != nil:
		return Identity{}, err
	case id.Login != v.identity.Login || !t.allows(id):
		return Identity{}, away
	}
	a.stats.stale.Add(1)
	return id, nil
}

func expired(now time.Time, id Identity) bool { return !id.Expires.IsZero() && !now.Before(id.Expires) }

// confirm has a source elsewhere say whether a password is still right, or the owner of an app password still good, and
// who that is now.
func (a *Authenticator) confirm(ctx context.Context, now time.Time, t attempt, v verified) (Identity, error) {
	m := t.roster.behind(v.identity)
	if m == nil {
		return v.identity, nil
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	if err := a.turns.acquire(ctx); err != nil {
		return Identity{}, err
	}
	defer a.turns.release()
	if v.identity.App != "" {
		return a.stillGood(ctx, now, m, v)
	}
	id, err := a.verifyBy(ctx, m, t)
	switch {
	case err == nil:
		return m.named(id, t.login), nil
	case errors.Is(err, ErrBusy):
		return Identity{}, err
	case decided(err):
		a.cache.remember(now, t.cred, t.accounts, t.login, Identity{}, err)
		a.charge(now, t)
		return Identity{}, m.said(err)
	}
	return v.identity, m.outlasts(now, v, err)
}

// behind is the member whose person an identity is; nil: they are of the store, or known by nothing but their app
// passwords.
func (r *roster) behind(id Identity) *member {
	name := id.Source
	if id.App != "" {
		name = id.behind
	}
	i := slices.IndexFunc(r.members, func(m *member) bool { return m.Name() == name && name != storeName })
	if i < 0 || r.members[i].tokens != nil {
		return nil
	}
	return r.members[i]
}

// stillGood asks a source elsewhere about a person.
func (a *Authenticator) stillGood(ctx context.Context, now time.Time, m *member, v verified) (Identity, error) {
	id := v.identity
	if m.lookup == nil {
		return id, nil
	}
	person, err := a.ask(ctx, m, func() (Identity, error) {
		return m.lookup.Lookup(ctx, cmp.Or(id.asked, id.Login))
	})
	switch {
	case err == nil && id.App == "":
		return m.named(person, cmp.Or(id.asked, id.Login)), nil
	case err == nil: // of what the app password has of its person
		id.Groups, id.Senders, id.Networks = person.Groups, person.Senders, common(person.Networks, id.Networks)
		return id, nil
	case decided(err):
		return Identity{}, m.said(err)
	}
	return id, m.outlasts(now, v, err)
}

// outlasts is nil if what a source that is down said before still counts.
func (m *member) outlasts(now time.Time, v verified, err error) error {
	d := m.down(err)
	if now.Sub(v.at) < d.stale {
		return nil
	}
	return d
}

// recalled is who look finds, or while the store is away who it found lately under login: with an app password, app is
// its ID.
func (a *Authenticator) recalled(ctx context.Context, login, app string, look func() (Identity, error)) (
	Identity, error) {
	away := a.away()
	if away == nil {
		generation := a.cache.current()
		id, err := look()
		if err == nil && a.storeAway != nil {
			a.cache.meet(time.Now(), generation, login, id)
		}
		if away = a.outage(err); away == nil {
			return id, err
		}
	}
	now := time.Now()
	v, ok := a.cache.recall(now, login, app)
	if !ok || expired(now, v.identity) {
		return Identity{}, lookupRefusal(login, away)
	}
	m := a.roster.Load().behind(v.identity)
	if m == nil {
		return v.identity, nil
	}
	id, err := a.stillGood(ctx, now, m, v)
	switch {
	case errors.Is(err, ErrNoLookup):
		return v.identity, nil
	case err != nil:
		return Identity{}, lookupRefusal(login, err)
	}
	return id, nil
}

// Doubt says that the logins named have changed, or that it cannot be known which have, if none is named: what was
// verified of them before counts no more while a source is away.
func (a *Authenticator) Doubt(logins ...string) {
	a.cache.doubt(func(v *verified) bool {
		return len(logins) == 0 || slices.Contains(logins, v.login) || slices.Contains(logins, v.identity.Login)
	})
}

// DoubtApps is Doubt for app passwords.
func (a *Authenticator) DoubtApps() {
	a.cache.doubt(func(v *verified) bool { return v.identity.App != "" })
}

// person is a login, with the ID of the app password that it used, if it did.
type person struct{ login, app string }

// current is the generation of the cache.
func (c *cache) current() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// meet remembers who a login is, found out since generation.
func (c *cache) meet(now time.Time, generation uint64, login string, id Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation == c.generation {
		c.people.Add(person{login, id.App}, &verified{login: login, identity: id, at: now})
	}
}

// recall returns who a login was when it was met last.
func (c *cache) recall(now time.Time, login, app string) (verified, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.people.Get(person{login, app})
	return lately(now, v, ok)
}

// met reports whether somebody may log in as this login by what was verified lately.
func (c *cache) met(now time.Time, login string) bool {
	_, ok := c.recall(now, login, "")
	return ok
}

// proof returns what was verified by a credential lately.
func (c *cache) proof(now time.Time, cred credential) (verified, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.right.Get(cred)
	return lately(now, v, ok)
}

func lately(now time.Time, v *verified, ok bool) (verified, bool) {
	if !ok || v.at.IsZero() || now.Sub(v.at) >= outageTrust {
		return verified{}, false
	}
	return *v, true
}

// doubt makes useless what was found of those concerned while it cannot be asked for again.
func (c *cache) doubt(concerned func(*verified) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubtLocked(concerned)
}

func (c *cache) doubtLocked(concerned func(*verified) bool) {
	for _, v := range c.right.Values() {
		if concerned(v) {
			v.at = time.Time{}
		}
	}
	for _, k := range c.people.Keys() {
		if v, ok := c.people.Peek(k); ok && concerned(v) {
			c.people.Remove(k)
		}
	}
}
