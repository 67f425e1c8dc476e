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
	"postern/policy"
	"postern/relay/config"
)

// accountFlags are the properties of an account.
type accountFlags struct {
	senders, networks, groups []string
	note                      string
}

func (f *accountFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.senders, "sender", nil, "address it may send as: `pattern` (address, *@domain); default: what [[policy]] says")
	cmd.Flags().StringArrayVar(&f.networks, "network", nil, "only from this network: `CIDR`")
	cmd.Flags().StringArrayVar(&f.groups, "group", nil, "`group` for [[policy]] and [[route]]")
	cmd.Flags().StringVar(&f.note, "note", "", "a word for those who list the accounts")
}

// user makes an account of the flags, checked.
func (f *accountFlags) user(cmd *cobra.Command, login string) (auth.User, error) {
	login, err := normalLogin(cmd, login)
	if err != nil {
		return auth.User{}, err
	}
	u := auth.User{Login: login, Senders: f.senders, Groups: f.groups, Note: mail.Printable(f.note)}
	for _, s := range f.senders {
		if err := policy.CheckSenderPattern(s); err != nil {
			return u, usage(cmd, fmt.Errorf("--sender %q: %w", s, err))
		}
	}
	for _, n := range f.networks {
		prefix, err := config.ParseNetwork(n)
		if err != nil {
			return u, usage(cmd, fmt.Errorf("--network %q: %w", n, err))
		}
		u.Networks = append(u.Networks, prefix.Prefix)
	}
	return u, nil
}

// normalLogin checks a login and returns it as it is kept.
func normalLogin(cmd *cobra.Command, login string) (string, error) {
	login, err := auth.CheckLogin(login)
	return login, usage(cmd, err)
}

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Manage the accounts that may log in"}
	cmd.AddCommand(a.userAdd(), a.userList(), a.userRemove(), a.userPassword(),
		a.userLock(), a.userUnlock())
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
		Args: exactly(1),
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
			if !stdin {
				fmt.Fprintf(out, "Login     %s\nPassword  %s\n\nThe password is shown this once; it cannot be read back.\n", u.Login, password)
				return nil
			}
			fmt.Fprintf(out, "Added %s.\n", u.Login)
			return nil
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

// addAccount gives a new account its password and stores it. It refuses a login that exists.
func (a *app) addAccount(cmd *cobra.Command, u *auth.User, stdin bool) (password string, err error) {
	s, err := a.openStore(cmd.Context())
	if err != nil {
		return "", err
	}
	defer s.Close()
	_, err = s.User(cmd.Context(), u.Login)
	if err == nil {
		return "", fmt.Errorf("login %s exists already; to change its password: postern user password %s", u.Login, u.Login)
	}
	if !errors.Is(err, auth.ErrUnknownLogin) {
		return "", err
	}
	if password, err = setPassword(cmd, s, u, stdin); err != nil {
		return "", err
	}
	u.Created = u.Changed
	return password, s.PutUser(cmd.Context(), *u)
}

// setPassword sets a chosen password from standard input, or a generated one, which it returns.
func setPassword(cmd *cobra.Command, s store, u *auth.User, stdin bool) (generated string, err error) {
	u.Changed = time.Now()
	if stdin {
		password, err := readPassword(cmd)
		if err != nil {
			return "", err
		}
		if advice := auth.AdviseOn(u.Login, password); advice != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", advice)
		}
		u.Hash, err = auth.HashChosen(password)
		u.Generated = false
		return "", err
	}
	pepper, err := s.Secret(cmd.Context(), auth.PepperName, auth.PepperSize)
	if err != nil {
		return "", err
	}
	password := auth.GeneratePassword()
	u.Hash, u.Generated = auth.HashGenerated(pepper, password), true
	return password, nil
}

func (a *app) userList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the accounts, and who is locked out for a while",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			users, err := s.Users(cmd.Context())
			if err != nil {
				return err
			}
			now := time.Now()
			locks, err := s.Lockouts(cmd.Context(), now)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), listed(users, locks))
			}
			if err := printUsers(cmd.OutOrStdout(), users, now); err != nil {
				return err
			}
			return printLockouts(cmd.OutOrStdout(), locks, now)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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

func userViews(users []auth.User) []userView {
	views := make([]userView, len(users))
	for i, u := range users {
		views[i] = userView{u.Login, kind(u), passwordKind(u), u.Locked, u.LockReason, u.Senders, u.Groups, u.Networks, u.Note, u.Created, u.Changed}
	}
	return views
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

func printUsers(w io.Writer, users []auth.User, now time.Time) error {
	if len(users) == 0 {
		fmt.Fprintln(w, "There are no accounts yet. Add one: postern user add LOGIN")
		return nil
	}
	var rows [][]string
	for _, u := range users {
		status := "active"
		if u.Locked {
			status = strings.TrimSpace("locked " + u.LockReason)
		}
		var networks []string
		for _, n := range u.Networks {
			networks = append(networks, n.String())
		}
		rows = append(rows, []string{u.Login, kind(u), status, orDash(strings.Join(u.Senders, ", ")), orDash(strings.Join(u.Groups, ", ")),
			orDash(strings.Join(networks, ", ")), passwordKind(u), when(u.Changed, now), orDash(u.Note)})
	}
	return table(w, []string{"LOGIN", "KIND", "STATUS", "SENDERS", "GROUPS", "NETWORKS", "PASSWORD", "CHANGED", "NOTE"}, rows)
}

func (a *app) userRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove LOGIN",
		Short: "Remove an account; its waiting mail stays in the queue",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, u, err := a.account(cmd, args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.DeleteUser(cmd.Context(), u.Login); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Removed %s.\n", u.Login)
			return nil
		},
	}
}

func (a *app) userPassword() *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use:   "password LOGIN",
		Short: "Set a new password; without --password-stdin one is generated and printed once",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, u, err := a.account(cmd, args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			password, err := setPassword(cmd, s, &u, stdin)
			if err != nil {
				return err
			}
			if err := s.PutUser(cmd.Context(), u); err != nil {
				return err
			}
			if stdin {
				fmt.Fprintf(cmd.OutOrStdout(), "Changed the password of %s.\n", u.Login)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Login     %s\nPassword  %s\n\nThe password is shown this once; the old one is no longer valid.\n", u.Login, password)
			return nil
		},
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (a *app) userLock() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "lock LOGIN",
		Short: "Refuse a login until it is unlocked",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, u, err := a.account(cmd, args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			u.Locked, u.LockReason, u.Changed = true, mail.Printable(reason), time.Now()
			if err := s.PutUser(cmd.Context(), u); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is locked.\n", u.Login)
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "by an operator", "why, for those who list the accounts")
	return cmd
}

// account opens the store and finds an account. The caller closes the store when err is nil.
func (a *app) account(cmd *cobra.Command, login string) (store, auth.User, error) {
	login, err := normalLogin(cmd, login)
	if err != nil {
		return nil, auth.User{}, err
	}
	s, err := a.openStore(cmd.Context())
	if err != nil {
		return nil, auth.User{}, err
	}
	u, err := s.User(cmd.Context(), login)
	if errors.Is(err, auth.ErrUnknownLogin) {
		err = fmt.Errorf("there is no login %s; see: postern user list", login)
	}
	if err != nil {
		s.Close()
		return nil, auth.User{}, err
	}
	return s, u, nil
}
