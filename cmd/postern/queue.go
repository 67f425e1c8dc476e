package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
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
		a.queueAction("retry", "Make messages due at once", "will be tried at once",
			func(s store, cmd *cobra.Command, f queue.Filter) (int64, error) {
				return s.Retry(cmd.Context(), f, time.Now())
			}),
		a.queueHold(),
		a.queueAction("release", "Let held messages go", "released",
			func(s store, cmd *cobra.Command, f queue.Filter) (int64, error) {
				f.Held = true
				return s.Release(cmd.Context(), f, time.Now())
			}),
		a.queueAction("delete", "Remove messages without telling anybody", "deleted",
			func(s store, cmd *cobra.Command, f queue.Filter) (int64, error) {
				return s.Delete(cmd.Context(), f)
			}),
		a.queueAction("bounce", "Give messages up and tell their senders", "will be returned to their senders",
			func(s store, cmd *cobra.Command, f queue.Filter) (int64, error) {
				return s.Bounce(cmd.Context(), f, time.Now())
			}),
	)
	return cmd
}

func (a *app) queueList() *cobra.Command {
	var flags queueFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List waiting messages, oldest first",
		Args:  exactly(0),
		RunE: a.withStore(func(cmd *cobra.Command, s store, _ []string) error {
			messages, err := s.List(cmd.Context(), flags.filter)
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), viewsOf(messages))
			}
			if len(messages) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "The queue is empty."+loginHint(cmd, s, flags.filter.Login))
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
	switch {
	case m.Held:
		return "held: " + m.HoldReason
	case m.Bounce:
		return "being returned"
	case m.LeaseOwner != "" && m.LeaseUntil.After(now):
		return fmt.Sprintf("attempt %d under way", m.Attempts)
	case m.WaitingFor != "": // or until NextAttempt, which may be hours away
		return fmt.Sprintf("waits for upstream %s to return; looked at again %s at the latest", m.WaitingFor,
			in(m.NextAttempt, now))
	}
	return fmt.Sprintf("attempt %d %s", m.Attempts+1, in(m.NextAttempt, now))
}

func (a *app) queueShow() *cobra.Command {
	var content bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one waiting message, its recipients and what happened to it",
		Args:  exactly(1),
		RunE: a.withStore(func(cmd *cobra.Command, s store, args []string) error {
			m, err := s.Get(cmd.Context(), args[0])
			if errors.Is(err, queue.ErrNotFound) {
				return fmt.Errorf("no message %s in the queue; what became of it: postern trace %s",
					mail.Printable(args[0]), mail.Printable(args[0]))
			}
			if err != nil {
				return err
			}
			if content {
				return copyContent(cmd, s, m.ID)
			}
			awaitTrace(cmd, s)
			events, err := s.Events(cmd.Context(), trace.Query{ID: m.ID})
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), struct {
					messageView
					Events []trace.Event `json:"events"`
				}{viewOf(m), append([]trace.Event{}, events...)}) // never null
			}
			return printMessage(cmd.OutOrStdout(), m, events, time.Now())
		}),
	}
	cmd.Flags().BoolVar(&content, "content", false, "print the message itself, as it is kept (unsigned)")
	return withJSON(cmd)
}

func copyContent(cmd *cobra.Command, s store, id string) error {
	c, err := s.Content(cmd.Context(), id)
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

func (a *app) queueHold() *cobra.Command {
	var reason string
	cmd := a.queueAction("hold", "Keep messages until they are released", "held",
		func(s store, cmd *cobra.Command, f queue.Filter) (int64, error) {
			return s.Hold(cmd.Context(), f, reason)
		})
	cmd.Flags().StringVar(&reason, "reason", "by an operator", "why, for those who list the queue")
	return cmd
}

// queueAction makes a command that does something to chosen messages. It exits 1 when there was none.
func (a *app) queueAction(verb, short, done string, act func(store, *cobra.Command, queue.Filter) (int64,
	error)) *cobra.Command {
	var flags queueFlags
	cmd := &cobra.Command{
		Use:   verb + " [ID]…",
		Short: short,
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := flags.chosen(cmd, ids)
			if err != nil {
				return err
			}
			s, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			n, err := act(s, cmd, filter)
			if err != nil {
				return err
			}
			if err := s.AppendEventsNow(cmd.Context(), operatorEvents(verb, ids, n)); err != nil {
				return err
			}
			if asJSON(cmd) {
				err = writeJSON(cmd.OutOrStdout(), actionView{verb, n})
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
	return withJSON(cmd)
}

// actionView is what was done to messages, as --json prints it.
type actionView struct {
	Action   string `json:"action"`
	Messages int64  `json:"messages"`
}

// operatorEvents traces what a person did: one row for each message named, or one for a filter.
func operatorEvents(verb string, ids []string, n int64) []trace.Event {
	if n == 0 {
		return nil
	}
	e := trace.Event{Time: time.Now(), Kind: trace.Operator, Detail: fmt.Sprintf("%s from the command line (%s)", verb,
		plural(n, "message"))}
	if len(ids) == 0 {
		return []trace.Event{e}
	}
	events := make([]trace.Event, len(ids))
	for i, id := range ids {
		events[i] = e
		events[i].ID = id
	}
	return events
}

// messageView is a message as --json prints it.
type messageView struct {
	ID          string          `json:"id"`
	Login       string          `json:"login,omitempty"`
	Listener    string          `json:"listener,omitempty"`
	From        string          `json:"from"`
	Author      string          `json:"author,omitempty"`
	MessageID   string          `json:"message_id,omitempty"`
	Size        int64           `json:"size"`
	Received    time.Time       `json:"received"`
	Expires     time.Time       `json:"expires"`
	Attempts    int             `json:"attempts"`
	NextAttempt time.Time       `json:"next_attempt"`
	WaitingFor  string          `json:"waiting_for,omitempty"`
	Held        bool            `json:"held"`
	HoldReason  string          `json:"hold_reason,omitempty"`
	LastReply   string          `json:"last_reply,omitempty"`
	Recipients  []recipientView `json:"recipients"`
}

type recipientView struct {
	To       string       `json:"to"`
	Status   queue.Status `json:"status"`
	Upstream string       `json:"upstream,omitempty"`
	Reply    string       `json:"reply,omitempty"`
}

func viewOf(m *queue.Message) messageView {
	v := messageView{ID: m.ID, Login: m.Login, Listener: m.Listener, From: m.Envelope.From.String(),
		Author:    m.Author.String(),
		MessageID: m.MessageID, Size: m.Size, Received: m.Received, Expires: m.Expires, Attempts: m.Attempts,
		NextAttempt: m.NextAttempt, WaitingFor: m.WaitingFor, Held: m.Held, HoldReason: m.HoldReason,
		LastReply: m.LastReply.String()}
	for _, r := range m.Recipients {
		v.Recipients = append(v.Recipients, recipientView{r.To.String(), r.Status, r.Upstream, r.Reply.String()})
	}
	return v
}

func viewsOf(messages []*queue.Message) []messageView {
	views := make([]messageView, len(messages)) // never null in JSON
	for i, m := range messages {
		views[i] = viewOf(m)
	}
	return views
}

func orDash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	return s
}
