package graph

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

// octets are reproducible and do not compress.
func octets(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

// part is what a test puts into a multipart.
type part struct {
	header  map[string]string
	content []byte
}

func file64(media, name string, content []byte) part {
	return part{map[string]string{"Content-Type": media, "Content-Disposition": `attachment; filename="` + name + `"`,
		"Content-Transfer-Encoding": "base64"}, lines64(content)}
}

// file8 has no transfer encoding (RFC 3030 binary), which is quick.
func file8(media, name string, content []byte) part {
	p := file64(media, name, nil)
	p.header["Content-Transfer-Encoding"], p.content = "binary", content
	return p
}

func lines64(b []byte) []byte {
	text := base64.StdEncoding.AppendEncode(nil, b)
	return bytes.Join(slices.Collect(slices.Chunk(text, 76)), []byte("\r\n"))
}

// assemble writes a multipart and returns its Content-Type.
func assemble(t testing.TB, kind string, parts ...part) (contentType string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		h := textproto.MIMEHeader{}
		for k, v := range p.header {
			h.Set(k, v)
		}
		pw, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = pw.Write(p.content)
	}
	w.Close()
	return "multipart/" + kind + `; boundary="` + w.Boundary() + `"`, b.Bytes()
}

func textPart(media, text string) part {
	return part{map[string]string{"Content-Type": media}, []byte(text)}
}

func nested(t testing.TB, kind string, parts ...part) part {
	ct, body := assemble(t, kind, parts...)
	return part{map[string]string{"Content-Type": ct}, body}
}

// largeMail makes a transaction of a multipart/mixed.
func largeMail(t testing.TB, header string, recipients []string, parts ...part) upstream.Transaction {
	t.Helper()
	ct, body := assemble(t, "mixed", parts...)
	tx := to(t, header, recipients...)
	tx.Content = &onDisk{octets: "From: " + office + "\r\n" + header + "MIME-Version: 1.0\r\nContent-Type: " + ct +
		"\r\n\r\n" + string(body)}
	return tx
}

func uploading(t testing.TB, fake *fakeprovider.Graph, change func(*Options)) (*Upstream, *tokens) {
	t.Helper()
	return connected(t, fake, func(o *Options) {
		o.LargeMail, o.MaxMessageSize = UploadLarge, DefaultUploadSize
		if change != nil {
			change(o)
		}
	})
}

// scan is a message with a PDF of 8 MB.
func scan(t testing.TB) (upstream.Transaction, []byte) {
	pdf := octets(8_000_000)
	return largeMail(t, "To: zoe@example.net\r\nSubject: scan\r\n", []string{"zoe@example.net"},
		textPart("text/plain", "see the file"), file8("application/pdf", "scan.pdf", pdf)), pdf
}

func TestLargeMailIsRebuilt(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{UploadHost: "outlook.office.com"})
	u, _ := uploading(t, fake, nil)
	pdf, photo, letter, inner := octets(8_000_001), octets(40_000), octets(2_999_999),
		[]byte("From: x@example.org\r\nSubject: inner\r\n\r\nhello\r\n")
	html := `<p>Gr` + "\xfc" + `&szlig;e <img src="cid:logo@1"> & "more"</p>`
	tx := largeMail(t, "To: \"Zo\xc3\xab\" <zoe@example.net>, max@example.net\r\nCc: =?iso-8859-1?q?M=FCller?= "+
		"<mueller@example.net>\r\nReply-To: answers@example.com\r\n"+
		"Subject: =?utf-8?b?U2Nhbm5lcsO8YmVyc2ljaHQ=?=\r\nMessage-ID: <1@example.com>\r\nX-Priority: 1 "+
		"(Highest)\r\nX-Job: 7\r\nAuto-Submitted: auto-generated\r\nIn-Reply-To: <0@example.com>\r\n",
		[]string{"zoe@example.net", "max@example.net", "mueller@example.net", "blind@example.org"},
		nested(t, "alternative",
			textPart("text/plain", "poorer"),
			nested(t, "related",
				part{map[string]string{"Content-Type": "text/html; charset=iso-8859-1"}, []byte(html)},
				part{map[string]string{"Content-Type": "image/png; name=logo.png",
					"Content-Transfer-Encoding": "base64", "Content-ID": "<logo@1>", "Content-Disposition": "inline"},
					lines64(photo)},
			)),
		file64("application/pdf", "scan.pdf", pdf),
		part{map[string]string{"Content-Type": "application/octet-stream",
			"Content-Disposition":       "attachment; filename*0*=utf-8''Brief%20an%20; filename*1*=M%C3%BCller.bin",
			"Content-Transfer-Encoding": "base64"}, lines64(letter)},
		part{map[string]string{"Content-Type": "message/rfc822"}, inner},
	)
	r := only(t, send(t, u, tx))
	if r.Class != mail.Delivered || r.Stage != mail.StageDot || !strings.HasPrefix(r.Reply.Text, "HTTP 202") {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	if !strings.Contains(r.Note, "rebuilt") || !strings.Contains(r.Note, "Auto-Submitted, In-Reply-To") {
		t.Errorf("note %q", r.Note)
	}
	arrivals := fake.Arrivals()
	if len(arrivals) != 1 || len(fake.Drafts()) != 0 {
		t.Fatalf("%d arrivals, %d drafts", len(arrivals), len(fake.Drafts()))
	}
	a, d := arrivals[0], arrivals[0].Draft
	if want := []string{"blind@example.org", "max@example.net", "mueller@example.net",
		"zoe@example.net"}; !slices.Equal(sorted(a.Recipients), want) {
		t.Errorf("recipients %v", a.Recipients)
	}
	if d.Subject != "Scannerübersicht" || d.Body.ContentType != "html" ||
		d.Body.Content != `<p>Grü&szlig;e <img src="cid:logo@1"> & "more"</p>` {
		t.Errorf("subject %q, body %q", d.Subject, d.Body)
	}
	if d.From.EmailAddress.Address != office || len(d.ToRecipients) != 2 ||
		d.ToRecipients[0].EmailAddress.Name != "Zoë" || len(d.CcRecipients) != 1 ||
		d.CcRecipients[0].EmailAddress.Name != "Müller" || len(d.BccRecipients) != 1 ||
		d.ReplyTo[0].EmailAddress.Address != "answers@example.com" {
		t.Errorf("%+v", d)
	}
	if d.Importance != "high" || d.InternetMessageID != "<1@example.com>" || len(d.Headers) != 2 ||
		d.Headers[0].Name != "X-Auto-Response-Suppress" || d.Headers[1].Name != "X-Job" || d.Headers[1].Value != "7" {
		t.Errorf("%s %s %+v", d.Importance, d.InternetMessageID, d.Headers)
	}
	for i, want := range []fakeprovider.GraphAttachment{
		{Name: "logo.png", ContentType: "image/png", ContentID: "logo@1", IsInline: true, Content: photo},
		{Name: "scan.pdf", ContentType: "application/pdf", Content: pdf, Uploaded: true},
		{Name: "Brief an Müller.bin", ContentType: "application/octet-stream", Content: letter},
		{Name: "attachment-4.eml", ContentType: "message/rfc822", Content: inner},
	} {
		if i >= len(d.Attachments) {
			t.Fatalf("%d attachments", len(d.Attachments))
		}
		got := d.Attachments[i]
		if got.Name != want.Name || got.ContentType != want.ContentType || got.ContentID != want.ContentID ||
			got.IsInline != want.IsInline || got.Uploaded != want.Uploaded || !bytes.Equal(got.Content, want.Content) {
			t.Errorf("attachment %d is %q %q %q inline %v uploaded %v, %d octets", i, got.Name, got.ContentType,
				got.ContentID, got.IsInline, got.Uploaded, len(got.Content))
		}
	}
	if s := u.States()[0]; s.Status != upstreamReady {
		t.Errorf("%+v", s)
	}
}

// A scanner may send the file and nothing else.
func TestLargeMailOfOnePart(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, nil)
	pdf := octets(4_000_000)
	tx := to(t, "", "a@example.org")
	tx.Content = mail.BytesContent("From: " + office + "\r\nContent-Type: application/pdf; name=Scan " +
		"1.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + string(lines64(pdf)))
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	d := fake.Arrivals()[0].Draft
	if len(d.Attachments) != 1 || d.Attachments[0].Name != "Scan 1.pdf" ||
		!bytes.Equal(d.Attachments[0].Content, pdf) || d.Body.Content != "" || len(d.BccRecipients) != 1 {
		t.Errorf("%d attachments, body %q", len(d.Attachments), d.Body)
	}
}

// Small mail goes as it is, whatever large_mail says.
func TestSmallMailIsNotRebuilt(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, nil)
	tx := to(t, "To: a@example.org\r\n", "a@example.org")
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered || r.Note != "" {
		t.Fatalf("%+v", r)
	}
	if a := fake.Arrivals()[0]; a.Draft != nil || string(a.MIME) != text("To: a@example.org\r\n") {
		t.Errorf("%+v", a)
	}
}

// What a rebuilt message would falsify is refused before Graph is asked.
func TestLargeMailThatIsNotRebuilt(t *testing.T) {
	filler := file8("application/pdf", "scan.pdf", octets(3_100_000))
	plain := textPart("text/plain", "hello")
	for name, c := range map[string]struct {
		header string
		parts  []part
		says   string
	}{
		"signed": {"", []part{nested(t, "signed", plain, textPart("application/pgp-signature", "x")),
			filler}, "multipart/signed"},
		"encrypted": {"", []part{nested(t, "encrypted", plain, textPart("application/octet-stream", "x")),
			filler}, "multipart/encrypted"},
		"s/mime": {"", []part{plain, file64("application/pkcs7-mime", "smime.p7m", octets(100)), filler},
			"S/MIME"},
		"pgp inline": {"", []part{textPart("text/plain", "-----BEGIN PGP SIGNED MESSAGE-----\r\n"), filler},
			"PGP"},
		"invitation, a file": {"",
			[]part{plain, {map[string]string{"Content-Type": "text/calendar; method=REQUEST; name=invite.ics",
				"Content-Disposition": "attachment; filename=invite.ics"}, []byte("BEGIN:VCALENDAR")}, filler},
			"invitation"},
		"invitation, deep": {"", []part{nested(t, "alternative", plain, nested(t, "related",
			textPart("text/html", "<p>"), textPart("text/calendar", "BEGIN:VCALENDAR"))), filler}, "invitation"},
		"a report": {"Auto-Submitted: auto-replied\r\n", []part{nested(t, "report", plain,
			textPart("message/delivery-status", "Action: failed\r\n")), filler}, "Auto-Submitted"},
		"a nested report": {"", []part{nested(t, "report", plain,
			textPart("message/delivery-status", "Action: failed\r\n")), filler}, "multipart/report"},
		"a receipt's part": {"", []part{plain, textPart("message/disposition-notification", "Disposition: x\r\n"),
			filler}, "disposition-notification"},
		"a complaint": {"", []part{plain, textPart("message/feedback-report", "Feedback-Type: abuse\r\n"),
			filler}, "feedback-report"},
		"automatic reply": {"Auto-Submitted: Auto-Replied (vacation); owner=x\r\n", []part{plain, filler},
			"programs would answer each other"},
		"automatic, new": {"Auto-Submitted: auto-notified\r\n", []part{plain, filler}, "auto-notified"},
		"mailing list":   {"LIST-ID: <x.example.com>\r\n", []part{plain, filler}, "LIST-ID"},
		"newsletter": {"List-Unsubscribe: <https://example.com>\r\n", []part{plain, filler},
			"List-Unsubscribe"},
		"redirected": {"Resent-To: a@example.org\r\nResent-From: x@example.com\r\n", []part{plain, filler},
			"Resent-To"},
		"a Mac's file": {"", []part{plain, nested(t, "appledouble", textPart("application/applefile", "x"),
			textPart("image/png", "x")), filler}, "appledouble"},
		"old pgp": {"", []part{textPart("application/pgp; format=mime", "x"), filler}, "PGP"},
		"invitation": {"", []part{nested(t, "alternative", plain,
			textPart("text/calendar; method=REQUEST", "BEGIN:VCALENDAR")), filler}, "invitation"},
		"versions": {"", []part{nested(t, "alternative", nested(t, "mixed", plain),
			nested(t, "mixed", plain)), filler}, "several versions"},
		"fragment": {"", []part{textPart("message/partial; id=x; number=1; total=2", "x"), filler},
			"message/partial"},
		"encoding": {"", []part{plain, {map[string]string{"Content-Transfer-Encoding": "x-uuencode"},
			[]byte("x")}, filler}, "x-uuencode"},
		"charset": {"", []part{textPart("text/plain; charset=klingon", "x"), filler}, "klingon"},
		"text": {"", []part{textPart("text/plain", strings.Repeat("0123456789abcde\r\n", 200_000))},
			"its text alone"},
		"control": {"", []part{{map[string]string{"Content-Type": "image/png",
			"Content-Transfer-Encoding": "quoted-printable"}, []byte("\x01")}, filler}, "cannot be decoded"},
		"authors": {"Reply-To: <<<\r\n", []part{plain, filler}, "Reply-To"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			u, _ := uploading(t, fake, nil)
			r := only(t, send(t, u, largeMail(t, c.header, []string{"a@example.org"}, c.parts...)))
			if r.Class != mail.MessageFault || r.Reply.Code != 554 || !strings.Contains(r.Reply.Text, c.says) ||
				fake.Requests() != 0 {
				t.Errorf("%s after %d requests: %s", r.Class, fake.Requests(), r.Reply)
			}
		})
	}
}

func TestLargeMailOverTheLimit(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, func(o *Options) { o.MaxMessageSize = 5_000_000 })
	tx, _ := scan(t)
	if r := only(t, send(t, u, tx)); r.Reply.Code != 552 || !strings.Contains(r.Reply.Text,
		"at most 5000000 (max_message_size)") || fake.Requests() != 0 {
		t.Errorf("%s", r.Reply)
	}
	u, _ = connected(t, fake, nil)
	if r := only(t, send(t, u, tx)); r.Reply.Code != 552 || !strings.Contains(r.Reply.Text, `large_mail = "upload"`) {
		t.Errorf("%s", r.Reply)
	}
}

// Without Mail.ReadWrite large mail waits, alone: what is small goes on, and Graph is not asked for each large message.
func TestLargeMailWithoutItsPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		access := fakeprovider.AccessDenied
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{ReadWrite: func(string,
			string) fakeprovider.Access {
			return access
		}})
		u, k := uploading(t, fake, nil)
		tx, _ := scan(t)
		r := only(t, send(t, u, tx))
		if r.Class != mail.AccountFault || r.Stage == mail.StageAuth || !strings.Contains(r.Reply.Text,
			"Mail.ReadWrite") || !strings.Contains(r.Note, `-Role "Application Mail.ReadWrite"`) {
			t.Errorf("%s at %s: %s; %s", r.Class, r.Stage, r.Reply, r.Note)
		}
		if k.drops() != 1 || status(u) != upstreamReady {
			t.Errorf("%d drops, %s", k.drops(), status(u))
		}
		asked := fake.Requests()
		if r := only(t, send(t, u, tx)); r.Class != mail.AccountFault || r.RetryAfter < time.Minute ||
			fake.Requests() != asked {
			t.Errorf("%s, %s, %d requests", r.Class, r.RetryAfter, fake.Requests()-asked)
		}
		if r := only(t, send(t, u, to(t, "", "a@example.org"))); r.Class != mail.Delivered {
			t.Errorf("small mail: %s", r.Reply)
		}
		access = fakeprovider.AccessGranted
		u.TryAgain()
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
			t.Errorf("after the right was given: %s", r.Reply)
		}
		access = fakeprovider.AccessDenied
		send(t, u, tx)
		access = fakeprovider.AccessGranted
		time.Sleep(account.PauseFirst * 2)
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
			t.Errorf("after the pause: %s", r.Reply)
		}
	})
}

// Whatever fails on the way is judged by the rules of sendMail, leaves no draft, and is uncertain only behind the last
// request.
func TestUploadsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		fault     fakeprovider.GraphFault
		class     mail.Class
		status    upstream.Status
		uncertain bool
		says      string
	}{
		"draft throttled": {fakeprovider.GraphFault{Step: fakeprovider.StepDraft, Status: 429,
			Code: "ApplicationThrottled", RetryAfter: "30"}, mail.BackPressure, upstreamBackingOff, false, "429"},
		"draft lost": {fakeprovider.GraphFault{Step: fakeprovider.StepDraft, Drop: true}, mail.Deferral,
			upstreamReady, false, "closed"},
		"draft 500": {fakeprovider.GraphFault{Step: fakeprovider.StepDraft, Status: 500}, mail.Deferral,
			upstreamReady, false, "500"},
		"draft odd": {fakeprovider.GraphFault{Step: fakeprovider.StepDraft, Status: 201, Body: "[]"},
			mail.Deferral, upstreamReady, false, "without id"},
		"file too big": {fakeprovider.GraphFault{Step: fakeprovider.StepSession, Status: 400,
			Code: "ErrorMessageSizeExceeded"}, mail.MessageFault, upstreamReady, false, "SizeExceeded"},
		"no address": {fakeprovider.GraphFault{Step: fakeprovider.StepSession, Status: 201,
			Body: `{"uploadUrl":"http://example.com/"}`}, mail.Deferral, upstreamReady, false, "without address"},
		"draft is gone": {fakeprovider.GraphFault{Step: fakeprovider.StepSession, Status: 404,
			Code: "ErrorItemNotFound"}, mail.Deferral, upstreamReady, false, "draft is gone"},
		"small denied": {fakeprovider.GraphFault{Step: fakeprovider.StepAttach, Status: 403,
			Code: "ErrorAccessDenied"}, mail.AccountFault, upstreamReady, false, "Mail.ReadWrite"},
		"small full": {fakeprovider.GraphFault{Step: fakeprovider.StepAttach, Status: 507}, mail.AccountFault,
			upstreamPaused, false, "507"},
		"put expired": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: 401,
			Code: "InvalidAuthenticationToken"}, mail.Deferral, upstreamReady, false, "no use any more"},
		"put throttled": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: 429, RetryAfter: "30"},
			mail.BackPressure, upstreamBackingOff, false, "429"},
		"put never": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Drop: true}, mail.Deferral,
			upstreamReady, false, "closed"},
		"put backwards": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: 200,
			Body: `{"nextExpectedRanges":["9999999"]}`}, mail.Deferral, upstreamReady, false, "no use"},
		"put beyond": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: 200,
			Body: `{"nextExpectedRanges":["3290000"]}`}, mail.Deferral, upstreamReady, false, "octet 3290000"},
		"put stuck": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: 200,
			Body: `{"nextExpectedRanges":["0"]}`}, mail.Deferral, upstreamReady, false, "no progress"},
		"put done early": {fakeprovider.GraphFault{Step: fakeprovider.StepPut, Status: 201}, mail.Deferral,
			upstreamReady, false, "201"},
		"send as": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Status: 403,
			Code: "ErrorSendAsDenied"}, mail.AccountFault, upstreamReady, false, "SendAs"},
		"send denied": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Status: 403,
			Code: "ErrorAccessDenied"}, mail.AccountFault, upstreamPaused, false, "Denied"},
		"send gone": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Status: 404,
			Code: "ErrorItemNotFound"}, mail.Deferral, upstreamReady, false, "draft is gone"},
		"send throttled": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Status: 429}, mail.BackPressure,
			upstreamBackingOff, false, "429"},
		"send lost": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Drop: true}, mail.Deferral,
			upstreamReady, true, "may have been sent"},
		"send 504": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Status: 504, AfterWork: true},
			mail.Deferral, upstreamReady, true, "504"},
		"send 200": {fakeprovider.GraphFault{Step: fakeprovider.StepSend, Status: 200}, mail.Deferral,
			upstreamReady, true, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			fake.Fail(c.fault)
			u, _ := uploading(t, fake, nil)
			tx := largeMail(t, "To: a@example.org\r\n", []string{"a@example.org", "b@example.org"},
				textPart("text/plain", "hello"), file64("image/png", "small.png", octets(1000)),
				file8("application/pdf", "scan.pdf", octets(3_300_000)))
			r := only(t, send(t, u, tx))
			if r.Class != c.class || r.Uncertain != c.uncertain || !strings.Contains(r.Reply.Text, c.says) ||
				r.Class.Permanent() != r.Reply.Permanent() {
				t.Errorf("%s, uncertain %v: %s", r.Class, r.Uncertain, r.Reply)
			}
			if status(u) != c.status {
				t.Errorf("the mailbox is %s", status(u))
			}
			if n := len(fake.Drafts()); n != 0 {
				t.Errorf("%d drafts are left", n)
			}
			if c.fault.RetryAfter == "30" && r.RetryAfter != 30*time.Second {
				t.Errorf("retry after %s", r.RetryAfter)
			}
			if n := len(fake.Arrivals()); n > 0 && !c.uncertain {
				t.Errorf("%d arrivals", n)
			}
		})
	}
}

// A file that is cut on its way goes on where it was cut.
func TestUploadsGoOn(t *testing.T) {
	for name, faults := range map[string][]fakeprovider.GraphFault{
		"nothing arrived": {{Step: fakeprovider.StepPut, Drop: true, Times: 1}},
		"some arrived":    {{Step: fakeprovider.StepPut, Keep: 1_000_001, Drop: true, Times: 1}},
		"all, no answer":  {{Step: fakeprovider.StepPut, AfterWork: true, Drop: true, Times: 1}},
		"503 and 502": {{Step: fakeprovider.StepPut, Status: 502, Times: 1},
			{Step: fakeprovider.StepPut, Status: 503, Keep: 1, Times: 1}},
		"expired token": {{Step: fakeprovider.StepAttach, Status: 401, Code: "InvalidAuthenticationToken",
			Times: 1}},
		"of the last step": {{Step: fakeprovider.StepSend, Status: 401, Code: "InvalidAuthenticationToken", Times: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
			fake.Fail(faults...)
			u, _ := uploading(t, fake, nil)
			pdf := octets(8_000_000)
			tx := largeMail(t, "", []string{"a@example.org"}, textPart("text/plain", "hello"),
				file64("image/png", "small.png", octets(1000)), file8("application/pdf", "scan.pdf", pdf))
			if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
				t.Fatalf("%s: %s", r.Class, r.Reply)
			}
			a := fake.Arrivals()
			if len(a) != 1 || len(a[0].Draft.Attachments) != 2 || !bytes.Equal(a[0].Draft.Attachments[1].Content, pdf) {
				t.Errorf("%d arrivals, or the file differs", len(a))
			}
		})
	}
}

// The session's end is believed: the next attempt begins anew.
func TestUploadSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{SessionLife: time.Minute})
		fake.Fail(fakeprovider.GraphFault{Step: fakeprovider.StepPut, Delay: 2 * time.Minute, Drop: true, Times: 1})
		u, _ := uploading(t, fake, nil)
		tx, pdf := scan(t)
		if r := only(t, send(t, u, tx)); r.Class != mail.Deferral || r.Uncertain || len(fake.Drafts()) != 0 {
			t.Errorf("%s: %s", r.Class, r.Reply)
		}
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered ||
			!bytes.Equal(fake.Arrivals()[0].Draft.Attachments[0].Content, pdf) {
			t.Errorf("%s: %s", r.Class, r.Reply)
		}
	})
}

// A shutdown before the draft is sent ends the upload there and then; behind it the answer is waited for.
func TestUploadAndShutdown(t *testing.T) {
	for name, c := range map[string]struct {
		step  string
		class mail.Class
	}{
		"during a file": {fakeprovider.StepPut, mail.Deferral},
		"while sending": {fakeprovider.StepSend, mail.Delivered},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
				fake.Fail(fakeprovider.GraphFault{Step: c.step, Delay: 5 * time.Second, Status: 202, AfterWork: true,
					Times: 1})
				u, _ := uploading(t, fake, nil)
				tx, _ := scan(t)
				s := reserve(t, u)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				r := s.Send(ctx, tx)[0]
				if r.Class != c.class || r.Uncertain || len(fake.Drafts()) != 0 {
					t.Errorf("%s, uncertain %v, %d drafts: %s", r.Class, r.Uncertain, len(fake.Drafts()), r.Reply)
				}
			})
		})
	}
}

// Content that cannot be read, or that has changed, sends nothing.
func TestUploadOfUnreadableContent(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, nil)
	tx, _ := scan(t)
	disk := tx.Content.(*onDisk)
	disk.cut = len(disk.octets) - 1000
	if r := only(t, send(t, u, tx)); r.Class != mail.Deferral || r.Reply.Enhanced != "4.3.0" ||
		len(fake.Arrivals()) != 0 || fake.Requests() != 0 {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
	tx.Content = &rotting{onDisk{octets: disk.octets}}
	if r := only(t, send(t, u, tx)); r.Class != mail.Deferral || r.Reply.Enhanced != "4.3.0" ||
		len(fake.Arrivals()) != 0 || len(fake.Drafts()) != 0 {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
}

// rotting can be read four times: the header, the structure, the text, and then not to its end.
type rotting struct{ onDisk }

func (r *rotting) Open() (io.ReadCloser, error) {
	if r.opens == 3 {
		r.cut = len(r.octets) / 2
	}
	return r.onDisk.Open()
}

// Nobody but those of the envelope gets a rebuilt message, in as many drafts as Graph needs.
func TestLargeMailToMany(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, func(o *Options) { o.MaxRecipients = 3 })
	var all []string
	for i := range 7 {
		all = append(all, fmt.Sprintf("p%d@example.org", i))
	}
	results := send(t, u, largeMail(t, "To: undisclosed-recipients:;\r\n", all, textPart("text/plain", "hello"),
		file8("application/pdf", "scan.pdf", octets(3_000_001))))
	for _, r := range results {
		if r.Class != mail.Delivered {
			t.Fatalf("%s: %s", r.Class, r.Reply)
		}
	}
	var got []string
	for _, a := range fake.Arrivals() {
		got = append(got, a.Recipients...)
		if len(a.Draft.ToRecipients)+len(a.Draft.CcRecipients) != 0 {
			t.Errorf("%+v", a.Draft)
		}
	}
	if !slices.Equal(sorted(got), all) || len(fake.Arrivals()) != 3 {
		t.Errorf("%v in %d messages", got, len(fake.Arrivals()))
	}
	r := only(t, send(t, u, largeMail(t, "To: stranger@example.org\r\n", []string{"a@example.org"},
		file8("application/pdf", "scan.pdf", octets(3_000_001)))))
	if r.Reply.Code != 554 || !strings.Contains(r.Reply.Text, "stranger@") {
		t.Errorf("%s", r.Reply)
	}
}

// Ours would be the signature of another message.
func TestLargeMailHasNoSignature(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{})
	u, _ := uploading(t, fake, nil)
	tx, _ := scan(t)
	tx.Prefix = func(context.Context) ([]byte, error) { return []byte("DKIM-Signature: x\r\n"), nil }
	if r := only(t, send(t, u, tx)); r.Class != mail.MessageFault || !strings.Contains(r.Reply.Text, "DKIM") ||
		fake.Requests() != 0 {
		t.Errorf("%s: %s", r.Class, r.Reply)
	}
}

// watched counts the largest request, and what goes to whom.
type watched struct {
	rt      http.RoundTripper
	largest int64
	puts    []string
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	w.largest = max(w.largest, r.ContentLength)
	if r.Method == http.MethodPut {
		w.puts = append(w.puts, r.Header.Get("Content-Range"))
		if r.URL.Host != "outlook.office.com" || r.Header.Get("Authorization") != "" {
			return nil, fmt.Errorf("a token for %s", r.URL.Host)
		}
	}
	return w.rt.RoundTrip(r)
}

func TestUploadsAreInPieces(t *testing.T) {
	fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{UploadHost: "outlook.office.com"})
	w := &watched{rt: testkit.Transport(fake)}
	u, _ := uploading(t, fake, func(o *Options) { o.Transport = w })
	tx, _ := scan(t)
	if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
		t.Fatalf("%s: %s", r.Class, r.Reply)
	}
	if want := []string{"bytes 0-3276799/8000000", "bytes 3276800-6553599/8000000",
		"bytes 6553600-7999999/8000000"}; !slices.Equal(w.puts, want) {
		t.Errorf("%q", w.puts)
	}
	if w.largest > 4_000_000 {
		t.Errorf("a request of %d octets", w.largest)
	}
}

// A fault of ours in the one large message that tries again leaves the next one its turn.
func TestPanicInALargeMessageEndsItsProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		access, broken := fakeprovider.AccessDenied, false
		fake := fakeprovider.NewGraph(fakeprovider.GraphOptions{ReadWrite: func(string,
			string) fakeprovider.Access {
			return access
		}})
		u, _ := uploading(t, fake, func(o *Options) {
			drop := o.DropToken
			o.DropToken = func(mailbox, token string) {
				if broken {
					panic("in the source of tokens")
				}
				drop(mailbox, token)
			}
		})
		tx, _ := scan(t)
		send(t, u, tx)
		time.Sleep(account.PauseFirst * 2)
		broken = true
		func() {
			s := reserve(t, u)
			defer s.Release()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			s.Send(t.Context(), tx)
		}()
		access = fakeprovider.AccessGranted
		if r := only(t, send(t, u, tx)); r.Class != mail.Delivered {
			t.Errorf("then: %s, %s", r.Class, r.Reply)
		}
	})
}
