package operate

import (
	"context"
	"slices"
	"strings"

	"postern/mail"
	"postern/relay/trace"
	"postern/relay/upstream/advice"
	"postern/relay/upstream/profile"
)

// Trace is what may be asked about what happened.
type Trace struct{ *desk }

// Await waits until what the daemon keeps in memory can be asked for, and reports whether it answered: without it,
// events of the last moments may be missing.
func (t Trace) Await(ctx context.Context) bool { return t.Store.AwaitEvents(ctx) }

// Events returns what q selects, oldest first; with a name, all of one message or session: what the 250 named, a
// Message-ID, or the session of a log line.
func (t Trace) Events(ctx context.Context, by Actor, q trace.Query, name string) ([]trace.Event, error) {
	if err := by.May(SeeTrace); err != nil {
		return nil, err
	}
	switch {
	case name == "":
		return t.Store.Events(ctx, q)
	case strings.Contains(name, "@"):
		return t.ofMessageID(ctx, q, strings.Trim(name, "<> "))
	}
	q.ID = name
	events, err := t.Store.Events(ctx, q)
	if err == nil && len(events) == 0 {
		q.ID, q.Session = "", name
		events, err = t.Store.Events(ctx, q)
	}
	return events, err
}

// maxWithID is how many events that name a Message-ID are looked at.
const maxWithID = 1000

// ofMessageID finds the messages that have a Message-ID, and everything about them. Clients that try again make
// several.
func (t Trace) ofMessageID(ctx context.Context, q trace.Query, messageID string) ([]trace.Event, error) {
	named := q
	named.Text, named.Kinds, named.Limit = messageID, nil, maxWithID
	found, err := t.Store.Events(ctx, named)
	if err != nil {
		return nil, err
	}
	var all []trace.Event
	seen := map[string]bool{}
	for _, e := range found {
		switch {
		case strings.Trim(e.MessageID, "<>") != messageID || seen[e.ID]:
		case e.ID == "":
			if len(q.Kinds) == 0 || slices.Contains(q.Kinds, e.Kind) {
				all = append(all, e)
			}
		default:
			seen[e.ID] = true
			of := q
			of.ID = e.ID
			events, err := t.Store.Events(ctx, of)
			if err != nil {
				return nil, err
			}
			all = append(all, events...)
		}
	}
	slices.SortStableFunc(all, func(a, b trace.Event) int { return a.Time.Compare(b.Time) })
	if q.Limit > 0 && len(all) > q.Limit {
		all = all[len(all)-q.Limit:]
	}
	return all, nil
}

// Advised is what to do about an upstream's refusal.
type Advised struct {
	Upstream string         `json:"upstream"`
	Advice   *advice.Advice `json:"advice"`
}

// maxAdvised bounds how much advice is given on a trace.
const maxAdvised = 3

// Advise says what to do about the upstreams' refusals among events, each kind once.
func Advise(events []trace.Event) (all []Advised) {
	given := map[string]bool{}
	for _, e := range events {
		if e.Upstream == "" || e.Kind != trace.Attempt && e.Kind != trace.Deferred && e.Kind != trace.Failed ||
			len(given) >= maxAdvised {
			continue
		}
		a := advice.For(profile.Generic, mail.Stage(e.Stage), e.Reply)
		if a == nil || given[a.Name] {
			continue
		}
		given[a.Name] = true
		all = append(all, Advised{e.Upstream, a.Filled(e.Identity, e.From)})
	}
	return all
}

// Unknown returns an event with an upstream's reply that no reply rule knows, nil if there is none.
func Unknown(events []trace.Event) *trace.Event {
	for i := range events {
		if events[i].Rule == mail.RuleNone && events[i].Upstream != "" {
			return &events[i]
		}
	}
	return nil
}
