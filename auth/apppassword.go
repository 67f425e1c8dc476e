package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/mail"
)

// Person is who makes app passwords for their own login.
type Person struct {
	Login   string   // normalised, the key
	Name    string   // for people
	Groups  []string // of who logs in by OpenID Connect; a source is asked for those of others
	Senders []string // as Groups
	Source  string   // the name of the source that knows the login
	// Subject is issuer and sub of who logs in by OpenID Connect, who is known by nothing else. "": Source is asked.
	Subject string
	Seen    time.Time // when they last logged in to the page; zero: never
}

// AppPassword is one of several generated passwords of a login.
type AppPassword struct {
	ID       string // names it in lists, and is no secret
	Login    string
	Name     string // of the device or program that it is for
	Hash     Secret // of HashGenerated
	Networks []netip.Prefix
	Created  time.Time
	Expires  time.Time
	LastUsed time.Time // within UsedEvery; zero: never
	LastFrom string    // the client's address, or as much of it as [privacy] keeps
}

// AppStore keeps app passwords.
type AppStore interface {
	// AppPassword returns the app password with this hash and whose it is; ErrUnknownLogin if there is none.
	AppPassword(ctx context.Context, hash Secret) (Person, AppPassword, error)
	// AppPasswordOf is the same by ID.
	AppPasswordOf(ctx context.Context, id string) (Person, AppPassword, error)
}

// AppSource is the Source of an Identity that an app password proves. No [[auth.source]] can have this name.
const AppSource = "app password"

// errRevoked: what a session logged in with is there no longer.
var errRevoked = errors.New("the app password was revoked")

// foundApp is an app password that is right, and whose it is.
type foundApp struct {
	person   Person
	password AppPassword
}

// findApp looks for the app password that was offered; false if it is none of this login, or expired. Whatever is
// offered costs one look into an index by its HMAC, so that the time tells nothing.
func (a *Authenticator) findApp(ctx context.Context, now time.Time, t *attempt) (foundApp, bool, error) {
	if a.apps == nil {
		return foundApp{}, false, nil
	}
	p, k, err := a.apps.AppPassword(ctx, HashGenerated(a.pepper, t.password))
	switch {
	case errors.Is(err, ErrUnknownLogin):
		return foundApp{}, false, nil
	case err != nil:
		return foundApp{}, false, &downError{source: AppSource, err: err}
	case p.Login != t.login || k.Login != t.login:
		return foundApp{}, false, nil
	case !now.Before(k.Expires):
		t.remark = fmt.Sprintf("it is the app password %q, which expired at %s", k.Name,
			k.Expires.UTC().Format(time.RFC3339))
		return foundApp{}, false, nil
	}
	return foundApp{p, k}, true, nil
}

// verifyApp decides about an app password that is right. Like a generated password it cannot be guessed, and gets in
// although strangers' guesses have locked the login.
func (a *Authenticator) verifyApp(ctx context.Context, now time.Time, t attempt, f foundApp, known answer) (
	Identity, error) {
	v, err, _ := a.flight.Do("app"+t.shared(t.cred), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
		defer cancel()
		if t.roster.remote {
			if err := a.turns.acquire(ctx); err != nil {
				return Identity{}, err
			}
			defer a.turns.release()
		}
		return a.identityOf(ctx, t.roster.members, f)
	})
	id := v.(Identity)
	if d, ok := errors.AsType[*downError](err); ok {
		if id, ok := a.cache.stale(now, t.cred, d.source, f.password.ID, d.stale); ok && t.allows(id) {
			a.stats.stale.Add(1)
			return id, nil
		}
		return Identity{}, err
	}
	switch {
	case errors.Is(err, ErrBusy):
		return Identity{}, err
	case err != nil:
		return a.refuseRight(ctx, now, t, err)
	}
	a.cache.remember(now, t.cred, known.generation, t.login, id, nil)
	if !t.allows(id) {
		return a.refuseRight(ctx, now, t, outside(t, id))
	}
	return id, nil
}

// identityOf is who has an app password, now: what the source of their login says, or what the provider of
// OpenID Connect said when they last logged in to the page.
func (a *Authenticator) identityOf(ctx context.Context, members []*member, f foundApp) (Identity, error) {
	p, k := f.person, f.password
	if err := a.unlocked(ctx, AppSource, p.Login); err != nil {
		return Identity{}, err
	}
	id := Identity{Groups: p.Groups, Senders: p.Senders}
	var err error
	if p.Subject != "" {
		err = a.stillFree(ctx, members, p.Login)
	} else {
		id, err = a.lookupPerson(ctx, members, p)
	}
	if err != nil {
		return Identity{}, err
	}
	return Identity{
		Login: p.Login, Groups: id.Groups, Senders: id.Senders, Networks: common(id.Networks, k.Networks),
		Source: AppSource, behind: p.Source, asked: p.Login, Recheck: id.Recheck,
		App: k.ID, AppName: k.Name, Created: k.Created, Changed: k.Created, Expires: k.Expires,
	}, nil
}

// lookupPerson asks the source of a login about it. One before it that has come to know the login has another person.
func (a *Authenticator) lookupPerson(ctx context.Context, members []*member, p Person) (Identity, error) {
	i := slices.IndexFunc(members, func(m *member) bool { return m.Name() == p.Source })
	if i < 0 {
		return Identity{}, fmt.Errorf("%w: the source %s of its app passwords is not in the configuration any more",
			ErrUnknownLogin, p.Source)
	}
	id, err := a.lookupIn(ctx, members[:i+1], p.Login)
	switch {
	case errors.Is(err, ErrUnknownLogin):
		return id, fmt.Errorf("source %s, of its app passwords: %w", p.Source, err)
	case err != nil:
		return id, err
	case id.Source != p.Source || id.Login != p.Login:
		return id, fmt.Errorf("%w: its app passwords are of source %s, and now it is %q of source %s", ErrUnknownLogin,
			p.Source, id.Login, id.Source)
	}
	return id, nil
}

// stillFree refuses a login of OpenID Connect that has become an account here. Directories of others are asked when
// somebody logs in to the page: app passwords must not depend on them.
func (a *Authenticator) stillFree(ctx context.Context, members []*member, login string) error {
	local := slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m.remote != nil })
	owner, err := a.lookupIn(ctx, local, login)
	switch {
	case errors.Is(err, ErrUnknownLogin):
		return nil
	case err == nil, errors.Is(err, ErrLocked):
		return fmt.Errorf("%w: it is an account of source %s by now, and its app passwords are somebody else's",
			ErrUnknownLogin, owner.Source)
	}
	return err
}

// common are the networks that are in both lists, of which an empty one has all.
func common(a, b []netip.Prefix) (both []netip.Prefix) {
	if len(a) == 0 || len(b) == 0 {
		return append(slices.Clone(a), b...)
	}
	for _, n := range a {
		for _, m := range b {
			switch {
			case !n.Overlaps(m):
			case n.Bits() >= m.Bits():
				both = append(both, n)
			default:
				both = append(both, m)
			}
		}
	}
	if both == nil {
		return []netip.Prefix{{}} // which nobody is in
	}
	return both
}

// renewApp is Renew for a session that an app password has opened.
func (a *Authenticator) renewApp(ctx context.Context, was Identity, since time.Time) (Identity, error) {
	if a.apps == nil {
		return Identity{}, mail.Refuse(replyAgain, fmt.Errorf("%w: %w", ErrUnknownLogin, errRevoked))
	}
	p, k, err := a.apps.AppPasswordOf(ctx, was.App)
	switch {
	case errors.Is(err, ErrUnknownLogin), err == nil && (p.Login != was.Login || k.Login != was.Login):
		return Identity{}, mail.Refuse(replyAgain, fmt.Errorf("%w: %w", ErrUnknownLogin, errRevoked))
	case err != nil:
		return Identity{}, lookupRefusal(was.Login, err)
	}
	id, err := a.identityOf(ctx, a.roster.Load().members, foundApp{p, k})
	if d, ok := errors.AsType[*downError](err); ok && d.source == was.behind && time.Since(since) < d.stale {
		return was, nil
	}
	if err != nil {
		return Identity{}, lookupRefusal(was.Login, err)
	}
	return id, nil
}
