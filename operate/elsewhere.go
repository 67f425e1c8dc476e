package operate

import (
	"context"
	"errors"

	"postern/auth"
	"postern/relay/store"
)

// KindElsewhere is the kind of a login that has no account in the store, and the kind of its password.
const KindElsewhere = "elsewhere"

// Known returns an account of the store, as Get does; or, with here false, a login that has none but is locked or has
// app passwords, as far as it is known: its lock, and the groups and senders that a provider has told. Devices are
// always here.
func (a Accounts) Known(ctx context.Context, by Actor, of Among, login string) (u auth.User, here bool, err error) {
	u, err = a.Get(ctx, by, of, login)
	if kind, theirs := KindOf(err); !theirs || kind != NotFound || of != Everybody {
		return u, err == nil, err
	}
	unknown := err
	if login, err = CheckLogin(login); err != nil {
		return u, false, err
	}
	p, err := a.Store.Person(ctx, login)
	person := err == nil
	if err != nil && !errors.Is(err, store.ErrNoAppPassword) {
		return u, false, err
	}
	lock, err := a.Store.LoginLock(ctx, login)
	locked := err == nil
	if err != nil && !errors.Is(err, auth.ErrUnknownLogin) {
		return u, false, err
	}
	if !person && !locked {
		return u, false, unknown
	}
	return auth.User{Login: login, Locked: locked, LockReason: lock.Reason, Groups: p.Groups, Senders: p.Senders,
		Changed: later(lock.At, p.Seen)}, false, nil
}

// ShownKnown returns what Known found as JSON has it.
func ShownKnown(u auth.User, here bool) Account {
	v := ShownAccount(u)
	if !here {
		v.Kind, v.Password = KindElsewhere, KindElsewhere
	}
	return v
}

// mechanismsElsewhere are the ways in for a login that has no account in the store.
func mechanismsElsewhere(list []Mechanism, passwords int) []Mechanism {
	for i := range list {
		m := &list[i]
		switch m.Name {
		case auth.Plain, auth.Login:
			if m.Detail = "the source of the login decides"; passwords > 0 {
				m.Detail = "with an app password, or as the source of the login decides"
			}
		case auth.ScramSHA256, auth.ScramPlus:
			m.Can, m.Why = false, "its password is not in the store, and app passwords have no SCRAM keys"
		case auth.OAuthBearer, auth.XOAuth2:
			m.Can, m.Why, m.Detail = true, "", "with a token of the issuer that names it"
		}
	}
	return list
}
