package access

import (
	"testing"

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
	list, err := r.Own.Sessions(ctx, own)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	refused(t, "one ends", r.Own.EndSession(ctx, thief, list[0].ID, client), ReasonSession)
	refused(t, "all others end by the thief", r.Own.EndOthers(ctx, thief, client), ReasonSession)
	r.session("the owner's session", cookie, "")
}

// TestEndedSessionPasskeys: it neither adds a passkey that it has begun nor names one that is there.
func TestEndedSessionPasskeys(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	secret, cookie := r.join("anna", operate.Admin)
	stolen, err := r.login("anna", secret)
	refused(t, "another session", err, "")
	own, thief := r.session("", cookie, ""), r.session("", stolen, "")
	options, flow, err := r.Own.BeginPasskey(own, client)
	refused(t, "the owner's begins", err, "")
	err = r.Own.AddPasskey(ctx, own, flow, newDevice().create(t, options), "Key", client)
	refused(t, "the owner's is added", err, "")
	own = r.session("", cookie, "")
	key := own.Passkeys()[0].ID
	options, flow, err = r.Own.BeginPasskey(thief, client)
	refused(t, "the thief's begins", err, "")
	refused(t, "all others end", r.Own.EndOthers(ctx, own, client), "")
	refused(t, "the thief's is added", r.Own.AddPasskey(ctx, thief, flow, newDevice().create(t, options), "x", client),
		ReasonSession)
	refused(t, "the thief names one", r.Own.NamePasskey(ctx, thief, key, "x", client), ReasonSession)
	if keys := r.session("", cookie, "").Passkeys(); len(keys) != 1 || keys[0].Label != "Key" {
		t.Errorf("%+v", keys)
	}
}
