package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/doctor"
	"postern/relay/finding"
)

// Doctor beside a real daemon: what is healthy is healthy, the exit code follows danger, and what is lacking is said.
func TestDoctorOfARunningRelay(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	world := dnstest.Start(t, zoneOf(`example.com 300 TXT "v=spf1 ip4:203.0.113.0/24 -all"`))
	ask := func(ok bool, args ...string) string {
		t.Helper()
		out := testkit.Run(t, "", append([]string{"--config", o.config, "doctor", "--resolver",
			world.Resolver.String()}, args...)...)
		if out.OK != ok {
			t.Errorf("doctor %q, want %v:\n%s", args, ok, out.Text)
		}
		return out.Text
	}
	contains := func(text string, words ...string) {
		t.Helper()
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%q is not in\n%s", word, text)
			}
		}
	}
	contains(ask(false), "Mail is in danger: 1 thing to mend now.", "DANGER", "Postern does not run. [daemon-down]",
		"Why it matters: No mail is taken", "What to do:     Start it: systemctl start postern")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	defer p.Stop()
	all := ask(true, "--all")
	contains(all, "dmarc-", "IN ORDER", "It answers as it should.", "It lets us in", "runs since", "1 account,")
	if few := ask(true); strings.Contains(few, "IN ORDER") || !strings.Contains(few, "in order (shown with --all).") {
		t.Errorf("%s", few)
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(ask(true, "--json", "--only", "listeners", "--only", "store")), &struct {
		Examined *[]string `json:"examined"`
		OK       *bool     `json:"ok"`
	}{&r.Examined, &r.OK}); err != nil || !r.OK || !slices.Equal(r.Examined, []string{"listeners", "store"}) {
		t.Errorf("%v, %+v", err, r)
	}
	contains(ask(false, "--only", "listener"), "nothing examines", "listeners")
	contains(ask(false, "--watch", "1s"), "too short")
	contains(ask(false, "--watch", "soon"), "is not a duration")
}

// A watch prints what came and what went, by kind and subject: an age that changes is no news.
func TestDoctorWatchPrintsChanges(t *testing.T) {
	t.Parallel()
	report := func(list ...finding.Finding) *doctor.Report {
		return &doctor.Report{Time: time.Now(), Findings: list}
	}
	old := finding.Finding{Code: "queue-old", Weight: finding.Fault, Subject: "queue", What: "Mail waits for 5 h."}
	older := old
	older.What = "Mail waits for 6 h."
	worse := old
	worse.Weight = finding.Danger
	down := finding.Finding{Code: "daemon-down", Weight: finding.Danger, Subject: "postern",
		What: "Postern \x1b[2Jdoes not run.", Why: "No mail leaves.", Fix: "Start it.\nThen look."}
	key := func(selector string) finding.Finding {
		return finding.Finding{Code: "dkim-missing", Weight: finding.Danger, Subject: "example.com",
			What: "The DKIM record " + selector + "._domainkey.example.com is not published."}
	}
	fine := finding.Finding{Code: "disk-ok", Weight: finding.Healthy, Subject: "/", What: "Well."}
	for _, c := range []struct {
		before, now *doctor.Report
		want        []string
	}{
		{report(old, fine), report(older), nil},
		{report(old), report(old, fine), nil},
		{report(old), report(older, down), []string{"NEW, danger", "[daemon-down]", "Start it.\n", "Then look."}},
		{report(old, down), report(old), []string{"OVER", "[daemon-down]"}},
		{report(old), report(worse), []string{"NEW, danger", "OVER"}},
		{report(key("r1")), report(key("r1"), key("e1")), []string{"NEW, danger", "e1._domainkey"}},
		{report(key("r1"), key("e1")), report(key("e1")), []string{"OVER", "r1._domainkey"}},
		{report(key("r1"), key("e1")), report(key("e1"), key("r1")), nil},
	} {
		var b bytes.Buffer
		d := doctorView{w: &b}
		if err := d.changes(c.before, c.now); err != nil {
			t.Fatal(err)
		}
		if len(c.want) == 0 && b.Len() > 0 || strings.Contains(b.String(), "\x1b") {
			t.Errorf("%q", b.String())
		}
		for _, word := range c.want {
			if !strings.Contains(b.String(), word) {
				t.Errorf("%q is not in %q", word, b.String())
			}
		}
	}
}

// endsAfter ends a context once a text was written.
type endsAfter struct {
	bytes.Buffer
	text string
	end  func()
}

func (e *endsAfter) Write(p []byte) (int, error) {
	n, err := e.Buffer.Write(p)
	if strings.Contains(e.String(), e.text) {
		e.end()
	}
	return n, err
}

// A watch that is ended has the exit code of its last examination.
func TestDoctorWatchEnds(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	for only, code := range map[string]int{"daemon": exitNo, "queue": 0} {
		ctx, cancel := context.WithCancel(t.Context())
		w := &endsAfter{text: "in order (shown with --all).\n", end: cancel}
		root := rootCommand()
		root.SetOut(w)
		root.SetArgs([]string{"--config", o.config, "doctor", "--watch", "1h", "--only", only})
		if err := root.ExecuteContext(ctx); (err != nil) != (code != 0) || ctx.Err() == nil {
			t.Errorf("%s: %v\n%s", only, err, w)
		}
	}
}
