package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/trace"
)

// messageAPI serves what happened.
type messageAPI struct {
	ops *operate.Operations
	now func() time.Time
}

func (s *server) messageRoutes() []route {
	api := messageAPI{s.Operations, s.Now}
	see := []operate.Operation{operate.SeeTrace}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/messages", id: "messages", tag: "Messages", needs: see,
			summary: "Search what happened, newest first", about: aboutSearch}, api.search),
		handle(s, route{method: http.MethodGet, path: "/messages/{id}", id: "message", tag: "Messages",
			needs: []operate.Operation{operate.SeeTrace, operate.SeeQueue}, faults: []kind{notFound},
			summary: "What happened to a message, and what to do",
			about: "By the id that the 250 named, by a Message-ID, or by the session of a log line: its events, " +
				"oldest first and at most 1000, the messages of them that still wait, and advice on what upstreams " +
				"refused."},
			api.message),
	}
}

const aboutSearch = "`q` is a message's id, a session, a login, an address, a domain or a Message-ID. If it is none " +
	"of those, it is looked for in replies and details, of the last 7 days unless `since` says otherwise; " +
	"`reached` says how far back that was. Without `q`, everything. New events do not move the pages behind them."

type messagesQuery struct {
	Q     string    `query:"q" maxLength:"512"`
	Since time.Time `query:"since"`
	Until time.Time `query:"until" doc:"Not part of it."`
	Page
}

// Found is something that happened.
type Found struct {
	ID        string     `json:"id,omitempty" doc:"Of the message; none came of it without."`
	Session   string     `json:"session,omitempty"`
	Time      time.Time  `json:"time"`
	State     trace.Kind `json:"state" doc:"What happened."`
	Login     string     `json:"login,omitempty"`
	Client    string     `json:"client,omitempty"`
	Listener  string     `json:"listener,omitempty"`
	From      string     `json:"from,omitempty"`
	To        string     `json:"to,omitempty"`
	MessageID string     `json:"message_id,omitempty"`
	Upstream  string     `json:"upstream,omitempty"`
	Reply     mail.Reply `json:"reply,omitzero"`
	Detail    string     `json:"detail,omitempty"`
}

// FoundPage is a part of what was found.
type FoundPage struct {
	Found   []Found   `json:"found"`
	Next    string    `json:"next,omitempty"`
	Reached time.Time `json:"reached,omitzero" doc:"It was not looked further back."`
}

// lookup is one way to understand what is looked for.
type lookup struct {
	name, login, from, to, text string
}

// exactly are the ways that an index answers.
func exactly(q string) (all []lookup) {
	q = strings.TrimSpace(q)
	login, err := operate.CheckLogin(q)
	if err == nil {
		all = append(all, lookup{login: login})
	}
	switch {
	case q == "":
		return []lookup{{}}
	case strings.ContainsAny(q, " <>"):
		return nil
	case strings.Contains(q, "@"):
		return append(all, lookup{from: q}, lookup{to: q})
	case strings.Contains(q, "."):
		all = append(all, lookup{from: "*@" + q}, lookup{to: "*@" + q})
	}
	return append(all, lookup{name: q})
}

// anywhere are the ways that go through all events of a time.
func anywhere(q string) []lookup {
	q = strings.TrimSpace(q)
	if strings.Contains(q, "@") {
		return []lookup{{name: strings.Trim(q, "<>")}}
	}
	return []lookup{{text: q}}
}

// searchedBack is how far back anywhere looks unless it is told.
const searchedBack = 7 * 24 * time.Hour

// The lists that a cursor of a search is of.
const (
	byIndex = "found"
	byScan  = "text"
)

func (api messageAPI) search(ctx context.Context, by operate.Actor, in *messagesQuery) (*listed[FoundPage], error) {
	list, at := byIndex, ""
	for _, l := range []string{byIndex, byScan} {
		var err error
		if at, err = parseCursor(l, in.Cursor); err == nil {
			list = l
			break
		} else if l == byScan {
			return nil, err
		}
	}
	q := trace.Query{Since: in.Since, Until: in.Until, Limit: in.Limit + 1}
	if at != "" {
		n, err := strconv.ParseInt(at, 36, 64)
		if err != nil {
			return nil, invalid.problem("The cursor is not one of this list.")
		}
		q.Until = time.Unix(0, n)
	}
	var events []trace.Event
	var err error
	if list == byIndex {
		events, err = api.find(ctx, by, q, exactly(in.Q))
	}
	var out FoundPage
	if err == nil && len(events) == 0 && (list == byScan || in.Cursor == "" && in.Q != "") {
		list = byScan
		if q.Since.IsZero() {
			q.Since = api.now().Add(-searchedBack)
		}
		out.Reached = q.Since
		events, err = api.find(ctx, by, q, anywhere(in.Q))
	}
	if err != nil {
		return nil, err
	}
	if len(events) > in.Limit {
		events = events[:in.Limit]
		out.Next = cursor{list, strconv.FormatInt(events[in.Limit-1].Time.UnixNano(), 36)}.String()
	}
	out.Found = found(events)
	return &listed[FoundPage]{nextPage(ctx, out.Next), out}, nil
}

// find returns what any of the lookups finds, each event once, newest first, at most q.Limit.
func (api messageAPI) find(ctx context.Context, by operate.Actor, q trace.Query, all []lookup) ([]trace.Event, error) {
	var events []trace.Event
	for _, l := range all {
		of := q
		of.Login, of.From, of.To, of.Text = l.login, l.from, l.to, l.text
		some, err := api.ops.Trace.Events(ctx, by, of, l.name)
		if err != nil {
			return nil, err
		}
		events = append(events, some...)
	}
	slices.SortStableFunc(events, func(a, b trace.Event) int { return b.Time.Compare(a.Time) })
	events = slices.CompactFunc(events, func(a, b trace.Event) bool { return a.Time.Equal(b.Time) }) // no two have one
	return events[:min(len(events), q.Limit)], nil
}

func found(events []trace.Event) []Found {
	rows := make([]Found, len(events))
	for i, e := range events {
		rows[i] = Found{e.ID, e.Session, e.Time, e.Kind, e.Login, e.Client, e.Listener, e.From, e.To, e.MessageID,
			e.Upstream, e.Reply, e.Detail}
	}
	return rows
}

// Timeline is what happened to a message.
type Timeline struct {
	Events  []trace.Event     `json:"events"`
	Waiting []operate.Message `json:"waiting" doc:"Those that are still in the queue."`
	Advice  []operate.Advised `json:"advice" doc:"What to do about what upstreams refused."`
}

// Bounds of a timeline.
const (
	maxEvents  = 1000
	maxWaiting = 20
)

func (api messageAPI) message(ctx context.Context, by operate.Actor, in *ofMessage) (*shown[Timeline], error) {
	events, err := api.ops.Trace.Events(ctx, by, trace.Query{Limit: maxEvents}, in.ID)
	if err != nil {
		return nil, err
	}
	out := Timeline{Events: append([]trace.Event{}, events...), Waiting: []operate.Message{},
		Advice: append([]operate.Advised{}, operate.Advise(events)...)}
	ids := []string{in.ID}
	for _, e := range events {
		if e.ID != "" && !slices.Contains(ids, e.ID) && len(ids) <= maxWaiting {
			ids = append(ids, e.ID)
		}
	}
	for _, id := range ids {
		m, err := api.ops.Queue.Get(ctx, by, id)
		if kind, ok := operate.KindOf(err); ok && kind == operate.NotFound {
			continue
		} else if err != nil {
			return nil, err
		}
		out.Waiting = append(out.Waiting, operate.Shown(m))
	}
	if len(out.Events) == 0 && len(out.Waiting) == 0 {
		return nil, notFound.problem("Nothing is known of it: the trace may be over its history by now.")
	}
	return &shown[Timeline]{out}, nil
}

// sorted returns a list in the order of its keys.
func sorted[T any](all []T, key func(T) string) []T {
	return slices.SortedStableFunc(slices.Values(all), func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}
