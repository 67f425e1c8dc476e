package graph

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
)

// seen is an answer of the file, "403 [Retry-After: 5] body".
var seen = regexp.MustCompile(`^(\d{3}) (?:\[Retry-After: (\d+)\] )?(.*)$`)

// Answers seen in public logs have the class that people gave them.
func TestRepliesSeenInTheField(t *testing.T) {
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), nil)
	file, err := os.ReadFile("../testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for row := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
		if f[0] != "microsoft-graph" {
			continue
		}
		rows++
		m := seen.FindStringSubmatch(f[4])
		if m == nil {
			t.Fatalf("row %q", row)
		}
		status, _ := strconv.Atoi(m[1])
		h := http.Header{}
		if m[2] != "" {
			h.Set("Retry-After", m[2])
		}
		got := u.refused(readAnswer(status, h, []byte(m[3]), time.Now()))
		if !slices.Contains(append(strings.Split(f[3], ","), f[2]), wordOf(got)) {
			t.Errorf("%s is %s by rule %s, not %s", f[4], wordOf(got), got.rule.Name, f[2])
		}
	}
	if rows < 20 {
		t.Errorf("%d rows", rows)
	}
}

// wordOf is a class as the file has it.
func wordOf(f *fault) string {
	switch {
	case f.author:
		return "sender"
	case f.class == mail.MessageFault:
		return "message"
	case f.class == mail.AccountFault:
		return "account"
	case f.class == mail.BackPressure:
		return "pressure"
	}
	return f.class.String()
}

// What is unknown defers one message: it pauses nobody, and it bounces nothing.
func TestUnknownAnswersAreTheMessagesMatter(t *testing.T) {
	steps := []string{fakeprovider.StepDraft, fakeprovider.StepAttach, fakeprovider.StepSession, fakeprovider.StepPut,
		fakeprovider.StepSend}
	for _, code := range []int{400, 405, 406, 409, 410, 411, 412, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426,
		428, 431, 499} {
		for _, word := range []string{"", "ErrorIrresolvableConflict", "resourceLocked", "ErrorNeverSeen",
			"preconditionFailed"} {
			f := fakeprovider.GraphFault{Status: code, Code: word}
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			fake.Fail(f)
			u, _ := connected(t, fake, nil)
			r := only(t, send(t, u, to(t, "", "a@example.org")))
			if r.Class != mail.Deferral || r.Uncertain || status(u) != upstream.Ready {
				t.Errorf("%d %s: %s, the mailbox is %s: %s", code, word, r.Class, status(u), r.Reply)
			}
		}
		for _, step := range steps {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			fake.Fail(fakeprovider.GraphFault{Step: step, Status: code, Code: "ErrorNeverSeen"})
			u, _ := uploading(t, fake, nil)
			tx := largeMail(t, "", []string{"a@example.org"},
				textPart("text/plain", "hello"), file64("image/png", "small.png", octets(1000)),
				file8("application/pdf", "scan.pdf", octets(3_000_001)))
			r := only(t, send(t, u, tx))
			ready := true
			u.Each(func(m *mailbox) { ready = ready && m.large.Ready() })
			if r.Class != mail.Deferral || r.Uncertain || status(u) != upstream.Ready || !ready ||
				len(fake.Drafts()) != 0 {
				t.Errorf("%s %d: %s, the mailbox is %s, %d drafts: %s", step, code, r.Class, status(u),
					len(fake.Drafts()), r.Reply)
			}
		}
	}
}

// Kinds are known by the words of a code and a text, wherever they are wrapped.
func TestKindsOfErrors(t *testing.T) {
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), nil)
	for _, c := range []struct{ answer, class, rule string }{
		{`400 {"error":{"code":"AuthenticationError","message":"Error authenticating with resource"}}`, "account",
			"authentication"},
		{`400 {"error":{"code":"OrganizationFromTenantGuidNotFound","message":"The tenant for tenant guid 'x' does ` +
			`not exist."}}`, "account", "tenant"},
		{`400 {"error":{"code":"UnsupportedTenantType"}}`, "account", "tenant"},
		{`403 {"error":{"code":"TenantLicenseExpired"}}`, "account", "tenant"},
		{`400 {"error":{"code":"InvalidAuthenticationTokenLifetime"}}`, "account", "authentication"},
		{`401 {"error":{"code":"UnknownError","message":""}}`, "account", "token"},
		{`401 {"error":{"code":"InvalidAudience"}}`, "account", "token"},
		{"403 \ufeff" + `{"error":{"code":"ErrorSendAsDenied"}}`, "sender", "send-as"},
		{`403 {"error":{"code":"UnknownError",` +
			`"message":"{\"error\":{\"code\":\"ErrorSendAsDenied\",\"message\":\"no\"}}"}}`,
			"sender", "send-as"},
		{`400 {"error":{"code":"BadRequest","message":"x",` +
			`"innerError":{"code":"ErrorMessageSizeExceeded","message":"y"}}}`,
			"message", "too-big"},
		{`400 {"error":{"code":"badRequest","innererror":{"code":"a","innererror":{"code":"ErrorAccountSuspend"}}}}`,
			"account", "account-suspended"},
		{`403 {"odata.error":{"code":"ErrorQuotaExceeded","message":{"lang":"en-US","value":"The mailbox is full."}}}`,
			"account", "mailbox-full"},
		{`400 {"responses":[{"id":"1","status":403,"body":{"error":{"code":"ErrorExceededMessageLimit"}}}]}`, "account",
			"daily-quota"},
		{`400 {"error":"invalid_token","error_description":"The token has no right"}`, "account", "authentication"},
		{`400 {"error":"{\"code\":\"ErrorServerBusy\",\"message\":\"later\"}"}`, "pressure", "busy"},
		{`500 {"error":{"code":"TooManyConcurrentConnections"}}`, "pressure", "busy"},
		{`403 {"error":{"code":"","message":"WASCL UserAction verdict is not None. Actual verdict is Suspend."}}`,
			"account", "account-suspended"},
		{`400 {"error":{"code":"","message":"WASCL UserAction verdict is not None. Actual verdict is RefuseQuota."}}`,
			"account", "daily-quota"},
		{`403 {"error":{"code":"ErrorAccessDenied","message":"Access to OData is disabled: [RAOP] : Blocked"}}`,
			"account", "raop"},
		{`403 {"error":{"code":"Forbidden","message":"error=insufficient_claims"}}`, "account", "claims"},
		{`403 <html><head><title>Access &amp; policy</title></head></html>`, "account", "firewall"},
		{`405 <!doctype html><title>No</title>`, "account", "firewall"},
		{`511 <html>`, "pressure", "guest-network"},
		{`404 {"error":{"code":"ErrorItemNotFound"}}`, "deferral", "item"},
		{`404 {"error":{"code":"Request_ResourceNotFound"}}`, "account", "no-mailbox"},
		{`400 {"error":{"code":"InvalidInternetMessageHeaderCollection"}}`, "message", "mime"},
		{`400 {"error":{"code":"ErrorInvalidRecipients","message":"At least one recipient is not valid., Recipient ` +
			`'x' is not resolved"}}`, "message", "recipients"},
		{`502 <html>502 Bad Gateway</html>`, "deferral", "server-error"},
		{`400 {"error":{"code":"` + strings.Repeat(`{\"error\":`, 30) + `"}}`, "deferral", unknownRule},
		{`400 ` + strings.Repeat(`[`, 500) + strings.Repeat(`]`, 500), "deferral", "not-graph"},
	} {
		status, _ := strconv.Atoi(c.answer[:3])
		got := u.refused(readAnswer(status, http.Header{}, []byte(c.answer[4:]), time.Now()))
		if wordOf(got) != c.class || got.rule.Name != c.rule {
			t.Errorf("%s is %s by %s: %s", c.answer, wordOf(got), got.rule.Name, got.reply)
		}
	}
}

// 401 with a challenge in the header says why the token does not do.
func TestClaimsChallenge(t *testing.T) {
	h := http.Header{}
	h.Set("WWW-Authenticate", `Bearer realm="", `+
		`authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", `+
		`claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`)
	a := readAnswer(401, h, []byte(`{"error":{"code":"InvalidAuthenticationToken","message":"Continuous access `+
		`evaluation resulted in challenge"}}`), time.Now())
	u, _ := connected(t, fakeprovider.NewGraph(fakeprovider.GraphOptions{}), nil)
	if f := u.refused(a); f.rule.Name != "claims" || !strings.Contains(f.rule.Fix, "Conditional Access") ||
		strings.Contains(f.reply.Text, "eyJ") {
		t.Errorf("%s: %s", f.rule.Name, f.reply)
	}
}

// Graph says of messages with recipients that they have none, now and then: the same is tried once more.
func TestNoRecipientsIsTriedAgainOnce(t *testing.T) {
	said := fakeprovider.GraphFault{Status: 400, Code: "ErrorInvalidRecipients",
		Message: "A message can't be sent because it contains no recipients."}
	for name, c := range map[string]struct {
		step  string
		times int
		class mail.Class
	}{
		"MIME":           {fakeprovider.StepSendMail, 1, mail.Delivered},
		"draft":          {fakeprovider.StepSend, 1, mail.Delivered},
		"MIME, lasting":  {fakeprovider.StepSendMail, 0, mail.MessageFault},
		"draft, lasting": {fakeprovider.StepSend, 0, mail.MessageFault},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
				f := said
				f.Step, f.Times = c.step, c.times
				fake.Fail(f)
				u, _ := uploading(t, fake, nil)
				tx := to(t, "", "a@example.org")
				if c.step == fakeprovider.StepSend {
					tx = largeMail(t, "", []string{"a@example.org"}, textPart("text/plain", "hello"),
						file8("application/pdf", "scan.pdf", octets(3_000_001)))
				}
				r := only(t, send(t, u, tx))
				if r.Class != c.class || len(fake.Drafts()) != 0 || status(u) != upstream.Ready {
					t.Errorf("%s: %s", r.Class, r.Reply)
				}
				if want := map[mail.Class]int{mail.Delivered: 1,
					mail.MessageFault: 2}[c.class]; fake.Answered(400) != want {
					t.Errorf("%d refusals", fake.Answered(400))
				}
			})
		})
	}
}

// A firewall that answers for the host of the files says nothing about the mailbox's rights, nor about small mail.
func TestFirewallBeforeTheUploadHost(t *testing.T) {
	for _, code := range []int{302, 403, 405, 407, 451, 511} {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{UploadHost: "outlook.office.com"})
		fake.Fail(fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: code,
			Body: "<html><title>Blocked by Example Wall</title></html>"})
		u, _ := uploading(t, fake, nil)
		r := only(t, send(t, u, largeMail(t, "", []string{"a@example.org"}, textPart("text/plain", "hello"),
			file8("application/pdf", "scan.pdf", octets(3_000_001)))))
		if r.Class != mail.AccountFault && r.Class != mail.BackPressure || r.Stage == mail.StageAuth ||
			len(fake.Drafts()) != 0 {
			t.Errorf("%d: %s at %s, %d drafts", code, r.Class, r.Stage, len(fake.Drafts()))
		}
		if !strings.Contains(r.Reply.Text, "outlook.office.com is not reached") ||
			!strings.Contains(r.Reply.Text, "Example Wall") || strings.Contains(r.Reply.Text+r.Note, "Mail.") {
			t.Errorf("%d: %s; %s", code, r.Reply, r.Note)
		}
		if status(u) != upstream.Ready {
			t.Errorf("%d: small mail waits", code)
		}
	}
}
