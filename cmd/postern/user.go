package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/operate"
)

// accountFlags are the properties of an account.
type accountFlags struct {
	senders, networks, groups []string
	note                      string
	withoutSender             bool
}

func (f *accountFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.senders, "sender", nil,
		"`pattern` (address, *@domain) that it may send as; may be repeated; default: what [[policy]] says")
	cmd.Flags().StringArrayVar(&f.networks, "network", nil,
		"network (`CIDR`) that it may log in from; may be repeated; default: any")
	cmd.Flags().StringArrayVar(&f.groups, "group", nil, "`group` for [[policy]] and [[route]]; may be repeated")
	cmd.Flags().BoolVar(&f.withoutSender, "without-sender", false,
		"add it even if it may send as nobody until it gets a sender")
	cmd.Flags().StringVar(&f.note, "note", "", "a word for those who list the accounts")
}

// account is an account of the flags.
func (f *accountFlags) account(login string) operate.NewAccount {
	return operate.NewAccount{Login: login, Senders: f.senders, Networks: f.networks, Groups: f.groups, Note: f.note,
		WithoutSender: f.withoutSender}
}

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Manage the accounts that may log in"}
	cmd.AddCommand(a.userAdd(), a.accountList(people), a.accountSet(people), a.accountShow(people), a.userImport(),
		a.accountRemove(people), a.accountPassword(people), a.accountLimits(people), a.userLock(), a.userUnlock())
	return cmd
}

func (a *app) userAdd() *cobra.Command {
	var flags accountFlags
	var stdin bool
	cmd := &cobra.Command{
		Use:   "add LOGIN",
		Short: "Add an account; without --password-stdin a password is generated and printed once",
		Example: `  postern user add anna@example.com
  postern user add billing --sender invoices@example.com --network 10.0.0.0/24
  printf %s "$PASSWORD" | postern user add bob@example.com --password-stdin`,
		SuggestFor: []string{"create", "new"},
		Args:       exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.addAccount(cmd, flags.account(args[0]), stdin)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON(cmd):
				return writeJSON(out, c)
			case stdin:
				fmt.Fprintf(out, "Added %s.\n", c.Login)
			default:
				fmt.Fprintf(out, "Login     %s\nPassword  %s\n\n", c.Login, c.Password)
				fmt.Fprintln(out, "The password is shown this once; it cannot be read back.")
			}
			return nil
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return withJSON(cmd)
}

// addAccount adds an account with a password. It refuses a login that exists before it reads one.
func (a *app) addAccount(cmd *cobra.Command, n operate.NewAccount, stdin bool) (c operate.Credential, err error) {
	if err := n.Check(); err != nil {
		return c, usage(cmd, err)
	}
	ops, done, err := a.operations(cmd, toWrite)
	if err != nil {
		return c, err
	}
	defer done()
	if u, err := ops.Accounts.Get(cmd.Context(), me(), operate.Everybody, n.Login); err == nil {
		return c, loginExists(u.Login)
	}
	if n.Password, err = chosenPassword(cmd, stdin); err != nil {
		return c, err
	}
	c, err = ops.Accounts.Add(cmd.Context(), me(), n)
	if kind, known := operate.KindOf(err); known && kind == operate.Conflict {
		return c, loginExists(n.Login)
	}
	if f, is := errors.AsType[*operate.Error](err); is && f.Suggest != "" {
		return c, usage(cmd, fmt.Errorf("%w: --sender %s; or add it without one: --without-sender", err, f.Suggest))
	}
	warn(cmd, c.Warning)
	return c, err
}

func loginExists(login string) error {
	return fmt.Errorf("login %[1]s exists already; to change its password: postern user password %[1]s; "+
		"anything else: postern user set %[1]s", login)
}

// accountList lists people and devices, or devices alone.
func (a *app) accountList(of accounts) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the " + of.list + ", and who is locked out for a while",
		Args:  exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			users, locks, err := ops.Accounts.List(cmd.Context(), me(), of.among)
			if err != nil {
				return err
			}
			elsewhere, err := ops.Accounts.LockedElsewhere(cmd.Context(), me(), of.among)
			if err != nil {
				return err
			}
			now := time.Now()
			if asJSON(cmd) {
				all := operate.ShownAccounts(users, locks)
				for _, l := range operate.ShownLocks(elsewhere) {
					all = append(all, l)
				}
				return writeJSON(cmd.OutOrStdout(), all)
			}
			if err := printUsers(cmd.OutOrStdout(), of, users, now); err != nil {
				return err
			}
			if err := printLockedElsewhere(cmd, elsewhere, now); err != nil {
				return err
			}
			return printLockouts(cmd.OutOrStdout(), locks, now)
		}),
	})
}

func printUsers(w io.Writer, of accounts, users []auth.User, now time.Time) error {
	if len(users) == 0 {
		fmt.Fprintf(w, "There are no %s yet. Add one: postern %s add %s\n", of.list, of.command, of.argument)
		return nil
	}
	var rows [][]string
	for _, u := range users {
		status := "active"
		if u.Locked {
			status = strings.TrimSpace("locked " + u.LockReason)
		}
		rows = append(rows, []string{u.Login, operate.KindOfAccount(u), status, list(u.Senders), list(u.Groups),
			list(u.Networks), operate.PasswordKind(u), when(operate.LastChange(u), now), orDash(u.Note)})
	}
	return table(w, []string{"LOGIN", "KIND", "STATUS", "SENDERS", "GROUPS", "NETWORKS", "PASSWORD", "CHANGED", "NOTE"},
		rows)
}

// list is what a cell of a table shows of a list.
func list[T any](values []T) string {
	if len(values) == 0 {
		return "-"
	}
	return operate.ListText(values)
}

func (a *app) accountRemove(of accounts) *cobra.Command {
	return &cobra.Command{
		Use:        "remove " + of.argument,
		Short:      "Remove " + of.one + "; its waiting mail stays in the queue",
		SuggestFor: []string{"delete", "rm", "del"},
		Args:       exactly(1),
		RunE: a.account(of, func(cmd *cobra.Command, ops *operate.Operations, login string) error {
			if err := ops.Accounts.Remove(cmd.Context(), me(), of.among, login); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Removed %s.\n", login)
			return nil
		}),
	}
}

func (a *app) accountPassword(of accounts) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use:        "password " + of.argument,
		Short:      "Set a new password; without --password-stdin one is generated and printed once",
		SuggestFor: []string{"passwd", "reset"},
		Args:       exactly(1),
		RunE: a.account(of, func(cmd *cobra.Command, ops *operate.Operations, login string) error {
			if _, err := ops.Accounts.Get(cmd.Context(), me(), of.among, login); err != nil {
				return err // before a password is asked for
			}
			password, err := chosenPassword(cmd, stdin)
			if err != nil {
				return err
			}
			c, err := ops.Accounts.Password(cmd.Context(), me(), of.among, login, password)
			if err != nil {
				return err
			}
			warn(cmd, c.Warning)
			out := cmd.OutOrStdout()
			switch {
			case asJSON(cmd):
				return writeJSON(out, c)
			case stdin:
				fmt.Fprintf(out, "Changed the password of %s.\n", c.Login)
			default:
				fmt.Fprintf(out, "Login     %s\nPassword  %s\n\n", c.Login, c.Password)
				fmt.Fprintln(out, "The password is shown this once; the old one is no longer valid.")
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return withJSON(cmd)
}

func (a *app) userLock() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:        "lock LOGIN",
		Short:      "Refuse a login until it is unlocked",
		SuggestFor: []string{"disable", "block", "suspend"},
		Args:       exactly(1),
		RunE: a.account(people, func(cmd *cobra.Command, ops *operate.Operations, login string) error {
			if err := ops.Accounts.Lock(cmd.Context(), me(), login, reason); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is locked.\n", login)
			return nil
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "by an operator", "why, for those who list the accounts")
	return cmd
}
