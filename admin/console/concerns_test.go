package console

import (
	"strings"
	"testing"
	"time"

	"postern/operate"
	"postern/relay/doctor"
	"postern/relay/finding"
	"postern/relay/queue"
	"postern/relay/status"
	"postern/relay/store"
)

// TestNowIsNotGreenInTrouble: whatever needs somebody colours the page and is said, one sentence and a link each; the
// sentence on top stays true.
func TestNowIsNotGreenInTrouble(t *testing.T) {
	held := func(r *rig) {
		m := r.message(1, time.Minute)
		m.Held, m.HoldReason, m.LastReply = true, "by anna", r.message(2, 0).LastReply
		r.add(m)
	}
	for _, test := range []struct {
		what string
		make func(*rig)
		says []string // on the page; none: it is green
	}{
		{"nothing", func(*rig) {}, nil},
		{"an alert that is over", func(r *rig) {
			r.alerts(3)
			open, err := r.store.Alerts(t.Context(), store.AlertQuery{Limit: 100})
			for r.must(err); len(open) > 0; open = open[1:] {
				if a := open[0]; a.Ended.IsZero() {
					a.Ended = r.now
					r.must(r.store.SaveAlert(t.Context(), a))
				}
			}
		}, nil},
		{"open alerts", func(r *rig) { r.alerts(9) }, []string{`href="/alerts#a`,
			"The provider does not take our mail"}},
		{"held mail", held, []string{`href="/held"`, "1 message is held: it waits for somebody&#39;s decision."}},
		{"young mail", func(r *rig) { r.add(r.message(1, 10*time.Minute)) }, nil},
		{"old mail", func(r *rig) { r.add(r.message(1, 5*time.Hour)) }, []string{`href="/queue"`,
			"The oldest message has waited for 5 h."}},
		{"old mail that is held", func(r *rig) {
			m := r.message(1, 50*time.Hour)
			m.Held = true
			r.add(m, r.message(2, time.Minute))
		}, []string{`href="/held"`}},
		{"a secret that ends", func(r *rig) {
			r.report.Secrets = []status.Secret{{Upstream: "office365", What: "client secret", Ends: r.now, DaysLeft: 5}}
		}, []string{`href="#ends"`}},
	} {
		r := newRig(t)
		r.healthy()
		test.make(r)
		body := r.page("/")
		top := body[strings.Index(body, `<div class="verdict`):strings.Index(body, `<dl class="numbers">`)]
		if green := strings.Contains(top, `class="verdict ok"`); green != (len(test.says) == 0) {
			t.Errorf("%s: green: %v\n%s", test.what, green, top)
		}
		for _, want := range append(test.says, "<h1>Mail can leave.</h1>") {
			if !strings.Contains(top, want) {
				t.Errorf("%s: the top of the page lacks %q:\n%s", test.what, want, top)
			}
		}
		r.page("/", in("de"))
	}
}

// TestMenuCounts: what is open stands beside the menu's lines, for those who may see it, and goes when it is done.
func TestMenuCounts(t *testing.T) {
	r := newRig(t)
	r.healthy()
	counts := func() string { return menuCounts(r.page("/audit")) }
	if got := counts(); got != "" {
		t.Errorf("nothing is wrong: %s", got)
	}
	r = newRig(t)
	r.healthy()
	r.alerts(9)
	for i := range 3 {
		m := r.message(i, time.Hour)
		m.Held = true
		r.add(m)
	}
	r.operations.Doctor.Remember(&doctor.Report{Time: r.now, Findings: []finding.Finding{
		{Code: "a", Weight: finding.Danger}, {Code: "b", Weight: finding.Fault}, {Code: "c", Weight: finding.Advice}}})
	if got := counts(); got != "/held 3 /alerts 2 /doctor 2 " {
		t.Errorf("counts: %s", got)
	}
	_, err := r.operations.Queue.Do(t.Context(), operate.Actor{Channel: operate.CommandLine}, operate.Release,
		queue.Filter{}, operate.Order{})
	r.must(err)
	stats, err := r.store.Stats(t.Context())
	r.must(err)
	r.report.Queue.Held = stats.Held
	r.now = r.now.Add(memoTime + time.Second)
	if got := counts(); got != "/alerts 2 /doctor 2 " {
		t.Errorf("counts after the release: %s", got)
	}
}

// menuCounts are the numbers of a page's menu, by path.
func menuCounts(body string) (got string) {
	for _, line := range strings.Split(body[:strings.Index(body, "<main")], "<li><a href=\"")[1:] {
		path, rest, _ := strings.Cut(line, `"`)
		if _, n, found := strings.Cut(rest, `<span class="badge" aria-hidden="true">`); found &&
			!strings.Contains(got, path+" ") {
			n, _, _ = strings.Cut(n, "<")
			got += path + " " + n + " "
		}
	}
	return got
}

// TestDatedEndsAreTrouble: what a provider ends stands among what runs out, red as soon as it is near.
func TestDatedEndsAreTrouble(t *testing.T) {
	r := newRig(t)
	r.healthy()
	r.report.Secrets = []status.Secret{{Upstream: "microsoft365", What: "password login", Ends: r.now, DaysLeft: 33,
		Ahead: 60, Fix: "Until that is done, an administrator of Microsoft 365 can switch password logins on again " +
			"for a while."}}
	body := r.page("/", in("de"))
	for _, want := range []string{"Anmeldung mit Passwort", "Bis dahin kann ein Administrator",
		`class="verdict warn"`, `<span class="state bad">`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
