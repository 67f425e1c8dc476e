package api

import (
	"net/http"
	"testing"

	"postern/auth"
	"postern/operate"
)

// TestLoginElsewhere: who has app passwords and no account here is shown, locked and unlocked like the others.
func TestLoginElsewhere(t *testing.T) {
	r := newRig(t)
	_, err := r.store.PutPerson(t.Context(), auth.Person{Login: "dora", Source: "oidc", Subject: "x 1", Seen: noon})
	if err != nil {
		t.Fatal(err)
	}
	var v operate.Account
	r.get("/logins/dora", &v)
	if v.Kind != operate.KindElsewhere || v.Locked {
		t.Errorf("%+v", v)
	}
	var d operate.Detailed
	if r.get("/logins/dora/mechanisms", &d); d.Kind != operate.KindElsewhere {
		t.Errorf("%+v", d)
	}
	r.post("/logins/dora/lock", `{"reason":"left"}`, http.StatusOK, &v)
	if !v.Locked || v.LockReason != "left" {
		t.Errorf("%+v", v)
	}
	var u Unlocked
	if r.post("/logins/dora/unlock", `{}`, http.StatusOK, &u); !u.Account {
		t.Errorf("%+v", u)
	}
	for _, path := range []string{"/devices/dora/lock", "/logins/nobody/lock", "/devices/dora/unlock"} {
		r.post(path, `{}`, http.StatusNotFound, nil)
	}
}
