package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
	"postern/relay/trace"
)

// queueFlags select messages of the queue.
type queueFlags struct {
	filter queue.Filter
	all    bool
}

func (f *queueFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.filter.Login, "login", "", "only messages of this `login`")
	cmd.Flags().StringVar(&f.filter.From, "from", "", "only messages with this reverse-path: `address` or *@domain")
	cmd.Flags().StringVar(&f.filter.To, "to", "", "only messages to this recipient: `address` or *@domain")
}

// chosen returns the filter of an action, which must name what it is for: IDs, a filter, or --all.
func (f *queueFlags) chosen(cmd *cobra.Command, ids []string) (queue.Filter, error) {
	filter := f.filter
	if len(ids) > 0 {
		filter.IDs = ids // an empty list that is not nil would name no message
	}
	if len(ids) == 0 && filter.Login == "" && filter.From == "" && filter.To == "" && !f.all {
		return filter, usage(cmd, errors.New("name message IDs, or a filter (--login, --from, --to), or --all"))
	}
	return filter, nil
}

func (a *app) queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "See and steer the messages that wait"}
	cmd.AddCommand(
		a.queueList(), a.queueShow(),
		a.queueAction(operate.Retry, "Make messages due at once", "will be tried at once"),
		a.queueAction(operate.Hold, "Keep messages until they are released", "held"),
		a.queueAction(operate.Release, "Let held messages go", "released"),
		a.queueAction(operate.Resend, "Try recipients again that were given up, of messages that still wait",
			"will be tried again"),
		a.queueAction(operate.Delete, "Remove messages without telling anybody", "deleted"),
		a.queueAction(operate.Bounce, "Give messages up and tell their senders", "will be returned to their senders"),
	)
	return cmd
}

func (a *app) queueList() *cobra.Command {
	var flags queueFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List waiting messages, oldest first",
		Args:  exactly(0),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, _ []string) error {
			messages, err := ops.Queue.List(cmd.Context(), me(), flags.filter)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), operate.ShownAll(messages))
			}
			if len(messages) == 0 {
				none := "The queue is empty."
				if f := flags.filter; f.Held || f.Login+f.From+f.To+f.After != "" {
					none = "No message in the queue is like that."
				}
				fmt.Fprintln(cmd.OutOrStdout(), none+loginHint(cmd.Context(), ops, flags.filter.Login))
				return nil
			}
			return printQueue(cmd.OutOrStdout(), messages, time.Now())
		}),
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&flags.filter.Held, "held", false, "only held messages")
	cmd.Flags().IntVar(&flags.filter.Limit, "limit", 1000, "at most `n` messages")
	cmd.Flags().StringVar(&flags.filter.After, "after", "", "continue behind this `id`")
	return withJSON(cmd)
}

func printQueue(w io.Writer, messages []*queue.Message, now time.Time) error {
	var rows [][]string
	for _, m := range messages {
		rows = append(rows, []string{m.ID, when(m.Received, now), size(m.Size), orDash(m.Login), m.Envelope.From.Path(),
			recipients(m), state(m, now), orDash(mail.Cut(m.LastReply.String(), 90))})
	}
	return table(w, []string{"ID", "ACCEPTED", "SIZE", "LOGIN", "FROM", "TO", "STATE", "LAST REPLY"}, rows)
}

func recipients(m *queue.Message) string {
	first, more := "", 0
	for _, r := range m.Recipients {
		switch {
		case r.Status != queue.Pending:
		case first == "":
			first = r.To.Path()
		default:
			more++
		}
	}
	if more > 0 {
		return fmt.Sprintf("%s and %d more", first, more)
	}
	return first
}

// state says in one phrase what a message waits for.
func state(m *queue.Message, now time.Time) string {
	switch operate.StateOf(m, now) {
	case operate.IsHeld:
		return "held: " + m.HoldReason
	case operate.IsReturned:
		return "being returned"
	case operate.IsTried:
		return fmt.Sprintf("attempt %d under way", m.Attempts)
	case operate.Sleeps:
		return fmt.Sprintf("waits for upstream %s to return; looked at again %s at the latest", m.WaitingFor,
			in(m.NextAttempt, now))
	}
	return fmt.Sprintf("attempt %d %s", m.Attempts+1, in(m.NextAttempt, now))
}

func (a *app) queueShow() *cobra.Command {
	var content, headers bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one waiting message, its recipients and what happened to it",
		Args:  exactly(1),
		RunE: a.look(func(cmd *cobra.Command, ops *operate.Operations, args []string) error {
			m, err := ops.Queue.Get(cmd.Context(), me(), args[0])
			if kind, known := operate.KindOf(err); known && kind == operate.NotFound {
				return fmt.Errorf("%w; what became of it: postern trace %s", err, mail.Printable(args[0]))
			}
			if err != nil {
				return err
			}
			if headers {
				return showHeader(cmd, ops, m.ID)
			}
			if content {
				return copyContent(cmd, ops, m.ID)
			}
			awaitTrace(cmd, ops)
			events, err := ops.Trace.Events(cmd.Context(), me(), trace.Query{ID: m.ID}, "")
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), struct {
					operate.Message
					Events []trace.Event `json:"events"`
				}{operate.Shown(m), append([]trace.Event{}, events...)}) // never null
			}
			return printMessage(cmd.OutOrStdout(), m, events, time.Now())
		}),
	}
	cmd.Flags().BoolVar(&headers, "headers", false, "print the header of the message, as it is kept (unsigned)")
	cmd.Flags().BoolVar(&content, "content", false, "print the message itself, as it is kept (unsigned)")
	return withJSON(cmd)
}

func showHeader(cmd *cobra.Command, ops *operate.Operations, id string) error {
	h, err := ops.Queue.Headers(cmd.Context(), me(), id)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", strings.ReplaceAll(string(h), "\r\n", "\n"))
	return err
}

func copyContent(cmd *cobra.Command, ops *operate.Operations, id string) error {
	c, err := ops.Queue.Content(cmd.Context(), me(), id)
	if err != nil {
		return err
	}
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(cmd.OutOrStdout(), r)
	return err
}

func printMessage(w io.Writer, m *queue.Message, events []trace.Event, now time.Time) error {
	fields := [][]string{
		{"Message", m.ID},
		{"Message-ID", orDash(m.MessageID)},
		{"Login", orDash(m.Login)},
		{"From", m.Envelope.From.Path()},
		{"Author", orDash(m.Author.String())},
		{"Size", size(m.Size)},
		{"Accepted", when(m.Received, now)},
		{"Given up", in(m.Expires, now)},
		{"Attempts", fmt.Sprint(m.Attempts)},
		{"State", state(m, now)},
	}
	for _, f := range fields {
		fmt.Fprintf(w, "%-11s %s\n", f[0], mail.Printable(f[1]))
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, r := range m.Recipients {
		rows = append(rows, []string{r.To.Path(), string(r.Status), orDash(r.Upstream), orDash(r.Reply.String())})
	}
	if err := table(w, []string{"RECIPIENT", "STATUS", "UPSTREAM", "LAST REPLY"}, rows); err != nil ||
		len(events) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printEvents(w, events, now)
}

// queueAction makes a command that does something to chosen messages. It exits 1 when there was none.
func (a *app) queueAction(action operate.Action, short, done string) *cobra.Command {
	var flags queueFlags
	var reason string
	var expect int64
	cmd := &cobra.Command{
		Use:   action.Verb + " [ID]…",
		Short: short,
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := flags.chosen(cmd, ids)
			if err != nil {
				return err
			}
			ops, closeStore, err := a.operations(cmd, toWrite)
			if err != nil {
				return err
			}
			defer closeStore()
			order := operate.Order{Reason: reason}
			if order.Expected, err = expected(cmd, ops, action, filter, expect); err != nil {
				return err
			}
			n, err := ops.Queue.Do(cmd.Context(), me(), action, filter, order)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				err = writeJSON(cmd.OutOrStdout(), actionView{action.Verb, n})
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s.\n", plural(n, "message"), done)
			}
			if err == nil && n == 0 {
				return errSilent
			}
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&flags.all, "all", false, "every message")
	cmd.Flags().Int64Var(&expect, "expect", -1, "do nothing if more than `n` messages are selected; without it, "+
		"delete and bounce show the count and ask first where they are typed at a terminal and no message is named")
	if action.Verb == operate.Hold.Verb {
		cmd.Flags().StringVar(&reason, "reason", "by an operator", "why, for those who list the queue")
	}
	return withJSON(cmd)
}

// actionView is what was done to messages, as --json prints it.
type actionView struct {
	Action   string `json:"action"`
	Messages int64  `json:"messages"`
}

func orDash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	return s
}
