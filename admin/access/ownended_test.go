package access

import (
	"testing"
	"time"

	"postern/operate"
)

// TestEndedSessionChanges: a request of a session that its owner has ended meanwhile changes nothing, and opens no
// other session.
func TestEndedSessionChanges(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, cookie := r.join("anna", operate.Admin)
	stolen, err := r.login("anna", secret)
	refused(t, "another session", err, "")
	own, thief := r.session("", cookie, ""), r.session("", stolen, "") // the thief's request has been let in
	refused(t, "all others end", r.Own.EndOthers(ctx, own, client), "")
	r.session("the stolen cookie", stolen, ReasonSession)
	fresh, err := r.Own.SetApp(ctx, thief, r.code(r.Own.App(thief).Secret), client)
	refused(t, "another app", err, ReasonSession)
	if fresh != "" {
		r.session("the thief's new cookie", fresh, ReasonSession)
	}
	r.session("the owner's session", cookie, "")
}

func TestFarLock(t *testing.T) { _ = time.Now }
