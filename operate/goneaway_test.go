package operate

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"postern/relay/queue"
	"postern/relay/store"
	"postern/relay/trace"
)

// TestWhoAsksGoesAway: what was done to the queue before a person closed their browser is in trace and audit.
func TestWhoAsksGoesAway(t *testing.T) {
	r := newRig(t)
	for i := range 300 { // more than one transaction changes
		r.add(fmt.Sprintf("m%03d", i), queue.Pending)
	}
	ctx, goAway := context.WithCancel(t.Context())
	n, err := r.Queue.Do(ctx, owner, Hold, queue.Filter{Changed: func([]string) { goAway() }}, Order{Reason: "why"})
	if n == 0 || n == 300 || !errors.Is(err, context.Canceled) {
		t.Fatalf("%d held, %v", n, err)
	}
	events, err := r.store.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Operator}})
	if want := fmt.Sprintf("hold from the command line (%d messages)", n); err != nil || len(events) != 1 ||
		events[0].Detail != want {
		t.Errorf("trace %v, %v, want %q", events, err, want)
	}
	audit, err := r.Audit.List(t.Context(), owner, store.AuditQuery{Operation: HoldMessages.Name})
	if want := fmt.Sprintf("%d messages", n); err != nil || len(audit) != 1 || audit[0].Detail != want {
		t.Errorf("audit %v, %v, want %q", audit, err, want)
	}
}
