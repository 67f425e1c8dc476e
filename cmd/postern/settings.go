package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/operate"
)

func (a *app) settingsCommand() *cobra.Command {
	var written bool
	cmd := &cobra.Command{
		Use:   "settings [WORD]...",
		Short: "Show what is in force, defaults too, with the lines of relay.toml; secrets are not shown",
		Example: `  postern settings
  postern settings upstream rate
  postern settings --written`,
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			f, err := ops.Settings.List(cmd.Context(), me(), strings.Join(args, " "))
			if err != nil {
				return err
			}
			if written {
				f = f.Written()
			}
			switch {
			case asJSON(cmd):
				return writeJSON(cmd.OutOrStdout(), f)
			case len(f.Settings) == 0:
				fmt.Fprintln(cmd.OutOrStdout(), "No setting is like this.")
				return errSilent
			}
			rows := make([][]string, len(f.Settings))
			for i, s := range f.Settings {
				origin := "default"
				if s.Written {
					origin = fmt.Sprintf("line %d", s.Line)
				}
				rows[i] = []string{s.Key, s.Value, origin}
			}
			return table(cmd.OutOrStdout(), []string{"KEY", "VALUE", "ORIGIN"}, rows)
		}),
	}
	cmd.Flags().BoolVar(&written, "written", false, "only what stands in relay.toml")
	return withJSON(cmd)
}
