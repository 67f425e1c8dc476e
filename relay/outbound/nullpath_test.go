package outbound

import (
	"testing"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
)

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
			{Recipient: mail.Recipient{To: anna}, Status: queue.Pending, Upstream: c.upstream, Stage: c.stage,
				Reply: c.reply},
		}}
		if got := up.reversePath(m, mail.Address{}, time.Now()); got.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
