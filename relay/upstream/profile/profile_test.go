package profile

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/policy"
	"postern/relay/upstream/replies"
)

// contract are the names that relay.toml may use.
var contract = []string{
	"microsoft365", "microsoft365-connector", "microsoft365-hve", "microsoft365-direct", "outlookcom", "gmail",
	"google-relay", "ses", "sendgrid", "mailgun", "postmark",
	"brevo", "mailjet", "sparkpost", "resend", "zoho", "fastmail", "yahoo", "icloud", "smtp2go", "azure-acs", "generic",
	"microsoft-graph",
}

func TestEveryNameOfTheContract(t *testing.T) {
	for _, name := range contract {
		if _, ok := Get(name); !ok {
			t.Errorf("there is no profile %s", name)
		}
	}
	if _, ok := Get("none"); ok {
		t.Error("there is a profile none")
	}
	if names := Names(); names[0] != Generic || len(names) != len(contract) {
		t.Errorf("names: %v", names)
	}
}

func TestProfilesAreComplete(t *testing.T) {
	for _, p := range All() {
		if p.Title == "" || len(p.Sources) == 0 || len(p.Unsure) == 0 || len(p.Ports) == 0 || len(p.Mechanisms) == 0 {
			t.Errorf("%s: something is left out: %+v", p.Name, p)
		}
		if _, err := time.Parse(time.DateOnly, p.Date); err != nil {
			t.Errorf("%s: date: %v", p.Name, err)
		}
		if p.Name != Generic && (p.Host == "") == (p.Example == "") {
			t.Errorf("%s: host %q, example %q", p.Name, p.Host, p.Example)
		}
		for _, text := range p.Rate {
			l, err := policy.ParseLimit(text)
			if err != nil || l.Unit != policy.Messages && l.Unit != policy.Recipients {
				t.Errorf("%s: rate %q: %v", p.Name, text, err)
			}
		}
		check(t, p.Name, p.DKIM, DKIMSign, DKIMSkip, DKIMStrip)
		check(t, p.Name, p.SenderRule, SenderAny, SenderDomain, SenderMustMatch, SenderRewritten)
		check(t, p.Name, p.DNS.ReturnPath, PathKept, PathReplaced, PathUnknown)
		facts := p.DNS.Include != "" || len(p.DNS.Selectors) > 0 || p.DNS.ReturnPath != PathUnknown ||
			p.DNS.Signs != SignsUnknown
		if facts && len(p.DNS.Sources) == 0 {
			t.Errorf("%s: what is said of its DNS has no source", p.Name)
		}
		check(t, p.Name, p.DNS.Signs, SignsDomain, SignsProvider, SignsNot, SignsUnknown)
		for _, s := range p.DNS.SelectorsFor("example.com") {
			if strings.Contains(s.Name+s.Target, "{") || s.Target != "" && !strings.Contains(s.Target, ".") {
				t.Errorf("%s: selector %+v", p.Name, s)
			}
		}
		check(t, p.Name, p.MessageID, MessageIDKept, MessageIDReplaced, MessageIDUnknown)
		if p.MaxConnections < 1 || p.MessagesPerConnection < 1 || p.IdleClose < Duration(time.Second) ||
			p.MaxRecipients < 1 || p.MaxRecipients > 100 && p.Name != "microsoft-graph" {
			t.Errorf("%s: limits: %+v", p.Name, p)
		}
		if _, err := replies.Compile(p.UpstreamRules()); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func check(t *testing.T, name, value string, choices ...string) {
	t.Helper()
	if !slices.Contains(choices, value) {
		t.Errorf("%s: %q is none of %v", name, value, choices)
	}
}

// Each rule decides about the reply that it was written for, at every stage that it is for.
func TestEveryRuleMatchesItsExample(t *testing.T) {
	for _, p := range All() {
		rules, err := replies.Compile(p.UpstreamRules())
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range p.UpstreamRules() {
			if r.Name == "" || r.Example == "" {
				t.Errorf("%s: rule %d has no name or no example", p.Name, i+1)
				continue
			}
			reply, err := replies.Parse(r.Example)
			if err != nil {
				t.Errorf("%s: %s: %v", p.Name, r.Example, err)
				continue
			}
			at := r.Stages
			if len(at) == 0 {
				at = slices.Concat(stageGroups["session"], stageGroups["message"])
			}
			for _, stage := range at {
				got, _ := rules.Classify(stage, reply, time.Now())
				if got.Name != r.Name || got.Class != r.Class || got.Scope != r.Scope {
					t.Errorf("%s: %q at %s is for %s, not %s", p.Name, r.Example, stage, got.Name, r.Name)
				}
			}
		}
	}
}

// The provider's own id is found in the reply that the pattern was written for, and in no refusal.
func TestReplyIDs(t *testing.T) {
	for _, p := range All() {
		if p.ReplyID == "" {
			if got := p.IDIn(mail.R(250, "2.0.0", "OK 1 2 - gsmtp")); got != "" || p.ReplyIDExample != "" {
				t.Errorf("%s: %q without a pattern", p.Name, got)
			}
			continue
		}
		reply, err := replies.Parse(p.ReplyIDExample)
		if err != nil {
			t.Fatal(err)
		}
		id := p.IDIn(reply)
		if len(id) < 10 || strings.ContainsAny(id, " \t") || !strings.Contains(reply.Text, id) {
			t.Errorf("%s: %q in %q", p.Name, id, reply)
		}
		reply.Code = 451
		if got := p.IDIn(reply); got != "" {
			t.Errorf("%s: %q in a refusal", p.Name, got)
		}
	}
}

// The replies that lose mail when 4yz is taken for later and 5yz for never.
func TestRepliesThatLoseMail(t *testing.T) {
	for _, c := range []struct {
		profile string
		stage   mail.Stage
		reply   string
		class   mail.Class
		scope   replies.Scope
		quota   time.Duration
	}{
		{"microsoft365", mail.StageDot, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
			mail.BackPressure, "", 24 * time.Hour},
		{"microsoft365", mail.StageDot, "554 5.2.2 mailbox full", mail.AccountFault, "", 0},
		{"microsoft365", mail.StageRcpt, "554 5.2.2 mailbox full", mail.RecipientFault, "", 0},
		{"microsoft365", mail.StageAuth, "535 5.7.139 Authentication unsuccessful, the user credentials were " +
			"incorrect.", mail.AccountFault, "", 0},
		{"microsoft365", mail.StageAuth, "535 5.7.3 Authentication unsuccessful", mail.AccountFault, "", 0},
		{"microsoft365", mail.StageMail, "550 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 " +
			"Authentication unsuccessful", mail.AccountFault, "", 0},
		{"microsoft365", mail.StageMail, "550 5.7.30 Basic authentication is not supported", mail.AccountFault, "", 0},
		{"microsoft365", mail.StageMail, "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
			mail.AccountFault, replies.ScopeSender, 0},
		{"microsoft365", mail.StageDot, "554 5.2.252 SendAsDenied; a@example.com not allowed to send as b@example.com",
			mail.AccountFault, replies.ScopeSender, 0},
		{"microsoft365", mail.StageDot, "432 4.3.2 Concurrent connections limit exceeded. Visit " +
			"https://aka.ms/concurrent_sending for more information.", mail.BackPressure, "", 0},
		{"microsoft365", mail.StageRcpt, "550 5.7.64 TenantAttribution; Relay Access Denied", mail.AccountFault, "", 0},
		{"microsoft365", mail.StageRcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound", mail.RecipientFault, "", 0},
		{"microsoft365", mail.StageDot, "550 5.7.1 spam", mail.MessageFault, "", 0},
		{"microsoft365-hve", mail.StageDot, "550 5.7.240 The application is not allowed for use with this High " +
			"Volume Email account.", mail.AccountFault, "", 0},
		{"microsoft365-hve", mail.StageRcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound", mail.RecipientFault, "", 0},
		{"microsoft365-direct", mail.StageRcpt, "550 5.7.64 TenantAttribution; Relay Access Denied", mail.Deferral, "",
			0},
		{"microsoft365-direct", mail.StageRcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound", mail.RecipientFault, "",
			0},
		{"microsoft365-direct", mail.StageMail, "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for " +
			"this organization from unauthorized sources", mail.AccountFault, "", 0},
		{"gmail", mail.StageMail, "550 5.4.5 Daily user sending quota exceeded.", mail.BackPressure, "",
			24 * time.Hour},
		{"gmail", mail.StageDot, "552 5.7.0 This message was blocked because its content presents a potential " +
			"security issue.", mail.MessageFault, "", 0},
		{"google-relay", mail.StageMail, "550 5.7.1 Daily SMTP relay limit exceeded for customer.", mail.BackPressure,
			"", 24 * time.Hour},
		{"google-relay", mail.StageRcpt, "450 4.2.1 Peak SMTP relay limit exceeded for customer.", mail.BackPressure,
			"", 0},
		{"google-relay", mail.StageRcpt, "550 5.4.5 Daily SMTP relay sending limit exceeded for user.",
			mail.AccountFault, replies.ScopeSender, 0},
		{"ses", mail.StageDot, "454 Throttling failure: Maximum sending rate exceeded.", mail.BackPressure, "", 0},
		{"ses", mail.StageDot, "454 Throttling failure: Daily message quota exceeded.", mail.BackPressure, "",
			24 * time.Hour},
		{"ses", mail.StageDot, "554 Message rejected: Email address is not verified.", mail.AccountFault,
			replies.ScopeSender, 0},
		{"zoho", mail.StageDot, "550 5.4.6 Unusual sending activity detected.", mail.AccountFault, "", 0},
		{"zoho", mail.StageDot, "553 Relaying disallowed as a@example.com", mail.AccountFault, replies.ScopeSender, 0},
		{"resend", mail.StageDot, "550 The example.com domain is not verified.", mail.AccountFault, replies.ScopeSender,
			0},
		{"brevo", mail.StageMail, "502 5.7.0 Your SMTP account is not yet activated", mail.AccountFault, "", 0},
		{"sendgrid", mail.StageAuth, "451 Authentication failed: Maximum credits exceeded", mail.BackPressure, "",
			24 * time.Hour},
		{"generic", mail.StageRcpt, "553 5.7.1 <b@example.com>: Sender address rejected: not owned by user " +
			"a@example.com", mail.AccountFault, replies.ScopeSender, 0},
		{"generic", mail.StageDot, "571 5.9.9 no", mail.MessageFault, "", 0},
	} {
		p, _ := Get(c.profile)
		reply, err := replies.Parse(c.reply)
		if err != nil {
			t.Fatal(err)
		}
		rules, err := replies.Compile(p.UpstreamRules())
		if err != nil {
			t.Fatal(err)
		}
		got, _ := rules.Classify(c.stage, reply, time.Now())
		if got.Class != c.class || got.Scope != c.scope || got.Quota != c.quota {
			t.Errorf("%s: %s at %s: %s is %s %q %v", c.profile, c.reply, c.stage, got.Name, got.Class, got.Scope,
				got.Quota)
		}
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`hosts = "x"`:                "strict mode",
		`ports = ["587"]`:            "port with its use",
		`ports = ["0 starttls"]`:     "port with its use",
		`idle_close = "soon"`:        "is not a duration",
		`reply_id = "("`:             "missing closing",
		`reply_id = "OK (\\S+)"`:     "no group named id",
		"[[rule]]\nname = \"x\"":     "class",
		"[[rule]]\nclass = \"lost\"": "class",
		"[[rule]]\nclass = \"message-fault\"\nstages = [\"session\"]": "before MAIL",
		"[[rule]]\nclass = \"message-fault\"\nstages = [\"dott\"]":    "stage without",
	} {
		if _, err := parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPorts(t *testing.T) {
	p, _ := Get("ses")
	for _, c := range []struct {
		number int
		use    string
		want   string
	}{
		{0, "", "587 starttls"}, {0, "implicit", "465 implicit"}, {2465, "", "2465 implicit"}, {25, "", "25 starttls"},
		{26, "", "0 "}, {0, "none", "0 "},
	} {
		if got, _ := p.PortFor(c.number, c.use); got.String() != c.want {
			t.Errorf("%d %q: %s, want %s", c.number, c.use, got, c.want)
		}
	}
}

func TestSelectorsAndOwnDomains(t *testing.T) {
	fastmail, _ := Get("fastmail")
	want := Selector{"fm1", "fm1.example.com.dkim.fmhosted.com", false}
	if got := fastmail.DNS.SelectorsFor("example.com"); len(got) != 3 || got[0] != want {
		t.Errorf("%+v", got)
	}
	gmail, _ := Get("gmail")
	if got := gmail.DNS.SelectorsFor("example.com"); len(got) != 1 || got[0] != (Selector{"google", "", true}) {
		t.Errorf("%+v", got)
	}
	for domain, owned := range map[string]bool{"yahoo.com": true, "yahoo.co.jp": true, "notyahoo.com": false,
		"example.com": false} {
		yahoo, _ := Get("yahoo")
		if yahoo.DNS.Owns(domain) != owned {
			t.Errorf("%s: %v", domain, !owned)
		}
	}
}
