package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/operate"
)

func printLockouts(w io.Writer, locks []auth.Lock, now time.Time) error {
	if len(locks) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nLocked out for a while, after too many different wrong passwords:\n\n")
	var rows [][]string
	for _, l := range locks {
		address, login := operate.LockedAddress(l), l.Login
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

// printLockedElsewhere lists the locked logins whose accounts are in other sources.
func printLockedElsewhere(cmd *cobra.Command, locks []auth.LoginLock, now time.Time) error {
	if len(locks) == 0 {
		return nil
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "\nLocked, with no account in the store:\n\n")
	var rows [][]string
	for _, l := range locks {
		rows = append(rows, []string{l.Login, orDash(l.Reason), l.By, when(l.At, now)})
	}
	return table(out, []string{"LOGIN", "REASON", "BY", "SINCE"}, rows)
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
	ops, done, err := a.operations(cmd, toWrite)
	if err != nil {
		return err
	}
	defer done()
	u, err := ops.Accounts.Unlock(cmd.Context(), me(), who)
	if err != nil {
		return people.explain(cmd, err)
	}
	sayUnlocked(cmd.OutOrStdout(), u)
	return nil
}

func sayUnlocked(w io.Writer, u operate.Unlocked) {
	if u.Account {
		fmt.Fprintf(w, "%s is unlocked.\n", u.Login)
	}
	for _, l := range u.Lifted {
		switch address := operate.LockedAddress(l); {
		case l.Login == "":
			fmt.Fprintf(w, "%s is unlocked, for every login.\n", address)
		case address != "":
			fmt.Fprintf(w, "%s is unlocked for login %s.\n", address, l.Login)
		case !u.Account:
			fmt.Fprintf(w, "%s is unlocked.\n", l.Login)
		}
	}
}
