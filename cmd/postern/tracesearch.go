package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/trace"
)

// withSearch gives `postern trace` the commands that search and mend its index.
func (a *app) withSearch(trace *cobra.Command) *cobra.Command {
	trace.AddCommand(a.traceSearch(), a.traceReindex())
	return trace
}

func (a *app) traceSearch() *cobra.Command {
	var q trace.Search
	var since, until string
	cmd := &cobra.Command{
		Use:   "search [WORD]...",
		Short: "Find messages, and refused sessions and logins, by any of their words",
		Long: `Find messages, and sessions and logins that were refused, the newest first, one line each.

A WORD is an address, a domain, a login or device, a Message-ID, our id or the provider's, a session, a client's address
or network, a reply code, a kind of event, or any word of a reply. Case does not matter. What happened at one moment
must have all words: "anna gmail 550" finds a message of anna that gmail.com refused with 550.`,
		Example: `  postern trace search anna gmail.com 550 --since 2d
  postern trace search '<20261128.1234@example.com>'
  postern trace search 010001806b0f0f99-41060108
  postern trace search 192.0.2.0/24 auth-fail --json`,
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) (err error) {
			now := time.Now()
			q.Words = strings.Join(args, " ")
			if q.Since, err = ago(now, since); err != nil {
				return usage(cmd, fmt.Errorf("--since: %w", err))
			}
			if q.Until, err = ago(now, until); err != nil {
				return usage(cmd, fmt.Errorf("--until: %w", err))
			}
			awaitTrace(cmd, ops)
			told := now
			answer, err := ops.Trace.Search(cmd.Context(), me(), q, func(reached time.Time) {
				if time.Since(told) > 2*time.Second {
					told = time.Now()
					fmt.Fprintln(cmd.ErrOrStderr(), "nothing since", when(reached, told)+", looking further back")
				}
			})
			_, known := operate.KindOf(err)
			switch {
			case known:
				return usage(cmd, err)
			case err != nil:
				return err
			case asJSON(cmd):
				return writeJSON(cmd.OutOrStdout(), answer)
			}
			return printFound(cmd.OutOrStdout(), answer, q.Words, now)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "", "only the last `duration`, such as 30m, 2h, 7d")
	flags.StringVar(&until, "until", "", "only what is older than a `duration`")
	flags.IntVar(&q.Limit, "limit", trace.DefaultPage, fmt.Sprintf("at most `n` lines, %d at most", trace.MaxPage))
	flags.StringVar(&q.After, "after", "", "go on behind a page: its `next`")
	return withJSON(cmd)
}

func ago(now time.Time, duration string) (time.Time, error) {
	if duration == "" {
		return time.Time{}, nil
	}
	d, err := config.ParseDuration(duration)
	return now.Add(-d.Std()), err
}

func printFound(w io.Writer, a trace.Answer, words string, now time.Time) error {
	if len(a.Found) == 0 {
		fmt.Fprintf(w, "Nothing is recorded that has %s.\n", orAll(mail.Printable(words)))
		return errSilent
	}
	var rows [][]string
	for _, f := range a.Found {
		id := f.ID
		if id == "" {
			id = f.Session
		}
		rows = append(rows, []string{when(f.Time, now), string(f.State), orDash(id), whoIs(f), whatIs(f)})
	}
	if err := table(w, []string{"TIME", "STATE", "MESSAGE", "WHO", "WHAT"}, rows); err != nil {
		return err
	}
	if a.Next != "" {
		fmt.Fprintf(w, "\nThere is more: the same with --after %s\n", a.Next)
	}
	if a.Partial {
		fmt.Fprintln(w, "\nOlder events are being indexed: until that is done, going back to them takes longer.")
	}
	return nil
}

func orAll(words string) string {
	if strings.TrimSpace(words) == "" {
		return "anything"
	}
	return words
}

// whoIs names the people and machines of a row as who does for an event.
func whoIs(f trace.Found) string {
	e := trace.Event{Kind: f.State, Login: f.Login, Client: f.Client, From: f.From, To: f.To}
	text := who(e)
	if f.Recipients > 1 {
		text += fmt.Sprintf(" and %d more", f.Recipients-1)
	}
	return text
}

// whatIs says how it stands: the counts where recipients fared differently, and the last reply.
func whatIs(f trace.Found) string {
	text := what(trace.Event{Upstream: f.Upstream, Reply: f.Reply, Detail: f.Detail})
	if f.Recipients < 2 {
		return text
	}
	var counts []string
	for _, c := range []struct {
		n    int
		word string
	}{{f.Delivered, "delivered"}, {f.Deferred, "deferred"}, {f.Failed, "failed"}, {f.Unclear, "unclear"}} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", c.n, c.word))
		}
	}
	if len(counts) == 0 {
		return text
	}
	return strings.Join(counts, ", ") + "; last " + text
}

func (a *app) traceReindex() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "reindex",
		Short: "Make the index of the trace anew, after damage",
		Long: `Forget the index that trace search uses. The daemon makes a new one in the background, the newest
events first; until that is done, going back to older events takes longer. The trace itself is not touched.`,
		Args: exactly(0),
		RunE: a.operation(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			if err := ops.Trace.Reindex(cmd.Context(), me()); err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), map[string]bool{"reindexing": true})
			}
			fmt.Fprintln(cmd.OutOrStdout(), "The index begins anew; the daemon makes it in the background.")
			return nil
		}),
	})
}
