package console

import (
	"strings"
	"testing"
	"time"

	"postern/relay/doctor"
	"postern/relay/finding"
	"postern/relay/status"
	"postern/relay/store"
)

// TestFirstSentence: replies of providers stand whole in it.
func TestFirstSentence(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                                     {},
		"One.":                                 {"One.", ""},
		"No end":                               {"No end", ""},
		"One. Two. Three.":                     {"One.", "Two. Three."},
		"One.\nTwo":                            {"One.", "Two"},
		"v1.2.3 is old. New.":                  {"v1.2.3 is old.", "New."},
		`It said "5.7.1 No. Never." now. Two.`: {`It said "5.7.1 No. Never." now.`, "Two."},
		`Not closed: "5.7.1 No. Two`:           {`Not closed: "5.7.1 No. Two`, ""},
	} {
		first, rest := firstSentence(Said{text, "en"})
		if first.Text != want[0] || rest.Text != want[1] || rest.Lang != "en" {
			t.Errorf("%q: %q and %q", text, first.Text, rest.Text)
		}
	}
}

// TestAlertsSayWhatToDo: alternatives and commands stand apart on Now, Alerts and Doctor, codes of the doctor and
// times of machines nowhere, and what an alert says stands on Now once.
func TestAlertsSayWhatToDo(t *testing.T) {
	r := newRig(t)
	r.healthy()
	fix := "Allow it in the Exchange admin centre > Recipients > Mailboxes > s@x > Delegation > Send as > add a@x. " +
		"Wait up to an hour.\nOr in Exchange Online PowerShell: Add-RecipientPermission -Identity s@x -Trustee a@x " +
		"-AccessRights SendAs"
	cause := "The mailbox a@x is not allowed to send as s@x."
	since := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	for _, a := range []store.Alert{
		{Event: "upstream-paused", Subject: "upstream office365, sender s@x", Since: r.now,
			Summary: `The provider does not let us send as s@x: "550 No. What to do: pay". Nothing is lost: ` +
				`mail of this ` +
				"sender waits and is tried again; that of others flows. " + cause + " What to do: " +
				strings.ReplaceAll(fix, "\n", " "),
			Details: map[string]string{"fix": fix, "cause": cause, "since": since.Format(time.RFC3339)}},
		{Event: "danger", Subject: "dns-nxdomain: x.example", Since: r.now,
			Summary: "There is no domain x.example in DNS. Receivers refuse mail of a domain that does not exist. " +
				"What to do: Look whether the name is spelt rightly, and whether the domain was paid for: its " +
				"registrar says so.", Details: map[string]string{"code": "dns-nxdomain", "fix": "Look."}},
		{Event: "secret-expiry", Subject: "upstream office365, password login", Since: r.now,
			Summary: "The password login that upstream office365 is logged in with ends on 2026-12-31, in 33 days; " +
				"without it no mail leaves there. What to do: renew it."},
	} {
		r.must(r.store.SaveAlert(t.Context(), a))
	}
	u := &r.report.Upstreams[0]
	u.Name = "office365"
	u.Denied, u.Senders = 1, []status.Sender{{Sender: "s@x", Reply: "550 No.", Cause: cause, Fix: fix}}
	r.report.Secrets = []status.Secret{{Upstream: "office365", What: "password login", Ends: r.now, DaysLeft: 33,
		Ahead: 60}}
	r.operations.Doctor.Remember(&doctor.Report{Time: r.now, Findings: []finding.Finding{{Code: "upstream-sender",
		Subject: "office365", What: cause, Fix: fix + "\nchmod 700 /var/lib/postern"}}})
	ways := []string{"Einer dieser Wege genügt", "Oder in der Exchange-Online-PowerShell:",
		">Add-RecipientPermission -Identity s@x -Trustee a@x -AccessRights SendAs</pre>"}
	for path, want := range map[string][]string{
		"/":       ways,
		"/doctor": append([]string{">chmod 700 /var/lib/postern</pre>"}, ways...),
		"/alerts": append([]string{"<span>Anbieter office365, Absender s@x</span>", ">x.example<",
			"550 No. What to do: pay",
			"<span>Sehen Sie nach, ob der Name richtig geschrieben", wordsFor("de").whole(since)}, ways...),
	} {
		body := r.page(path, in("de"))
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s lacks %q:\n%s", path, text, body)
			}
		}
		for _, text := range []string{"dns-nxdomain", "Es läuft ab", since.Format(time.RFC3339) + "<"} {
			if strings.Contains(body, text) {
				t.Errorf("%s says %q", path, text)
			}
		}
	}
}
