package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"postern/internal/release"
)

func changesCommand() *cobra.Command {
	var since string
	var configuration bool
	cmd := &cobra.Command{
		Use:   "changes",
		Short: "Print what each version changed",
		Long: `Print what each version changed, as CHANGELOG.md says it, newest first. With --configuration, only what
concerns relay.toml: keys that are new, and defaults that are other ones. Packages print that on an upgrade.`,
		Example: `  postern changes --since 0.9.0
  postern changes --since 0.9.0 --configuration`,
		Args: exactly(0),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all := slices.Clone(release.History())
		if cmd.Flags().Changed("since") {
			var err error
			if all, err = release.Since(since); err != nil {
				return usage(cmd, fmt.Errorf("--since: %w", err))
			}
		}
		if configuration {
			all = aboutConfiguration(all)
		}
		if asJSON(cmd) {
			return writeJSON(cmd.OutOrStdout(), append([]release.Release{}, all...))
		}
		return printChanges(cmd.OutOrStdout(), all, since, configuration)
	}
	cmd.Flags().StringVar(&since, "since", "", "only what has changed after this `version`")
	cmd.Flags().BoolVar(&configuration, "configuration", false, "only what concerns relay.toml")
	return withJSON(cmd)
}

// aboutConfiguration leaves the sections about relay.toml.
func aboutConfiguration(all []release.Release) (some []release.Release) {
	for _, r := range all {
		for _, s := range r.Sections {
			if s.Title == release.Configuration {
				some = append(some, release.Release{Number: r.Number, Date: r.Date, Sections: []release.Section{s}})
			}
		}
	}
	return some
}

func printChanges(out io.Writer, all []release.Release, since string, configuration bool) error {
	if len(all) == 0 {
		what := ""
		if configuration {
			what = " in relay.toml"
		}
		_, err := fmt.Fprintf(out, "Nothing%s has changed since %s.\n", what, since)
		return err
	}
	for i, r := range all {
		name := r.Number + " - " + r.Date
		if r.Number == "" {
			name = release.Version()
		}
		if i > 0 {
			name = "\n" + name
		}
		if _, err := fmt.Fprintln(out, name); err != nil {
			return err
		}
		for _, s := range r.Sections {
			if _, err := fmt.Fprintf(out, "\n%s\n%s", s.Title, s.Text); err != nil {
				return err
			}
		}
	}
	return nil
}
