package operate

import (
	"errors"
	"testing"

	"postern/relay/store"
)

// TestRefusalsDoNotFillTheAudit: a viewer who asks again and again writes one entry an hour for each operation.
func TestRefusalsDoNotFillTheAudit(t *testing.T) {
	r := newRig(t)
	eve := Actor{Name: "eve", Channel: Console, Role: Viewer}
	for range 20 {
		if err := r.Trace.Reindex(t.Context(), eve); !errors.Is(err, ErrForbidden) {
			t.Fatal(err)
		}
	}
	entries, err := r.Audit.Store.Audit(t.Context(), store.AuditQuery{Actor: "eve"})
	if err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
