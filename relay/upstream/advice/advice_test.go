package advice

import (
	"slices"
	"strings"
	"testing"

	"postern/mail"
	"postern/relay/upstream/profile"
	"postern/relay/upstream/replies"
)

// Each advice is the one that is given about the reply that it was written for.
func TestEveryAdviceIsGiven(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range load() {
		if a.Name == "" || seen[a.Name] || a.Cause == "" || len(a.Fix) == 0 ||
			!strings.HasPrefix(a.Source, "https://") || a.Example == "" {
			t.Errorf("%q: something is left out, or there twice", a.Name)
		}
		seen[a.Name] = true
		for _, p := range a.Providers {
			if _, ok := profile.Get(p); !ok {
				t.Errorf("%s: there is no profile %q", a.Name, p)
			}
		}
		reply, err := replies.Parse(a.Example)
		if err != nil {
			t.Errorf("%s: %v", a.Name, err)
			continue
		}
		provider, stages := "", a.Stages
		if len(a.Providers) > 0 {
			provider = a.Providers[0]
		}
		if stages == nil {
			stages = []string{string(mail.StageAuth), string(mail.StageMail), string(mail.StageDot)}
		}
		for _, stage := range stages {
			got := For(provider, mail.Stage(stage), reply)
			// stronger-login and app-password-required share a code; the first is Google's.
			if got == nil || got.Name != a.Name && a.Name != "stronger-login" {
				t.Errorf("%s at %s: %+v is given", a.Name, stage, got)
			}
		}
	}
}

// A person has to act upon every account fault that a profile knows: there must be something to say about it.
func TestAccountFaultsHaveAdvice(t *testing.T) {
	// These say themselves what to do, or nothing is known about them but what they say.
	silent := []string{"account-paused", "throttled-mailbox-full", "too-many-recipients", "not-activated",
		"not-authenticated", "credits-used-up"}
	for _, p := range profile.All() {
		for _, r := range p.UpstreamRules() {
			if r.Class != mail.AccountFault || slices.Contains(silent, r.Name) {
				continue
			}
			stage := mail.StageDot
			if len(r.Stages) > 0 {
				stage = r.Stages[0]
			}
			reply, err := replies.Parse(r.Example)
			if err != nil {
				t.Fatal(err)
			}
			if For(p.Name, stage, reply) == nil {
				t.Errorf("%s: %s: nothing is said about %q", p.Name, r.Name, r.Example)
			}
		}
	}
}

// The text of RFC 4954 §6 is that of many servers, and not of Amazon alone.
func TestAWrongPasswordIsNotAmazons(t *testing.T) {
	for text, want := range map[string]string{
		"535 5.7.8 Authentication credentials invalid": "app-password-or-wrong",
		"535 Authentication Credentials Invalid":       "ses-login-refused",
	} {
		reply, err := replies.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if a := For("generic", mail.StageAuth, reply); a == nil || a.Name != want {
			t.Errorf("%q: %+v", text, a)
		}
	}
}

func TestNoAdviceAboutGoodOrStrangeReplies(t *testing.T) {
	for _, text := range []string{"250 2.1.0 Sender OK", "550 5.1.1 no such user", "451 4.3.0 try later"} {
		reply, err := replies.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if a := For("microsoft365", mail.StageMail, reply); a != nil {
			t.Errorf("%q: %s", text, a.Name)
		}
	}
}

func TestFilled(t *testing.T) {
	reply := mail.R(554, "5.2.252", "SendAsDenied; a not allowed to send as b")
	a := For("microsoft365", mail.StageDot, reply).Filled("relay@example.com", "boss@example.com")
	want := "Add-RecipientPermission -Identity boss@example.com -Trustee relay@example.com"
	if !strings.Contains(strings.Join(a.Fix, "\n"), want) {
		t.Errorf("%q is not in %q", want, a.Fix)
	}
	if strings.ContainsAny(a.Cause, "{}") {
		t.Errorf("cause: %s", a.Cause)
	}
	if strings.Contains(strings.Join(For("", mail.StageDot, reply).Fix, "\n"), "boss") {
		t.Error("the table was changed")
	}
}
