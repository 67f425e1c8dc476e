package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postern/auth"
)

// TestAuthTest: it says which source decides and why, which no client hears, and changes nothing.
func TestAuthTest(t *testing.T) {
	t.Parallel()
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.Contains(string(body), `"cleo"`):
			fmt.Fprint(w, `{"result": "ok", "login": "cleo@example.com", "groups": ["staff"],
				"senders": ["*@example.org"], "networks": ["192.0.2.0/24"]}`)
		case strings.Contains(string(body), `"dora"`):
			fmt.Fprint(w, "{\"result\": \"locked\", \"reason\": \"left in May\\u001b[2J\"}")
		case strings.Contains(string(body), `"error"`):
			w.WriteHeader(500)
		default:
			fmt.Fprint(w, `{"result": "unknown"}`)
		}
	}))
	defer program.Close()
	l := newCommandLine(t)
	l.file("users", "bert:$2y$05$I1tTl9PUPKtibRbIBZzBSOzj2.tvjQ.NrAPWcHmSQQQBIGeli7Lqm\n")
	l.file("relay.toml", "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[upstream]]\nname = \"provider\"\n"+
		"host = \"smtp.example.net\"\n[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = \"users\"\n"+
		"[[auth.source]]\ntype = \"http\"\nname = \"program\"\nurl = \""+program.URL+"\"\n")
	l.runWith("store password", "user", "add", "anna", "--password-stdin", "--group", "office",
		"--without-sender")
	for _, c := range []struct {
		login, password string
		ok              bool
		want            []string
	}{
		{"anna", "store password", true, []string{"store", "right", "not asked", "Groups    office"}},
		{"anna", "hunter2", false, []string{"wrong password", "not asked", "535"}},
		{"BERT", "right", true, []string{"unknown", "Login     bert", "as [[policy]] says", "Networks  any"}},
		{"cleo", "x", true, []string{"Login     cleo@example.com", "Groups    staff", "*@example.org", "192.0.2.0/24"}},
		{"dora", "x", false, []string{"locked", "left in May", "535"}},
		{"error", "x", false, []string{"down", "status 500", "454", "postern doctor"}},
		{"nobody", "x", false, []string{"No source knows this login"}},
	} {
		out, errs, err := l.runWith(c.password+"\n", "auth", "test", c.login)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errSilent) {
			t.Errorf("%s: %v\n%s%s", c.login, err, out, errs)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s%s", c.login, w, out, errs)
			}
		}
		if strings.Contains(out+errs, "\x1b") || strings.Contains(out+errs, "hunter2") {
			t.Errorf("%s: %q", c.login, out+errs)
		}
	}
	out, _, err := l.run("auth", "test", "bert", "--lookup", "--json")
	var view struct {
		Login   string
		OK      bool
		As      string
		Answers []struct{ Source, Type, Answer string }
	}
	if err != nil || json.Unmarshal([]byte(out), &view) != nil || !view.OK || view.As != "bert" ||
		len(view.Answers) != 3 || view.Answers[1].Answer != "right" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, _, err := l.run("auth", "test", "nobody", "--lookup"); !errors.Is(err, errSilent) ||
		!strings.Contains(out, "knows logins only with their passwords") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, _, err := l.runWith("", "auth", "test", "anna"); !isUsage(err) {
		t.Errorf("no password: %v", err)
	}
	if _, _, err := l.runWith("x", "auth", "test", "an\x01na"); !isUsage(err) {
		t.Errorf("an impossible login: %v", err)
	}
	if u := l.user("anna"); u.Login != "anna" || u.Hash == auth.Secret("") {
		t.Errorf("%+v", u)
	}
}
