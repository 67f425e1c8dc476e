package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/relay/trace"
)

// lockoutView is somebody who is locked out for a while, in the list of accounts as --json prints it. Without a login
// it is an address, without an address a login, from wherever it was not used before.
type lockoutView struct {
	Kind     string    `json:"kind"` // "lockout"
	Login    string    `json:"login"`
	Address  string    `json:"address,omitempty"`
	Locked   bool      `json:"locked"`
	Reason   string    `json:"lock_reason"`
	Until    time.Time `json:"until"`
	Failures int       `json:"failures"`
}

func lockoutViews(locks []auth.Lock) []lockoutView {
	views := make([]lockoutView, len(locks))
	for i, l := range locks {
		views[i] = lockoutView{"lockout", l.Login, lockedAddress(l), true, "too many different wrong passwords",
			l.Until, l.Failures}
	}
	return views
}

// listed are accounts and lockouts as one list.
func listed(users []auth.User, locks []auth.Lock) []any {
	list := []any{}
	for _, u := range users {
		list = append(list, viewOfUser(u))
	}
	for _, v := range lockoutViews(locks) {
		list = append(list, v)
	}
	return list
}

// lockedAddress is an address as people write it, or the network that is locked with it.
func lockedAddress(l auth.Lock) string {
	switch {
	case !l.Client.IsValid():
		return ""
	case l.Client.IsSingleIP():
		return l.Client.Addr().String()
	}
	return l.Client.String()
}

func printLockouts(w io.Writer, locks []auth.Lock, now time.Time) error {
	if len(locks) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nLocked out for a while, after too many different wrong passwords:\n\n")
	var rows [][]string
	for _, l := range locks {
		address, login := lockedAddress(l), l.Login
		address = cmp.Or(address, "where it was not used before")
		login = cmp.Or(login, "every login")
		rows = append(rows, []string{address, login, when(l.Until, now), fmt.Sprint(l.Failures)})
	}
	if err := table(w, []string{"ADDRESS", "LOGIN", "UNTIL", "WRONG PASSWORDS"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nTo let one in before that: postern user unlock ADDRESS, or LOGIN. What they tried: postern "+
		"trace --kind auth-fail\n")
	return nil
}

func (a *app) userUnlock() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock LOGIN|ADDRESS",
		Short: "Let a locked login in again, or an address that had too many wrong passwords",
		Example: `  postern user unlock anna@example.com
  postern user unlock 192.0.2.17`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.unlock(cmd, args[0]) },
	}
}

// unlock lifts whatever keeps a login or an address out.
func (a *app) unlock(cmd *cobra.Command, who string) error {
	address, isAddress := parseAddress(who)
	login, err := normalLogin(cmd, who)
	if err != nil && !isAddress {
		return err
	}
	s, err := a.openStore(cmd.Context())
	if err != nil {
		return err
	}
	defer s.Close()
	account, unlocked, err := unlockAccount(cmd, s, login)
	if err != nil {
		return err
	}
	lift, err := s.LiftLockouts(cmd.Context(), time.Now(), func(l auth.Lock) bool {
		return l.Login == login && login != "" || isAddress && l.Client.IsValid() && l.Client.Overlaps(address)
	})
	if err != nil {
		return err
	}
	switch {
	case !account && len(lift) == 0 && isAddress:
		return fmt.Errorf("%s is not locked out; see: postern user list", who)
	case !account && len(lift) == 0:
		return unknownLogin(cmd, s, people, login)
	}
	if err := s.AppendEventsNow(cmd.Context(), unlockEvents(unlocked, login, lift)); err != nil {
		return err
	}
	sayUnlocked(cmd.OutOrStdout(), account, login, lift)
	return nil
}

// unlockEvents trace what was unlocked.
func unlockEvents(unlocked bool, login string, lifted []auth.Lock) (events []trace.Event) {
	if unlocked {
		events = append(events, accountEvent(login, "account unlocked"))
	}
	for _, l := range lifted {
		e := accountEvent(l.Login, "lockout lifted")
		e.Client = lockedAddress(l)
		events = append(events, e)
	}
	return events
}

func sayUnlocked(w io.Writer, account bool, login string, lifted []auth.Lock) {
	if account {
		fmt.Fprintf(w, "%s is unlocked.\n", login)
	}
	for _, l := range lifted {
		switch address := lockedAddress(l); {
		case l.Login == "":
			fmt.Fprintf(w, "%s is unlocked, for every login.\n", address)
		case address != "":
			fmt.Fprintf(w, "%s is unlocked for login %s.\n", address, l.Login)
		case !account:
			fmt.Fprintf(w, "%s is unlocked.\n", l.Login)
		}
	}
}

// errNotLocked: there is nothing to unlock.
var errNotLocked = errors.New("not locked")

// unlockAccount unlocks an account and reports whether there is one. One that is not locked stays as it is: a change
// would end its open sessions.
func unlockAccount(cmd *cobra.Command, s store, login string) (found, unlocked bool, err error) {
	if login == "" {
		return false, false, nil
	}
	err = s.UpdateUser(cmd.Context(), login, func(u *auth.User) error {
		if !u.Locked {
			return errNotLocked
		}
		u.Locked, u.LockReason, u.Changed = false, "", time.Now()
		return nil
	})
	switch {
	case errors.Is(err, auth.ErrUnknownLogin):
		return false, false, nil
	case errors.Is(err, errNotLocked):
		return true, false, nil
	}
	return true, true, err
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
