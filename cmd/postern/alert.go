package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/monitor"
	relaystore "postern/relay/store"
)

func (a *app) alertCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "alert", Short: "The hooks that are told of faults"}
	cmd.AddCommand(a.alertList(), a.alertTest())
	return cmd
}

func (a *app) alertList() *cobra.Command {
	var past bool
	var q relaystore.AlertQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what operators must know: the alerts that are open, and with --past those that were",
		Args:  exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			now := time.Now()
			if q.Open = !past; q.Limit < 1 {
				return usage(cmd, errors.New("--limit: write 1 at least"))
			}
			alerts, err := ops.Alerts.List(cmd.Context(), me(), q)
			if _, known := operate.KindOf(err); known {
				return usage(cmd, fmt.Errorf("--after: %w", err))
			}
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), append([]relaystore.Alert{}, alerts...)) // never null
			}
			if len(alerts) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "There is no alert.")
				return nil
			}
			var rows [][]string
			for _, al := range alerts {
				ended := "open"
				if !al.Ended.IsZero() {
					ended = when(al.Ended, now)
				}
				rows = append(rows, []string{when(al.Since, now), ended, al.Event, al.Subject, al.Summary})
			}
			err = table(cmd.OutOrStdout(), []string{"SINCE", "UNTIL", "EVENT", "ABOUT", "WHAT"}, rows)
			if err == nil && len(alerts) == q.Limit {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "\nThere may be more: --after %q\n", alerts[q.Limit-1].Place())
			}
			return err
		}),
	}
	cmd.Flags().IntVar(&q.Limit, "limit", 200, "at most `n` alerts")
	cmd.Flags().StringVar(&q.After, "after", "", "continue behind this `place`, as the page before names it")
	cmd.Flags().BoolVar(&past, "past", false, "also those that are over")
	return withJSON(cmd)
}

// alertView is the test of a hook as --json prints it.
type alertView struct {
	Hook  string `json:"hook"`
	Host  string `json:"host"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

func (a *app) alertTest() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "test [N]",
		Short: "Post a test alert to each [[alert]] of the configuration, or to the one with this number, and show " +
			"what became of it",
		Long: `Post a test alert to each [[alert]] of the configuration, or to the one with this number, counted from 1.
Each is tried once, for ten seconds at most. The addresses of hooks are secrets: only their hosts are shown.`,
		Example: `  postern alert test
  postern alert test 2`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			if len(args) > 0 && args[0] != "all" {
				var err error
				if n, err = strconv.Atoi(args[0]); err != nil || n < 1 {
					return usage(cmd, fmt.Errorf("%q is not the number of an [[alert]], counted from 1", args[0]))
				}
			}
			return a.withSecrets(cmd, toWrite, func(ops *operate.Operations) error {
				tests, err := ops.Alerts.Test(cmd.Context(), me(), n)
				if err != nil {
					return err
				}
				return printAlertTests(cmd, tests)
			})
		},
	})
}

func printAlertTests(cmd *cobra.Command, tests []monitor.AlertTest) error {
	var views []alertView
	var rows [][]string
	failed := false
	for _, t := range tests {
		v := alertView{Hook: t.Hook, Host: t.Host, OK: t.Err == nil}
		outcome := "sent: look whether it has arrived"
		if t.Err != nil {
			v.Error, outcome, failed = t.Err.Error(), "FAILED: "+t.Err.Error(), true
		}
		views = append(views, v)
		rows = append(rows, []string{t.Hook, t.Host, outcome})
	}
	var err error
	if asJSON(cmd) {
		err = writeJSON(cmd.OutOrStdout(), views)
	} else {
		err = table(cmd.OutOrStdout(), []string{"HOOK", "HOST", "OUTCOME"}, rows)
	}
	if err == nil && failed {
		return errSilent
	}
	return err
}
