package relay

import (
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"postern/relay/alert"
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
		"501 at MAIL": {"mail", refusal(501, smtp.EnhancedCode{5, 1, 7},
			"Invalid MAIL FROM address provided")},
		"blank sender at RCPT": {"rcpt", refusal(550, smtp.NoEnhancedCode,
			"to send email from a blank sender, enable blank senders")},
		"SendAsDenied at dot": {"dot", refusal(554, smtp.EnhancedCode{5, 2, 252},
			"SendAsDenied; relay@example.com not allowed to send as <>")},
		"no sender at MAIL": {"mail", refusal(550, smtp.EnhancedCode{5, 7, 1}, "Sender address rejected")},
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
			if report.from != "postmaster@example.com" || report.to[0] != rigLogin ||
				!strings.Contains(report.data, "gone@example.net") {
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
		"the account must match": {"upstream:null_sender = \"refused\"\nupstream:sender_rule = \"must-match\"",
			rigLogin, rigLogin},
		"its domain is known": {"upstream:null_sender = \"refused\"\nupstream:sender_rule = \"domain\"",
			"postmaster@example.com", "postmaster@example.com"},
		"bounce_from": {"[delivery]\nbounce_from = \"bounces@example.com\"", "bounces@example.com",
			"bounces@example.com"},
		"accepted": {`upstream:null_sender = "accepted"`, "", "postmaster@relay.example.com"},
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
	if d.Details["to"] != rigLogin || !strings.Contains(d.Details["reply"], "no reports") ||
		!strings.Contains(d.Summary, "bounce_from") {
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
