package graph

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"postern/mail"
)

// Each rule is held to its example: no rule before it takes the answer away.
func TestRulesMeetTheirExamples(t *testing.T) {
	rules := compiledRules()
	for i := range rules {
		r := &rules[i]
		a := example(t, r.Example)
		if got := classify(a); got != &r.Rule {
			t.Errorf("rule %d %s: %q is taken by %s", i, r.Name, r.Example, got.Name)
		}
		if r.Class == mail.AccountFault && r.Fix == "" {
			t.Errorf("rule %s names no fix", r.Name)
		}
		want := 4
		if r.Class.Permanent() {
			want = 5
		}
		if r.Status != "" && len(r.Status) != 3 || r.Class <= mail.Delivered || r.Class > mail.BackPressure ||
			r.Code/100 != want || !strings.HasPrefix(r.Enhanced, strconv.Itoa(want)+".") {
			t.Errorf("rule %s: status %q, %d %s for %s", r.Name, r.Status, r.Code, r.Enhanced, r.Class)
		}
	}
}

func example(t *testing.T, s string) *answer {
	t.Helper()
	parts := strings.SplitN(s, " ", 3)
	n, err := strconv.Atoi(parts[0])
	if err != nil || len(parts) != 3 {
		t.Fatalf("example %q", s)
	}
	a := &answer{status: n, message: parts[2]}
	switch parts[1] {
	case "-":
	case "<":
		a.page = true
	default:
		a.codes = []string{parts[1]}
	}
	return a
}

// Only what is surely about the message may bounce it.
func TestNoStatusAloneBouncesButTooBig(t *testing.T) {
	u := &Upstream{}
	for n := 200; n < 600; n++ {
		if n == http.StatusAccepted || n == http.StatusRequestEntityTooLarge {
			continue
		}
		if f := u.refused(&answer{status: n}); f.class.Permanent() || f.class == mail.Unknown {
			t.Errorf("HTTP %d without an error of Graph's is %s", n, f.class)
		}
	}
}

// Only a refusal that is about who we are lets another mailbox send instead; one that is out of quota, or blocked,
// keeps its mail.
func TestWhatCountsAsARefusedLogin(t *testing.T) {
	u := &Upstream{}
	for s, want := range map[string]mail.Stage{
		"401 InvalidAuthenticationToken Access token has expired.": mail.StageAuth,
		"403 ErrorAccessDenied Access is denied.":                  mail.StageAuth,
		"403 - Forbidden": mail.StageAuth,
		"404 ErrorInvalidUser The requested user 'a@example.com' is invalid.": mail.StageAuth,
		"404 MailboxNotEnabledForRESTAPI The mailbox is either inactive, soft-deleted, or is " +
			"hosted on-premise.": mail.StageAuth,
		"403 ErrorExceededMessageLimit Cannot send mail.": mail.StageDot,
		"403 ErrorAccountSuspend Account suspended.":      mail.StageDot,
		"403 ErrorSendAsDenied No.":                       mail.StageDot,
		"507 ErrorQuotaExceeded Full.":                    mail.StageDot,
		"429 ApplicationThrottled Slowly.":                mail.StageDot,
	} {
		if f := u.refused(example(t, s)); f.stage != want || f.class.Permanent() {
			t.Errorf("%s: %s at %s", s, f.class, f.stage)
		}
	}
}
