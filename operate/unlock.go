package operate

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/store"
	"postern/relay/trace"
)

// Unlocked is what kept somebody out, and does no longer.
type Unlocked struct {
	Login   string      // "" where only an address was named
	Account bool        // there is such an account, and it is not locked now
	Lifted  []auth.Lock // lockouts
}

// Unlock lifts whatever keeps a login or an address out. That there was nothing is NotFound.
func (a Accounts) Unlock(ctx context.Context, by Actor, who string) (u Unlocked, err error) {
	address, isAddress := parseAddress(who)
	if isAddress {
		u.Login, _ = newLogin(who) // 192.0.2.7 can be one
	} else if u.Login, err = CheckLogin(who); err != nil {
		return u, err
	}
	err = a.act(ctx, by, Unlock, who, func(ctx context.Context, _ *string) error {
		unlocked, err := unlockAccount(ctx, a.Store, &u)
		if err != nil {
			return err
		}
		u.Lifted, err = a.Store.LiftLockouts(ctx, time.Now(), func(l auth.Lock) bool {
			return l.Login == u.Login && u.Login != "" || isAddress && l.Client.IsValid() && l.Client.Overlaps(address)
		})
		if err != nil {
			return err
		}
		console, err := a.Store.LiftConsoleLockouts(ctx, time.Now(), func(l auth.Lock) bool {
			return isAddress && l.Client.IsValid() && l.Client.Overlaps(address)
		})
		u.Lifted = append(u.Lifted, console...)
		switch {
		case err != nil:
			return err
		case !u.Account && len(u.Lifted) == 0 && isAddress:
			return fault(NotFound, "%s is not locked out", mail.Printable(who))
		case !u.Account && len(u.Lifted) == 0:
			return a.unknown(ctx, Everybody, u.Login)
		}
		return a.note(ctx, unlockEvents(by, unlocked, u)...)
	})
	return u, err
}

// unlockEvents trace what was unlocked.
func unlockEvents(by Actor, account bool, u Unlocked) (events []trace.Event) {
	if account {
		events = append(events, event(by, u.Login, "account unlocked"))
	}
	for _, l := range u.Lifted {
		e := event(by, l.Login, "lockout lifted")
		e.Client = LockedAddress(l)
		events = append(events, e)
	}
	return events
}

// errNotLocked: there is nothing to unlock.
var errNotLocked = errors.New("not locked")

// unlockAccount unlocks a login, whatever source its account is in, and finds out whether there is one. An account that
// is not locked stays as it is: a change would end its open sessions.
func unlockAccount(ctx context.Context, s *store.Store, u *Unlocked) (unlocked bool, err error) {
	if u.Login == "" {
		return false, nil
	}
	err = s.UpdateUser(ctx, u.Login, func(u *auth.User) error {
		if !u.Locked {
			return errNotLocked
		}
		u.Locked, u.LockReason, u.Changed = false, "", time.Now()
		return nil
	})
	unlocked = err == nil
	u.Account = unlocked || errors.Is(err, errNotLocked)
	if !u.Account && !errors.Is(err, auth.ErrUnknownLogin) {
		return false, err
	}
	was, err := s.UnlockLogin(ctx, u.Login)
	if err != nil {
		return unlocked, err
	}
	if _, err := s.Person(ctx, u.Login); was || err == nil {
		u.Account = true
	}
	return unlocked || was, nil
}

// LockedAddress is an address as people write it, or the network that is locked with it; "" for a login.
func LockedAddress(l auth.Lock) string {
	switch {
	case !l.Client.IsValid():
		return ""
	case l.Client.IsSingleIP():
		return l.Client.Addr().String()
	}
	return l.Client.String()
}

// parseAddress reads an IP address or a network, also in brackets or with a port or zone that was copied along.
func parseAddress(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		s = ap.Addr().String()
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Prefix{}, false
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), true
}
