package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/operate"
)

// accountLimits shows what is left of an account's limits.
func (a *app) accountLimits(of accounts) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "limits " + of.argument,
		Short: "Show the limits that bind " + of.one + ", what is left of each and when it frees",
		Args:  exactly(1),
		RunE: a.lookAt(of, func(cmd *cobra.Command, ops *operate.Operations, login string) error {
			now := time.Now()
			l, err := ops.Accounts.Limits(cmd.Context(), me(), of.among, login, now)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), l)
			}
			return printLimits(cmd, l, now)
		}),
	})
}

func printLimits(cmd *cobra.Command, l operate.Limits, now time.Time) error {
	if l.Late {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: the daemon did not answer: what it counted in the last seconds "+
			"is missing")
	}
	if len(l.Limits) == 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "No limit binds %s. They are made in relay.toml: [[policy]] limits.\n", l.Login)
		return nil
	}
	rows := make([][]string, len(l.Limits))
	for i, limit := range l.Limits {
		where := "everywhere"
		if len(limit.Listeners)+len(limit.Networks) > 0 {
			where = strings.Join(append(limit.Listeners, strings.Fields(operate.ListText(limit.Networks))...), " ")
		}
		if len(limit.Except) > 0 {
			where += ", not where " + strings.Join(limit.Except, " or ") + " applies"
		}
		rows[i] = []string{limit.Limit, strconv.FormatInt(limit.Used, 10), strconv.FormatInt(limit.Left, 10),
			when(limit.Next, now), when(limit.Full, now), limit.Policy, where}
	}
	return table(cmd.OutOrStdout(), []string{"LIMIT", "USED", "LEFT", "NEXT AT", "ALL AT", "SET BY", "WHERE"}, rows)
}
