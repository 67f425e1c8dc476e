package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/trace"
	"postern/relay/trial"
)

// newSecretOffice is a configuration whose upstream takes tokens that the application gets by itself.
func newSecretOffice(t *testing.T, identity string) *consentOffice {
	t.Helper()
	f := newConsentOffice(t, "device-code", fakeprovider.OAuthOptions{})
	f.login.AddClient(fakeprovider.Client{ID: "app", Secret: "hush"})
	b, err := os.ReadFile(f.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`flow = "device-code"`, `flow = "client-credentials"`,
		`client_id = "postern"`, `client_id = "app"
client_secret = "hush"
tenant = "contoso.example"
identity = "`+identity+`"`).Replace(string(b))
	text += `[[policy]]
logins = ["scanner"]
senders = ["scans@contoso.example", "SCANS@contoso.example", "*@contoso.example"]
[[policy]]
senders = ["{login}"]
`
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestUpstreamTestAsksForSenders(t *testing.T) {
	t.Parallel()
	f := newSecretOffice(t, "username")
	out, err := f.run("upstream", "test", "m365", "--sender", "boss@contoso.example")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"<boss@contoso.example>: 250", "<scans@contoso.example>: 250", "<>: 250",
		"XOAUTH2 as " + consenter, "would take mail", "Senders that were not tried: *@contoso.example, {login}."} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if n := strings.Count(strings.ToLower(out), "<scans@"); n != 1 {
		t.Errorf("scans@ was asked for %d times", n)
	}
	if n := len(f.smtp.Arrivals()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestUpstreamTestAsEachSender(t *testing.T) {
	t.Parallel()
	f := newSecretOffice(t, "sender")
	f.smtp.Set(fakeprovider.Regime{Login: func(mailbox string) string {
		if mailbox == "scans@contoso.example" {
			return fakeprovider.LoginDisabled
		}
		return ""
	}})
	out, err := f.run("upstream", "test", "m365", "--sender", "boss@contoso.example")
	if err == nil {
		t.Errorf("all is well:\n%s", out)
	}
	for _, want := range []string{
		"mail of boss@contoso.example, logged in as boss@contoso.example",
		"SMTP AUTH is switched off for the mailbox scans@contoso.example.",
		"Set-CASMailbox -Identity scans@contoso.example -SmtpClientAuthenticationDisabled $false",
		"mail of scans@contoso.example, logged in as " + consenter, // the fall-back
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestUpstreamTestJSON(t *testing.T) {
	t.Parallel()
	f := newSecretOffice(t, "username")
	f.smtp.Set(fakeprovider.Regime{Login: func(string) string { return fakeprovider.LoginDisabled }})
	out, err := f.run("upstream", "test", "m365", "--json")
	var got trial.Report
	if json.Unmarshal([]byte(out), &got) != nil || err == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	last := got.Steps[len(got.Steps)-1]
	if got.OK || last.Name != "auth" || last.Advice == nil || last.Advice.Name != "smtp-auth-off-mailbox" ||
		len(got.NotTested) != 2 {
		t.Errorf("got %s", out)
	}
}

func TestUpstreamTestRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	f := newSecretOffice(t, "username")
	if out, err := f.run("upstream", "test", "m365", "--sender", "nobody"); err == nil ||
		!strings.Contains(err.Error(), "is no address") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A trace with refusals that are known ends with what to do, once for each.
func TestTraceAdvises(t *testing.T) {
	t.Parallel()
	denied := trace.Event{Kind: trace.Deferred, ID: "m1", Upstream: "m365", Identity: consenter,
		From: "boss@contoso.example", To: "zoe@example.net",
		Stage: string(mail.StageDot), Reply: mail.R(554, "5.2.252", "SendAsDenied; a not allowed to send as b")}
	unknown := denied
	unknown.Reply = mail.R(550, "5.1.1", "no such user")
	var b strings.Builder
	if err := printEvents(&b, []trace.Event{denied, unknown, denied}, time.Now()); err != nil {
		t.Fatal(err)
	}
	want := "Add-RecipientPermission -Identity boss@contoso.example -Trustee " + consenter + " -AccessRights SendAs"
	if strings.Count(b.String(), want) != 1 || strings.Count(b.String(), "by m365: The mailbox") != 1 {
		t.Errorf("got\n%s", b.String())
	}
}
