package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/suggest"
	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/trace"
)

// traceFlags are those of `postern trace`.
type traceFlags struct {
	query  trace.Query
	since  string
	kinds  []string
	asJSON bool
}

func (a *app) traceCommand() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace [ID]",
		Short: "What happened to a message, from the first refused connection to the upstream's reply",
		Long: `Show what happened, oldest first: all of the last events, those of one message, or those that the flags
select. ID is what the 250 of a message named, a Message-ID in angle brackets, or the session of a log line.`,
		Example: `  postern trace 3m5x0g9k2a7c1d4e
  postern trace '<20261128.1234@example.com>'
  postern trace --from anna@example.com --since 2h
  postern trace --kind refused,auth-fail --since 1d --json
  postern trace --text 010001806b0f0f99-41060108 --since 7d   # an id of the provider's`,
		Args: wrongUsage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			if err := f.complete(cmd, args, now); err != nil {
				return err
			}
			ops, done, err := a.operations(cmd, toLook)
			if err != nil {
				return err
			}
			defer done()
			awaitTrace(cmd, ops)
			events, err := ops.Trace.Events(cmd.Context(), me(), f.query, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if f.asJSON {
				return writeEvents(cmd.OutOrStdout(), events)
			}
			if len(events) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), nothingRecorded(args)+loginHint(cmd.Context(), ops, f.query.Login))
				return errSilent
			}
			return printEvents(cmd.OutOrStdout(), events, now)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.query.Login, "login", "", "events of this `login`")
	flags.StringVar(&f.query.From, "from", "", "reverse-path: `address` or *@domain")
	flags.StringVar(&f.query.To, "to", "", "recipient: `address` or *@domain")
	flags.StringVar(&f.query.ID, "id", "", "events of this message `id`")
	flags.StringVar(&f.query.Session, "session", "", "events of this client session")
	flags.StringVar(&f.query.Text, "text", "",
		"events with this `text` in a reply, in the detail or in the Message-ID, such as the provider's own id")
	flags.StringVar(&f.since, "since", "", "only the last `duration`, such as 30m, 2h, 7d")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only these kinds: "+strings.Join(kindNames(), ", "))
	flags.IntVar(&f.query.Limit, "limit", 200, "at most the newest `n` events")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON, one event on each line")
	return cmd
}

func kindNames() []string {
	names := make([]string, len(trace.Kinds))
	for i, k := range trace.Kinds {
		names[i] = string(k)
	}
	return names
}

// complete makes the query of the flags.
func (f *traceFlags) complete(cmd *cobra.Command, args []string, now time.Time) error {
	if f.since != "" {
		d, err := config.ParseDuration(f.since)
		if err != nil {
			return usage(cmd, fmt.Errorf("--since: %w", err))
		}
		f.query.Since = now.Add(-d.Std())
	}
	for _, k := range f.kinds {
		if !slices.Contains(trace.Kinds, trace.Kind(k)) {
			all := strings.Join(kindNames(), ", ")
			return usage(cmd, fmt.Errorf("--kind %q is unknown; there are %s%s", k, all,
				suggest.Question(k, kindNames())))
		}
		f.query.Kinds = append(f.query.Kinds, trace.Kind(k))
	}
	if len(args) > 0 && f.query.ID+f.query.Session+f.query.Text != "" {
		return usage(cmd, errors.New("an ID stands alone, without --id, --session and --text"))
	}
	return nil
}

// awaitTrace waits for what the daemon keeps in memory still.
func awaitTrace(cmd *cobra.Command, ops *operate.Operations) {
	if !ops.Trace.Await(cmd.Context()) {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: the daemon does not answer; events of the last moments may be "+
			"missing")
	}
}

func nothingRecorded(args []string) string {
	if len(args) == 0 {
		return "Nothing is recorded for this question."
	}
	id := mail.Printable(args[0])
	if strings.Contains(id, "@") {
		return fmt.Sprintf("Nothing is recorded of a message with the Message-ID <%s>. Mail of an address: "+
			"postern trace --from ADDRESS, --to ADDRESS or --login LOGIN.", strings.Trim(id, "<> "))
	}
	return fmt.Sprintf("Nothing is recorded of a message or session %s. An id of the provider's: postern trace "+
		"--text %[1]s", id)
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
	case e.Login != "" && e.Client != "" && (e.Kind.IsRefusal() || e.Kind == trace.Operator): // who was it?
		parts = append(parts, e.Login+" from "+e.Client)
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

// How much of an event a line of the trace shows, in octets: a long reply of a provider shall not push out our own
// words.
const (
	maxReply  = 220
	maxDetail = 400
)

// printAdvice says below a trace what to do about the upstreams' refusals in it.
func printAdvice(w io.Writer, events []trace.Event) error {
	var b strings.Builder
	for _, a := range operate.Advise(events) {
		fmt.Fprintf(&b, "\nby %s: %s\n", a.Upstream, a.Advice.Cause)
		writeFix(&b, a.Advice)
	}
	if e := operate.Unknown(events); e != nil {
		fmt.Fprintf(&b, "\nno reply rule knows what %s said; postern upstream judge --upstream %s --stage %s %q "+
			"shows a rule to write\n",
			e.Upstream, e.Upstream, e.Stage, mail.Cut(strings.ReplaceAll(e.Reply.String(), "\n", " "), maxShown))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxShown bounds how much of a reply is repeated in a command, in octets.
const maxShown = 200
