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
	rules, err := compileRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	u := &Upstream{rules: rules}
	for i := range rules {
		r := &rules[i]
		a := example(t, r.Example)
		if got := u.classify(a); got != &r.Rule {
			t.Errorf("rule %d %s: %q is taken by %s", i, r.Name, r.Example, got.Name)
		}
		if r.Class == mail.AccountFault && r.Fix == "" {
			t.Errorf("rule %s names no fix", r.Name)
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
	rules, _ := compileRules(nil)
	u := &Upstream{rules: rules}
	for n := 200; n < 600; n++ {
		if n == http.StatusAccepted || n == http.StatusRequestEntityTooLarge {
			continue
		}
		if f := u.refused(&answer{status: n}); f.class.Permanent() || f.class == mail.Unknown {
			t.Errorf("HTTP %d without an error of Graph's is %s", n, f.class)
		}
	}
}

func TestRulesOfTheProfileComeFirst(t *testing.T) {
	own := Rule{Name: "own", Status: "4xx", Text: "weird", Class: mail.Deferral, Code: 451, Enhanced: "4.3.0"}
	rules, err := compileRules([]Rule{own})
	if err != nil {
		t.Fatal(err)
	}
	u := &Upstream{rules: rules}
	if f := u.refused(&answer{status: 418, codes: []string{"x"}, message: "a WEIRD thing"}); f.class != mail.Deferral || f.rule.Name != "own" {
		t.Errorf("%s by %s", f.class, f.rule.Name)
	}
	for _, bad := range []Rule{
		{Status: "40", Class: mail.Deferral, Code: 451, Enhanced: "4.0.0"},
		{Class: mail.Delivered, Code: 250, Enhanced: "2.0.0"},
		{Class: mail.Deferral, Code: 551, Enhanced: "5.0.0"},
		{Class: mail.MessageFault, Code: 551, Enhanced: "4.0.0"},
		{Class: mail.Deferral, Code: 451, Enhanced: "4.0.0", Text: "("},
	} {
		if _, err := compileRules([]Rule{bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// Only a refusal that is about who we are lets another mailbox send instead; one that is out of quota, or blocked, keeps its mail.
func TestWhatCountsAsARefusedLogin(t *testing.T) {
	rules, _ := compileRules(nil)
	u := &Upstream{rules: rules}
	for s, want := range map[string]mail.Stage{
		"401 InvalidAuthenticationToken Access token has expired.": mail.StageAuth,
		"403 ErrorAccessDenied Access is denied.":                  mail.StageAuth,
		"403 - Forbidden": mail.StageAuth,
		"404 ErrorInvalidUser The requested user 'a@example.com' is invalid.":                                    mail.StageAuth,
		"404 MailboxNotEnabledForRESTAPI The mailbox is either inactive, soft-deleted, or is hosted on-premise.": mail.StageAuth,
		"403 ErrorExceededMessageLimit Cannot send mail.":                                                        mail.StageDot,
		"403 ErrorAccountSuspend Account suspended.":                                                             mail.StageDot,
		"403 ErrorSendAsDenied No.":                                                                              mail.StageDot,
		"507 ErrorQuotaExceeded Full.":                                                                           mail.StageDot,
		"429 ApplicationThrottled Slowly.":                                                                       mail.StageDot,
	} {
		if f := u.refused(example(t, s)); f.stage != want || f.class.Permanent() {
			t.Errorf("%s: %s at %s", s, f.class, f.stage)
		}
	}
}
