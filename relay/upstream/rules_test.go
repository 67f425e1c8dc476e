package upstream

import (
	"bufio"
	"strings"
	"testing"

	"postern/mail"
)

// Every rule is held to the reply that it was written for, at every stage that it names.
func TestEveryRuleMatchesItsExample(t *testing.T) {
	u, err := New(Config{Host: "mx.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range genericRules {
		if r.Name == "" || r.Example == "" {
			t.Errorf("rule %d has no name or no example", i)
		}
		reply, err := readReply(bufio.NewReader(strings.NewReader(r.Example+"\r\n")), true)
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		stages := r.Stages
		if stages == nil {
			stages = append(append([]mail.Stage(nil), beforeMail...), fromMail...)
		}
		for _, stage := range stages {
			if stage == mail.StageRcpt && r.Name == "message" {
				continue // "recipient" stands before it
			}
			if got := u.classify(stage, reply); got.Example != r.Example {
				t.Errorf("%q at %s matches %s, not %s", r.Example, stage, got.Name, r.Name)
			}
		}
	}
}

func TestEveryReplyHasARule(t *testing.T) {
	u, _ := New(Config{Host: "mx.example.com"})
	for code := 400; code < 600; code++ {
		for _, stage := range beforeMail {
			if r := u.classify(stage, mail.Reply{Code: code}); r.Name == "none" || r.Class != mail.AccountFault && r.Class != mail.BackPressure {
				t.Errorf("%d at %s: %s is %s", code, stage, r.Name, r.Class)
			}
		}
		for _, stage := range fromMail {
			if r := u.classify(stage, mail.Reply{Code: code}); r.Name == "none" || code < 500 && r.Class.Permanent() {
				t.Errorf("%d at %s: %s is %s", code, stage, r.Name, r.Class)
			}
		}
	}
}

func TestOwnRulesComeFirst(t *testing.T) {
	u, err := New(Config{Host: "mx.example.com", Rules: []Rule{
		{Name: "daily limit", Stages: fromMail, Code: "550", Enhanced: "5.4.5", Class: mail.AccountFault},
		{Name: "full", Enhanced: "5.2.*", Text: `mailbox.*full`, Class: mail.AccountFault},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reply mail.Reply
		want  string
	}{
		{mail.R(550, "5.4.5", "Daily user sending limit exceeded"), "daily limit"},
		{mail.R(550, "5.4.6", "Daily user sending limit exceeded"), "message"},
		{mail.R(551, "5.4.5", "Daily user sending limit exceeded"), "message"},
		{mail.R(554, "5.2.2", "MAILBOX is full"), "full"},
		{mail.R(554, "", "mailbox is full"), "message"},
		{mail.R(554, "5.2.2", "storage exhausted"), "message"},
	} {
		if r := u.classify(mail.StageDot, c.reply); r.Name != c.want {
			t.Errorf("%s: matched %s, want %s", c.reply, r.Name, c.want)
		}
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	for _, r := range []Rule{
		{Name: "code", Code: "5", Class: mail.Deferral},
		{Name: "enhanced", Enhanced: "5.7", Class: mail.Deferral},
		{Name: "text", Text: "(", Class: mail.Deferral},
		{Name: "no class"},
		{Name: "delivered", Class: mail.Delivered},
	} {
		if _, err := New(Config{Host: "mx.example.com", Rules: []Rule{r}}); err == nil || !strings.Contains(err.Error(), r.Name) {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}
