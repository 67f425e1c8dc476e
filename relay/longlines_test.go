package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	netsmtp "net/smtp"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/keyring"
	"postern/relay/sign"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// addKey makes a DKIM key for example.com and returns its record.
func (r *rig) addKey() map[string]string {
	r.t.Helper()
	signer, pem, err := sign.Generate(sign.RSA2048)
	if err != nil {
		r.t.Fatal(err)
	}
	k := sign.Key{Domain: "example.com", Selector: "s", Signer: signer}
	record, err := k.Record()
	if err != nil {
		r.t.Fatal(err)
	}
	stored := relaystore.Key{Domain: k.Domain, Selector: k.Selector, Algorithm: sign.RSA2048, PEM: string(pem),
		Created: time.Now(), State: keyring.State{Stage: keyring.Signing}}
	if err := r.store().AddKeys(r.t.Context(), stored); err != nil {
		r.t.Fatal(err)
	}
	r.eventually("the key in force", func() bool { return len(r.server.state.Load().routes.Ring.For(k.Domain)) == 1 })
	return map[string]string{k.RecordName(): record}
}

// program sends as programs do that are built on Go's net/smtp.
func (r *rig) program(message string) error {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Addresses()["submission"])
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := netsmtp.NewClient(conn, "localhost")
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(r.tls()); err != nil {
		r.t.Fatal(err)
	}
	if err := c.Auth(netsmtp.PlainAuth("", rigLogin, rigPassword, "localhost")); err != nil {
		r.t.Fatal(err)
	}
	if err := c.Mail("anna@example.com"); err != nil {
		return err
	}
	if err := c.Rcpt("bob@example.net"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, message); err != nil {
		return err
	}
	if e, ok := errors.AsType[*textproto.Error](w.Close()); ok {
		return errors.New(e.Msg) // without quotes around it
	}
	return nil
}

func parsed(t *testing.T, m string) (h netmail.Header, body []byte) {
	t.Helper()
	msg, err := netmail.ReadMessage(strings.NewReader(m))
	if err != nil {
		t.Fatal(err)
	}
	if body, err = io.ReadAll(msg.Body); err != nil {
		t.Fatal(err)
	}
	return msg.Header, body
}

func unquoted(t *testing.T, body []byte) string {
	t.Helper()
	b, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHTMLInOneLine: the commonest of all faults arrives, signed, and says that it was mended.
func TestHTMLInOneLine(t *testing.T) {
	for _, size := range []int{20_000, 3 << 20} { // in memory, and in temporary files
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := newRig(t, newProvider(t), "")
			records := r.addKey()
			html := "<p>" + strings.Repeat("Grüße = 20 € ", size/18) + "</p>"
			message := "From: Anna <anna@example.com>\r\nTo: bob@example.net\r\nSubject: " +
				strings.Repeat("word ", 300) + "end\r\n" +
				"DKIM-Signature: v=1; d=example.com; s=old; b=x\r\nMIME-Version: 1.0\r\nContent-Type: text/html; " +
				"charset=utf-8\r\n" +
				"Content-Transfer-Encoding: 8bit\r\n\r\n" + html + "\r\n"
			if err := r.program(message); err != nil {
				t.Fatal(err)
			}
			got := r.provider.wait(1)[0].data
			h, body := parsed(t, got)
			if h.Get("Content-Transfer-Encoding") != "quoted-printable" ||
				h.Get("Content-Type") != "text/html; charset=utf-8" ||
				h.Get("Subject") != strings.Repeat("word ", 300)+"end" {
				t.Errorf("header %v", h)
			}
			if unquoted(t, body) != html+"\r\n" {
				t.Errorf("the text is another: %.200s", body)
			}
			checkLines(t, got)
			e := r.events(trace.Accepted)[0]
			const said = "; header lines over 998 octets folded: Subject; " +
				"lines over 998 octets from line 9 on: 1 part re-encoded as quoted-printable; the DKIM-Signature "
			if !strings.Contains(e.Detail, said) {
				t.Errorf("trace says %q", e.Detail)
			}
			if !strings.Contains(r.log.String(), "re-encoded as quoted-printable") {
				t.Error("the log does not say it")
			}
			ours := strings.Replace(got, "DKIM-Signature: v=1; d=example.com; s=old", "X-Old: v=1", 1) // ours alone
			if out := testkit.VerifyDKIM(t, []byte(ours), records); !out.OK {
				t.Errorf("%+v", out)
			}
		})
	}
}

func checkLines(t *testing.T, message string) {
	t.Helper()
	for i, line := range strings.Split(message, "\r\n") {
		if len(line) > mail.MaxLine {
			t.Errorf("line %d has %d octets", i+1, len(line))
		}
	}
}

const longLine = "a long line "

// TestLongLinesThatStayRefused: what is signed keeps its octets or does not go, and the reply names the line.
func TestLongLinesThatStayRefused(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	long := strings.Repeat(longLine, 100)
	signed := "Content-Type: multipart/signed; protocol=\"application/pgp-signature\"; boundary=s\r\n\r\n" +
		"--s\r\n\r\n%s\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
	err := r.program("From: anna@example.com\r\n" + fmt.Sprintf(signed, long))
	want := `5.6.0 line 6 ("` + long[:40] +
		`") has more than 998 octets and cannot be re-encoded: it is inside multipart/signed`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, want %s", err, want)
	}
	if e := r.events(trace.Rejected)[0]; !strings.Contains(e.Reply.String(), want) {
		t.Errorf("trace says %q", e.Reply)
	}
	if n := r.server.spool.Stats(); n.Memory != 0 || n.Disk != 0 {
		t.Errorf("the spool still holds %+v", n)
	}

	inner := fmt.Sprintf(signed, "keep  \r\n- these octets")
	outer := "From: anna@example.com\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n" + inner +
		"--o\r\nContent-Type: text/plain\r\n\r\n" + long + "\r\n--o--\r\n"
	if err := r.program(outer); err != nil {
		t.Fatal(err)
	}
	got := r.provider.wait(1)[0].data
	if !strings.Contains(got, inner) {
		t.Errorf("the signed part changed: %s", got)
	}
	h, body := parsed(t, got)
	_, p, _ := mime.ParseMediaType(h.Get("Content-Type"))
	parts := multipart.NewReader(bytes.NewReader(body), p["boundary"])
	if _, err := parts.NextRawPart(); err != nil {
		t.Fatal(err)
	}
	part, err := parts.NextRawPart()
	if err != nil || part.Header.Get("Content-Transfer-Encoding") != "quoted-printable" {
		t.Fatalf("%v, %v", part, err)
	}
	if text, _ := io.ReadAll(part); unquoted(t, text) != long {
		t.Errorf("the text is another: %s", text)
	}
}

// TestLongLinesRefused: with long_lines = "refuse" no line is mended.
func TestLongLinesRefused(t *testing.T) {
	r := newRig(t, newProvider(t), `listener: long_lines = "refuse"`)
	long := strings.Repeat(longLine, 100)
	for _, message := range []string{
		"From: anna@example.com\r\n\r\n" + long + "\r\n",
		"From: anna@example.com\r\nX-A: b\r\nSubject: " + long + "\r\n\r\nx\r\n",
	} {
		if err := r.program(message); err == nil || !strings.Contains(err.Error(), `line 3 ("`) ||
			!strings.Contains(err.Error(), "998 octets") {
			t.Errorf("%v", err)
		}
	}
}

// TestEightBitBodyIsDeclared: a body is never declared US-ASCII that is none.
func TestEightBitBodyIsDeclared(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	for i, c := range []struct{ header, body, contentType, encoding string }{
		{"", "plain\r\n", "", ""},
		{"Subject: Gr\xc3\xbc\xc3\x9fe\r\n", "plain\r\n", "", ""},
		{"", "Gr\u00fc\u00dfe\r\n", "text/plain; charset=utf-8", "8bit"},
		{"", "Gr\xfc\xdfe\r\n", "text/plain; charset=unknown-8bit", "8bit"},
		{"MIME-Version: 1.0\r\n", "Gr\xfc\xdfe\r\n", "text/plain; charset=unknown-8bit", "8bit"},
		{"Content-Transfer-Encoding: 8bit\r\n", "Gr\u00fc\u00dfe\r\n", "text/plain; charset=utf-8", "8bit"},
		{"Content-Type: text/html\r\n", "Gr\xfc\xdfe\r\n", "text/html", ""}, // the client's own word
		{"", strings.Repeat("Gr\u00fc\u00dfe ", 200) + "\r\n", "text/plain; charset=utf-8", "quoted-printable"},
		{"", strings.Repeat("plain ", 200) + "\r\n", "text/plain; charset=us-ascii", "quoted-printable"},
	} {
		if err := r.program("From: anna@example.com\r\n" + c.header + "\r\n" + c.body); err != nil {
			t.Fatalf("%q: %v", c.body, err)
		}
		h, _ := parsed(t, r.provider.wait(i + 1)[i].data)
		if h.Get("MIME-Version") != "1.0" || h.Get("Content-Type") != c.contentType ||
			h.Get("Content-Transfer-Encoding") != c.encoding {
			t.Errorf("%.20q with %q: %v", c.body, c.header, h)
		}
	}
}

// TestHeaderLinesAreNamedOrMended: what devices put into a header.
func TestHeaderLinesAreNamedOrMended(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	for _, c := range []struct{ message, want string }{
		{"From alice@example Mon Jan  1 10:00:00 2026\r\nFrom: anna@example.com\r\n\r\nx\r\n", ""},
		{"From: anna@example.com\r\nSubject: x\r\n \t\r\nTo: bob@example.net\r\n\r\nx\r\n", ""},
		{"From: anna@example.com\r\nHello, this is the scanner on floor 2 of the house\r\n",
			`line 2 ("Hello, this is the scanner on floor 2 of") is neither`},
	} {
		err := r.program(c.message)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.60q: %v, want %q", c.message, err, c.want)
		}
	}
	for _, m := range r.provider.wait(2) {
		if h, body := parsed(t, m.data); string(body) != "x\r\n" || h.Get("From") == "" ||
			strings.Contains(m.data, "From alice") {
			t.Errorf("%q arrived", m.data)
		}
	}
	r.eventually("a trace of both", func() bool {
		e := r.events(trace.Accepted)
		return len(e) == 2 && strings.Contains(e[0].Detail+e[1].Detail, "line 1 removed from the header") &&
			strings.Contains(e[0].Detail+e[1].Detail, "line 3 removed from the header")
	})
	if e := r.events(trace.Rejected)[0]; !strings.Contains(e.Reply.String(), "line 2 (") {
		t.Errorf("trace says %q", e.Reply)
	}
}

// TestBareLFIsToldByItsLine: lines that do not end with CRLF are not mended; reply, log and trace say which.
func TestBareLFIsToldByItsLine(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	c := r.rawLogin(rigLogin)
	c.cmd(250, "MAIL FROM:<anna@example.com>")
	c.cmd(250, "RCPT TO:<bob@example.net>")
	c.cmd(354, "DATA")
	const want = `550 5.6.0 line 2 ("Content-Type: text/plain") ends with a bare LF; lines must end with CR LF`
	if text := c.cmd(550, "From: anna@example.com\r\nContent-Type: text/plain\n\r\nbody\r\n."); "550 "+text != want {
		t.Errorf("reply %q, want %q", text, want)
	}
	if e := r.events(trace.Rejected)[0]; e.Reply.String() != want {
		t.Errorf("trace says %q", e.Reply)
	}
	if !strings.Contains(r.log.String(), "ends with a bare LF") {
		t.Error("the log does not say it")
	}
}
