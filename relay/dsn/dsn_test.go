package dsn

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
)

var update = flag.Bool("update", false, "write the goldens anew")

func address(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

var zone = time.FixedZone("", 3600)

const aMessage = "Received: from client by relay.example.com\r\n" +
	"From: Ann <ann@example.com>\r\n" +
	"To: bob@example.net\r\n" +
	"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n from Ann\r\n" +
	"Message-ID: <1@example.com>\r\n" +
	"\r\n" +
	"Hello Bob\r\n"

func base(kind Kind) Report {
	return Report{
		Kind: kind, ReportingMTA: "relay.example.com", From: address("postmaster@relay.example.com"),
		To:        address("ann@example.com"),
		MessageID: "0abc@relay.example.com", Now: time.Date(2026, 11, 22, 12, 0, 0, 0, zone), ID: "0123456789abcdef",
		EnvID: "QQ+314159", Arrival: time.Date(2026, 11, 22, 10, 0, 0, 0, zone), Original: mail.BytesContent(aMessage),
		Recipients: []Recipient{{
			Final: address("bob@example.net"), ORcpt: "rfc822;bobby@example.org",
			Reply: mail.R(550, "5.1.1", "no such user\nsee https://example.net/help"), RemoteMTA: "mx.example.net",
			LastAttempt: time.Date(2026, 11, 22, 11, 59, 0, 0, zone),
		}},
	}
}

// reports is every shape of a report, each with a golden.
func reports() map[string]Report {
	failure := base(Failure)
	failure.Recipients = append(failure.Recipients,
		Recipient{Final: address(`"carl x"@example.net`), Reply: mail.R(452, "4.2.2", "mailbox full"),
			RemoteMTA: "mx.example.net", Expired: true},
		Recipient{Final: address("dora@example.net"),
			Reply: mail.R(550, "5.6.7", "the upstream does not offer SMTPUTF8")},
		Recipient{Final: address("eve@example.net")})
	full := base(Failure)
	full.Ret = mail.RetFull
	delay := base(Delay)
	delay.Recipients[0].Reply = mail.R(451, "4.7.1", "greylisted, come back")
	delay.Recipients[0].WillRetryUntil = time.Date(2026, 11, 24, 10, 0, 0, 0, zone)
	success := base(Success)
	success.Recipients[0].Reply = mail.R(250, "2.0.0", "queued as 42")
	utf8 := base(Failure)
	utf8.Recipients[0].Final = address("jürgen@bücher.example")
	utf8.Recipients[0].ORcpt = "utf-8;jürgen@bücher.example"
	utf8.Recipients[0].Reply.Text = "unbekannter Empfänger"
	utf8.Original = mail.BytesContent("Subject: Grüße\r\nFrom: ann@example.com\r\n\r\nx\r\n")
	hostile := base(Failure)
	hostile.EnvID = "a\r\nX-Evil: 1"
	hostile.Recipients[0].ORcpt = "rfc822;x\r\n\r\n--evil"
	hostile.Recipients[0].RemoteMTA = "mx\r\nX-Evil: 2"
	hostile.Recipients[0].Reply = mail.R(550, "5.1.1\r\nX-Evil: 3", "%s",
		"bad\r\n\r\n--=_boundary\r\nX-Evil: 4\x00\x1b[31m "+strings.Repeat("long", 800)+" grüße")
	bare := base(Failure)
	bare.Original, bare.EnvID, bare.ID = nil, "", "x"
	bare.Recipients = []Recipient{{Final: address("bob@example.net")}}
	unclear := base(Unclear)
	unclear.Recipients[0].Reply, unclear.Recipients[0].RemoteMTA, unclear.Recipients[0].Doubts = mail.R(451, "4.4.2",
		"mx.example.net closed the connection; the message may have been sent"), "", 3
	unclear.Recipients = append(unclear.Recipients, Recipient{Final: address("carl@example.net"), Doubts: 1})
	doubtful := base(Failure)
	doubtful.Recipients[0].Doubts = 1
	return map[string]Report{
		"unclear": unclear, "failure-doubtful": doubtful,
		"failure": failure, "failure-full": full, "delay": delay, "success": success, "utf8": utf8, "hostile": hostile,
		"bare": bare,
	}
}

func make1(t testing.TB, r Report) []byte {
	t.Helper()
	b, err := Make(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldens(t *testing.T) {
	for name, r := range reports() {
		got := make1(t, r)
		if !bytes.Equal(got, make1(t, r)) {
			t.Errorf("%s: two reports of the same differ", name)
		}
		golden := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// parsed is a report as a reader sees it.
type parsed struct {
	header         netmail.Header
	reportType     string
	types          []string
	text, original string
	message        textproto.MIMEHeader
	recipients     []textproto.MIMEHeader
}

func parse(t testing.TB, b []byte) parsed {
	t.Helper()
	checkOctets(t, b)
	m, err := netmail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" {
		t.Fatalf("type %s, %v", kind, err)
	}
	p := parsed{header: m.Header, reportType: params["report-type"]}
	mr := multipart.NewReader(m.Body, params["boundary"])
	for i := 0; ; i++ {
		part, err := mr.NextRawPart()
		if err == io.EOF {
			return p
		}
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = part
		if part.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			r = quotedprintable.NewReader(part)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		p.types = append(p.types, part.Header.Get("Content-Type"))
		switch i {
		case 0:
			p.text = string(body)
		case 1:
			p.message, p.recipients = parseStatus(t, string(body))
		case 2:
			p.original = string(body)
		default:
			t.Fatalf("part %d: %q", i, body)
		}
	}
}

// checkOctets: lines end with CRLF, are short and seven-bit.
func checkOctets(t testing.TB, b []byte) {
	t.Helper()
	if !bytes.HasSuffix(b, []byte("\r\n")) {
		t.Fatal("no line end at the end")
	}
	for i, line := range strings.Split(string(b), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") || !mail.IsASCII(line) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
}

func parseStatus(t testing.TB, s string) (message textproto.MIMEHeader, recipients []textproto.MIMEHeader) {
	t.Helper()
	for i, block := range strings.Split(strings.TrimSuffix(s, "\r\n"), "\r\n\r\n") {
		h, _, err := mail.ReadHeader([]byte(strings.TrimSuffix(block, "\r\n") + "\r\n"))
		if err != nil {
			t.Fatalf("block %q: %v", block, err)
		}
		fields := make(textproto.MIMEHeader)
		for _, f := range h.Fields {
			fields.Add(f.Name, f.Value())
		}
		if i == 0 {
			message = fields
		} else {
			recipients = append(recipients, fields)
		}
	}
	return message, recipients
}

func TestFailure(t *testing.T) {
	p := parse(t, make1(t, reports()["failure"]))
	for name, want := range map[string]string{
		"From": "Mail Delivery System <postmaster@relay.example.com>", "To": "<ann@example.com>",
		"Auto-Submitted": "auto-replied",
		"Date":           "Sun, 22 Nov 2026 12:00:00 +0100", "Message-Id": "<0abc@relay.example.com>",
		"Mime-Version": "1.0",
	} {
		if got := p.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := strings.Join(p.types, " "); p.reportType != "delivery-status" ||
		got != "text/plain; charset=utf-8 message/delivery-status text/rfc822-headers" {
		t.Errorf("types %s %s", p.reportType, got)
	}
	for name, want := range map[string]string{
		"Reporting-Mta": "dns; relay.example.com", "Original-Envelope-Id": "QQ+314159",
		"X-Postern-Id": "0123456789abcdef",
		"Arrival-Date": "Sun, 22 Nov 2026 10:00:00 +0100",
	} {
		if got := p.message.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	want := []map[string]string{
		{"Final-Recipient": "rfc822; bob@example.net", "Original-Recipient": "rfc822; bobby@example.org",
			"Action": "failed", "Status": "5.1.1",
			"Remote-Mta":        "dns; mx.example.net",
			"Diagnostic-Code":   "smtp; 550 5.1.1 no such user see https://example.net/help",
			"Last-Attempt-Date": "Sun, 22 Nov 2026 11:59:00 +0100", "Will-Retry-Until": ""},
		{"Final-Recipient": `rfc822; "carl x"@example.net`, "Action": "failed", "Status": "5.4.7",
			"Diagnostic-Code": "smtp; 452 4.2.2 mailbox full", "Last-Attempt-Date": ""},
		{"Final-Recipient": "rfc822; dora@example.net", "Status": "5.6.7", "Remote-Mta": "",
			"Diagnostic-Code": "x-postern; 550 5.6.7 the upstream does not offer SMTPUTF8"},
		{"Final-Recipient": "rfc822; eve@example.net", "Status": "5.0.0", "Diagnostic-Code": "",
			"Original-Recipient": ""},
	}
	if len(p.recipients) != len(want) {
		t.Fatalf("%d recipients, want %d", len(p.recipients), len(want))
	}
	for i, fields := range want {
		for name, value := range fields {
			if got := p.recipients[i].Get(name); got != value {
				t.Errorf("recipient %d: %s: %q, want %q", i, name, got, value)
			}
		}
	}
	flat := strings.Join(strings.Fields(p.text), " ")
	for _, want := range []string{
		`Your message "Grüße from Ann" of Sun, 22 Nov 2026 10:00:00 +0100 could not be delivered to: ` +
			`<bob@example.net> (you wrote to bobby@example.org)`,
		"The server mx.example.net said: 550 5.1.1 no such user see https://example.net/help There is no such mailbox.",
		`<"carl x"@example.net> The server mx.example.net said: 452 4.2.2 mailbox full It was tried again and again ` +
			`until its time was up.`,
		"<dora@example.net> The relay says: 550 5.6.7", "cannot take addresses with letters beyond ASCII",
		"<eve@example.net> It will not be tried again.",
		"under the ID 0123456789abcdef. The header of your message is attached.",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("%q is missing in\n%s", want, p.text)
		}
	}
	if want := aMessage[:strings.Index(aMessage, "\r\n\r\n")+2]; p.original != want {
		t.Errorf("returned %q, want %q", p.original, want)
	}
}

func TestDelayAndSuccess(t *testing.T) {
	p := parse(t, make1(t, reports()["delay"]))
	r := p.recipients[0]
	if r.Get("Action") != "delayed" || r.Get("Status") != "4.7.1" ||
		r.Get("Will-Retry-Until") != "Tue, 24 Nov 2026 10:00:00 +0100" ||
		!strings.Contains(p.header.Get("Subject"), "Delayed") || !strings.Contains(p.text, "do not send it again") {
		t.Errorf("delay: %v\n%s", r, p.text)
	}
	p = parse(t, make1(t, reports()["success"]))
	r = p.recipients[0]
	if r.Get("Action") != "relayed" || r.Get("Status") != "2.0.0" || !strings.Contains(p.text, "passed on") ||
		strings.Contains(p.text, "could not") {
		t.Errorf("success: %v\n%s", r, p.text)
	}
}

func TestReturnedContent(t *testing.T) {
	header := aMessage[:strings.Index(aMessage, "\r\n\r\n")+2]
	large := aMessage + strings.Repeat("more text\r\n", MaxFull/10)
	many := strings.Repeat("X-Long: "+strings.Repeat("x", 980)+"\r\n", 100) + aMessage
	for _, c := range []struct {
		name, original string
		ret            mail.Ret
		kind           Kind
		contentType    string
		want           string
	}{
		{"default", aMessage, "", Failure, "text/rfc822-headers", header},
		{"RET=HDRS", aMessage, mail.RetHeaders, Failure, "text/rfc822-headers", header},
		{"RET=FULL", aMessage, mail.RetFull, Failure, "message/rfc822", aMessage},
		{"RET=FULL on a delay", aMessage, mail.RetFull, Delay, "text/rfc822-headers", header},
		{"RET=FULL, large", large, mail.RetFull, Failure, "text/rfc822-headers", header},
		{"RET=FULL, 8-bit body", aMessage + "grüße\r\n", mail.RetFull, Failure, "text/rfc822-headers", header},
		{"RET=FULL, long line", aMessage + strings.Repeat("x", 999) + "\r\n", mail.RetFull, Failure,
			"text/rfc822-headers", header},
		{"RET=FULL, longest line", aMessage + strings.Repeat("x", 998) + "\r\n", mail.RetFull, Failure,
			"message/rfc822", aMessage + strings.Repeat("x", 998) + "\r\n"},
		{"RET=FULL, NUL", aMessage + "\x00\r\n", mail.RetFull, Failure, "text/rfc822-headers", header},
		{"RET=FULL, bare CR", aMessage + "a\rb\r\n", mail.RetFull, Failure, "text/rfc822-headers", header},
		{"large header", many, "", Failure, "text/rfc822-headers",
			strings.Repeat("X-Long: "+strings.Repeat("x", 980)+"\r\n", maxHeader/990)},
		{"8-bit header", "Subject: Grüße\r\nFrom: a@b\r\n\r\n", "", Failure, "text/rfc822-headers; charset=utf-8",
			"Subject: Grüße\r\nFrom: a@b\r\n"},
		{"header in no charset", "Subject: Gr\xfc\xdfe\r\n\r\n", "", Failure,
			"text/rfc822-headers; charset=unknown-8bit", "Subject: Gr\xfc\xdfe\r\n"},
		{"no header", "\r\nbody\r\n", "", Failure, "text/rfc822-headers", ""},
		{"header only", "A: b\r\n", "", Failure, "text/rfc822-headers", "A: b\r\n"},
	} {
		for _, content := range []mail.Content{mail.BytesContent(c.original), stream(c.original)} {
			r := base(c.kind)
			r.Original, r.Ret = content, c.ret
			p := parse(t, make1(t, r))
			if len(p.types) != 3 || p.types[2] != c.contentType || p.original != c.want {
				t.Errorf("%s: %v, %d octets, want %s, %d", c.name, p.types, len(p.original), c.contentType, len(c.want))
			}
		}
	}
}

// stream is content that is not in memory.
type stream string

func (s stream) Size() int64                  { return int64(len(s)) }
func (s stream) Bytes() []byte                { return nil }
func (s stream) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(s))), nil }

type broken struct {
	stream
	size int64
	err  error
}

func (b broken) Size() int64 { return b.size }
func (b broken) Open() (io.ReadCloser, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.stream.Open()
}

func TestErrors(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"null reverse-path": func(r *Report) { r.To = mail.Address{} },
		"no recipients":     func(r *Report) { r.Recipients = nil },
		"no kind":           func(r *Report) { r.Kind = "" },
		"unreadable":        func(r *Report) { r.Original = broken{size: 1, err: errors.New("gone")} },
		"cut":               func(r *Report) { r.Original = broken{stream: aMessage, size: 10000} },
		"no message":        func(r *Report) { r.Original = mail.BytesContent("no header") },
	} {
		r := base(Failure)
		change(&r)
		if b, err := Make(r); err == nil || b != nil {
			t.Errorf("%s: a report of %d octets", name, len(b))
		}
	}
}

// TestUTF8 has the forms of RFC 6533 in seven bits.
func TestUTF8(t *testing.T) {
	r := reports()["utf8"]
	if r.NeedsUTF8() {
		t.Error("an ASCII reader needs SMTPUTF8")
	}
	p := parse(t, make1(t, r))
	if got := strings.Join(p.types, " "); p.reportType != "global-delivery-status" ||
		got != "text/plain; charset=utf-8 message/global-delivery-status message/global-headers" {
		t.Errorf("types %s %s", p.reportType, got)
	}
	f := p.recipients[0]
	if f.Get("Final-Recipient") != "utf-8; jürgen@bücher.example" ||
		f.Get("Original-Recipient") != "utf-8; jürgen@bücher.example" ||
		f.Get("Diagnostic-Code") != "smtp; 550 5.1.1 unbekannter Empfänger" ||
		!strings.HasPrefix(p.original, "Subject: Grüße\r\n") {
		t.Errorf("%v %q", f, p.original)
	}
	// Without an address that needs it, the report stays ASCII.
	r = base(Failure)
	r.Recipients[0].Reply.Text = "unbekannter Empfänger"
	p = parse(t, make1(t, r))
	if p.reportType != "delivery-status" || !strings.HasSuffix(p.recipients[0].Get("Diagnostic-Code"), "Empf?nger") ||
		!strings.Contains(p.text, "Empfänger") {
		t.Errorf("%v\n%s", p.recipients, p.text)
	}
	r.To = address("änn@example.com")
	if b := make1(t, r); !r.NeedsUTF8() || !bytes.Contains(b, []byte("To: <änn@example.com>\r\n")) {
		t.Errorf("reader with UTF-8 address: %s", b)
	}
	// A domain has a form in ASCII, with which the report passes everywhere.
	r.To, r.From = address("ann@bücher.example"), address("postmaster@bücher.example")
	if b := make1(t, r); r.NeedsUTF8() || !bytes.Contains(b, []byte("To: <ann@xn--bcher-kva.example>\r\n")) ||
		!bytes.Contains(b, []byte("From: Mail Delivery System <postmaster@xn--bcher-kva.example>\r\n")) {
		t.Errorf("reader in a domain of other letters: %s", b)
	}
}

func TestHostileTexts(t *testing.T) {
	b := make1(t, reports()["hostile"])
	p := parse(t, b)
	if len(p.recipients) != 1 || len(p.types) != 3 || p.header.Get("X-Evil") != "" || p.message.Get("X-Evil") != "" ||
		p.recipients[0].Get("X-Evil") != "" {
		t.Errorf("injected:\n%s", b)
	}
	if bytes.ContainsRune(b, 0x1b) {
		t.Error("an escape sequence came through")
	}
	if p.recipients[0].Get("Status") != "5.0.0" {
		t.Errorf("status %q", p.recipients[0].Get("Status"))
	}
}

// TestBoundary: an original that contains the delimiter gets another one.
func TestBoundary(t *testing.T) {
	r := base(Failure)
	r.Ret = mail.RetFull
	first := parse(t, make1(t, r)).header.Get("Content-Type")
	boundary := first[strings.Index(first, "=_") : strings.Index(first, "=_")+26]
	r.Original = mail.BytesContent(aMessage + "--" + boundary + "--\r\nX\r\n")
	p := parse(t, make1(t, r))
	if p.header.Get("Content-Type") == first || !strings.HasSuffix(p.original, "X\r\n") {
		t.Errorf("the delimiter %s stands in the content", boundary)
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		kind     Kind
		enhanced string
		expired  bool
		want     string
	}{
		{Failure, "5.1.1", false, "5.1.1"}, {Failure, "", false, "5.0.0"}, {Failure, "4.2.2", false, "5.0.0"},
		{Failure, "4.2.2", true, "5.4.7"},
		{Delay, "4.2.2", false, "4.2.2"}, {Delay, "5.2.2", false, "4.0.0"}, {Success, "2.1.5", false, "2.1.5"},
		{Success, "", false, "2.0.0"},
		{Failure, "5.1", false, "5.0.0"}, {Failure, "5.1.1000", false, "5.0.0"}, {Failure, "5.1.+1", false, "5.0.0"},
		{Failure, "5.1.1.1", false, "5.0.0"},
		{Failure, "5..1", false, "5.0.0"}, {Failure, "5.7.515", false, "5.7.515"},
	} {
		if got := status(c.kind,
			Recipient{Reply: mail.Reply{Enhanced: c.enhanced}, Expired: c.expired}); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.kind, c.enhanced, got, c.want)
		}
	}
}

func TestAdvice(t *testing.T) {
	for enhanced, want := range map[string]string{
		"5.1.1": "no such mailbox", "5.1.10": "takes no mail", "5.1.9": "typing errors", "5.2.2": "full",
		"5.3.4": "too large", "5.6.9": "simpler form",
		"5.7.1": "by its rules", "5.7.26": "by its rules", "5.0.0": "ask your administrator",
		"": "ask your administrator", "5.4.4": "No mail server",
	} {
		if got := advice(Failure, Recipient{Reply: mail.Reply{Enhanced: enhanced}}); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", enhanced, got, want)
		}
	}
	if got := advice(Delay, Recipient{}); !strings.Contains(got, "tried again") {
		t.Errorf("delay without an end: %q", got)
	}
}

const pythonParse = `
import email, email.policy, json, sys, base64
out = {}
for name, raw in json.load(sys.stdin).items():
    m = email.message_from_bytes(base64.b64decode(raw), policy=email.policy.default)
    parts = list(m.iter_parts())
    blocks = [] if "global" in parts[1].get_content_type() else [dict(b.items()) for b in parts[1].get_payload()]
    out[name] = {"type": m.get_content_type(), "report": m.get_param("report-type"),
                 "parts": [p.get_content_type() for p in parts], "blocks": [[k.lower() for k in b] for b in blocks],
                 "defects": [repr(d) for p in m.walk() for d in p.defects]}
json.dump(out, sys.stdout)
`

// TestPython has every report read by Python's email package.
func TestPython(t *testing.T) {
	python := testkit.Need(t, "python3")
	all := make(map[string][]byte)
	for name, r := range reports() {
		all[name] = make1(t, r)
	}
	job, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", pythonParse)
	cmd.Stdin = bytes.NewReader(job)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var seen map[string]struct {
		Type, Report   string
		Parts, Defects []string
		Blocks         [][]string
	}
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatal(err)
	}
	for name, r := range reports() {
		s := seen[name]
		parts := 3
		if r.Original == nil {
			parts = 2
		}
		if s.Type != "multipart/report" || len(s.Parts) != parts || len(s.Defects) != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		if name == "utf8" {
			continue
		}
		if len(s.Blocks) != 1+len(r.Recipients) || s.Blocks[0][0] != "reporting-mta" ||
			strings.Contains(strings.Join(s.Blocks[1], " "), "evil") {
			t.Errorf("%s: blocks %v", name, s.Blocks)
		}
	}
}

func FuzzMake(f *testing.F) {
	f.Add("failure", "5.1.1", "no such user", "rfc822;a@b", "env", "mx", "Subject: x\r\n\r\nbody\r\n", true)
	f.Add("delay", "4.0.0", "a\r\n\r\n--=_x\r\n", "x;\r\n", "\r\n", "\r\n.\r\n", "A: b\r\n", false)
	f.Add("success", "\xff", strings.Repeat("ü", 3000), "", "\x00", "", "\r\n", true)
	f.Fuzz(func(t *testing.T, kind, enhanced, text, orcpt, envID, host, original string, full bool) {
		r := base(Kind(kind))
		if full {
			r.Ret = mail.RetFull
		}
		r.EnvID, r.ID, r.MessageID, r.Original = envID, host, envID, mail.BytesContent(original)
		r.Recipients[0].ORcpt, r.Recipients[0].RemoteMTA = orcpt, host
		r.Recipients[0].Reply = mail.R(550, enhanced, "%s", text)
		b, err := Make(r)
		if err != nil {
			return
		}
		p := parse(t, b)
		if len(p.types) != 3 || len(p.recipients) != 1 ||
			p.recipients[0].Get("Final-Recipient") != "rfc822; bob@example.net" || len(p.recipients[0]["Action"]) != 1 {
			t.Fatalf("%v %v", p.types, p.recipients)
		}
	})
}
