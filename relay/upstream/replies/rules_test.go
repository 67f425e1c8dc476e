package replies

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// Every rule is held to the reply that it was written for, at every stage that it names.
func (rs *Rules) classify(stage mail.Stage, r mail.Reply) *matcher {
	m, _ := rs.find(stage, NewSample(r))
	return m
}

func TestEveryRuleMatchesItsExample(t *testing.T) {
	rules, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range genericRules {
		if r.Name == "" || r.Example == "" {
			t.Errorf("rule %d has no name or no example", i)
		}
		reply, err := Read(bufio.NewReader(strings.NewReader(r.Example+"\r\n")), true)
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		stages := r.Stages
		if stages == nil {
			stages = append(append([]mail.Stage(nil), beforeMail...), fromMail...)
		}
		for _, stage := range stages {
			if stage == mail.StageRcpt && r.Class == mail.MessageFault {
				continue // "recipient" stands before them
			}
			if got := rules.classify(stage, reply); got.Example != r.Example {
				t.Errorf("%q at %s matches %s, not %s", r.Example, stage, got.Name, r.Name)
			}
		}
	}
}

func TestEveryReplyHasARule(t *testing.T) {
	rules, _ := Compile(nil)
	for code := 400; code < 600; code++ {
		for _, stage := range beforeMail {
			if r := rules.classify(stage, mail.Reply{Code: code}); r.Class != mail.AccountFault &&
				r.Class != mail.BackPressure {
				t.Errorf("%d at %s: %s is %s", code, stage, r.Name, r.Class)
			}
		}
		for _, stage := range fromMail {
			if r := rules.classify(stage, mail.Reply{Code: code}); code < 500 && r.Class.Permanent() {
				t.Errorf("%d at %s: %s is %s", code, stage, r.Name, r.Class)
			}
		}
	}
}

func TestOwnRulesComeFirst(t *testing.T) {
	rules, err := Compile([]Rule{
		{Name: "daily limit", Stages: fromMail, Code: "550", Enhanced: "5.4.5", Class: mail.AccountFault},
		{Name: "full", Enhanced: "5.2.*", Text: `mailbox.*full`, Class: mail.AccountFault},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reply mail.Reply
		want  string
	}{
		{mail.R(550, "5.4.5", "Daily user sending limit exceeded"), "daily limit"},
		{mail.R(550, "5.4.6", "Daily user sending limit exceeded"), "over-quota"},
		{mail.R(551, "5.4.5", "Nothing is known of this"), "none"},
		{mail.R(554, "5.2.2", "MAILBOX is full"), "full"},
		{mail.R(554, "", "mailbox is full"), "mailbox-full"},
		{mail.R(554, "5.2.2", "storage exhausted"), "none"},
	} {
		if r := rules.classify(mail.StageDot, c.reply); r.Name != c.want {
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
		{Name: "stage", Stages: []mail.Stage{mail.StageConnect}, Class: mail.Deferral},
		{Name: "early", Code: "535", Class: mail.MessageFault},
		{Name: "early too", Stages: []mail.Stage{mail.StageAuth, mail.StageMail}, Code: "535",
			Class: mail.RecipientFault},
		{Name: "scope", Stages: fromMail, Class: mail.AccountFault, Scope: "world"},
		{Name: "scope of a class", Stages: fromMail, Class: mail.MessageFault, Scope: ScopeSender},
		{Name: "slow", Stages: fromMail, Class: mail.Deferral, Slow: true},
		{Name: "quota", Stages: fromMail, Class: mail.AccountFault, Quota: time.Hour},
		{Name: "quota too long", Stages: fromMail, Class: mail.BackPressure, Quota: upstream.MaxQuota + 1},
		{Name: "wait too long", Stages: fromMail, Class: mail.Deferral, RetryAfter: maxWait + 1},
		{Name: "group", Stages: fromMail, Text: `(?P<years>\d+)`, Class: mail.Deferral},
	} {
		if _, err := Compile([]Rule{r}); err == nil || !strings.Contains(err.Error(), r.Name) {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}

// How long to wait may stand in the reply, and is bounded.
func TestRepliesSayHowLong(t *testing.T) {
	own := []Rule{
		{Name: "hours", Code: "452", Text: `wait (?P<hours>\d+)`, Class: mail.Deferral},
		{Name: "either", Code: "453", Text: `wait( (?P<seconds>\d+) s)?`, Class: mail.Deferral,
			RetryAfter: time.Minute},
	}
	rules, err := Compile(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reply mail.Reply
		rule  string
		want  time.Duration
	}{
		{mail.R(452, "", "wait 3"), "hours", 3 * time.Hour},
		{mail.R(452, "", "wait 300"), "hours", maxWait},
		{mail.R(452, "", "wait 99999999999999999999"), "hours", 0},
		{mail.R(453, "", "wait 7 s"), "either", 7 * time.Second},
		{mail.R(453, "", "wait"), "either", time.Minute},
		{mail.R(450, "4.7.1", "Please retry after 300 sec."), "later", 5 * time.Minute},
		{mail.R(451, "4.7.1", "Try again in 15 minutes"), "later", 15 * time.Minute},
		{mail.R(451, "4.7.1", "Try again in 2 moons"), "later", 0},
	} {
		got, _ := rules.Classify(mail.StageData, c.reply, time.Now())
		if got.Name != c.rule || got.RetryAfter != c.want {
			t.Errorf("%s: %s, %v; want %s, %v", c.reply, got.Name, got.RetryAfter, c.rule, c.want)
		}
	}
}
