package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	relaystore "postern/relay/store"
)

func TestConsoleAndTokenCommands(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	for _, step := range []struct {
		args string
		says string // on stdout; of an error with "!" before it
	}{
		{"console list", "postern console invite NAME --role admin"},
		{"console invite anna", "!no role"},
		{"console invite anna --role boss", "!no role"},
		{"console invite an;na --role admin", "!the name"},
		{"console invite Anna --role admin", "http://localhost:8587/invite/"},
		{"console invite anna --role helpdesk", "anna becomes helpdesk"},
		{"console list", "anna  helpdesk  invited"},
		{"console role anna operator", "anna is operator now"},
		{"console role anna boss", "!no role"},
		{"console disable anna", "anna is kept out"},
		{"console list", "disabled"},
		{"console enable anna", "anna may log in again"},
		{"console reset anna", "/invite/"},
		{"console reset ben", "!nobody in the console has the name ben"},
		{"console remove ben", "!nobody in the console"},
		{"console remove anna", "anna is removed"},
		{"token add mon", "!--scope"},
		{"token add mon --scope all", "!no scope"},
		{"token add mon --scope read --network 300.0.0.1", "!network"},
		{"token add mon --scope read --expires soon", "!--expires"},
		{"token add mon --scope read,queue --network 192.0.2.1 --expires 90d", "pst_"},
		{"token add mon --scope read", "!already"},
		{"token list", "192.0.2.1/32"},
		{"token revoke mon", "The token mon is revoked"},
		{"token revoke mon", "!no token"},
		{"audit", "helpdesk becomes operator"},
		{"audit --since never", "!--since"},
		{"audit --limit 0", "!--limit"},
	} {
		out, _, err := l.run(strings.Fields(step.args)...)
		want, fails := strings.CutPrefix(step.says, "!")
		if fails != (err != nil) || err != nil && !strings.Contains(err.Error(), want) || err == nil &&
			!strings.Contains(out, want) {
			t.Errorf("%s: %v, %q, want %q", step.args, err, out, step.says)
		}
	}
}

func TestConsoleJSON(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	get := func(v any, args ...string) {
		t.Helper()
		out, _, err := l.run(append(args, "--json")...)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), v); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var link access.Link
	get(&link, "console", "invite", "anna", "--role", "admin")
	if link.Name != "anna" || link.Role != "admin" || !strings.Contains(link.URL, access.InvitePath) ||
		time.Until(link.Expires) > access.InviteFor {
		t.Errorf("%+v", link)
	}
	var token newTokenView
	get(&token, "token", "add", "mon", "--scope", "read")
	if !strings.HasPrefix(token.Token, access.TokenPrefix) {
		t.Errorf("%+v", token)
	}
	var users []consoleView
	get(&users, "console", "list")
	var tokens []tokenView
	get(&tokens, "token", "list")
	var entries []relaystore.AuditEntry
	get(&entries, "audit", "--actor", me().Name)
	if len(users) != 1 || users[0].State != "invited" || len(tokens) != 1 || tokens[0].CreatedBy == "" ||
		len(entries) != 2 || entries[0].Operation != "console invite" || entries[1].Subject != "mon" {
		t.Errorf("%+v, %+v, %+v", users, tokens, entries)
	}
	for _, e := range entries {
		if strings.Contains(e.Detail, link.URL[len(link.URL)-20:]) || strings.Contains(e.Detail, token.Token) {
			t.Errorf("the audit has a secret: %+v", e)
		}
	}
}
