package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// maxAuditShown bounds what the command shows at once.
const maxAuditShown = 10_000

func (a *app) auditCommand() *cobra.Command {
	var since string
	var q relaystore.AuditQuery
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, on the console, by the API and on the command line",
		Example: `  postern audit --since 7d
  postern audit --actor anna --json`,
		Args: exactly(0),
	}
	cmd.RunE = a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
		if since != "" {
			d, err := config.ParseDuration(since)
			if err != nil {
				return usage(cmd, fmt.Errorf("--since: %w", err))
			}
			q.Since = time.Now().Add(-d.Std())
		}
		if q.Limit < 1 || q.Limit > maxAuditShown {
			return usage(cmd, fmt.Errorf("--limit: write a number from 1 to %d", maxAuditShown))
		}
		entries, err := ops.Audit.List(cmd.Context(), me(), q)
		if err != nil {
			return err
		}
		slices.Reverse(entries)
		if asJSON(cmd) {
			return writeJSON(cmd.OutOrStdout(), append([]relaystore.AuditEntry{}, entries...))
		}
		return printAudit(cmd, entries, q.Limit)
	})
	cmd.Flags().StringVar(&since, "since", "", "only the last `duration`, such as 2h, 7d")
	cmd.Flags().StringVar(&q.Actor, "actor", "", "only what this `name` did")
	cmd.Flags().StringVar(&q.Operation, "operation", "", "only this, such as \"console login\"")
	cmd.Flags().IntVar(&q.Limit, "limit", 1000, "so many entries at most, the newest")
	return withJSON(cmd)
}

func printAudit(cmd *cobra.Command, entries []relaystore.AuditEntry, limit int) error {
	now, rows := time.Now(), make([][]string, len(entries))
	for i, e := range entries {
		by := e.Channel
		if e.Client != "" {
			by += " from " + e.Client
		}
		rows[i] = []string{when(e.Time, now), e.Actor, by, e.Operation, e.Subject,
			strings.TrimSuffix(e.Outcome+": "+e.Detail, ": ")}
	}
	err := table(cmd.OutOrStdout(), []string{"TIME", "WHO", "BY", "WHAT", "TO", "OUTCOME"}, rows)
	if err == nil && len(entries) == limit {
		fmt.Fprintf(cmd.ErrOrStderr(), "There are more: narrow it with --since, or raise --limit.\n")
	}
	return err
}
