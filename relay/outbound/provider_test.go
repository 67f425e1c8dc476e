package outbound

import (
	"testing"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
)

// What the trace of a delivery says of Message-ID, by what the provider is known to do and what it answers.
func TestDeliveriesTellTheProvidersID(t *testing.T) {
	const ours = "<1@relay.example.com>"
	for _, c := range []struct {
		provider, messageID string
		reply               mail.Reply
		want                string
	}{
		{"ses", "replaced", mail.R(250, "", "Ok 01000154dc729264-93fdd7ea-f039-43d6-91ed-653e8547867c-000000"),
			"the provider replaces Message-ID, and knows the message as " +
				"01000154dc729264-93fdd7ea-f039-43d6-91ed-653e8547867c-000000"},
		{"outlookcom", "replaced", mail.R(250, "2.0.0", "OK <DM6@prod.outlook.com> [Hostname=DM6.prod.outlook.com]"),
			"the provider replaces Message-ID, and knows the message as <DM6@prod.outlook.com>"},
		{"brevo", "replaced", mail.R(250, "2.0.0", "OK: queued"), "the provider replaces Message-ID"},
		{"gmail", "kept", mail.R(250, "2.0.0", "OK  1653776100 r33-2002.43 - gsmtp"),
			"the provider knows the message as r33-2002.43"},
		{"microsoft365", "unknown",
			mail.R(250, "2.0.0", "OK "+ours+" [Hostname=SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM]"), ""},
		{"microsoft365", "unknown", mail.R(250, "2.0.0", "OK <2@prod.outlook.com> [Hostname=DM6.prod.outlook.com]"),
			"the provider knows the message as <2@prod.outlook.com>"},
		{"generic", "kept", mail.R(250, "2.0.0", "Ok: queued as 4F3A1"), ""},
	} {
		up := &Upstream{Config: config.Upstream{Provider: c.provider, MessageID: c.messageID}}
		results := []mail.Result{{Class: mail.Delivered, Reply: c.reply}}
		up.tell(results, &queue.Message{MessageID: ours})
		if results[0].Note != c.want {
			t.Errorf("%s: %q, want %q", c.provider, results[0].Note, c.want)
		}
	}
}
