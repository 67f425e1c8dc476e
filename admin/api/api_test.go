package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"postern/mail"
	"postern/operate"
	"postern/relay/queue"
	"postern/relay/status"
	"postern/relay/trace"
)

func TestActions(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.queued(fmt.Sprint("m", i), func(m *queue.Message) { m.Held = i == 4 })
	}
	r.queued("other", func(m *queue.Message) { m.Login = "carl" })
	act := func(body string, want int) (done Acted) {
		t.Helper()
		if a := r.do(admin, request(http.MethodPost, "/queue/actions", body)); a.StatusCode != want {
			t.Errorf("%s: %d %s", body, a.StatusCode, a.body)
		} else if want == http.StatusOK {
			a.json(t, &done)
		}
		return done
	}
	if got := act(`{"action":"delete","filter":{"login":"anna"},"dry_run":true}`, 200); got.Selected != 5 ||
		!got.DryRun {
		t.Errorf("counted: %+v", got)
	}
	for body, want := range map[string]int{
		`{"action":"delete","filter":{"login":"anna"},"expected":4}`: 409, // more than that: nothing is done
		`{"action":"delete","all":true,"expected":5}`:                409,
		`{"action":"delete","ids":["m0","m1"],"expected":1}`:         409,
		`{"action":"delete","filter":{"login":"anna"}}`:              422, // how many?
		`{"action":"delete","all":true}`:                             422,
		`{"action":"delete"}`:                                        422, // which?
		`{"action":"delete","ids":[]}`:                               422,
		`{"action":"delete","ids":["m0"],"all":true}`:                422,
		`{"action":"delete","filter":{},"expected":9}`:               422, // that is all
		`{"action":"delete","filter":{"held":false},"expected":9}`:   422,
		`{"action":"burn","all":true,"expected":9}`:                  422,
		`{"action":"hold","all":true,"expected":-1}`:                 422,
	} {
		act(body, want)
	}
	if left, err := r.store.List(t.Context(), queue.Filter{}); err != nil || len(left) != 6 {
		t.Fatalf("%d messages are left, %v", len(left), err)
	}
	if got := act(`{"action":"hold","ids":["m0","m0","none"],"reason":"look"}`, 200); got.Selected != 1 ||
		got.Changed != 1 {
		t.Errorf("held: %+v", got)
	}
	if got := act(`{"action":"release","all":true,"expected":2}`, 200); got.Selected != 2 || got.Changed != 2 {
		t.Errorf("released: %+v", got)
	}
	if got := act(`{"action":"release","all":true,"expected":0}`, 200); got.Selected != 0 || got.Changed != 0 {
		t.Errorf("released: %+v", got)
	}
	if got := act(`{"action":"delete","filter":{"login":"anna"},"expected":100}`, 200); got.Changed != 5 {
		t.Errorf("deleted: %+v", got)
	}
	if m, err := r.store.Get(t.Context(), "other"); err != nil || m.Login != "carl" {
		t.Errorf("another login's: %v", err)
	}
	events, err := r.store.Events(t.Context(), trace.Query{Kinds: []trace.Kind{trace.Operator}})
	if err != nil || len(events) != 3 || !strings.Contains(events[2].Detail, "anna in the console") {
		t.Errorf("the trace has %+v, %v", events, err)
	}
}

// The content comes in octets as they are kept, over a real connection, for whom has just given the second factor.
func TestContent(t *testing.T) {
	r := newRig(t)
	body := mail.BytesContent("Subject: x\r\n\r\n" + strings.Repeat("<script>\r\n", 200_000))
	m := r.message("m1", nil)
	m.Content, m.Message.Size = body, body.Size()
	if err := r.store.Add(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.api.ServeHTTP(w, req.WithContext(operate.WithActor(req.Context(), admin)))
	}))
	defer s.Close()
	res, err := s.Client().Get(s.URL + Prefix + "/queue/m1/content")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != string(body) || res.ContentLength != body.Size() ||
		res.Header.Get("Content-Type") != "message/rfc822" || !strings.HasPrefix(res.Header.Get("Content-Disposition"),
		"attachment") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d octets of %d, %v, %v", len(got), body.Size(), res.Header, err)
	}
	if a := r.do(admin, request(http.MethodGet, "/queue/none/content", "")); a.problem() != "not-found" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestAccountsAndDevices(t *testing.T) {
	r := newRig(t)
	var made operate.Credential
	a := r.post("/logins", `{"login":"Carl@Example.com","senders":["carl@example.com"],"networks":["192.0.2.0/24"],
		"note":"boss"}`, http.StatusCreated, &made)
	if a.Header.Get("Location") != Prefix+"/logins/"+made.Login || made.Password == "" {
		t.Errorf("%s: %+v", a.Header.Get("Location"), made)
	}
	var got operate.Account
	if r.get("/logins/carl@example.com", &got); got.Note != "boss" || got.Kind != "user" ||
		got.Senders[0] != "carl@example.com" {
		t.Errorf("%+v", got)
	}
	r.post("/logins", `{"login":"carl@example.com"}`, http.StatusConflict, nil)
	r.post("/logins", `{"login":"x","networks":["nowhere"]}`, http.StatusUnprocessableEntity, nil)

	var card operate.DeviceCard
	r.post("/devices", `{"login":"printer","senders":["printer@example.com"]}`, http.StatusCreated, &card)
	if card.Server != "relay.example.com port 2525" || card.Encryption != "STARTTLS" || card.Password == "" {
		t.Errorf("%+v", card)
	}
	for _, path := range []string{"/password", "/lock", "/unlock"} { // not a device
		r.post("/devices/carl@example.com"+path, `{}`, http.StatusConflict, nil)
		r.post("/devices/none"+path, `{}`, http.StatusNotFound, nil)
	}
	var edited Edited
	r.send(http.MethodPatch, "/devices/printer", `{"senders":{"add":["p@example.com"]},"note":"2nd floor"}`,
		http.StatusOK,
		&edited)
	if len(edited.Changes) != 2 || edited.Account.Note != "2nd floor" {
		t.Errorf("%+v", edited)
	}
	var fresh operate.Credential
	if r.post("/devices/printer/password", `{}`, http.StatusOK, &fresh); fresh.Password == card.Password ||
		fresh.Password == "" {
		t.Errorf("%+v", fresh)
	}
	r.post("/devices/printer/password", `{"password":"\u0000"}`, http.StatusUnprocessableEntity, nil)
	if r.post("/logins/printer/lock", `{"reason":"stolen"}`, http.StatusOK, &got); !got.Locked ||
		got.LockReason != "stolen" {
		t.Errorf("%+v", got)
	}
	var u Unlocked
	if r.post("/devices/printer/unlock", `{}`, http.StatusOK, &u); !u.Account {
		t.Errorf("%+v", u)
	}
	r.send(http.MethodDelete, "/devices/carl@example.com", "", http.StatusConflict, nil)
	r.send(http.MethodDelete, "/devices/printer", "", http.StatusNoContent, nil)
	r.send(http.MethodDelete, "/logins/printer", "", http.StatusNotFound, nil)
}

func TestImport(t *testing.T) {
	r := newRig(t)
	r.account("carl", false)
	send := func(query, table string) answer {
		req := request(http.MethodPost, "/logins/import"+query, table)
		req.Header.Set("Content-Type", "text/csv; charset=utf-8")
		return r.do(admin, req)
	}
	bad := send("", "login;kind\ncarl;user\nprinter;toaster\n")
	var p Problem
	if bad.json(t, &p); bad.StatusCode != 422 || len(p.Errors) != 3 || p.Errors[0].Location != "line 3" &&
		p.Errors[1].Location != "line 3" {
		t.Errorf("%d %s", bad.StatusCode, bad.body)
	}
	var done operate.Imported
	send("?dry_run=true&update=true&without_sender=true", "login;kind\ncarl;user\nprinter;device\n").json(t, &done)
	if !done.DryRun || done.Added != 1 || done.Changed != 1 {
		t.Errorf("%+v", done)
	}
	send("?update=true&without_sender=true", "login;kind\ncarl;user\nprinter;device\n").json(t, &done)
	if done.Added != 1 || len(done.Passwords) != 1 || done.Passwords[0].Password == "" {
		t.Errorf("%+v", done)
	}
	r.api.imports <- struct{}{}
	if a := send("", "login\nx\n"); a.problem() != "busy" || a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestSearch(t *testing.T) {
	r := newRig(t)
	r.happened(
		trace.Event{Kind: trace.Accepted, ID: "m1", Session: "s1", Login: "anna", From: "anna@example.com",
			MessageID: "<x@y>"},
		trace.Event{Kind: trace.Delivered, ID: "m1", From: "anna@example.com", To: "bob@example.org"},
		trace.Event{Kind: trace.AuthFail, Session: "s2", Login: "carl", Client: "192.0.2.1"},
		trace.Event{Kind: trace.Failed, ID: "m2", From: "<>", To: "eve@example.net", Upstream: "m365",
			Reply: mail.R(550, "5.1.1", "User unknown to us")},
	)
	for q, want := range map[string][]trace.Kind{
		"": {trace.Failed, trace.AuthFail, trace.Delivered}, "m1": {trace.Delivered}, "s2": {trace.AuthFail},
		"carl": {trace.AuthFail}, "Anna": {trace.Delivered}, "BOB@EXAMPLE.ORG": {trace.Delivered},
		"example.org": {trace.Delivered}, "example.com": {trace.Delivered}, "<x@y>": {trace.Delivered},
		"192.0.2.0/24": {trace.AuthFail}, "User unknown": {trace.Failed}, "unknown 550": {trace.Failed},
		"unknown carl": nil,
		"nothing":      nil,
	} {
		var page FoundPage
		r.get("/messages?q="+strings.ReplaceAll(q, " ", "+"), &page)
		var kinds []trace.Kind
		for _, f := range page.Found {
			kinds = append(kinds, f.State)
		}
		if !slices.Equal(kinds, want) || page.Next != "" {
			t.Errorf("%q: %q", q, kinds)
		}
	}
	var page FoundPage
	r.get("/messages?since=2026-11-28T12:00:01Z&until=2026-11-28T12:00:02Z", &page)
	if len(page.Found) != 1 || page.Found[0].To != "bob@example.org" {
		t.Errorf("of one second: %+v", page.Found)
	}
	if a := r.do(admin, request("GET", "/messages?since=yesterday", "")); a.problem() != "invalid" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestTimeline(t *testing.T) {
	r := newRig(t)
	r.queued("m1", nil)
	r.happened(
		trace.Event{Kind: trace.Accepted, ID: "m1", Session: "s1", Login: "anna", MessageID: "<x@y>"},
		trace.Event{Kind: trace.Deferred, ID: "m1", To: "bob@example.org", Upstream: "m365",
			Stage: string(mail.StageAuth),
			Reply: mail.R(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for "+
				"the Tenant.")},
	)
	for _, id := range []string{"m1", "x@y", "%3Cx@y%3E"} {
		var got Timeline
		r.get("/messages/"+id, &got)
		if len(got.Events) != 2 || got.Events[0].Kind != trace.Accepted || len(got.Waiting) != 1 ||
			len(got.Advice) != 1 ||
			got.Advice[0].Advice.Cause == "" {
			t.Errorf("%s: %+v", id, got)
		}
	}
	if a := r.do(admin, request("GET", "/messages/none", "")); a.problem() != "not-found" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestOthers(t *testing.T) {
	r := newRig(t)
	var report status.Report
	if r.get("/status", &report); !report.Running || report.Queue.Waiting != 7 {
		t.Errorf("%+v", report)
	}
	var up Upstreams
	if r.get("/upstreams", &up); len(up.Upstreams) != 1 || up.Upstreams[0].Name != "m365" {
		t.Errorf("%+v", up)
	}
	var tests AlertTests
	r.post("/alerts/test", `{}`, http.StatusOK, &tests)
	if len(tests.Tests) != 1 || tests.Tests[0].OK || tests.Tests[0].Error == "" {
		t.Errorf("%+v", tests)
	}
	r.post("/alerts/test", `{"alert":2}`, http.StatusNotFound, nil)
	var keys Keys
	r.post("/domains", `{"domain":"Example.COM","selector":"s"}`, http.StatusCreated, &keys)
	if len(keys.Keys) != 2 || keys.Keys[0].Domain != "example.com" || !strings.Contains(keys.Keys[0].Record, "p=") {
		t.Errorf("%+v", keys)
	}
	r.post("/domains", `{"domain":"example.com","selector":"s"}`, http.StatusConflict, nil)
	r.post("/domains", `{"domain":"not a domain"}`, http.StatusUnprocessableEntity, nil)
	r.post("/domains", `{"domain":"example.com","algorithms":["md5"]}`, http.StatusUnprocessableEntity, nil)
	a := r.get("/domains", &keys)
	if len(keys.Keys) != 2 || strings.Contains(string(a.body), "PRIVATE") {
		t.Errorf("%s", a.body)
	}
}

// What is ours is logged, and who asked learns where.
func TestTroubleOfOurs(t *testing.T) {
	r := newRig(t)
	fail := errors.New("open /var/lib/postern: no such file")
	ops := operate.New(operate.Options{Store: r.store, Status: func(context.Context) (*status.Report, error) {
		return nil, fail
	}})
	logger := r.api.Logger
	r.api = newServer(Options{Operations: ops, Answers: r.store, Logger: logger})
	a := r.do(admin, request("GET", "/status", ""))
	var p Problem
	a.json(t, &p)
	ref := strings.TrimPrefix(p.Instance, "urn:postern:error:")
	if a.StatusCode != 500 || strings.Contains(string(a.body), "/var/lib") || len(ref) != 16 ||
		!strings.Contains(r.log.String(), ref) || !strings.Contains(r.log.String(), "/var/lib") {
		t.Errorf("%d %s\n%s", a.StatusCode, a.body, r.log)
	}
	fail = context.DeadlineExceeded
	if a := r.do(admin, request("GET", "/status", "")); a.problem() != "took-too-long" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	r.api = newServer(Options{Logger: logger}) // a fault of the program
	if a := r.do(admin, request("GET", "/status", "")); a.problem() != "internal" ||
		!strings.Contains(r.log.String(), "panicked") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
