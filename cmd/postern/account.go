package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/internal/suggest"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/trace"
)

// accounts are which accounts a group of commands is for, and what they are called there.
type accounts struct {
	command, argument, one, list string
	devices                      bool // and nothing else
}

var (
	people = accounts{command: "user", argument: "LOGIN", one: "an account", list: "accounts"}
	things = accounts{command: "device", argument: "NAME", one: "a device", list: "devices", devices: true}
)

// among returns those of the accounts and lockouts that these commands are for.
func (of accounts) among(users []auth.User, locks []auth.Lock) ([]auth.User, []auth.Lock) {
	if !of.devices {
		return users, locks
	}
	users = slices.DeleteFunc(users, func(u auth.User) bool { return !u.Device })
	locks = slices.DeleteFunc(locks, func(l auth.Lock) bool {
		return !slices.ContainsFunc(users, func(u auth.User) bool { return u.Login == l.Login })
	})
	return users, locks
}

// check refuses an account that these commands are not for.
func (of accounts) check(u auth.User) error {
	if of.devices && !u.Device {
		return fmt.Errorf("%s is not a device but the account of a person; see: postern user --help", u.Login)
	}
	return nil
}

// update changes an account in one transaction, if it is still one that these commands are for.
func (of accounts) update(ctx context.Context, s store, login string, change func(*auth.User) error) error {
	return s.UpdateUser(ctx, login, func(u *auth.User) error {
		if err := of.check(*u); err != nil {
			return err
		}
		return change(u)
	})
}

// withAccount makes a command of what is done with one of the accounts. What it changes it has to look at once more, in
// the transaction that changes it: see update.
func (a *app) withAccount(of accounts, run func(cmd *cobra.Command, s store, u auth.User) error) runE {
	return func(cmd *cobra.Command, args []string) error {
		login, err := normalLogin(cmd, args[0])
		if err != nil {
			return err
		}
		s, err := a.openStore(cmd.Context())
		if err != nil {
			return err
		}
		defer s.Close()
		u, err := s.User(cmd.Context(), login)
		switch {
		case errors.Is(err, auth.ErrUnknownLogin):
			return unknownLogin(cmd, s, of, login)
		case err != nil:
			return err
		}
		if err := of.check(u); err != nil {
			return err
		}
		return run(cmd, s, u)
	}
}

// unknownLogin says that there is no such login, and which one may have been meant.
func unknownLogin(cmd *cobra.Command, s store, of accounts, login string) error {
	users, err := s.Users(cmd.Context())
	if err != nil {
		return err
	}
	users, _ = of.among(users, nil)
	logins := make([]string, len(users))
	for i, u := range users {
		logins[i] = u.Login
	}
	return fmt.Errorf("there is no login %s; see: postern %s list%s", login, of.command,
		suggest.Question(login, logins))
}

// normalLogin checks a login and returns it as it is kept.
func normalLogin(cmd *cobra.Command, login string) (string, error) {
	login, err := auth.CheckLogin(login)
	return login, usage(cmd, err)
}

// checkedSenders returns patterns of senders, each once.
func checkedSenders(patterns []string) (checked []string, err error) {
	for _, s := range patterns {
		if err := policy.CheckSenderPattern(s); err != nil {
			return nil, fmt.Errorf("sender %q: %w", s, err)
		}
		checked = addOnce(checked, s)
	}
	return checked, nil
}

func checkedNetworks(texts []string) (checked []netip.Prefix, err error) {
	for _, n := range texts {
		network, err := config.ParseNetwork(n)
		if err != nil {
			return nil, fmt.Errorf("network %w", err)
		}
		checked = addOnce(checked, network.Prefix)
	}
	return checked, nil
}

func checkedGroups(names []string) (checked []string, err error) {
	for _, g := range names {
		if g == "" || g != mail.Printable(g) || strings.ContainsAny(g, " \t,;") {
			return nil, fmt.Errorf("group %q: a name without blanks, commas and semicolons is needed",
				mail.Printable(g))
		}
		checked = addOnce(checked, g)
	}
	return checked, nil
}

func addOnce[T comparable](list []T, more ...T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// noteAccount traces what a person did to an account.
func noteAccount(ctx context.Context, s store, login, what string) error {
	return s.AppendEventsNow(ctx, []trace.Event{accountEvent(login, what)})
}

func accountEvent(login, what string) trace.Event {
	return trace.Event{Time: time.Now(), Kind: trace.Operator, Login: login, Detail: what + " from the command line"}
}

// credential is a new password of an account.
type credential struct {
	hash      auth.Secret
	generated string // to be shown once; "" where it was chosen
}

func (c credential) set(u *auth.User, now time.Time) {
	u.Hash, u.Generated, u.Changed = c.hash, c.generated != "", now
}

// newCredential reads a password from standard input, or makes one.
func newCredential(cmd *cobra.Command, s store, login string, device, stdin bool) (c credential, err error) {
	if !stdin {
		pepper, err := s.Secret(cmd.Context(), auth.PepperName, auth.PepperSize)
		return generate(pepper, device), err
	}
	password, err := readPassword(cmd)
	if err != nil {
		return c, err
	}
	if advice := auth.AdviseOn(login, password); advice != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", advice)
	}
	c.hash, err = auth.HashChosen(password)
	return c, err
}

// generate makes a password that its user can type.
func generate(pepper []byte, device bool) credential {
	password := auth.GeneratePassword()
	if device {
		password = auth.GenerateDevicePassword()
	}
	return credential{auth.HashGenerated(pepper, password), password}
}
