package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/trace"
)

func (a *app) traceCommand() *cobra.Command {
	var (
		q      trace.Query
		since  string
		kinds  []string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "What happened to a message, from the first refused connection to the upstream's reply",
		Example: `  postern trace --from anna@example.com --since 2h
  postern trace --id 3m5x0g9k2a7c1d4e --json
  postern trace --kind refused,auth-fail --since 1d
  postern trace --text 010001806b0f0f99-41060108 --since 7d   # an id of the provider's, or a Message-ID`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			if since != "" {
				d, err := config.ParseDuration(since)
				if err != nil {
					return usage(cmd, fmt.Errorf("--since: %w", err))
				}
				q.Since = now.Add(-d.Std())
			}
			for _, k := range kinds {
				if !slices.Contains(trace.Kinds, trace.Kind(k)) {
					return usage(cmd, fmt.Errorf("--kind %q: there are %v", k, trace.Kinds))
				}
				q.Kinds = append(q.Kinds, trace.Kind(k))
			}
			s, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			events, err := s.Events(cmd.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return writeEvents(cmd.OutOrStdout(), events)
			}
			if len(events) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "Nothing is recorded for this question.")
				return errSilent
			}
			return printEvents(cmd.OutOrStdout(), events, now)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Login, "login", "", "events of this `login`")
	flags.StringVar(&q.From, "from", "", "reverse-path: `address` or *@domain")
	flags.StringVar(&q.To, "to", "", "recipient: `address` or *@domain")
	flags.StringVar(&q.ID, "id", "", "events of this message `id`")
	flags.StringVar(&q.Session, "session", "", "events of this client session")
	flags.StringVar(&q.Text, "text", "", "events with this `text` in a reply, in the detail or in the Message-ID, such as the provider's own id")
	flags.StringVar(&since, "since", "", "only the last `duration`, such as 30m, 2h, 7d")
	flags.StringSliceVar(&kinds, "kind", nil, "only these kinds: refused, auth-fail, rejected, accepted, attempt, delivered, deferred, failed, report, operator")
	flags.IntVar(&q.Limit, "limit", 200, "at most the newest `n` events")
	flags.BoolVar(&asJSON, "json", false, "print JSON, one event on each line")
	return cmd
}

// writeEvents prints one JSON object on each line, so that other programs can follow along.
func writeEvents(w io.Writer, events []trace.Event) error {
	for _, e := range events {
		if err := writeJSONLine(w, e); err != nil {
			return err
		}
	}
	return nil
}

func printEvents(w io.Writer, events []trace.Event, now time.Time) error {
	var rows [][]string
	for _, e := range events {
		rows = append(rows, []string{when(e.Time, now), string(e.Kind), orDash(e.ID), who(e), what(e)})
	}
	if err := table(w, []string{"TIME", "EVENT", "MESSAGE", "WHO", "WHAT"}, rows); err != nil {
		return err
	}
	return printAdvice(w, events)
}

// who names the people and machines of an event: login or client, and the addresses.
func who(e trace.Event) string {
	var parts []string
	switch {
	case e.Login != "":
		parts = append(parts, e.Login)
	case e.Client != "":
		parts = append(parts, e.Client)
	}
	if e.From != "" || e.To != "" {
		parts = append(parts, "<"+e.From+">")
	}
	if e.To != "" {
		parts = append(parts, "to <"+e.To+">")
	}
	return orDash(strings.Join(parts, " "))
}

// what says how it went: where, the verbatim reply, and a sentence of detail.
func what(e trace.Event) string {
	var parts []string
	if e.Upstream != "" {
		parts = append(parts, "by "+e.Upstream+":")
	}
	if !e.Reply.IsZero() {
		parts = append(parts, mail.Cut(e.Reply.String(), maxReply)) // --json has it whole
	}
	if e.Detail != "" {
		parts = append(parts, "("+mail.Cut(e.Detail, maxDetail)+")")
	}
	if e.Took > 0 {
		parts = append(parts, "in "+e.Took.Round(time.Millisecond).String())
	}
	return orDash(strings.Join(parts, " "))
}

// How much of an event a line of the trace shows, in octets: a long reply of a provider shall not push out our own words.
const (
	maxReply  = 220
	maxDetail = 400
)
