package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/mail"
	relaystore "postern/relay/store"
)

// accountFlags are the properties of an account.
type accountFlags struct {
	senders, networks, groups []string
	note                      string
}

func (f *accountFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.senders, "sender", nil,
		"`pattern` (address, *@domain) that it may send as; may be repeated; default: what [[policy]] says")
	cmd.Flags().StringArrayVar(&f.networks, "network", nil,
		"network (`CIDR`) that it may log in from; may be repeated; default: any")
	cmd.Flags().StringArrayVar(&f.groups, "group", nil, "`group` for [[policy]] and [[route]]; may be repeated")
	cmd.Flags().StringVar(&f.note, "note", "", "a word for those who list the accounts")
}

// user makes an account of the flags, checked.
func (f *accountFlags) user(cmd *cobra.Command, login string) (auth.User, error) {
	login, err := normalLogin(cmd, login)
	if err != nil {
		return auth.User{}, err
	}
	senders, err1 := checkedSenders(f.senders)
	networks, err2 := checkedNetworks(f.networks)
	groups, err3 := checkedGroups(f.groups)
	u := auth.User{Login: login, Senders: senders, Networks: networks, Groups: groups, Note: mail.Printable(f.note)}
	return u, usage(cmd, errors.Join(err1, err2, err3))
}

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Manage the accounts that may log in"}
	cmd.AddCommand(a.userAdd(), a.accountList(people), a.accountSet(people), a.userImport(), a.accountRemove(people),
		a.accountPassword(people), a.userLock(), a.userUnlock())
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
			u, err := flags.user(cmd, args[0])
			if err != nil {
				return err
			}
			password, err := a.addAccount(cmd, &u, stdin)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON(cmd):
				return writeJSON(out, newAccountView{u.Login, password})
			case stdin:
				fmt.Fprintf(out, "Added %s.\n", u.Login)
			default:
				fmt.Fprintf(out, "Login     %s\nPassword  %s\n\n", u.Login, password)
				fmt.Fprintln(out, "The password is shown this once; it cannot be read back.")
			}
			return nil
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return withJSON(cmd)
}

// newAccountView is a login with the password that was generated for it, as --json prints it.
type newAccountView struct {
	Login    string `json:"login"`
	Password string `json:"password,omitempty"`
}

// addAccount gives a new account its password and stores it. It refuses a login that exists.
func (a *app) addAccount(cmd *cobra.Command, u *auth.User, stdin bool) (password string, err error) {
	s, err := a.openStore(cmd.Context())
	if err != nil {
		return "", err
	}
	defer s.Close()
	if _, err := s.User(cmd.Context(), u.Login); err == nil {
		return "", loginExists(u.Login) // before a password is asked for
	}
	c, err := newCredential(cmd, s, u.Login, u.Device, stdin)
	if err != nil {
		return "", err
	}
	c.set(u, time.Now())
	u.Created = u.Changed
	err = s.AddUser(cmd.Context(), *u)
	if errors.Is(err, relaystore.ErrExists) {
		return "", loginExists(u.Login)
	}
	if err != nil {
		return "", err
	}
	return c.generated, noteAccount(cmd.Context(), s, u.Login, "account added")
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
		RunE: a.withStore(func(cmd *cobra.Command, s store, _ []string) error {
			users, err := s.Users(cmd.Context())
			if err != nil {
				return err
			}
			now := time.Now()
			locks, err := s.Lockouts(cmd.Context(), now)
			if err != nil {
				return err
			}
			users, locks = of.among(users, locks)
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), listed(users, locks))
			}
			if err := printUsers(cmd.OutOrStdout(), of, users, now); err != nil {
				return err
			}
			return printLockouts(cmd.OutOrStdout(), locks, now)
		}),
	})
}

// userView is an account as --json prints it: without anything of its password.
type userView struct {
	Login      string         `json:"login"`
	Kind       string         `json:"kind"`
	Password   string         `json:"password"`
	Locked     bool           `json:"locked"`
	LockReason string         `json:"lock_reason,omitempty"`
	Senders    []string       `json:"senders,omitempty"`
	Groups     []string       `json:"groups,omitempty"`
	Networks   []netip.Prefix `json:"networks,omitempty"`
	Note       string         `json:"note,omitempty"`
	Created    time.Time      `json:"created"`
	Changed    time.Time      `json:"changed"`
}

func viewOfUser(u auth.User) userView {
	return userView{u.Login, kind(u), passwordKind(u), u.Locked, u.LockReason, u.Senders, u.Groups, u.Networks, u.Note,
		u.Created, lastChange(u)}
}

// lastChange is when anything of an account was changed.
func lastChange(u auth.User) time.Time {
	if u.Edited.After(u.Changed) {
		return u.Edited
	}
	return u.Changed
}

func kind(u auth.User) string {
	if u.Device {
		return "device"
	}
	return "user"
}

func passwordKind(u auth.User) string {
	if u.Generated {
		return "generated"
	}
	return "chosen"
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
		rows = append(rows, []string{u.Login, kind(u), status, list(u.Senders), list(u.Groups),
			list(u.Networks), passwordKind(u), when(lastChange(u), now), orDash(u.Note)})
	}
	return table(w, []string{"LOGIN", "KIND", "STATUS", "SENDERS", "GROUPS", "NETWORKS", "PASSWORD", "CHANGED", "NOTE"},
		rows)
}

// list is what a cell of a table shows of a list.
func list[T any](values []T) string {
	if len(values) == 0 {
		return "-"
	}
	return listText(values)
}

func (a *app) accountRemove(of accounts) *cobra.Command {
	return &cobra.Command{
		Use:        "remove " + of.argument,
		Short:      "Remove " + of.one + "; its waiting mail stays in the queue",
		SuggestFor: []string{"delete", "rm", "del"},
		Args:       exactly(1),
		RunE: a.withAccount(of, func(cmd *cobra.Command, s store, u auth.User) error {
			if err := s.DeleteUser(cmd.Context(), u.Login, of.check); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Removed %s.\n", u.Login)
			return noteAccount(cmd.Context(), s, u.Login, "account removed")
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
		RunE: a.withAccount(of, func(cmd *cobra.Command, s store, u auth.User) error {
			c, err := newCredential(cmd, s, u.Login, u.Device, stdin)
			if err != nil {
				return err
			}
			err = of.update(cmd.Context(), s, u.Login, func(u *auth.User) error { c.set(u, time.Now()); return nil })
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON(cmd):
				err = writeJSON(out, newAccountView{u.Login, c.generated})
			case stdin:
				fmt.Fprintf(out, "Changed the password of %s.\n", u.Login)
			default:
				fmt.Fprintf(out, "Login     %s\nPassword  %s\n\n", u.Login, c.generated)
				fmt.Fprintln(out, "The password is shown this once; the old one is no longer valid.")
			}
			return errors.Join(err, noteAccount(cmd.Context(), s, u.Login, "password changed"))
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
		RunE: a.withAccount(people, func(cmd *cobra.Command, s store, u auth.User) error {
			err := s.UpdateUser(cmd.Context(), u.Login, func(u *auth.User) error {
				u.Locked, u.LockReason, u.Changed = true, mail.Printable(reason), time.Now()
				return nil
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is locked.\n", u.Login)
			return noteAccount(cmd.Context(), s, u.Login, "account locked ("+mail.Printable(reason)+")")
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "by an operator", "why, for those who list the accounts")
	return cmd
}
