package operate

import (
	"errors"
	"testing"

	"postern/relay/queue"
	"postern/relay/store"
)

// TestExpected: an action is done to as many as were counted, and where there are more meanwhile to none.
func TestExpected(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"M1", "M2", "M3"} {
		r.add(id, queue.Pending)
	}
	ctx := t.Context()
	some := queue.Filter{Login: "anna@example.com"}
	counted, err := r.Queue.Count(ctx, owner, Hold, some)
	if err != nil || counted != 3 {
		t.Fatal(counted, err)
	}
	if n, err := r.Queue.Count(ctx, owner, Release, some); n != 0 || err != nil {
		t.Errorf("%d can be released, %v", n, err)
	}
	r.add("M0", queue.Pending) // meanwhile, and before the others
	n, err := r.Queue.Do(ctx, owner, Hold, some, Order{Expected: &counted})
	if grown, is := errors.AsType[*GrownError](err); !is || n != 0 || grown.Expected != 3 || r.get("M1").Held {
		t.Errorf("%d, %v", n, err)
	}
	if kind, known := KindOf(err); !known || kind != Conflict {
		t.Error("it is no conflict")
	}
	entries, err := r.store.Audit(ctx, store.AuditQuery{})
	if err != nil || len(entries) != 1 || entries[0].Outcome == store.AuditDone {
		t.Errorf("%+v, %v", entries, err)
	}
	for _, expected := range []int64{4, 100} {
		if n, err := r.Queue.Do(ctx, owner, Hold, some, Order{Expected: &expected}); err != nil || n > 4 {
			t.Errorf("expecting %d: %d, %v", expected, n, err)
		}
	}
	if n, err := r.Queue.Count(ctx, owner, Release, some); n != 4 || err != nil {
		t.Errorf("%d are held, %v", n, err)
	}
	var none int64
	if n, err := r.Queue.Do(ctx, owner, Delete, queue.Filter{Login: "nobody"}, Order{Expected: &none}); n != 0 ||
		err != nil {
		t.Errorf("none expected and none there: %d, %v", n, err)
	}
	viewer := Actor{Name: "ben", Channel: Console, Role: Viewer}
	if _, err := r.Queue.Count(ctx, viewer, Delete, some); !errors.Is(err, ErrForbidden) {
		t.Error(err)
	}
}
