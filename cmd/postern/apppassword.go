package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/sources"
)

func (a *app) appPasswordCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "app-password", Aliases: []string{"app-passwords"},
		Short: "Passwords of people's devices and programs, beside the one of their login",
		Long: `An app password is another password of a login: generated, with a name, for one device or program. People
make them on the page of [self_service], and here an administrator does. Each can be revoked alone. They work with
PLAIN and LOGIN, not with SCRAM.`}
	cmd.AddCommand(a.appPasswordList(), a.appPasswordAdd(), a.appPasswordRevoke(), a.appPasswordForget())
	return cmd
}

func (a *app) appPasswordList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list [LOGIN]",
		Short: "Show app passwords, when they expire, and when and from where they were used",
		Args:  wrongUsage(cobra.MaximumNArgs(1)),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			login := ""
			if len(args) > 0 {
				login = args[0]
			}
			all, err := ops.AppPasswords.List(cmd.Context(), me(), login)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), all)
			}
			now, rows := time.Now(), [][]string{}
			for _, k := range all {
				rows = append(rows, append([]string{k.Login}, appPasswordRow(k, now)...))
			}
			return table(cmd.OutOrStdout(), append([]string{"LOGIN"}, appPasswordHead...), rows)
		}),
	})
}

var appPasswordHead = []string{"ID", "NAME", "FROM", "EXPIRES", "LAST USED", "LAST FROM"}

func appPasswordRow(k operate.AppPassword, now time.Time) []string {
	from, expires := "anywhere", when(k.Expires, now)
	if len(k.Networks) > 0 {
		from = list(k.Networks)
	}
	if k.Expired(now) {
		expires = "expired"
	}
	return []string{k.ID, mail.Printable(k.Name), from, expires, when(k.LastUsed, now), orDash(k.LastFrom)}
}

func (a *app) appPasswordAdd() *cobra.Command {
	var networks []string
	var expires string
	cmd := &cobra.Command{
		Use:   "add LOGIN NAME",
		Short: "Make an app password of a login and print it once",
		Example: `  postern app-password add anna@example.com "Canon in the hall" --network 192.0.2.10
  postern app-password add anna@example.com Thunderbird --expires 90d`,
		Args: exactly(2),
	}
	cmd.Flags().StringSliceVar(&networks, "network", nil, "`network` or address that may use it (default any)")
	cmd.Flags().StringVar(&expires, "expires", "", "after this time, such as 90d, it is not valid any more (default "+
		"max_age of [self_service])")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n := operate.NewAppPassword{Login: args[0], Name: args[1], Networks: networks}
		if expires != "" {
			d, err := config.ParseDuration(expires)
			if err != nil {
				return usage(cmd, fmt.Errorf("--expires: %w", err))
			}
			n.Expires = time.Now().Add(d.Std())
		}
		return a.withSecrets(cmd, toWrite, func(ops *operate.Operations) error {
			c, err := ops.AppPasswords.Add(cmd.Context(), me(), n)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), c)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Login      %s\nPassword   %s\nExpires    %s\n\nThis is shown this once. "+
				"End it:  postern app-password revoke %s %s\n", c.Login, c.Password,
				c.AppPassword.Expires.Local().Format(time.DateTime), c.Login, c.AppPassword.ID)
			if c.Warning != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "Warning: %s\n", c.Warning)
			}
			return nil
		})
	}
	return withJSON(cmd)
}

func (a *app) appPasswordRevoke() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke LOGIN [ID]",
		Short: "End an app password and its open sessions, or with --all those of a login",
		Args:  wrongUsage(cobra.RangeArgs(1, 2)),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of this login")
	cmd.RunE = a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
		if all == (len(args) == 2) {
			return usage(cmd, errors.New("name one by its ID, as 'postern app-password list' shows it, or write --all"))
		}
		if all {
			n, err := ops.AppPasswords.RevokeAll(cmd.Context(), me(), args[0])
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s of %s revoked.\n", plural(int64(n), "app password"), args[0])
			}
			return err
		}
		if err := ops.AppPasswords.Revoke(cmd.Context(), me(), args[0], args[1]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The app password %s of %s is revoked.\n", args[1], args[0])
		return nil
	})
	return cmd
}

func (a *app) appPasswordForget() *cobra.Command {
	return &cobra.Command{
		Use:   "forget LOGIN",
		Short: "Release a login that somebody has on the page of [self_service], with its app passwords",
		Long: `Release a login. The first person who logs in to the page of [self_service] by OpenID Connect as a login
has it; nobody else gets it, whatever the provider calls them. Release it for somebody who was renamed, and for a name
that was given to somebody else. Its app passwords end.`,
		Args: exactly(1),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			n, err := ops.AppPasswords.Forget(cmd.Context(), me(), args[0])
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is released; %s revoked.\n", args[0],
					plural(int64(n), "app password"))
			}
			return err
		}),
	}
}

// lookupOf asks the sources of a configuration who a login is, the store among them beside the daemon.
func lookupOf(c *config.Config, s store) func(context.Context, string) (auth.Identity, error) {
	return func(ctx context.Context, login string) (auth.Identity, error) {
		ctx, cancel := context.WithTimeout(ctx, authTimeout)
		defer cancel()
		list, err := sources.New(c, s, nil, nil) // nobody's password is verified
		if err != nil {
			return auth.Identity{}, err
		}
		defer sources.Close(list, nil)
		return sources.Lookup(ctx, list, login)
	}
}
