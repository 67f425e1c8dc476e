package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/admin/access"
	"postern/operate"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens for programs that use the API"}
	cmd.AddCommand(a.tokenAdd(), a.tokenList(), a.tokenRevoke())
	return cmd
}

// newTokenView is a token that was made just now, as --json prints it.
type newTokenView struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

func (a *app) tokenAdd() *cobra.Command {
	var scopes, networks []string
	var expires string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a token and print it once",
		Long: `Make a token and print it once; the store keeps its hash. Scopes:

  read      everything that a viewer of the console sees
  queue     the queue, and read
  accounts  logins and devices, and read
  admin     everything but what asks for the second factor`,
		Example: `  postern token add monitoring --scope read --network 192.0.2.10 --expires 365d`,
		Args:    exactly(1),
	}
	cmd.RunE = a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
		n := access.NewToken{Name: args[0]}
		if len(scopes) == 0 {
			return usage(cmd, errors.New("--scope is missing: read, queue, accounts or admin"))
		}
		for _, s := range scopes {
			n.Scopes = append(n.Scopes, operate.Scope(s))
		}
		var err error
		if n.Networks, err = operate.ParseNetworks(networks); err != nil {
			return usage(cmd, err)
		}
		if expires != "" {
			d, err := config.ParseDuration(expires)
			if err != nil {
				return usage(cmd, fmt.Errorf("--expires: %w", err))
			}
			n.Expires = time.Now().Add(d.Std())
		}
		token, err := acc.Tokens.Add(cmd.Context(), me(), n)
		if err != nil {
			return err
		}
		if asJSON(cmd) {
			return writeJSON(cmd.OutOrStdout(), newTokenView{n.Name, token})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n\nThis is shown this once. Programs send it as: Authorization: Bearer "+
			"%s…\n", token,
			access.TokenPrefix)
		return nil
	})
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "read, queue, accounts or admin; may be given more than once")
	cmd.Flags().StringSliceVar(&networks, "network", nil, "`network` or address that may use it (default any)")
	cmd.Flags().StringVar(&expires, "expires", "", "after this time, such as 90d, it is not valid any more (default "+
		"never)")
	return withJSON(cmd)
}

// tokenView is a token as --json prints it.
type tokenView struct {
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`
	Networks  []string  `json:"networks"`
	Expires   time.Time `json:"expires,omitzero"`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	Used      time.Time `json:"last_used,omitzero"`
}

func viewOfToken(k relaystore.APIToken) tokenView {
	v := tokenView{k.Name, k.Scopes, []string{}, k.Expires, k.Created, k.CreatedBy, k.Used}
	for _, n := range k.Networks {
		v.Networks = append(v.Networks, n.String())
	}
	return v
}

func (a *app) tokenList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "Show the tokens, when they expire, and when they were used",
		Args:  exactly(0),
		RunE: a.withAccess(toLook, func(cmd *cobra.Command, acc *access.Access, _ []string) error {
			tokens, err := acc.Tokens.List(cmd.Context(), me())
			if err != nil {
				return err
			}
			now, views, rows := time.Now(), []tokenView{}, [][]string{}
			for _, k := range tokens {
				v := viewOfToken(k)
				views = append(views, v)
				from, expires := "anywhere", "never"
				if len(v.Networks) > 0 {
					from = strings.Join(v.Networks, ", ")
				}
				if !v.Expires.IsZero() {
					expires = when(v.Expires, now)
				}
				rows = append(rows, []string{v.Name, strings.Join(v.Scopes, ", "), from, expires, when(v.Used, now),
					v.CreatedBy})
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), views)
			}
			return table(cmd.OutOrStdout(), []string{"NAME", "SCOPES", "FROM", "EXPIRES", "LAST USED", "MADE BY"}, rows)
		}),
	})
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Make a token useless at once",
		Args:  exactly(1),
		RunE: a.withAccess(toWrite, func(cmd *cobra.Command, acc *access.Access, args []string) error {
			if err := acc.Tokens.Revoke(cmd.Context(), me(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The token %s is revoked.\n", args[0])
			return nil
		}),
	}
}
