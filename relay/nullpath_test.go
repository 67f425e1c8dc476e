package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/trace"
)

// halfGone makes a message of anna's of which one recipient does not exist, so that she is owed a report.
func halfGone(t *testing.T, p *provider, r *rig) {
	t.Helper()
	p.onRcpt = func(to string) error {
		if to == "gone@example.net" {
			return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
		}
		return nil
	}
	if reply, err := r.send(rigLogin, []string{"bob@example.net", "gone@example.net"}, plainMessage); err != nil {
		t.Fatalf("%s: %v", reply, err)
	}
}

// A provider that refuses the null reverse-path, in whatever words and wherever, gets the report under an address.
func TestReportsSurviveARefusedNullReversePath(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stage string
		err   error
	}{
		"501 at MAIL":          {"mail", refusal(501, smtp.EnhancedCode{5, 1, 7}, "Invalid MAIL FROM address provided")},
		"blank sender at RCPT": {"rcpt", refusal(550, smtp.NoEnhancedCode, "to send email from a blank sender, enable blank senders")},
		"SendAsDenied at dot":  {"dot", refusal(554, smtp.EnhancedCode{5, 2, 252}, "SendAsDenied; relay@example.com not allowed to send as <>")},
		"no sender at MAIL":    {"mail", refusal(550, smtp.EnhancedCode{5, 7, 1}, "Sender address rejected")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			r := newRig(t, p, `upstream:provider = "generic"`)
			refuse := func(stage, from string) error {
				if from == "" && stage == c.stage {
					return c.err
				}
				return nil
			}
			p.onMail = func(from string) error { return refuse("mail", from) }
			p.onData = func(m received) error { return refuse("dot", m.from) }
			p.onNull = func() error { return refuse("rcpt", "") }
			halfGone(t, p, r)
			report := p.wait(2)[1]
			if report.from != "postmaster@example.com" || report.to[0] != rigLogin || !strings.Contains(report.data, "gone@example.net") {
				t.Errorf("report: %+v", report)
			}
			r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
		})
	}
}

// What a profile or relay.toml says of the null reverse-path is not asked for first.
func TestReportsWhereTheNullReversePathIsKnownToBeRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ extra, from, author string }{
		"the account must match": {"upstream:null_sender = \"refused\"\nupstream:sender_rule = \"must-match\"", rigLogin, rigLogin},
		"its domain is known":    {"upstream:null_sender = \"refused\"\nupstream:sender_rule = \"domain\"", "postmaster@example.com", "postmaster@example.com"},
		"bounce_from":            {"[delivery]\nbounce_from = \"bounces@example.com\"", "bounces@example.com", "bounces@example.com"},
		"accepted":               {`upstream:null_sender = "accepted"`, "", "postmaster@relay.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			r := newRig(t, p, c.extra)
			p.onMail = func(from string) error {
				if from == "" && c.from != "" {
					t.Error("it was asked to take the null reverse-path")
				}
				return nil
			}
			halfGone(t, p, r)
			report := p.wait(2)[1]
			if report.from != c.from || !strings.Contains(report.data, "From: Mail Delivery System <"+c.author+">") {
				t.Errorf("report from %q:\n%s", report.from, report.data)
			}
		})
	}
}

// A report that is refused for good is an alert, an error in the log, and a row in the trace.
func TestALostReportIsTold(t *testing.T) {
	t.Parallel()
	hook, p := newReceiver(t), newProvider(t)
	r := newRig(t, p, hook.block())
	p.onData = func(m received) error {
		if m.from != rigLogin {
			return refusal(550, smtp.EnhancedCode{5, 6, 0}, "no reports")
		}
		return nil
	}
	halfGone(t, p, r)
	d := hook.wait(r, alert.ReportFailed, "reports", 1)
	if d.Details["to"] != rigLogin || !strings.Contains(d.Details["reply"], "no reports") || !strings.Contains(d.Summary, "bounce_from") {
		t.Errorf("%+v", d)
	}
	if !strings.Contains(r.log.String(), "the sender does not know") {
		t.Error("the log does not say it")
	}
	r.eventually("the report's end in the trace", func() bool {
		s := r.store()
		defer s.Close()
		events, err := s.Events(t.Context(), trace.Query{ID: d.Details["id"], Kinds: []trace.Kind{trace.Failed}})
		return err == nil && len(events) == 1 && strings.Contains(events[0].Reply.Text, "no reports")
	})
}

func TestReportSender(t *testing.T) {
	to := mail.Address{Local: "anna", Domain: "example.com"}
	for _, c := range []struct{ rule, username, want string }{
		{"must-match", "relay@contoso.example", "relay@contoso.example"},
		{"must-match", "AKIAEXAMPLE", "anna@example.com"},
		{"must-match", "", "anna@example.com"},
		{"any", "relay@isp.example", "relay@isp.example"},
		{"any", "relay", "postmaster@example.com"},
		{"domain", "8a1b2c001@smtp.example", "postmaster@example.com"}, // a login that is no mailbox
		{"rewritten", "someone@gmail.example", "postmaster@example.com"},
	} {
		got := ReportSender(config.Upstream{SenderRule: c.rule, Username: c.username}, to)
		if got.String() != c.want {
			t.Errorf("%s as %q: %s, want %s", c.rule, c.username, got, c.want)
		}
	}
}

// Only what this upstream said of the message itself makes an address of the null reverse-path.
func TestReversePathOfMailThatWaited(t *testing.T) {
	anna := mail.Address{Local: "anna", Domain: "example.com"}
	denied := mail.R(550, "5.7.1", "no")
	for _, c := range []struct {
		name, null, upstream string
		stage                mail.Stage
		reply                mail.Reply
		want                 string
	}{
		{"refused here", "unknown", "office", mail.StageMail, denied, "postmaster@example.com"},
		{"for the recipient", "unknown", "office", mail.StageRcpt, denied, "postmaster@example.com"},
		{"a bad login", "unknown", "office", mail.StageAuth, mail.R(535, "5.7.8", "no"), ""},
		{"a greeting", "unknown", "office", mail.StageGreeting, denied, ""},
		{"for now", "unknown", "office", mail.StageMail, mail.R(451, "4.3.0", "later"), ""},
		{"elsewhere", "unknown", "other", mail.StageMail, denied, ""},
		{"where it is known to be taken", "accepted", "office", mail.StageMail, denied, ""},
	} {
		up := &Upstream{Config: config.Upstream{Name: "office", NullSender: c.null}}
		m := &queue.Message{Recipients: []queue.Recipient{
			{Recipient: mail.Recipient{To: anna}, Status: queue.Pending, Upstream: c.upstream, Stage: c.stage, Reply: c.reply},
		}}
		if got := up.reversePath(m, mail.Address{}, time.Now()); got.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
