package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"postern/operate"
)

// TestAuthTestOfAppPassword: a trial knows app passwords, and says how many a login has.
func TestAuthTestOfAppPassword(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	l.runWith("store password", "user", "add", "anna", "--password-stdin", "--without-sender")
	out, errs, err := l.run("app-password", "add", "anna", "Canon", "--json")
	var made operate.NewAppCredential
	if err != nil || json.Unmarshal([]byte(out), &made) != nil || made.Password == "" {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	try := func(login, password string, ok bool, want string) {
		t.Helper()
		out, errs, err := l.runWith(password+"\n", "auth", "test", login)
		if (err == nil) != ok || err != nil && !errors.Is(err, errSilent) || !strings.Contains(out, want) ||
			strings.Contains(out, made.Password) {
			t.Errorf("%v\n%s%s", err, out, errs)
		}
	}
	try("anna", made.Password, true, "the app password Canon of this login")
	try("anna", "store password", true, "The login has 1 app password beside")
	try("bert", made.Password, false, "No source knows this login")
	l.run("user", "lock", "anna")
	try("anna", made.Password, false, "refused: the login is locked")
}
