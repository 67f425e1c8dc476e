package main

import (
	"crypto/tls"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testkit"
)

// TestLogSaysEachThingOnce goes through what happens on a day and looks at each line: no key twice, nothing that is
// empty, and no reply, cause or detail that repeats another.
func TestLogSaysEachThingOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "\n[[policy]]\nlimits = [\"3 messages/hour\"]\n")
	o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	p := o.serve()
	defer p.Stop()
	in := func() *dialogue {
		d := o.dial()
		d.cmd(235, "AUTH PLAIN %s", plainResponse("anna@example.com", "a chosen password"))
		return d
	}
	message := func(d *dialogue, code int, text string) {
		d.cmd(250, "MAIL FROM:<anna@example.com>")
		d.cmd(250, "RCPT TO:<bob@example.net>")
		d.cmd(354, "DATA")
		d.print(text)
		d.cmd(code, ".")
	}
	good := "From: anna@example.com\r\nTo: bob@example.net\r\n\r\nhello\r\n"
	d := in()
	message(d, 250, good)
	d.cmd(503, "AUTH PLAIN %s", plainResponse("anna@example.com", "a chosen password"))
	message(d, 550, "From: ceo@example.com\r\n\r\nhello\r\n")
	message(d, 550, "From: anna@example.com\n\r\nhello\r\n")
	d.cmd(550, "MAIL FROM:<ceo@example.com>")
	d.cmd(501, "MAIL FROM:<anna@@example.com>")
	d.cmd(552, "MAIL FROM:<anna@example.com> SIZE=99999999999")
	d.cmd(250, "MAIL FROM:<anna@example.com>")
	d.cmd(501, "RCPT TO:<bob>")
	d.text.Close()
	d = in()
	message(d, 250, good)
	message(d, 250, good)
	message(d, 452, good)
	d.text.Close()
	d = o.dial()
	d.cmd(530, "MAIL FROM:<anna@example.com>")
	d.cmd(501, "AUTH PLAIN !!!")
	d.cmd(535, "AUTH PLAIN %s", plainResponse("anna@example.com", "a wrong password"))
	d.cmd(535, "AUTH PLAIN %s", plainResponse("nobody@example.com", "a wrong password"))
	d.text.Close()
	d = o.dial()
	for range 10 {
		d.cmd(500, "XYZZY")
	}
	d.expect(421)
	d.text.Close()
	if _, err := tls.Dial("tcp", o.address, &tls.Config{ServerName: "localhost"}); err == nil {
		t.Error("an unknown authority is trusted")
	}
	if c, err := net.Dial("tcp", o.address); err == nil {
		c.Close()
	}
	o.upstream.Close()
	o.write("users.csv", "login,password\nben@example.com,a chosen password\n")
	o.postern("", "user", "import", o.dir+"/users.csv")
	waits := o.submission("waits")
	waits.Login, waits.From, waits.Message = "ben@example.com", "ben@example.com", []byte("From: ben@example.com\r\n"+
		"\r\nhello\r\n")
	if out := testkit.Smtplib(t, waits); !out.OK {
		t.Error(out.Text)
	}
	p.WaitLog("msg=deferred")
	seen := map[string]bool{}
	for line := range strings.Lines(p.Log()) {
		seen[looksOnce(t, line)] = true
	}
	for _, msg := range []string{"accepted", "delivered", "refused", "login refused", "session refused", "deferred",
		"upstream connection failed"} {
		if !seen[msg] {
			t.Errorf("no line says %q:\n%s", msg, p.Log())
		}
	}
}

var logPair = regexp.MustCompile(`([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ \n]*)`)

// looksOnce checks a line of the log and returns its message.
func looksOnce(t *testing.T, line string) (msg string) {
	t.Helper()
	values := map[string]string{}
	for _, m := range logPair.FindAllStringSubmatch(line, -1) {
		key, value := m[1], m[2]
		if strings.HasPrefix(value, `"`) {
			value, _ = strconv.Unquote(value)
		}
		if _, twice := values[key]; twice || value == "" || value == "<nil>" {
			t.Errorf("the key %s is there twice or empty: %s", key, line)
		}
		values[key] = value
	}
	for _, a := range []string{"reply", "err", "detail", "class", "msg"} {
		for _, b := range []string{"reply", "err", "detail"} {
			if a != b && values[a] != "" && values[b] != "" && len(values[a]) >= 8 &&
				strings.Contains(values[b], values[a]) {
				t.Errorf("%s says what %s says: %s", b, a, line)
			}
		}
	}
	if values["class"] != "" && values["class"] == values["msg"] {
		t.Errorf("class says what msg says: %s", line)
	}
	return values["msg"]
}
