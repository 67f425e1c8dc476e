package api

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"postern/operate"
	"postern/relay/queue"
	"postern/relay/status"
)

// queueAPI serves what is done with messages that wait.
type queueAPI struct{ ops *operate.Operations }

func (s *server) queueRoutes() []route {
	q := queueAPI{s.Operations}
	see := []operate.Operation{operate.SeeQueue}
	var actions []operate.Operation
	for _, a := range operate.Actions {
		actions = append(actions, a.Operation)
	}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/queue", id: "queue", tag: "Queue", needs: see,
			summary: "The messages that wait, oldest first",
			about:   "The first page has totals of the whole queue. What comes meanwhile is on the last page."},
			q.queue),
		handle(s, route{method: http.MethodGet, path: "/queue/{id}", id: "queue-message", tag: "Queue", needs: see,
			summary: "One message that waits", faults: []kind{notFound}},
			func(ctx context.Context, by operate.Actor, in *ofMessage) (*shown[operate.Message], error) {
				m, err := q.ops.Queue.Get(ctx, by, in.ID)
				if err != nil {
					return nil, err
				}
				return &shown[operate.Message]{operate.Shown(m)}, nil
			}),
		handle(s, route{method: http.MethodGet, path: "/queue/{id}/content", id: "queue-content", tag: "Queue",
			needs: []operate.Operation{operate.SeeContent}, streams: true,
			summary: "The octets of a message that waits",
			media:   "message/rfc822", schema: &huma.Schema{Type: huma.TypeString, ContentEncoding: "binary"},
			about: "As it is kept: complete, and not signed yet.", faults: []kind{notFound}}, q.content),
		handle(s, route{method: http.MethodPost, path: "/queue/actions", id: "queue-action", tag: "Queue",
			needs: actions, summary: "Do something to messages that wait", about: aboutActions,
			faults: []kind{selectionGrew}}, q.act),
	}
}

const aboutActions = "Name the messages by `ids`, by a `filter`, or say `all`. With a filter or all, say in " +
	"`expected` how many you mean: if more are selected, nothing is done, and never is it done to more. " +
	"`dry_run` counts them."

type ofMessage struct {
	ID string `path:"id" maxLength:"1000"`
}

// Selection chooses messages of the queue.
type Selection struct {
	Login string `json:"login,omitempty" maxLength:"320"`
	From  string `json:"from,omitempty" maxLength:"320" doc:"Reverse-path: an address, *@domain, or <>."`
	To    string `json:"to,omitempty" maxLength:"320" doc:"A recipient: an address or *@domain."`
	Held  bool   `json:"held,omitempty" doc:"Only those that are held."`
}

func (s Selection) filter() queue.Filter {
	return queue.Filter{Login: s.Login, From: s.From, To: s.To, Held: s.Held}
}

type queueQuery struct {
	Login string `query:"login" maxLength:"320"`
	From  string `query:"from" maxLength:"320" doc:"Reverse-path: an address, *@domain, or <>."`
	To    string `query:"to" maxLength:"320" doc:"A recipient: an address or *@domain."`
	Held  bool   `query:"held" doc:"Only those that are held."`
	Page
}

// QueuePage is a part of the queue.
type QueuePage struct {
	Messages []operate.Message `json:"messages"`
	Next     string            `json:"next,omitempty"`
	Totals   *status.Queue     `json:"totals,omitempty" doc:"Of the whole queue; on the first page."`
}

func (q queueAPI) queue(ctx context.Context, by operate.Actor, in *queueQuery) (*listed[QueuePage], error) {
	at, err := parseCursor("queue", in.Cursor)
	if err != nil {
		return nil, err
	}
	f := Selection{in.Login, in.From, in.To, in.Held}.filter()
	f.After, f.Limit = at, in.Limit+1
	messages, err := q.ops.Queue.List(ctx, by, f)
	if err != nil {
		return nil, err
	}
	var out QueuePage
	if len(messages) > in.Limit {
		messages = messages[:in.Limit]
		out.Next = cursor{"queue", messages[in.Limit-1].ID}.String()
	}
	out.Messages = operate.ShownAll(messages)
	if at == "" {
		report, err := q.ops.Status.Report(ctx, by)
		if err != nil {
			return nil, err
		}
		out.Totals = &report.Queue
	}
	return &listed[QueuePage]{nextPage(ctx, out.Next), out}, nil
}

// stream is an answer that is written as it is read.
type stream struct {
	Type        string `header:"Content-Type" hidden:"true"`
	Disposition string `header:"Content-Disposition" hidden:"true"`
	Body        func(huma.Context)
}

func (q queueAPI) content(ctx context.Context, by operate.Actor, in *ofMessage) (*stream, error) {
	c, err := q.ops.Queue.Content(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	octets, err := c.Open()
	if err != nil {
		return nil, err
	}
	return &stream{"message/rfc822", "attachment; filename=message.eml", func(out huma.Context) {
		defer octets.Close()
		out.SetHeader("Content-Length", strconv.FormatInt(c.Size(), 10))
		out.SetStatus(http.StatusOK)
		if _, err := io.Copy(out.BodyWriter(), octets); err != nil {
			panic(http.ErrAbortHandler) // the caller must not take a part for the whole
		}
	}}, nil
}

// Action is what to do to which messages.
type Action struct {
	Action   string     `json:"action" enum:"retry,hold,release,resend,bounce,delete"`
	IDs      []string   `json:"ids,omitempty" minItems:"1" maxItems:"1000"`
	Filter   *Selection `json:"filter,omitempty" minProperties:"1"`
	All      bool       `json:"all,omitempty"`
	Reason   string     `json:"reason,omitempty" maxLength:"500" doc:"Why they are held."`
	Expected *int64     `json:"expected,omitempty" minimum:"0" maximum:"1000000" doc:"How many are meant, at most."`
	DryRun   bool       `json:"dry_run,omitempty" doc:"Only count them."`
}

// Acted is what was done.
type Acted struct {
	Action   string `json:"action"`
	Selected int64  `json:"selected" doc:"Messages that were chosen."`
	Changed  int64  `json:"changed" doc:"Those of them that it changed anything for."`
	DryRun   bool   `json:"dry_run"`
}

func (q queueAPI) act(ctx context.Context, by operate.Actor, in *shown[Action]) (*shown[Acted], error) {
	a := in.Body
	i := slices.IndexFunc(operate.Actions, func(known operate.Action) bool { return known.Verb == a.Action })
	if i < 0 {
		return nil, invalid.problem("There is no such action.")
	}
	action := operate.Actions[i]
	if err := by.May(action.Operation); err != nil {
		return nil, err
	}
	f, err := a.filter()
	if err != nil {
		return nil, err
	}
	n, err := q.ops.Queue.Count(ctx, by, action, f)
	if err == nil && a.Expected != nil {
		err = operate.CheckCount(n, *a.Expected)
	}
	out := Acted{Action: action.Verb, Selected: n, DryRun: a.DryRun}
	if err != nil || a.DryRun || n == 0 {
		return &shown[Acted]{out}, err
	}
	out.Changed, err = q.ops.Queue.Do(ctx, by, action, f, operate.Order{Reason: a.Reason, Expected: a.Expected})
	return &shown[Acted]{out}, err
}

// filter returns what an action is for, which must be said in one way.
func (a *Action) filter() (f queue.Filter, err error) {
	ways := 0
	for _, given := range []bool{len(a.IDs) > 0, a.Filter != nil, a.All} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return f, invalid.problem("Say which messages: one of ids, filter and all.")
	case len(a.IDs) > 0:
		return queue.Filter{IDs: slices.Compact(slices.Sorted(slices.Values(a.IDs)))}, nil
	case a.Expected == nil && !a.DryRun:
		return f, invalid.problem("Say in expected how many messages you mean; dry_run counts them.")
	case a.All:
		return f, nil
	case *a.Filter == Selection{}:
		return f, invalid.problem("The filter selects everything: write all instead.")
	}
	return a.Filter.filter(), nil
}
