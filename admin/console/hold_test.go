package console

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/trace"
)

const overFive = "limit \"5 messages/hour\" of policy 2 reached; try again in 12 min"

// TestHeldMailSaysWhatToDo: the limit in words with its line, what to do, no time that has passed; it is held in the
// list of messages too, and the history keeps the reason.
func TestHeldMailSaysWhatToDo(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.config = config.Parse("relay.toml", []byte("hostname = \"relay.example.com\"\n[[policy]]\nlogins = [\"a\"]\n"+
			"[[policy]]\nlimits = [\"5 messages/hour\"]\n"))
	})
	m := r.message(1, time.Hour)
	m.Held, m.HoldReason, m.Attempts, m.LastReply = true, overFive, 0, mail.Reply{}
	r.add(m)
	r.tell(trace.Event{Time: r.now.Add(-time.Hour), Kind: trace.Accepted, ID: m.ID, Login: m.Login,
		From: "scanner@example.com", To: "ben@gmail.com", Reply: mail.R(250, "2.0.0", "queued")})
	body := r.page("/messages/" + m.ID)
	for _, want := range []string{"scanner-2 sent more than it may: 5 messages in 60 min (line 5 of relay.toml).",
		"If the mail is wanted, release it.", `href="/settings?q=limits"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, path := range []string{"/messages/" + m.ID, "/held", "/queue"} {
		if strings.Contains(r.page(path), "12 min") {
			t.Errorf("%s shows a time that has passed", path)
		}
	}
	if body := r.page("/messages"); !strings.Contains(body, `<span class="state hold">`) {
		t.Errorf("it is not held in the list: %s", body)
	}
	if w := r.ask(person(operate.Operator), "POST", "/queue/release", url.Values{"id": {m.ID},
		"confirmed": {"yes"}}); w.Code != 303 {
		t.Fatalf("release: %d %s", w.Code, w.Body)
	}
	if body := r.page("/messages/" + m.ID); !strings.Contains(body, "it was held: limit") {
		t.Errorf("the history lost the reason: %s", body)
	}
}

// TestRefusedMailSaysWhy: what a refusal at handing in means, by its class.
func TestRefusedMailSaysWhy(t *testing.T) {
	r := newRig(t)
	for code, want := range map[[3]string]string{
		{"550", "5.1.1", "no such user"}:                              "The address typo@kunde.example does not exist.",
		{"550", "5.7.1", "anna may not send as <x@y>; it may use..."}: "The login may not use this sender.",
		{"552", "5.3.4", "too big"}:                                   "The message is too large.",
		{"452", "4.3.1", "full"}:                                      "tries again by itself",
		{"550", "5.7.1", "limit \"5\" of policy 1 reached"}:           "The login sent more than it may.",
	} {
		n := 0
		for _, c := range code[0] {
			n = n*10 + int(c-'0')
		}
		lines := refusedBecause(r.visit("en"), n, code[1], code[2], "typo@kunde.example")
		if len(lines) != 1 || !strings.Contains(lines[0], want) {
			t.Errorf("%v: %q", code, lines)
		}
	}
}

// TestFailureHasNoTick: a notice of what was not done is no success.
func TestFailureHasNoTick(t *testing.T) {
	r := newRig(t)
	w := r.ask(person(operate.Operator), "POST", "/queue/release", url.Values{"back": {"/held"}})
	cookie := w.Result().Cookies()[0]
	body := r.page("/held", field1("Cookie", cookie.Name+"="+cookie.Value))
	if !strings.Contains(body, `<p class="notice warn">`) || !strings.Contains(body, "Nothing was chosen") {
		t.Errorf("%s", body)
	}
}

// TestMessageRefreshesItself: while an attempt is under way its page asks again, and says how without scripts.
func TestMessageRefreshesItself(t *testing.T) {
	r := newRig(t)
	idle, busy := r.message(1, time.Hour), r.message(2, time.Hour)
	busy.LeaseOwner, busy.LeaseUntil = "x", r.now.Add(time.Minute)
	r.add(idle, busy)
	v := r.visit("en")
	for _, c := range []struct {
		m    string
		busy bool
	}{{idle.ID, false}, {busy.ID, true}} {
		m, err := r.store.Get(t.Context(), c.m)
		r.must(err)
		if m.ID == busy.ID {
			m.LeaseOwner, m.LeaseUntil = busy.LeaseOwner, busy.LeaseUntil
		}
		view := &timelineView{Name: m.ID, Here: "/messages/" + m.ID}
		view.queued(v, m)
		view.Why = why(v, nil, m)
		if got := strings.Contains(r.drawn("timeline", view), `data-hx-trigger="every 3s"`); got != c.busy {
			t.Errorf("%s refreshes itself: %v", c.m, got)
		}
	}
}

// TestWays: alternatives are no steps, commands stand apart, and all of it can be handed on.
func TestWays(t *testing.T) {
	r := newRig(t)
	r.tell(trace.Event{Time: r.now.Add(-time.Minute), Kind: trace.Deferred, ID: "M1", From: "a@example.com",
		To: "b@example.net", Upstream: "m", Identity: "office@example.com", Stage: string(mail.StageDot),
		Reply: mail.R(554, "5.2.252", "%s", strings.TrimPrefix(sendAsDenied, "5.2.252 "))})
	body := r.page("/messages/M1", in("de"))
	admin, shell := strings.Index(body, "im Exchange admin centre"), strings.Index(body, ">Add-RecipientPermission -")
	if admin < 0 || shell < admin || !strings.Contains(body, "Einer dieser Wege genügt") ||
		!strings.Contains(body, "Answer: 554 5.2.252 SendAsDenied") {
		t.Errorf("%d %d %s", admin, shell, body)
	}
}
