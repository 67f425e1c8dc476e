package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/trace"
)

func TestTraceSearch(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	at := time.Now().Add(-time.Hour)
	failed := trace.Event{Time: at, Kind: trace.Failed, ID: "first", Session: "s1", Login: "anna@example.com",
		From: "anna@example.com", To: "bob@gmail.com", Upstream: "google",
		Reply: mail.R(550, "5.1.1", "no such user \x1b[2J gsmtp")}
	delivered := failed
	delivered.Time, delivered.Kind, delivered.To = at.Add(time.Second), trace.Delivered, "carol@example.net"
	delivered.Reply = mail.R(250, "2.0.0", "OK 0100-4106")
	wrong := trace.Event{Time: at.Add(time.Minute), Kind: trace.AuthFail, Session: "s2", Client: "192.0.2.17",
		Login: "anna@example.com", Detail: "PLAIN: wrong password"}
	if err := l.store.AppendEventsNow(t.Context(), []trace.Event{failed, delivered, wrong}); err != nil {
		t.Fatal(err)
	}
	out := l.ok("trace", "search", "anna", "gmail", "550")
	for _, want := range []string{"first", "<anna@example.com> to <bob@gmail.com> and 1 more", "1 delivered, 1 failed",
		"250 2.0.0 OK 0100-4106"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "s2") || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	var page trace.Answer
	if err := json.Unmarshal([]byte(l.ok("trace", "search", "anna", "--limit", "1", "--json")), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Found) != 1 || page.Found[0].Session != "s2" || page.Next == "" {
		t.Fatalf("%+v", page)
	}
	if out = l.ok("trace", "search", "anna", "--after", page.Next); !strings.Contains(out, "first") ||
		strings.Contains(out, "s2") {
		t.Errorf("the next page:\n%s", out)
	}
	if out = l.ok("trace", "search", "--since", "2h", "--until", "10m"); !strings.Contains(out, "s2") {
		t.Errorf("everything:\n%s", out)
	}
	for _, args := range [][]string{{"nobody"}, {"anna", "--since", "5m"}, {"anna", "--until", "2h"}} {
		if out, _, err := l.run(append([]string{"trace", "search"}, args...)...); err == nil ||
			!strings.Contains(out, "Nothing is recorded") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	for _, args := range [][]string{{"x"}, {"anna", "--since", "soon"}, {"anna", "--until", "soon"},
		{"anna", "--after", "there"}, {strings.Repeat("x", 600)}} {
		_, _, err := l.run(append([]string{"trace", "search"}, args...)...)
		if _, wrong := err.(*usageError); !wrong {
			t.Errorf("%q: %v", args, err)
		}
	}
	if out = l.ok("trace", "reindex"); !strings.Contains(out, "anew") {
		t.Error(out)
	}
	if out = l.ok("trace", "search", "0100-4106"); !strings.Contains(out, "first") ||
		!strings.Contains(out, "being indexed") {
		t.Errorf("after reindex:\n%s", out)
	}
	if out = l.ok("trace", "first"); !strings.Contains(out, "gsmtp") { // the trace of a message is asked like this
		t.Error(out)
	}
}
