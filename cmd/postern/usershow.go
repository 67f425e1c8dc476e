package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/operate"
)

// accountShow shows one account, and in which ways it can log in.
func (a *app) accountShow(of accounts) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "show " + of.argument,
		Short: "Show " + of.one + ": what it may, and by which mechanisms it can log in",
		Args:  exactly(1),
		RunE: a.lookAt(of, func(cmd *cobra.Command, ops *operate.Operations, login string) error {
			v, err := ops.Accounts.Show(cmd.Context(), me(), of.among, login)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), v)
			}
			return printAccount(cmd, v)
		}),
	})
}

func printAccount(cmd *cobra.Command, v operate.Detailed) error {
	status, now := "active", time.Now()
	if v.Locked {
		status = strings.TrimSpace("locked " + v.LockReason)
	}
	out := cmd.OutOrStdout()
	for _, line := range [][2]string{{"Login", v.Login}, {"Kind", v.Kind}, {"Status", status},
		{"Senders", list(v.Senders)}, {"Groups", list(v.Groups)}, {"Networks", list(v.Networks)},
		{"Password", v.Password}, {"Changed", when(v.Changed, now)}, {"Note", orDash(v.Note)}} {
		fmt.Fprintf(out, "%-9s  %s\n", line[0], mail.Printable(line[1]))
	}
	if v.Kind == operate.KindElsewhere {
		fmt.Fprintln(out, "\nIts account is in another source. What stands here is its lock, and what is known of app "+
			"passwords.")
	}
	for _, c := range v.Certificates {
		fmt.Fprintf(out, "%-9s  %s  %s, since %s\n", "Key", c.Key, mail.Printable(c.Subject), when(c.Added, now))
	}
	if len(v.AppPasswords) > 0 {
		fmt.Fprintln(out)
		var rows [][]string
		for _, k := range v.AppPasswords {
			rows = append(rows, appPasswordRow(k, now))
		}
		if err := table(out, append([]string{"APP PASSWORD"}, appPasswordHead[1:]...), rows); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	var rows [][]string
	for _, m := range v.Mechanisms {
		can, why := "yes", m.Detail
		if !m.Can {
			can, why = "no", m.Why
		}
		rows = append(rows, []string{m.Name, can, strings.Join(m.Listeners, ", "), orDash(why)})
	}
	return table(out, []string{"MECHANISM", "LOGIN", "LISTENERS", "DETAIL"}, rows)
}
