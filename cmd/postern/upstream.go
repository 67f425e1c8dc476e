package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/trial"
)

func (a *app) upstreamCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "upstream", Short: "The providers that take our mail"}
	cmd.AddCommand(a.upstreamList(), a.upstreamProfiles(), a.upstreamTest(), a.upstreamLogin(), a.upstreamJudge())
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
	return withJSON(&cobra.Command{
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
				rows = append(rows, []string{u.Name, u.Provider, fmt.Sprintf("%s:%d", u.Host, u.Port), u.TLS,
					orDash(u.Username), u.DKIM})
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), views)
			}
			return table(cmd.OutOrStdout(), []string{"NAME", "PROVIDER", "HOST", "TLS", "LOGIN", "DKIM"}, rows)
		},
	})
}

func (a *app) upstreamTest() *cobra.Command {
	var (
		extra   []string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use: "test NAME",
		Short: "Resolve, connect, TLS, login and MAIL FROM, each with its time and, on failure, its cause and the " +
			"fix; sends nothing",
		Long: `Go the way of a delivery up to MAIL FROM for each sender that relay.toml and the accounts name, take it
back with RSET, and send nothing: no recipient is named. Where no sender is an address, username is tried. With identity
= "sender" each sender is logged in as itself. By Microsoft Graph there is no MAIL: the mailbox is asked whether it may
send, each sender's own one with identity = "sender", and whether it may make drafts where large_mail = "upload".

Each step is shown as it happens; what fails with its cause, and with what to click or run at the provider. A port and
tls that do not fit are told within seconds. A delivery waits longer than this test: minutes, as RFC 5321 wants it.`,
		Example: `  postern upstream test office
  postern upstream test office --sender scanner@example.com --json`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout < time.Second {
				return usage(cmd, fmt.Errorf("--timeout %s is too short, write 1s at least", timeout))
			}
			return a.tryUpstream(cmd, args[0], extra, timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", trialTimeout,
		"give up a login after this, each of its steps after a third of it")
	cmd.Flags().StringArrayVar(&extra, "sender", nil, "try this `address` too; may be repeated")
	return withJSON(cmd)
}

// sendersAsked are the addresses of --sender.
func sendersAsked(cmd *cobra.Command, texts []string) (all []mail.Address, err error) {
	for _, text := range texts {
		a, err := mail.ParseAddress(text)
		if err != nil {
			return nil, usage(cmd, fmt.Errorf("--sender %q is no address: %w", text, err))
		}
		all = append(all, a)
	}
	return all, nil
}

// tryUpstream prints the test of an upstream, and fails when it did.
func (a *app) tryUpstream(cmd *cobra.Command, name string, extra []string, timeout time.Duration) error {
	c, block, err := a.upstreamNamed(name)
	if err != nil {
		return err
	}
	first, err := sendersAsked(cmd, extra)
	if err != nil {
		return err
	}
	senders, err := trial.SendersOf(cmd.Context(), c, block, first)
	if err != nil {
		return err
	}
	tokens, done, err := trial.Tokens(cmd.Context(), c, block)
	if err != nil {
		return err
	}
	defer done()
	live := &liveTest{report: trial.NewReport(block, senders), limit: timeout / trial.Steps,
		target: fmt.Sprintf("%s:%d", block.Host, block.Port)}
	if !asJSON(cmd) {
		live.print = &testPrinter{w: cmd.OutOrStdout()}
	}
	err = live.report.Run(cmd.Context(), c.Hostname, block, tokens, live.watch(timeout))
	if err != nil {
		return err
	}
	report := live.end()
	if asJSON(cmd) {
		if err := writeJSON(cmd.OutOrStdout(), report); err != nil {
			return err
		}
	}
	if !report.OK {
		return errSilent
	}
	return nil
}

// upstreamNamed loads the configuration and finds a block in it.
func (a *app) upstreamNamed(name string) (*config.Config, config.Upstream, error) {
	c, err := a.load()
	if err != nil {
		return nil, config.Upstream{}, err
	}
	i := slices.IndexFunc(c.Upstreams, func(u config.Upstream) bool { return u.Name == name })
	if i < 0 {
		return nil, config.Upstream{}, unknownUpstream(c, name)
	}
	return c, c.Upstreams[i], nil
}
