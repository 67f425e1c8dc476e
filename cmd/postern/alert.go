package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"postern/relay/monitor"
)

func (a *app) alertCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "alert", Short: "The hooks that are told of faults"}
	cmd.AddCommand(a.alertTest())
	return cmd
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
			c, err := a.load()
			if err != nil {
				return err
			}
			if n > len(c.Alerts) || len(c.Alerts) == 0 {
				return fmt.Errorf("there is no alert[%d] in %s, which has %s", max(n, 1), c.Path(),
					plural(int64(len(c.Alerts)), "[[alert]]"))
			}
			tests, err := monitor.TestAlerts(cmd.Context(), c, n)
			if err != nil {
				return err
			}
			return printAlertTests(cmd, tests)
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
