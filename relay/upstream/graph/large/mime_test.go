package large

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"postern/mail"
)

func TestReadParameters(t *testing.T) {
	for in, want := range map[string]struct{ value, name, param string }{
		`text/plain; charset=utf-8`:                {"text/plain", "charset", "utf-8"},
		`TEXT/Plain ; Charset="UTF-8" (a comment)`: {"text/plain", "charset", "UTF-8"},
		`text/plain (comment); charset=us-ascii (Plain)`: {"text/plain", "charset",
			"us-ascii"},
		`application/pdf; name=Scan 1.pdf; x=y`: {"application/pdf", "name",
			"Scan 1.pdf"},
		`application/pdf; name="a \"b\".pdf"`: {"application/pdf", "name",
			`a "b".pdf`},
		`application/pdf; name="C:\scans\a.pdf"`: {"application/pdf", "name",
			`C:\scans\a.pdf`},
		`attachment; filename="=?utf-8?B?TcO8bGxlci5wZGY=?="`: {"attachment", "filename",
			"Müller.pdf"},
		`attachment; filename==?iso-8859-1?Q?M=FCller.pdf?=`: {"attachment", "filename",
			"Müller.pdf"},
		"attachment; filename=\"M\xfcller.pdf\"": {"attachment", "filename",
			"Müller.pdf"},
		`attachment; filename="Müller.pdf"`: {"attachment", "filename",
			"Müller.pdf"},
		`attachment; filename*=UTF-8''M%C3%BCller%20%28b%29.pdf`: {"attachment", "filename",
			"Müller (b).pdf"},
		`attachment; filename*=iso-8859-1'de'M%FCller.pdf; filename="x"`: {"attachment", "filename",
			"Müller.pdf"},
		`attachment; filename*=windows-1251'ru'%CF%F0.pdf`: {"attachment", "filename",
			"Пр.pdf"},
		`attachment; filename*1="b.pdf"; filename*0="a"`: {"attachment", "filename",
			"ab.pdf"},
		`attachment; filename*0*=utf-8''%C3; filename*1*=%BC; filename*2="%41.pdf"`: {"attachment", "filename",
			"ü%41.pdf"},
		`attachment; filename*0=a; filename*2=c`:        {"attachment", "filename", "a"},
		`attachment; filename*=klingon''a%C3%BC`:        {"attachment", "filename", "aü"},
		`attachment; filename*99999999="x"; filename=y`: {"attachment", "filename", "y"},
		`attachment;;; =; filename`:                     {"attachment", "filename", ""},
		`attachment; filename="open`:                    {"attachment", "filename", "open"},
		`multipart/mixed; boundary="a b;c=d"; boundary=x`: {"multipart/mixed", "boundary",
			"a b;c=d"},
		``: {"", "x", ""},
	} {
		value, params := readParameters(in)
		if value != want.value || params[want.name] != want.param {
			t.Errorf("%q is %q with %q", in, value, params)
		}
	}
}

// The header of a part may be as long as the message. A few octets of it must not take up kilobytes, nor stay.
func TestParametersAreBounded(t *testing.T) {
	for _, unit := range []string{"*199=x;", "*=x;", "=;"} {
		var long strings.Builder
		for i := range int64(200_000) {
			long.WriteString("a" + itoa(i) + unit)
		}
		m := messageOf(t, "From: a@example.com\r\nContent-Type: multipart/mixed; "+
			"boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n"+
			"Content-Type: image/png; "+long.String()+"\r\nContent-ID: <"+long.String()+">\r\n\r\nhello\r\n--b--\r\n")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		top, err := m.measure(func(*entity, io.Reader) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if took := (after.TotalAlloc - before.TotalAlloc) / uint64(m.Size); took > 20 {
			t.Errorf("%s: %d octets were allocated for each octet of the message", unit, took)
		}
		got := top.parts[1]
		if n := len(got.params); n > maxParameters || got.media != "image/png" {
			t.Errorf("%s: %s with %d parameters", unit, got.media, n)
		}
		if got.cid != "" {
			t.Errorf("%s: a Content-ID of %d octets", unit, len(got.cid))
		}
	}
}

func TestToUTF8(t *testing.T) {
	for _, c := range []struct{ label, in, want string }{
		{"", "h\xe9", "hé"}, {"", "hé", "hé"}, {"US-ASCII", "\x80", "€"}, {"utf-8", "a\xffb", "a\uFFFDb"},
		{"iso-8859-15", "\xa4", "€"},
		{"windows-1251", "\xcf\xf0", "Пр"}, {"shift_jis", "\x93\xfa", "日"}, {"iso-2022-jp", "\x1b$BF|\x1b(B", "日"},
		{"gb2312", "\xc8\xd5", "日"}, {"UTF-16LE", "a\x00", "a"},
	} {
		if got, ok := toUTF8(c.label, []byte(c.in)); !ok || got != c.want {
			t.Errorf("%s: %q, %v", c.label, got, ok)
		}
	}
	if _, ok := toUTF8("klingon", nil); ok {
		t.Error("klingon is known")
	}
}

func TestBase64Reader(t *testing.T) {
	long := bytes.Repeat([]byte("\x00\x01\xff and so on"), 8_000)
	lines := slices.Collect(slices.Chunk(base64.StdEncoding.AppendEncode(nil, long), 76))
	for name, c := range map[string]struct{ in, want string }{
		"plain":          {"aGVsbG8=", "hello"},
		"two paddings":   {"aGVsbA==", "hell"},
		"lines":          {"aGV\r\nsbG\r\n8=\r\n", "hello"},
		"noise":          {"a!G V-s\tb\x00G8=", "hello"},
		"no padding":     {"aGVsbG8", "hello"},
		"half an octet":  {"aGVsbG8hI", "hello!"},
		"two pieces":     {"aGVsbG8=aGVsbA==aGk", "hellohellhi"},
		"only paddings":  {"====", ""},
		"nothing":        {"", ""},
		"much":           {string(bytes.Join(lines, []byte("\r\n"))), string(long)},
		"much in pieces": {strings.Repeat("aGVsbG8=\r\n", 10_000), strings.Repeat("hello", 10_000)},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r },
			"octet by octet": iotest.OneByteReader, "with the end": iotest.DataErrReader} {
			got, err := io.ReadAll(&base64Reader{r: wrap(strings.NewReader(c.in))})
			if err != nil || string(got) != c.want {
				t.Errorf("%s, %s: %d octets, %v", name, how, len(got), err)
			}
		}
	}
}

// messageOf reads a message for a test.
func messageOf(t testing.TB, text string) *Message {
	t.Helper()
	h, n, err := mail.SplitHeader([]byte(text))
	if err != nil {
		t.Skip(err)
	}
	return &Message{
		Header: h, Size: int64(len(text) - n), Addresses: bracketed,
		Key:  func(a mail.Address) string { return strings.ToLower(a.String()) },
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text[n:])), nil },
	}
}

// bracketed finds addresses as package graph does, in simple lists. A comma outside of them leaves it in doubt.
func bracketed(list string) (sure []mail.Address, clear bool) {
	rest := list
	for _, word := range inBrackets.FindAllString(list, -1) {
		a, err := mail.ParseAddress(strings.Trim(word, "<>"))
		if err != nil {
			return nil, false
		}
		sure = append(sure, a)
		rest = strings.Replace(rest, word, "", 1)
	}
	return sure, !strings.ContainsAny(rest, ",@<")
}

var inBrackets = regexp.MustCompile(`<[^<>]*>`)

func TestRebuild(t *testing.T) {
	for name, c := range map[string]struct {
		head, body string
		text       string
		html       bool
		files      string // name type size, by comma; i for inline
		refused    string
	}{
		"no mime":    {"", "hello\r\n", "hello\r\n", false, "", ""},
		"8 bit":      {"", "h\xe9\r\n", "hé\r\n", false, "", ""},
		"html":       {"Content-Type: text/html\r\n", "<p>", "<p>", true, "", ""},
		"named text": {"Content-Type: text/plain; name=a.txt\r\n", "hello", "hello", false, "", ""},
		"a file": {"Content-Type: application/pdf\r\nContent-Disposition: attachment; " +
			"filename=\"../etc/a.pdf\"\r\n", "%PDF", "", false, "a.pdf application/pdf 4", ""},
		"odd type": {"Content-Type: pdf\r\n", "%PDF", "", false,
			"attachment-1.bin application/octet-stream 4", ""},
		"old type": {"Content-Type: text\r\n", "hello", "hello", false, "", ""},
		"a text file": {"Content-Type: text/plain; charset=utf-16\r\nContent-Disposition: attachment\r\n",
			"hello", "", false, "attachment-1.txt text/plain 5", ""},
		"mixed": {mixed, "--b\r\n\r\nhello\r\n--b\r\nContent-Type: image/png; " +
			"name=a.png\r\n\r\nPNG\r\n--b--\r\n", "hello", false, "a.png image/png 3", ""},
		"no end": {mixed, "--b\r\n\r\nhello\r\n--b\r\nContent-Type: image/png; name=a.png\r\n\r\nPNG\r\n",
			"hello", false, "a.png image/png 5", ""},
		"cut in a line": {mixed, "--b\r\n\r\nhello\r\n--b\r\nContent-Type: image/png\r\n\r\nPNG", "hello", false,
			"attachment-1.png image/png 3", ""},
		"pre- and postamble": {mixed, "not seen\r\n--b\r\n\r\nhello\r\n--b--\r\nnot seen\r\n--b\r\n\r\nnot seen\r\n",
			"hello", false, "", ""},
		"two texts": {mixed, "--b\r\n\r\nhello\r\n--b\r\n\r\nfooter\r\n--b--\r\n", "hello\r\nfooter", false,
			"", ""},
		"text then html": {mixed, "--b\r\n\r\nhello\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n",
			"hello", false, "attachment-1.html text/html 3", ""},
		"blank then html": {mixed, "--b\r\n\r\n \r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n",
			"<p>", true, "", ""},
		"csv": {mixed, "--b\r\nContent-Type: text/csv\r\n\r\na,b\r\n--b--\r\n", "", false,
			"attachment-1.csv text/csv 3", ""},
		"unseen image": {mixed, "--b\r\nContent-Type: text/html\r\n\r\n<img " +
			"src=cid:y>\r\n--b\r\nContent-Type: image/gif\r\nContent-ID: <x>\r\n\r\nG\r\n--b--\r\n", "<img src=cid:y>",
			true, "attachment-1.gif image/gif 1", ""},
		"seen image": {mixed, "--b\r\nContent-Type: text/html\r\n\r\n<img " +
			"src=cid:x>\r\n--b\r\nContent-Type: image/gif\r\nContent-ID: <x>\r\n\r\nG\r\n--b--\r\n", "<img src=cid:x>",
			true, "i attachment-1.gif image/gif 1", ""},
		"root by start": {"Content-Type: multipart/related; boundary=b; start=\"<r>\"\r\n",
			"--b\r\nContent-Type: text/plain\r\nContent-ID: <x>\r\n\r\nnot it\r\n--b\r\nContent-Type: " +
				"text/html\r\nContent-ID: <r>\r\n\r\n<p>\r\n--b--\r\n",
			"<p>", true, "attachment-1.txt text/plain 6", ""},
		"three versions": {"Content-Type: multipart/alternative; boundary=b\r\n",
			"--b\r\n\r\npoor\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b\r\nContent-Type: " +
				"text/x-amp-html\r\n\r\n<amp>\r\n--b--\r\n", "<p>", true, "", ""},
		"plain last": {"Content-Type: multipart/alternative; boundary=b\r\n",
			"--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b\r\n\r\npoor\r\n--b--\r\n", "<p>", true, "", ""},
		"apple": {"Content-Type: multipart/alternative; boundary=a\r\n", "--a\r\n\r\npoor\r\n--a\r\n" + mixed +
			"\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b\r\nContent-Type: application/pdf; " +
			"name=a.pdf\r\n\r\nP\r\n--b--\r\n--a--\r\n",
			"<p>", true, "a.pdf application/pdf 1", ""},
		"a file among versions": {"Content-Type: multipart/alternative; boundary=b\r\n",
			"--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\n\r\nP\r\n--b--\r\n", "hello", false,
			"attachment-1.pdf application/pdf 1", ""},
		"digest": {"Content-Type: multipart/digest; boundary=b\r\n",
			"--b\r\n\r\nSubject: x\r\n\r\nhello\r\n--b--\r\n", "", false, "attachment-1.eml message/rfc822 19", ""},
		"forwarded, signed": {mixed, "--b\r\nContent-Type: message/rfc822; name=letter\r\n\r\nContent-Type: " +
			"multipart/signed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n\r\n--b--\r\n", "", false,
			"letter.eml message/rfc822 63", ""},
		"report": {"Content-Type: multipart/report; boundary=b\r\n",
			"--b\r\n\r\nit failed\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed\r\n--b--\r\n",
			"", false, "", "multipart/report"},
		"s/mime by name": {"Content-Type: application/octet-stream; name=smime.p7m\r\n", "x", "", false, "",
			"S/MIME"},
		"s/mime among files": {mixed, "--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/octet-stream; " +
			"name=old.p7m\r\n\r\nx\r\n--b--\r\n", "hello", false, "old.p7m application/octet-stream 1", ""},
		"a calendar":    {"Content-Type: text/calendar\r\n", "BEGIN:VCALENDAR", "", false, "", "invitation"},
		"not automatic": {"Auto-Submitted: no\r\n", "hello\r\n", "hello\r\n", false, "", ""},
		"no boundary":   {"Content-Type: multipart/mixed\r\n", "hello", "", false, "", "has no boundary"},
		"no parts":      {mixed, "hello", "", false, "", "has no parts"},
		"bad part":      {mixed, "--b\r\nthis is no field\r\n\r\nhello\r\n--b--\r\n", "", false, "", "damaged"},
		// the first b ends the second
		"too deep": {mixed, strings.Repeat("--b\r\n"+mixed+"\r\n", maxDepth+2), "", false, "",
			"has no parts"},
		"many parts": {mixed, strings.Repeat("--b\r\n\r\nx\r\n", maxEntities+2), "", false, "",
			"more than 1000 parts"},
		"many files": {mixed, strings.Repeat("--b\r\nContent-Type: image/png\r\n\r\nx\r\n", maxFiles+1), "",
			false, "", "251 files"},
	} {
		t.Run(name, func(t *testing.T) {
			m := messageOf(t, "From: a@example.com\r\n"+c.head+"\r\n"+c.body)
			b, err := m.rebuild()
			if c.refused != "" {
				if refused(err) == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var files []string
			for _, n := range b.order {
				a := b.files[n]
				files = append(files, strings.TrimSpace(map[bool]string{true: "i "}[a.inline]+a.name+" "+a.media+" "+
					itoa(a.size)))
			}
			if b.text != c.text || b.html != c.html || strings.Join(files, ",") != c.files {
				t.Errorf("text %q html %v files %q", b.text, b.html, files)
			}
		})
	}
}

func TestPeople(t *testing.T) {
	for in, want := range map[string]string{
		"a@example.com":                             "=a@example.com",
		"A B <a@example.com>, c@example.com":        "A B=a@example.com =c@example.com",
		"=?iso-8859-1?q?M=FCller?= <a@example.com>": "Müller=a@example.com",
		"M\xfcller <a@example.com>":                 "Müller=a@example.com",
		"Scanner, 2nd floor <a@example.com>":        "refused",
		"\"Scanner, 2nd floor\" <a@example.com>":    "Scanner, 2nd floor=a@example.com",
		"Scanner [2] <a@example.com>":               "=a@example.com",
		"=?klingon?q?x?= <a@example.com>":           "=a@example.com",
		"a@example.com <b@example.com>":             "refused",
		"nobody":                                    "refused", "<a@example.com": "refused", "": "",
	} {
		list, err := messageOf(t, "\r\n").people(in)
		var got []string
		for _, p := range list {
			got = append(got, p.Email.Name+"="+p.Email.Address)
		}
		if text := strings.Join(got, " "); err == nil && text != want || err != nil && want != "refused" {
			t.Errorf("%q: %q, %v", in, text, err)
		}
	}
}

// draftOf rebuilds a message and makes its draft.
func draftOf(t *testing.T, m *Message) (*Rebuilt, *Draft) {
	t.Helper()
	b, err := m.rebuild()
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.Draft(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, d
}

// What a draft has no room for is named, and what Graph would refuse is not put into it.
func TestFieldsOfADraft(t *testing.T) {
	m := messageOf(t, "From: A <a@example.com>\r\nSender: b@example.com\r\nReply-To: c@example.com\r\nReply-To: "+
		"d@example.com\r\nX-MSMail-Priority: Low\r\n"+
		"Disposition-Notification-To: A <A@example.com>\r\nX-1: 1\r\nX-2: 2\r\nX-1: "+
		"again\r\nX-MS-Exchange-Organization-SCL: -1\r\nX-3: \xff\r\nX-4: 4\r\nX-5: 5\r\nX-6: 6\r\nX-7: 7\r\n"+
		"X-8: "+strings.Repeat("x", maxOwnValue+1)+"\r\nComments: x\r\nReceived: by x\r\nDate: today\r\nKeywords: "+
		"y\r\n\r\nhello")
	b, d := draftOf(t, m)
	if got := strings.Join(d.left, " "); got != "X-1 X-MS-Exchange-Organization-SCL X-3 X-7 X-8 Comments Keywords" {
		t.Errorf("left %s", got)
	}
	if len(d.Headers) != 5 || d.Headers[4].Value != "6" || d.Importance != "low" || !d.ReadReceipt ||
		d.Sender.Email.Address != "b@example.com" || len(d.ReplyTo) != 2 || d.From.Email.Name != "A" {
		t.Errorf("%+v", d)
	}
	d.left = append(d.left, "a", "b")
	if note := d.Note(); !strings.Contains(note, "and 1 more") || strings.Contains(note, ", b") {
		t.Errorf("%q", note)
	}
	for _, head := range []string{"From: a@example.com, b@example.com\r\n", "From: a@example.com\r\nSender: x, y\r\n",
		"From: a@example.com\r\nReply-To: <<\r\n"} {
		b.m = messageOf(t, head+"\r\nhello")
		if _, err := b.Draft(nil); refused(err) == nil {
			t.Errorf("%q: %v", head, err)
		}
	}
}

// What kept programs from answering is said in the way that Graph takes.
func TestAutomaticMailSaysSo(t *testing.T) {
	for head, want := range map[string]string{
		"":                                   "",
		"Auto-Submitted: no\r\n":             "",
		"Auto-Submitted: auto-generated\r\n": "All",
		"Auto-Submitted: AUTO-GENERATED (scan); x=y\r\n":                                 "All",
		"Precedence: bulk\r\n":                                                           "All",
		"Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: OOF, AutoReply\r\n": "OOF, AutoReply",
	} {
		m := messageOf(t, "From: a@example.com\r\n"+head+"\r\nhello")
		_, d := draftOf(t, m)
		got := ""
		for _, h := range d.Headers {
			if h.Name == suppressField {
				got += h.Value
			}
		}
		if got != want {
			t.Errorf("%q: %q", head, got)
		}
	}
}

// refused is the refusal that an error must be.
func refused(err error) *Refusal {
	r, _ := errors.AsType[*Refusal](err)
	return r
}

const mixed = "Content-Type: multipart/mixed; boundary=b\r\n"

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Exchange makes a header of these texts: nobody may write a line of it.
func TestNoLineEndsInADraft(t *testing.T) {
	const word = "=?utf-8?Q?a=0D=0ABcc=3A_eve=40example.net?="
	m := messageOf(t, "From: "+word+" <a@example.com>\r\nTo: "+strings.Replace(word, "=40", "",
		1)+" <b@example.org>\r\nReply-To: "+word+" <c@example.org>\r\nSubject: "+word+"\r\n\r\nhello\r\n")
	d, err := (&Rebuilt{m: m}).Draft([]Recipient{{To: mail.Address{Local: "b", Domain: "example.org"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{d.Subject, d.From.Email.Name, d.ReplyTo[0].Email.Name, d.To[0].Email.Name} {
		if !strings.HasPrefix(got, "a  Bcc: eve") {
			t.Errorf("%q", got)
		}
	}
}

// Depth is bounded with boundaries of their own.
func TestDepthIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range maxDepth + 1 {
		b.WriteString("Content-Type: multipart/mixed; boundary=b" + itoa(int64(i)) + "x\r\n\r\n--b" + itoa(int64(i)) +
			"x\r\n")
	}
	m := messageOf(t, "From: a@example.com\r\n"+b.String()+"\r\nhello\r\n")
	if _, err := m.rebuild(); refused(err) == nil || !strings.Contains(err.Error(), "20 deep") {
		t.Errorf("%v", err)
	}
}

// Whatever a message is like, taking it apart ends, stays within its bounds, and finds the same octets each time.
func FuzzRebuild(f *testing.F) {
	f.Add([]byte(mixed + "\r\n--b\r\n\r\nhello\r\n--b\r\nContent-Type: image/png; name*0*=utf-8''%C3; " +
		"name*1*=%BC\r\nContent-Transfer-Encoding: base64\r\n\r\naGk=\r\n--b--\r\n"))
	f.Add([]byte("Content-Type: multipart/alternative; boundary=b\r\nSubject: =?utf-8?q?=C3=BC?=\r\nX-Priority: " +
		"1\r\n\r\n--b\r\n\r\npoor\r\n--b\r\nContent-Type: text/html; " +
		"charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>=FC\r\n--b--\r\n"))
	f.Add([]byte("Content-Type: multipart/related; boundary=\"b c\"; start=\"<x>\"\r\n\r\n--b c\r\nContent-ID: " +
		"<x>\r\n\r\nhello"))
	f.Add([]byte("Content-Type: application/pdf; name=\"=?x?y?z?=\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\nA=B==C"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := messageOf(t, "From: a@example.com\r\n"+string(b))
		r, err := m.rebuild()
		if err != nil {
			if refused(err) == nil {
				t.Errorf("%v", err)
			}
			return
		}
		if len(r.order) > maxFiles || len(r.order) != len(r.files) || len(r.text) > maxText ||
			!utf8.ValidString(r.text) {
			t.Errorf("%d files, %d octets of text", len(r.order), len(r.text))
		}
		sizes := map[int]int64{}
		if err := m.walk(func(e *entity, decoded io.Reader) error {
			n, err := io.Copy(io.Discard, decoded)
			sizes[e.number] = n
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, n := range r.order {
			a := r.files[n]
			if a.size != sizes[n] || a.name == "" || !utf8.ValidString(a.name) ||
				strings.ContainsAny(a.name, "/\\\x00\r\n") || len(a.name) > maxFileName {
				t.Errorf("file %q of %d octets, %d at the second look", a.name, a.size, sizes[n])
			}
		}
		d, err := r.Draft(nil)
		if err != nil {
			return
		}
		if len(d.To)+len(d.Cc)+len(d.Bcc) != 0 || len(d.Headers) > maxOwnFields {
			t.Errorf("%+v", d)
		}
		if _, err := marshal(d); err != nil {
			t.Error(err)
		}
	})
}

// Whatever base64 is well formed decodes as the standard library does.
func FuzzBase64Reader(f *testing.F) {
	f.Add([]byte("hello"), 3)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		text := base64.StdEncoding.EncodeToString(b)
		n = max(1, min(n, len(text)))
		got, err := io.ReadAll(&base64Reader{r: io.MultiReader(strings.NewReader(text[:min(n, len(text))]),
			strings.NewReader("\r\n"), strings.NewReader(text[min(n, len(text)):]))})
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%q, %v", got, err)
		}
	})
}
