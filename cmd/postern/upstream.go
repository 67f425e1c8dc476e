package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/relay"
	"postern/relay/config"
	"postern/relay/upstream"
)

func (a *app) upstreamCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "upstream", Short: "The providers that take our mail"}
	cmd.AddCommand(a.upstreamList(), a.upstreamProfiles(), a.upstreamTest(), a.upstreamLogin())
	return cmd
}

// upstreamView is an upstream as --json prints it.
type upstreamView struct {
	Name     string `json:"name"`
	Provider string `json:"provider"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	TLS      string `json:"tls"`
	Username string `json:"username,omitempty"`
	DKIM     string `json:"dkim"`
}

func (a *app) upstreamList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the configured upstreams",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.read()
			if err != nil {
				return err
			}
			views := []upstreamView{}
			var rows [][]string
			for _, u := range c.Upstreams {
				views = append(views, upstreamView{u.Name, u.Provider, u.Host, u.Port, u.TLS, u.Username, u.DKIM})
				rows = append(rows, []string{u.Name, u.Provider, fmt.Sprintf("%s:%d", u.Host, u.Port), u.TLS, orDash(u.Username), u.DKIM})
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), views)
			}
			return table(cmd.OutOrStdout(), []string{"NAME", "PROVIDER", "HOST", "TLS", "LOGIN", "DKIM"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) upstreamTest() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test NAME",
		Short: "Resolve, connect, TLS, EHLO and login, each with its time and, on failure, its cause; sends nothing",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(c.Upstreams, func(u config.Upstream) bool { return u.Name == args[0] })
			if i < 0 {
				return fmt.Errorf("there is no upstream %q in %s", args[0], c.Path())
			}
			tokens, done, err := a.tokens(cmd.Context(), c, c.Upstreams[i])
			if err != nil {
				return err
			}
			defer done()
			steps, err := relay.TestUpstream(cmd.Context(), c.Hostname, c.Upstreams[i], tokens)
			if err != nil {
				return err
			}
			if asJSON {
				if err := writeJSON(cmd.OutOrStdout(), steps); err != nil {
					return err
				}
			} else {
				printSteps(cmd.OutOrStdout(), steps)
			}
			if !steps[len(steps)-1].OK {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printSteps(w io.Writer, steps []upstream.Step) {
	for _, s := range steps {
		mark := "ok  "
		if !s.OK {
			mark = "FAIL"
		}
		first, more, _ := strings.Cut(s.Seen, "\n")
		fmt.Fprintf(w, "%s  %-9s %8s  %s\n", mark, s.Name, s.Took.Round(time.Millisecond), first)
		for line := range strings.SplitSeq(more, "\n") {
			if line != "" {
				fmt.Fprintf(w, "%26s%s\n", "", line)
			}
		}
	}
	if last := steps[len(steps)-1]; !last.OK {
		fmt.Fprintf(w, "\n%s\n", last.Cause)
		return
	}
	fmt.Fprintln(w, "The upstream would take mail from us.")
}
