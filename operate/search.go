package operate

import (
	"context"
	"errors"
	"strings"
	"time"

	"postern/relay/trace"
)

// Search finds messages, and sessions and logins that were refused, the newest first. It looks further back while
// pages come back empty, until ctx ends: then the answer says where to go on. further, unless nil, is told how far it
// has looked.
func (t Trace) Search(ctx context.Context, by Actor, q trace.Search, further func(reached time.Time)) (
	trace.Answer, error) {
	if err := by.May(SeeTrace); err != nil {
		return trace.Answer{}, err
	}
	q.By = by.searcher()
	for {
		answer, err := t.Store.Search(ctx, q)
		if answer.Found == nil {
			answer.Found = []trace.Found{} // never null
		}
		switch {
		case errors.Is(err, trace.ErrQuery):
			return answer, fault(Invalid, "%v", err)
		case errors.Is(err, trace.ErrTooMany):
			return answer, hurried(err)
		case err != nil && q.After != "" && ctx.Err() != nil:
			return trace.Answer{Found: answer.Found, Next: q.After}, nil
		case err != nil || len(answer.Found) > 0 || answer.Next == "":
			return answer, err
		}
		if further != nil {
			further(answer.Reached)
		}
		q.After = answer.Next
	}
}

// searcher is who pays for a search.
func (a Actor) searcher() string { return string(a.Channel) + "\x00" + a.Name }

// longestWait bounds statistics, and the story of a message, while mail is busy.
const longestWait = 20 * time.Second

// hurried makes an error of who looks up more than mail can spare one that they can do something about.
func hurried(err error) error {
	switch {
	case errors.Is(err, trace.ErrTooMany):
		return fault(Conflict, "too many searches of yours are under way, ask again when some have ended")
	case errors.Is(err, context.DeadlineExceeded):
		return fault(Conflict, "mail is busy, and you have looked up much: ask again in a minute")
	}
	return err
}

// maxOfMessageID is how many events of the messages with one Message-ID a timeline has.
const maxOfMessageID = 1000

// Timeline returns everything about a message or a session, oldest first: for a message also what its session did
// before. It may be named by its Message-ID, too, which several may have. more: there are older events than those.
func (t Trace) Timeline(ctx context.Context, by Actor, id string) (events []trace.Event, more bool, err error) {
	if err := by.May(SeeTrace); err != nil {
		return nil, false, err
	}
	if strings.Contains(id, "@") {
		events, err = t.ofMessageID(ctx, trace.Query{Limit: maxOfMessageID}, strings.Trim(id, "<> "))
		return events, len(events) == maxOfMessageID, err
	}
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	events, more, err = t.Store.Timeline(ctx, by.searcher(), id)
	return events, more, hurried(err)
}

// Reindex makes the index of Search anew.
func (t Trace) Reindex(ctx context.Context, by Actor) error {
	return t.act(ctx, by, ReindexTrace, "", func(ctx context.Context, _ *string) error { return t.Store.Reindex(ctx) })
}
