package access

import (
	"encoding/json"
	"testing"

	"postern/operate"
)

// TestLastUsablePasskey: a passkey that cannot be read is no way in.
func TestLastUsablePasskey(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, cookie := r.join("anna", operate.Admin)
	u, err := r.store.ConsoleUser(ctx, "anna")
	if err != nil {
		t.Fatal(err)
	}
	var k keptKey
	k.ID = []byte("0123456789abcdef")
	good, _ := json.Marshal(k)
	u.TOTP, u.Passkeys = "", []json.RawMessage{good, json.RawMessage(`{"id":7}`)}
	r.put(u)
	s := r.session("", cookie, "")
	_, err = r.Own.RemovePasskey(ctx, s, idOf(k), client)
	refused(t, "the last that can be used", err, ReasonLastWay)
}
