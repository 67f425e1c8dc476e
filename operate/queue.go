package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// Queue is what may be done with messages that wait.
type Queue struct{ *desk }

// List returns the messages of a page, oldest first.
func (q Queue) List(ctx context.Context, by Actor, f queue.Filter) ([]*queue.Message, error) {
	if err := by.May(SeeQueue); err != nil {
		return nil, err
	}
	return q.Store.List(ctx, f)
}

// Get returns one message.
func (q Queue) Get(ctx context.Context, by Actor, id string) (*queue.Message, error) {
	if err := by.May(SeeQueue); err != nil {
		return nil, err
	}
	m, err := q.Store.Get(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return nil, fault(NotFound, "no message %s in the queue", mail.Printable(mail.Cut(id, maxNamed)))
	}
	return m, err
}

// maxNamed bounds how much of what somebody typed is repeated to them, in octets.
const maxNamed = 200

// Content returns a message as it is kept, unsigned.
func (q Queue) Content(ctx context.Context, by Actor, id string) (c mail.Content, err error) {
	err = q.act(ctx, by, SeeContent, id, func(ctx context.Context, _ *string) error {
		m, err := q.Get(ctx, by, id)
		if err == nil {
			c, err = q.Store.Content(ctx, m.ID)
		}
		return err
	})
	if err != nil { // nobody sees it who is not in the audit
		return nil, err
	}
	return c, nil
}

// Headers returns the header of a message as it is kept.
func (q Queue) Headers(ctx context.Context, by Actor, id string) (header []byte, err error) {
	err = q.act(ctx, by, SeeHeaders, id, func(ctx context.Context, _ *string) error {
		m, err := q.Get(ctx, by, id)
		if err != nil {
			return err
		}
		c, err := q.Store.Content(ctx, m.ID)
		if err != nil {
			return err
		}
		header, err = headerOf(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return header, nil
}

func headerOf(c mail.Content) ([]byte, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	prefix, err := io.ReadAll(io.LimitReader(r, 2*mail.HeaderPrefix)) // we add some
	if err != nil {
		return nil, err
	}
	header, _, _ := bytes.Cut(prefix, []byte("\r\n\r\n"))
	return header, nil
}

// Action is what is done to messages of the queue.
type Action struct {
	Operation
	Verb string
	do   func(ctx context.Context, d *desk, f queue.Filter, reason string) (int64, error)
}

// The actions.
var (
	Retry = Action{RetryMessages, "retry", func(ctx context.Context, d *desk, f queue.Filter, _ string) (int64, error) {
		return d.Store.Retry(ctx, f, time.Now())
	}}
	Hold = Action{HoldMessages, "hold",
		func(ctx context.Context, d *desk, f queue.Filter, reason string) (int64, error) {
			return d.Store.Hold(ctx, f, reason)
		}}
	Release = Action{ReleaseMessages, "release",
		func(ctx context.Context, d *desk, f queue.Filter, _ string) (int64, error) {
			return d.Store.Release(ctx, f, time.Now())
		}}
	Bounce = Action{BounceMessages, "bounce",
		func(ctx context.Context, d *desk, f queue.Filter, _ string) (int64, error) {
			return d.Store.Bounce(ctx, f, time.Now())
		}}
	Delete = Action{DeleteMessages, "delete",
		func(ctx context.Context, d *desk, f queue.Filter, _ string) (int64, error) {
			return d.Store.Delete(ctx, f)
		}}
)

// Resend tries recipients again that were given up, of messages that still wait for others. Of a message that left the
// queue nothing is kept: its sender has to send it again.
var Resend = Action{ResendMessages, "resend",
	func(ctx context.Context, d *desk, f queue.Filter, _ string) (int64, error) {
		now := time.Now()
		return d.Store.Resend(ctx, f, now, now.Add(d.Config().Delivery.Expire.Std()))
	}}

// Actions are all actions.
var Actions = []Action{Retry, Hold, Release, Resend, Bounce, Delete}

// Do does something to the messages that f selects, and returns to how many. Where more are selected than o expects, it
// is a *GrownError.
func (q Queue) Do(ctx context.Context, by Actor, a Action, f queue.Filter, o Order) (n int64, err error) {
	var changed []string // of those that are named; of a filter it would be without bound
	if f.IDs != nil {
		f.Changed = func(ids []string) { changed = append(changed, ids...) }
	}
	err = q.act(ctx, by, a.Operation, subjectOf(f), func(ctx context.Context, detail *string) error {
		if o.Expected != nil {
			counted, err := q.count(ctx, a.selects(f), o.Expected)
			if f.Limit = int(counted); err != nil || counted == 0 {
				return err
			}
		}
		reasons, err := q.heldFor(ctx, a, f)
		if err != nil {
			return err
		}
		n, err = a.do(ctx, q.desk, a.selects(f), mail.Printable(o.Reason))
		// What was done before an error is recorded, too.
		*detail = fmt.Sprintf("%d messages", n)
		return errors.Join(err, q.note(ctx, actionEvents(by, a.Verb, changed, n, reasons)...))
	})
	return n, err
}

// heldFor are the reasons for which messages are held that are named and about to be held no more: the queue forgets
// them, and the history keeps them.
func (q Queue) heldFor(ctx context.Context, a Action, f queue.Filter) (map[string]string, error) {
	if f.IDs == nil || a.Verb == Retry.Verb || a.Verb == Hold.Verb {
		return nil, nil
	}
	messages, err := q.Store.List(ctx, queue.Filter{IDs: f.IDs, Held: true})
	reasons := make(map[string]string, len(messages))
	for _, m := range messages {
		reasons[m.ID] = mail.Cut(mail.Printable(m.HoldReason), maxNamed)
	}
	return reasons, err
}

// actionEvents trace what a person did: one row for each message that was named and changed, or one for a filter.
func actionEvents(by Actor, verb string, ids []string, n int64, reasons map[string]string) []trace.Event {
	if n == 0 {
		return nil
	}
	of := "1 message"
	if n > 1 {
		of = fmt.Sprintf("%d messages", n)
	}
	e := event(by, "", verb)
	e.Detail += " (" + of + ")"
	if len(ids) == 0 {
		return []trace.Event{e}
	}
	events := make([]trace.Event, len(ids))
	for i, id := range ids {
		events[i] = e
		events[i].ID = id
		if reason := reasons[id]; reason != "" {
			events[i].Detail += "; it was held: " + reason
		}
	}
	return events
}

// maxListed is how many messages of a selection the audit names.
const maxListed = 20

// subjectOf names what a filter selects.
func subjectOf(f queue.Filter) string {
	switch {
	case len(f.IDs) > maxListed:
		return fmt.Sprintf("%d messages", len(f.IDs))
	case len(f.IDs) > 0:
		return fmt.Sprint(f.IDs)
	}
	s := "all messages"
	for _, part := range []struct{ name, value string }{{"login", f.Login}, {"from", f.From}, {"to", f.To}} {
		if part.value != "" {
			s += fmt.Sprintf(" %s %s", part.name, part.value)
		}
	}
	return s
}

// MessageState is what a message of the queue waits for.
type MessageState uint8

// The states.
const (
	IsDue      MessageState = iota // an attempt, now or at NextAttempt
	IsHeld                         // a release
	IsReturned                     // its return to the sender, which a person asked for
	IsTried                        // the end of an attempt
	Sleeps                         // the upstreams of WaitingFor
)

// StateOf says what a message waits for.
func StateOf(m *queue.Message, now time.Time) MessageState {
	switch {
	case m.Held:
		return IsHeld
	case m.Bounce:
		return IsReturned
	case m.LeaseOwner != "" && m.LeaseUntil.After(now):
		return IsTried
	case m.WaitingFor != "": // or until NextAttempt, which may be hours away
		return Sleeps
	}
	return IsDue
}

// Message is a message of the queue as JSON has it.
type Message struct {
	ID          string      `json:"id"`
	Login       string      `json:"login,omitempty"`
	Listener    string      `json:"listener,omitempty"`
	From        string      `json:"from"`
	Author      string      `json:"author,omitempty"`
	MessageID   string      `json:"message_id,omitempty"`
	Size        int64       `json:"size"`
	Received    time.Time   `json:"received"`
	Expires     time.Time   `json:"expires"`
	Attempts    int         `json:"attempts"`
	NextAttempt time.Time   `json:"next_attempt"`
	WaitingFor  string      `json:"waiting_for,omitempty"`
	Held        bool        `json:"held"`
	HoldReason  string      `json:"hold_reason,omitempty"`
	LastReply   string      `json:"last_reply,omitempty"`
	Recipients  []Recipient `json:"recipients"`
}

// Recipient is one recipient of a Message.
type Recipient struct {
	To       string       `json:"to"`
	Status   queue.Status `json:"status"`
	Upstream string       `json:"upstream,omitempty"`
	Reply    string       `json:"reply,omitempty"`
}

// Shown returns a message as JSON has it.
func Shown(m *queue.Message) Message {
	v := Message{ID: m.ID, Login: m.Login, Listener: m.Listener, From: m.Envelope.From.String(),
		Author: m.Author.String(), MessageID: m.MessageID, Size: m.Size, Received: m.Received, Expires: m.Expires,
		Attempts: m.Attempts, NextAttempt: m.NextAttempt, WaitingFor: m.WaitingFor, Held: m.Held,
		HoldReason: m.HoldReason, LastReply: m.LastReply.String()}
	for _, r := range m.Recipients {
		v.Recipients = append(v.Recipients, Recipient{r.To.String(), r.Status, r.Upstream, r.Reply.String()})
	}
	return v
}

// ShownAll returns messages as JSON has them: a list that is never null.
func ShownAll(messages []*queue.Message) []Message {
	all := make([]Message, len(messages))
	for i, m := range messages {
		all[i] = Shown(m)
	}
	return all
}
