package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"postern/admin/access"
	"postern/operate"
	"postern/relay"
	relaystore "postern/relay/store"
)

func (a *app) consoleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "console", Short: "Who may into the console"}
	cmd.AddCommand(a.consoleInvite(), a.consoleList(), a.consoleReset(), a.consoleRole(), a.consoleDisable(true),
		a.consoleDisable(false), a.consoleRemove())
	return cmd
}

// withAccess makes a command of what is done with the console's users and tokens.
func (a *app) withAccess(open opener,
	run func(cmd *cobra.Command, acc *access.Access, args []string) error) runE {
	return func(cmd *cobra.Command, args []string) error {
		c, s, err := opened(cmd, a.read, open)
		if err != nil {
			return err
		}
		defer s.Close()
		acc, err := relay.NewAccess(cmd.Context(), c, s, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		if acc == nil {
			return fmt.Errorf("the console and the API are off in %s: on loopback they are on by themselves, "+
				"elsewhere write tls = true in [admin]", c.Path())
		}
		return run(cmd, acc, args)
	}
}

func showLink(cmd *cobra.Command, link access.Link) error {
	if asJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), link)
	}
	fmt.Fprintf(cmd.OutOrStdout(), `%s becomes %s of the console with this link. It works once, until %s:

  %s

Who opens it chooses a password, and an authenticator or a passkey. Hand it over on a way that nobody else reads.
`, link.Name, link.Role, when(link.Expires, time.Now()), link.URL)
	return nil
}

func (a *app) consoleInvite() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "Let somebody into the console: print a link that works once for 15 minutes",
		Long: `Let somebody into the console: print a link that works once for 15 minutes. Roles, each of which may
what those before it may:

  viewer    sees everything but header fields and content
  helpdesk  finds out why, and releases held mail
  operator  steers the queue, logins and devices
  admin     removes, sees content, manages keys, tokens and who may into the console`,
		Example: `  postern console invite anna --role admin`,
		Args:    exactly(1),
	}
	cmd.RunE = a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
		r, err := operate.ParseRole(role)
		if err != nil {
			return usage(cmd, fmt.Errorf("--role: %w", err))
		}
		link, err := acc.Users.Invite(cmd.Context(), me(), args[0], r)
		if err != nil {
			return err
		}
		return showLink(cmd, link)
	})
	cmd.Flags().StringVar(&role, "role", "", "viewer, helpdesk, operator or admin")
	return withJSON(cmd)
}

// unknownConsoleUser says what to do about a name that nobody has.
func unknownConsoleUser(err error, name string) error {
	if errors.Is(err, relaystore.ErrNoConsoleUser) {
		return fmt.Errorf("nobody in the console has the name %s; see: postern console list", name)
	}
	return err
}

func (a *app) consoleReset() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "reset NAME",
		Short: "Take password, factors and sessions from somebody, and print a new link",
		Args:  exactly(1),
		RunE: a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
			link, err := acc.Users.Reset(cmd.Context(), me(), args[0])
			if err != nil {
				return unknownConsoleUser(err, args[0])
			}
			return showLink(cmd, link)
		}),
	})
}

func (a *app) consoleRole() *cobra.Command {
	return &cobra.Command{
		Use:   "role NAME ROLE",
		Short: "Change what somebody may, which ends their sessions",
		Args:  exactly(2),
		RunE: a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
			role, err := operate.ParseRole(args[1])
			if err != nil {
				return usage(cmd, err)
			}
			if err := acc.Users.SetRole(cmd.Context(), me(), args[0], role); err != nil {
				return unknownConsoleUser(err, args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s now.\n", args[0], role)
			return nil
		}),
	}
}

func (a *app) consoleDisable(off bool) *cobra.Command {
	use, short, said := "enable NAME", "Let somebody in again who was kept out by disable", "may log in again"
	if off {
		use, short, said = "disable NAME", "Keep somebody out of the console, and end their sessions", "is kept out"
	}
	return &cobra.Command{
		Use: use, Short: short, Args: exactly(1),
		RunE: a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
			if err := acc.Users.Disable(cmd.Context(), me(), args[0], off); err != nil {
				return unknownConsoleUser(err, args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s.\n", args[0], said)
			return nil
		}),
	}
}

func (a *app) consoleRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove somebody from the console",
		Long: `Remove somebody from the console, with sessions and links. Who logs in by OpenID Connect comes back with
the next login: keep them out with disable, or change their groups at the login provider.`,
		Args: exactly(1),
		RunE: a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
			if err := acc.Users.Remove(cmd.Context(), me(), args[0]); err != nil {
				return unknownConsoleUser(err, args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is removed.\n", args[0])
			return nil
		}),
	}
}

// consoleView is a user of the console as --json prints it.
type consoleView struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	State     string    `json:"state"` // active, invited or disabled
	Factor    string    `json:"factor"`
	Created   time.Time `json:"created"`
	LastLogin time.Time `json:"last_login,omitzero"`
}

func viewOfConsoleUser(u relaystore.ConsoleUser) consoleView {
	v := consoleView{Name: u.Name, Role: u.Role, State: "active", Created: u.Created, LastLogin: u.LastLogin}
	switch {
	case u.Disabled:
		v.State = "disabled"
	case !u.Active():
		v.State = "invited"
	}
	switch {
	case u.Provider != "":
		v.Factor = "OpenID Connect"
	case len(u.Passkeys) > 0:
		v.Factor = "passkey"
	case u.TOTP != "":
		v.Factor = "authenticator"
	}
	return v
}

func (a *app) consoleList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "Show who may into the console",
		Args:  exactly(0),
		RunE: a.withAccess(toLook, func(cmd *cobra.Command, acc *access.Access, _ []string) error {
			users, err := acc.Users.List(cmd.Context(), me())
			if err != nil {
				return err
			}
			views := make([]consoleView, len(users))
			for i, u := range users {
				views[i] = viewOfConsoleUser(u)
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), views)
			}
			return printConsoleUsers(cmd.OutOrStdout(), views)
		}),
	})
}

func printConsoleUsers(w io.Writer, views []consoleView) error {
	if len(views) == 0 {
		fmt.Fprintln(w, "Nobody may into the console yet. Begin with: postern console invite NAME --role admin")
		return nil
	}
	rows := make([][]string, len(views))
	for i, v := range views {
		rows[i] = []string{v.Name, v.Role, v.State, v.Factor, when(v.LastLogin, time.Now())}
	}
	return table(w, []string{"NAME", "ROLE", "STATE", "FACTOR", "LAST LOGIN"}, rows)
}
