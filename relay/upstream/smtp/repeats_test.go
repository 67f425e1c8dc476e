package smtp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/replies"
)

// Whoever writes to an address chooses what the upstream repeats of it. No address makes an account fault of what is a
// recipient's, nor says how long all others wait.
func TestAddressesInRepliesDecideNothing(t *testing.T) {
	profile := []replies.Rule{{Name: "over-quota", Stages: atMail, Text: "SubmissionQuotaExceeded|daily quota",
		Class: mail.BackPressure, Quota: 24 * time.Hour, RetryAfter: time.Hour}}
	for _, to := range []string{
		"SubmissionQuotaExceeded@evil.example", `"your account is suspended"@evil.example`,
		`"a> your account is suspended <b"@evil.example`,
		`"x> rate limit exceeded, try again in 20 hours <y"@evil.example`, `"daily quota"@evil.example`,
		`"a\"> client host blocked <b"@evil.example`,
		`"authentication required"@evil.example`, "bob@ip-blocked.example", "your-account-is-suspended@evil.example",
		`"(your account is disabled)"@evil.example`, `"not logged in; login first"@evil.example`,
	} {
		a := address(t, to)
		bare := a.Local + "@" + a.Domain
		for _, said := range []string{
			"550 5.1.1 <%s>: Recipient address rejected: User unknown", "550 5.1.1 %s no such user",
			"550-5.1.1 %s\n550 5.1.1 user unknown",
			"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient %s not found by SMTP address lookup",
			"550 no such user here: %s",
		} {
			for _, form := range []string{a.String(), bare, strings.ToUpper(a.String()), a.Domain} {
				fc := provider()
				fc.Hook = hookOn("RCPT", 0, fakesmtp.Action{Reply: fmt.Sprintf(said, form)})
				_, u := startPiped(t, fc, func(cfg *Config) { cfg.Rules = profile })
				r := send(t, u, message(t, to))[0]
				if s := state(u); r.Class != mail.RecipientFault || s.Status != upstream.Ready {
					t.Errorf("%s: %s by %s, %s", r.Reply, r.Class, r.Rule, s.Status)
				}
			}
		}
	}
}

// A wait is not read in an address.
func TestAddressesInRepliesSayNoTimes(t *testing.T) {
	for _, to := range []string{`"try again in 20 hours"@evil.example`, "wait-86400-seconds@evil.example",
		`"a> try again after 90000 seconds <b"@evil.example`} {
		for _, form := range []string{"<" + to + ">", to, strings.ReplaceAll(to, `"`, "")} {
			rules, err := replies.Compile(nil)
			if err != nil {
				t.Fatal(err)
			}
			r, _ := rules.Classify(mail.StageRcpt,
				mail.R(450, "4.7.1", "%s: too many messages per hour, slow down", form), time.Now(), address(t, to))
			if r.RetryAfter > time.Hour {
				t.Errorf("%s: waits %v by %s", form, r.RetryAfter, r.Name)
			}
		}
	}
}

// What an administrator writes is searched in what the upstream said, addresses and all.
func TestWrittenRulesSeeAddresses(t *testing.T) {
	rules, err := replies.Compile([]replies.Rule{{Name: "boss", Text: `<boss@example\.com>: not yours`,
		Class: mail.AccountFault, Scope: replies.ScopeSender,
		Stages: atMail, Verbatim: true}})
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := rules.Classify(mail.StageMail, mail.R(550, "", "<boss@example.com>: not yours"), time.Now(),
		address(t, "boss@example.com")); r.Name != "boss" {
		t.Errorf("decided by %s", r.Name)
	}
}

// Neither do subjects and names of files.
func TestContentInRepliesDecidesNothing(t *testing.T) {
	rules, err := replies.Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{
		`554 5.7.0 Reject, id=1-2 - BANNED: application/octet-stream,.exe,daily sending limit exceeded.exe`,
		`550 5.7.1 Subject "your daily sending quota is exceeded" is blocked`,
		`554 5.7.1 Blocked attachment "rate limit exceeded.exe"`,
		`554 5.7.1 Attachments named 'too many connections.zip' are not allowed`,
		`550 5.7.1 Subject: "Your account is suspended" looks like phishing`,
		`552 5.7.0 file name "authentication required.scr" refused`,
		`554 5.6.0 Virus Eicar found in file "you have exceeded your quota.zip"`,
	} {
		r, err := replies.Parse(said)
		if err != nil {
			t.Fatal(err)
		}
		for _, stage := range []mail.Stage{mail.StageData, mail.StageDot} {
			if rule, _ := rules.Classify(stage, r, time.Now()); rule.Class != mail.MessageFault {
				t.Errorf("%s: %s by %s", said, rule.Class, rule.Name)
			}
		}
	}
}
