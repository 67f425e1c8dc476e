package console

import (
	"strings"
	"testing"
	"time"

	"postern/auth"
)

// TestLoginElsewherePage: who has app passwords and no account here has a page, on which they can be locked.
func TestLoginElsewherePage(t *testing.T) {
	r := newRig(t)
	_, err := r.store.PutPerson(t.Context(), auth.Person{Login: "dora", Source: "oidc", Subject: "x 1", Seen: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	page := r.page("/logins/dora")
	for _, want := range []string{"login of another source", "/logins/act/lock"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, none := range []string{"/logins/act/edit", "/logins/act/password", "/logins/act/remove",
		"/logins/dora/client"} {
		if strings.Contains(page, none) {
			t.Errorf("%q is there", none)
		}
	}
}
