package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postern/internal/suggest"
	"postern/mail"
	"postern/relay/config"
)

// unknownCommand says that a group has no such command, and which may have been meant.
func unknownCommand(group *cobra.Command, typed string) error {
	text := fmt.Sprintf("unknown command %q for %q", mail.Printable(typed), group.CommandPath())
	if meant := commandsMeant(group, typed); len(meant) > 0 {
		text += "; did you mean " + strings.Join(meant, ", ") + "?"
	}
	return usage(group, errors.New(text))
}

// maxMeant is how many commands are proposed.
const maxMeant = 12

// commandsMeant are the commands that somebody may have meant: one that is spelled alike, one that begins so, one
// that is called so elsewhere, or those that are called so in other groups.
func commandsMeant(group *cobra.Command, typed string) (meant []string) {
	var names []string
	typed = strings.ToLower(typed)
	for _, c := range group.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		names = append(names, c.Name())
		if slices.Contains(c.SuggestFor, typed) || len(typed) > 1 && strings.HasPrefix(c.Name(), typed) {
			return []string{c.CommandPath()}
		}
	}
	if near := suggest.Nearest(typed, names); near != "" {
		return []string{group.CommandPath() + " " + near}
	}
	for _, other := range group.Root().Commands() {
		for _, c := range other.Commands() {
			if c.Name() == typed && len(meant) < maxMeant {
				meant = append(meant, c.CommandPath())
			}
		}
	}
	return meant
}

// wrongFlag is usage that knows which flag may have been meant.
func wrongFlag(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		add := func(f *pflag.Flag) { names = append(names, f.Name) }
		cmd.Flags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		if near := suggest.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			err = fmt.Errorf("%w; did you mean --%s?", err, near)
		}
	}
	return usage(cmd, err)
}

func unknownUpstream(c *config.Config, name string) error {
	names := make([]string, len(c.Upstreams))
	for i, u := range c.Upstreams {
		names[i] = u.Name
	}
	return fmt.Errorf("there is no upstream %q in %s%s", name, c.Path(), suggest.Question(name, names))
}
