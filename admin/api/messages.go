package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"postern/operate"
	"postern/relay/trace"
)

// messageAPI serves what happened.
type messageAPI struct{ ops *operate.Operations }

func (s *server) messageRoutes() []route {
	api := messageAPI{s.Operations}
	see := []operate.Operation{operate.SeeTrace}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/messages", id: "messages", tag: "Messages", needs: see,
			faults: []kind{conflict}, summary: "Search what happened, newest first", about: aboutSearch}, api.search),
		handle(s, route{method: http.MethodGet, path: "/messages/{id}", id: "message", tag: "Messages",
			needs: []operate.Operation{operate.SeeTrace, operate.SeeQueue}, faults: []kind{notFound},
			summary: "What happened to a message, and what to do",
			about: "By the id that the 250 named, by a Message-ID, or by the session of a log line: its events, " +
				"oldest first, with what its session did before; the messages of them that still wait, and advice on " +
				"what upstreams refused. Of a great many events the newest are given."},
			api.message),
	}
}

const aboutSearch = "One row for each message, and for each session or login that was refused. `q` is words: " +
	"addresses, domains, logins, ids of ours and of providers, a client's address or network, reply codes, words " +
	"of replies. One event must have all of them. A page may be short, or empty, and still have a `next`: a search " +
	"looks at a bounded number of events. New events do not move the pages behind them."

type messagesQuery struct {
	Q     string    `query:"q" maxLength:"512"`
	Since time.Time `query:"since"`
	Until time.Time `query:"until" doc:"Not part of it."`
	Page
}

// FoundPage is a part of what was found.
type FoundPage struct {
	Found   []trace.Found `json:"found"`
	Next    string        `json:"next,omitempty"`
	Reached time.Time     `json:"reached,omitzero" doc:"How far back this page has looked, where there is a next one."`
	Partial bool          `json:"partial" doc:"Old events are being indexed: going back to them takes longer."`
}

func (api messageAPI) search(ctx context.Context, by operate.Actor, in *messagesQuery) (*listed[FoundPage], error) {
	at, err := parseCursor("found", in.Cursor)
	if err != nil {
		return nil, err
	}
	answer, err := api.ops.Trace.Search(ctx, by, trace.Search{Words: in.Q, Since: in.Since, Until: in.Until,
		Limit: in.Limit, After: at}, nil)
	if err != nil {
		return nil, err
	}
	out := FoundPage{Found: answer.Found, Next: cursor{"found", answer.Next}.String(), Reached: answer.Reached,
		Partial: answer.Partial}
	return &listed[FoundPage]{nextPage(ctx, out.Next), out}, nil
}

// Timeline is what happened to a message.
type Timeline struct {
	Events  []trace.Event     `json:"events"`
	More    bool              `json:"more" doc:"There are older events than those."`
	Waiting []operate.Message `json:"waiting" doc:"Those that are still in the queue."`
	Advice  []operate.Advised `json:"advice" doc:"What to do about what upstreams refused."`
}

// maxWaiting is how many waiting messages a timeline has.
const maxWaiting = 20

func (api messageAPI) message(ctx context.Context, by operate.Actor, in *ofMessage) (*shown[Timeline], error) {
	events, more, err := api.ops.Trace.Timeline(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	out := Timeline{Events: append([]trace.Event{}, events...), More: more, Waiting: []operate.Message{},
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
