package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/suggest"
	"postern/relay/upstream/profile"
)

func (a *app) upstreamProfiles() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "profiles [NAME]",
		Short: "List the providers we know, or show what we know of one",
		Long: `List the providers that provider = "..." in [[upstream]] may name, or show one: its servers and limits,
how its replies are read, what is not certain, and where the facts come from.`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listProfiles(cmd)
			}
			p, ok := profile.Get(args[0])
			if !ok {
				return fmt.Errorf("there is no profile %q; there are %s%s", args[0],
					strings.Join(profile.Names(), ", "), suggest.Question(args[0], profile.Names()))
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), p)
			}
			return p.WriteText(cmd.OutOrStdout())
		},
	})
}

func listProfiles(cmd *cobra.Command) error {
	if asJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), profile.All())
	}
	var rows [][]string
	for _, p := range profile.All() {
		rows = append(rows, []string{
			p.Name, orDash(p.Host), p.Ports[0].String(), strconv.Itoa(p.MaxConnections),
			orDash(strings.Join(p.Rate, ", ")), p.DKIM, p.Title,
		})
	}
	return table(cmd.OutOrStdout(), []string{"NAME", "HOST", "PORT", "CONNECTIONS", "RATE", "DKIM", "WHAT"}, rows)
}
