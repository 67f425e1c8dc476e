package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/operate"
	relaystore "postern/relay/store"
)

// traceCommands is `postern trace` with what stands below it.
func (a *app) traceCommands() *cobra.Command {
	cmd := a.traceCommand()
	cmd.AddCommand(a.forgetCommand())
	return cmd
}

func (a *app) forgetCommand() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "forget ADDRESS",
		Short: "Remove a person from the trace, the statistics, past alerts and the known recipients",
		Long: `Remove what is known of a person: events with this address as sender, header author, recipient or login;
its mention in the events of others; its statistics as a login, which count as other from then on; alerts of it that
are over; and as a recipient that logins are known to write to. ADDRESS may also be a login that is no
address. There is no way back.

It says what stays: mail that waits, the account, and what Postern has no hand in, such as logs and backups. See
docs/privacy.md.`,
		Example: `  postern trace forget bob@example.net`,
		Args:    exactly(1),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			awaitTrace(cmd, ops)
			f, err := ops.Trace.Forget(cmd.Context(), me(), args[0])
			switch _, known := operate.KindOf(err); {
			case known:
				return usage(cmd, err)
			case err != nil:
				return fmt.Errorf("%w; what was removed until then is gone: call it again", err)
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), f)
			}
			return printForgotten(cmd, args[0], f)
		}),
	})
}

func printForgotten(cmd *cobra.Command, name string, f relaystore.Forgotten) error {
	shown := mail.Printable(name)
	lines := []string{fmt.Sprintf("Removed: %s, the mention in %s of others, %s of statistics (count as "+
		"other now), %s, %s.",
		plural(f.Events, "event"), plural(f.Shortened, "event"), plural(f.Statistics, "row"),
		plural(f.Recipients, "known recipient"), plural(f.Alerts, "past alert"))}
	if len(f.Queued) > 0 {
		lines = append(lines, fmt.Sprintf("Stays: %s that wait. Once they have left, call this again. To remove them: "+
			"postern queue delete %s", plural(int64(len(f.Queued)), "message"), strings.Join(f.Queued, " ")))
	}
	if f.Account {
		lines = append(lines, "Stays: the account. To remove it: postern user remove "+shown)
	}
	lines = append(lines, "Stays: what logs, the audit, open alerts, hooks and backups have, and limits of the login "+
		"for as long as they last (docs/privacy.md).")
	_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(lines, "\n"))
	return err
}
