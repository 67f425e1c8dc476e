package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/operate"
	"postern/relay/trace"
)

func TestTraceByID(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	at := time.Now().Add(-time.Minute)
	event := func(after time.Duration, kind trace.Kind, id, messageID, detail string) trace.Event {
		return trace.Event{Time: at.Add(after), Kind: kind, ID: id, Session: "s-" + id, MessageID: messageID,
			Login:  "anna",
			Client: "192.0.2.17", Detail: detail}
	}
	err := l.store.AppendEventsNow(t.Context(), []trace.Event{
		event(1, trace.Accepted, "first", "<20261128.1@example.com>", "queued"), event(2, trace.Deferred, "first", "",
			"upstream is busy"),
		event(3, trace.Accepted, "second", "<20261128.1@example.com>", "sent again"),
		event(4, trace.Delivered, "first", "",
			"at last"),
		event(5, trace.Accepted, "third", "<x20261128.1@example.com>", "another"), event(6, trace.Rejected, "",
			"<20261128.1@example.com>", "refused at first"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string // details, in order
	}{
		{[]string{"first"}, []string{"queued", "upstream is busy", "at last"}},
		{[]string{"--id", "first"}, []string{"queued", "upstream is busy", "at last"}},
		{[]string{"first", "--kind", "delivered"}, []string{"at last"}},
		{[]string{"s-second"}, []string{"sent again"}},
		{[]string{"<20261128.1@example.com>"}, []string{"queued", "upstream is busy", "sent again", "at last",
			"refused at first"}},
		{[]string{"20261128.1@example.com"}, []string{"queued", "upstream is busy", "sent again", "at last",
			"refused at first"}},
		{[]string{"20261128.1@example.com", "--limit", "2"}, []string{"at last", "refused at first"}},
		{[]string{"20261128.1@example.com", "--kind", "deferred"}, []string{"upstream is busy"}},
	} {
		var got []string
		for line := range strings.Lines(l.ok(append([]string{"trace", "--json"}, c.args...)...)) {
			var e trace.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Detail)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
	for arg, says := range map[string]string{"fourth": "--text fourth",
		"<no@example.com>": "Message-ID <no@example.com>", "ann@example.com": "--from ADDRESS"} {
		if out, _, err := l.run("trace", arg); err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %v\n%s", arg, err, out)
		}
	}
	for _, args := range [][]string{{"first", "second"}, {"first", "--id", "second"}, {"--kind", "defered"}} {
		if _, _, err := l.run(append([]string{"trace"}, args...)...); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
	if _, _, err := l.run("trace", "--kind", "defered"); !strings.Contains(err.Error(), "did you mean deferred?") {
		t.Error(err)
	}
}

// A failed login without its address tells nobody whom to look for; a time without its zone is a riddle elsewhere.
func TestTraceShowsClientsAndZones(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	now := time.Now()
	err := l.store.AppendEventsNow(t.Context(), []trace.Event{
		{Time: now.Add(-25 * time.Hour), Kind: trace.AuthFail, Login: "anna@example.com", Client: "192.0.2.17",
			Reply: mail.R(535, "5.7.8", "no")},
		{Time: now, Kind: trace.Refused, Client: "2001:db8::5", Reply: mail.R(421, "4.7.0", "too many")},
		{Time: now, Kind: trace.Rejected, Login: "ben", Client: "192.0.2.18", From: "ceo@example.com",
			Reply: mail.R(550,
				"5.7.1", "no")},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := l.ok("trace")
	for _, want := range []string{"anna@example.com from 192.0.2.17", "2001:db8::5", "ben from 192.0.2.18"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	zone := regexp.MustCompile(`\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) `)
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "TIME") && !zone.MatchString(line) {
			t.Errorf("no zone in %q", line)
		}
	}
}

// A person who looks right after something happened finds it: once asked, no waiting.
func TestTraceDoesNotLag(t *testing.T) {
	o := newOffice(t, "")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	defer p.Stop()
	trace := func(args ...string) string {
		return o.postern("", append([]string{"trace", "--json"}, args...)...)
	}
	for _, subject := range []string{"first", "second"} {
		before := strings.Count(trace(), `"kind":"delivered"`)
		if out := testkit.Smtplib(t, o.submission(subject)); !out.OK {
			t.Fatal(out.Text)
		}
		text := trace()
		if strings.Count(text, `"kind":"accepted"`) != before+1 ||
			strings.Count(text, `"kind":"delivered"`) != before+1 {
			t.Errorf("right after the %s message the trace is\n%s", subject, text)
		}
		if strings.LastIndex(text, `"kind":"accepted"`) > strings.LastIndex(text, `"kind":"delivered"`) {
			t.Errorf("delivered before it was accepted:\n%s", text)
		}
	}
	wrong := o.submission("wrong")
	wrong.Password = "not the password"
	testkit.Smtplib(t, wrong)
	if text := trace("--kind", "auth-fail"); !strings.Contains(text, "127.0.0.1") || !strings.Contains(text,
		"anna@example.com") {
		t.Errorf("the refused login is not there:\n%s", text)
	}
	o.postern("", "user", "lock", "anna@example.com", "--reason", "left the company")
	if text := trace("--kind", "operator"); !strings.Contains(text, "left the company") {
		t.Errorf("the lock is not there:\n%s", text)
	}
	if text := trace("--login", "anna@example.com"); strings.Contains(text, `"Code"`) {
		t.Errorf("keys are in capitals:\n%s", text)
	}
}

// A queued message is accepted before it is delivered, however quick the upstream is: its time is that of handing it
// to the queue, not of the client's 250, which comes after the commit.
func TestTraceTellsTheLifeOfAMessageInOrder(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	o.edit(`handoff = "1m"`, `handoff = "0s"`)
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	o.upstream.Close() // so that the message stays to be looked at
	p := o.serve()
	defer p.Stop()
	if out := testkit.Smtplib(t, o.submission("waits")); !out.OK {
		t.Fatal(out.Text)
	}
	var waiting []operate.Message
	if err := json.Unmarshal([]byte(o.postern("", "queue", "list", "--json")), &waiting); err != nil ||
		len(waiting) != 1 {
		t.Fatal(waiting, err)
	}
	var accepted trace.Event
	if err := json.Unmarshal([]byte(o.postern("", "trace", waiting[0].ID, "--kind", "accepted", "--json")),
		&accepted); err != nil {
		t.Fatal(err)
	}
	if answered := waiting[0].Received.Add(accepted.Took); !accepted.Time.Before(answered) ||
		accepted.Time.Before(waiting[0].Received) {
		t.Errorf("accepted at %v, received at %v and answered at %v", accepted.Time, waiting[0].Received, answered)
	}
}
