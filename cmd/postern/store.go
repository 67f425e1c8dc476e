package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"postern/internal/howto"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

func (a *app) storeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "store", Short: "Move the store between SQLite and PostgreSQL"}
	cmd.AddCommand(a.storeMigrate(), a.storeReuse())
	return cmd
}

func (a *app) storeMigrate() *cobra.Command {
	var to string
	var check bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Move everything, queue included, to where another relay.toml has its store",
		Long: `Move the whole store, queue included, from where relay.toml has it to where another relay.toml has it:
from SQLite to PostgreSQL or back. Postern must be stopped, and nothing is sent meanwhile. What is sealed is opened
with the key of the one and sealed with the key of the other.

The copy is read back and compared. Then the old store refuses to be used, so that nothing is sent twice; it keeps what
it has. What is broken off, even hard, is begun again by calling this again, or Postern goes on where it was.

See docs/nodes.md for the steps around it.`,
		Example: `  postern store migrate --to relay.new.toml --check
  postern store migrate --to relay.new.toml`,
		Args: exactly(0),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return usage(cmd, errors.New("--to is missing: a copy of relay.toml that has the other [store]"))
		}
		source, err := a.read()
		if err != nil {
			return err
		}
		destination, err := config.Read(to)
		if err != nil {
			return err
		}
		steps := newProgress(cmd.ErrOrStderr())
		defer steps.end()
		o := relaystore.MigrateOptions{Check: check, Progress: steps.step}
		done, err := relaystore.Migrate(cmd.Context(), relaystore.Of(source), relaystore.Of(destination), o)
		switch {
		case err != nil:
			return stopFirst(err)
		case asJSON(cmd):
			return writeJSON(cmd.OutOrStdout(), done)
		}
		return printMigration(cmd, done, check, source.Path(), destination.Path())
	}
	cmd.Flags().StringVar(&to, "to", "", "configuration `file` whose store everything is moved to")
	cmd.Flags().BoolVar(&check, "check", false, "look whether it can be moved, and copy nothing")
	return withJSON(cmd)
}

func printMigration(cmd *cobra.Command, m *relaystore.Migration, check bool, from, to string) error {
	rows := int64(0)
	for _, t := range m.Tables {
		rows += t.Rows
	}
	what := fmt.Sprintf("%s (%s) and %s of other tables", plural(m.Messages, "message"), size(m.Octets),
		plural(rows, "row"))
	if check {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "It can be moved: %s from %s to %s.\n", what, m.From, m.To)
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), `Moved %s from %s to %s. Both were read, and are the same.

Next:
  %s %s %s
  postern check
  %s

%s keeps what it had, and refuses to be used. Delete it once you trust the new place.
`, what, m.From, m.To, howto.Move, to, from, howto.Start, m.From)
	return err
}

// reuseView is what became of a store that is to be used again, as --json prints it.
type reuseView struct {
	Store string `json:"store"`
	Moved bool   `json:"moved"` // it was
	To    string `json:"to,omitempty"`
}

func (a *app) storeReuse() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reuse",
		Short: "Use a store again that was moved away",
		Long: `Use the store that relay.toml names again although it was moved to another place: where that one is lost,
or was never started. Mail that waited at the time of the move is sent from here then. What was sent from the other
place since is sent once more, and what has changed there is not here.`,
		Example: `  postern store reuse`,
		Args:    exactly(0),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.read()
		if err != nil {
			return err
		}
		o := relaystore.Of(c)
		to, err := relaystore.Reuse(cmd.Context(), o)
		switch out := cmd.OutOrStdout(); {
		case err != nil:
			return stopFirst(err)
		case asJSON(cmd):
			return writeJSON(out, reuseView{o.Place(), to != "", to})
		case to == "":
			_, err = fmt.Fprintf(out, "%s was not moved.\n", o.Place())
		default:
			_, err = fmt.Fprintf(out, "%s can be used again. Start nothing any more that uses %s.\n", o.Place(), to)
		}
		return err
	}
	return withJSON(cmd)
}

// stopFirst says what to do where a daemon is in the way.
func stopFirst(err error) error {
	if errors.Is(err, relaystore.ErrLocked) || errors.Is(err, relaystore.ErrNodeLives) {
		return fmt.Errorf("%w; stop Postern first: %s", err, howto.Stop)
	}
	return err
}
