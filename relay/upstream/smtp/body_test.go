package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern/internal/fakesmtp"
	"postern/mail"
	"postern/relay/upstream"
)

var (
	eightBitLetter = mail.BytesContent("From: <alice@example.com>\r\nSubject: hello\r\n\r\nGrüße\r\n!\r\n")
	utf8Letter     = mail.BytesContent("From: <alice@example.com>\r\nSubject: Grüße\r\n\r\nhello\r\n")
	latin1Letter   = mail.BytesContent("From: <alice@example.com>\r\nSubject: Gr\xfc\xdfe\r\n\r\nhello\r\n")
)

// asStream is content that is not in memory, made long by an ASCII body.
func asStream(c mail.Content) *stream {
	data := append(bytes.Clone(c.Bytes()), bytes.Repeat([]byte("an ordinary line\r\n"), 20_000)...)
	return &stream{data: data, size: int64(len(data))}
}

// What a message needs is found in envelope, header and content; what its client declared does not count.
func TestWhatAMessageNeeds(t *testing.T) {
	none := []string{"PIPELINING", "CHUNKING"}
	no8bit := fakesmtp.Without("8BITMIME")
	ascii := mail.BytesContent(letter)
	late := append(bytes.Repeat([]byte("an ordinary line\r\n"), 30_000), "Grüße\r\n"...)
	late = append([]byte("Subject: late\r\n\r\n"), late...)
	for _, c := range []struct {
		name     string
		ext      []string
		from, to string
		content  mail.Content
		want     string // of MAIL, without SIZE, and RCPT; or the reply
	}{
		{"ASCII at a server without", none, "alice@example.com", "bob@example.net", ascii,
			"FROM:<alice@example.com> TO:<bob@example.net>"},
		{"ASCII at a server with all", fakesmtp.Full, "alice@example.com", "bob@example.net", ascii,
			"FROM:<alice@example.com> TO:<bob@example.net>"},
		{"domains", none, "alice@bücher.example", "bob@münchen.example.net", ascii,
			"FROM:<alice@xn--bcher-kva.example> TO:<bob@xn--mnchen-3ya.example.net>"},
		{"domains at a server with all", fakesmtp.Full, "alice@bücher.example", "bob@example.net", ascii,
			"FROM:<alice@xn--bcher-kva.example> TO:<bob@example.net>"},
		{"8-bit body", fakesmtp.Full, "alice@example.com", "bob@example.net", eightBitLetter,
			"FROM:<alice@example.com> BODY=8BITMIME TO:<bob@example.net>"},
		{"8-bit body without SMTPUTF8", fakesmtp.Without("SMTPUTF8"), "alice@example.com", "bob@example.net",
			eightBitLetter, "FROM:<alice@example.com> BODY=8BITMIME TO:<bob@example.net>"},
		{"8-bit body without 8BITMIME", no8bit, "alice@example.com", "bob@example.net", eightBitLetter,
			"554 5.6.3 the message has eight-bit content"},
		{"8-bit at the end of a stream", fakesmtp.Full, "alice@example.com", "bob@example.net",
			&stream{data: late, size: int64(len(late))}, "FROM:<alice@example.com> BODY=8BITMIME TO:<bob@example.net>"},
		{"8-bit at the end of a stream without 8BITMIME", no8bit, "alice@example.com", "bob@example.net",
			&stream{data: late, size: int64(len(late))}, "554 5.6.3"},
		{"UTF-8 header", fakesmtp.Full, "alice@example.com", "bob@example.net", utf8Letter,
			"FROM:<alice@example.com> BODY=8BITMIME SMTPUTF8 TO:<bob@example.net>"},
		{"UTF-8 header without SMTPUTF8", fakesmtp.Without("SMTPUTF8"), "alice@example.com", "bob@example.net",
			utf8Letter, "550 5.6.7 the header of the message has characters beyond ASCII"},
		{"UTF-8 header and domain", fakesmtp.Full, "alice@bücher.example", "bob@example.net", utf8Letter,
			"FROM:<alice@xn--bcher-kva.example> BODY=8BITMIME SMTPUTF8 TO:<bob@example.net>"},
		// No declaration fits a header in another charset. It goes as devices send it.
		{"Latin-1 header", fakesmtp.Full, "alice@example.com", "bob@example.net", latin1Letter,
			"FROM:<alice@example.com> BODY=8BITMIME TO:<bob@example.net>"},
		{"Latin-1 header without 8BITMIME", none, "alice@example.com", "bob@example.net", latin1Letter, "554 5.6.3"},
		{"local part", fakesmtp.Full, "alice@example.com", "bób@example.net", ascii,
			"FROM:<alice@example.com> SMTPUTF8 TO:<bób@example.net>"},
		{"local part without SMTPUTF8", none, "alice@example.com", "bób@bücher.example", ascii,
			"553 5.6.7 the address needs SMTPUTF8"},
		{"sender's local part without SMTPUTF8", none, "álice@example.com", "bob@example.net", ascii,
			"550 5.6.7 the sender's address álice@example.com needs SMTPUTF8"},
		{"name too long for DNS", none, "alice@example.com", "bob@" + strings.Repeat("ü", 60) + ".example", ascii,
			"553 5.6.7"},
	} {
		contents := []mail.Content{c.content}
		if c.content.Bytes() != nil {
			contents = append(contents, asStream(c.content))
		}
		for i, content := range contents {
			for _, claimed := range []bool{true, false} {
				if !claimed && highAt(c.content.Bytes()) >= 0 || !claimed && c.content.Bytes() == nil {
					continue // when it came in, it was looked at
				}
				fc := provider()
				fc.Extensions = c.ext
				fake, u := start(t, fc, nil)
				tr := message(t, c.to)
				tr.From, tr.Content, tr.EightBit = address(t, c.from), content, claimed
				r := send(t, u, tr)[0]
				got := r.Reply.String()
				if m := fake.Messages(); len(m) == 1 {
					got = fmt.Sprintf("FROM:%s TO:%s", cutSize(m[0].From), strings.TrimPrefix(m[0].To[0], "TO:"))
				}
				if !strings.HasPrefix(got, c.want) || r.Verbatim == r.Class.Permanent() {
					t.Errorf("%s, %d, claimed %v: got %s", c.name, i, claimed, got)
				}
			}
		}
	}
}

// cutSize is the argument of MAIL without FROM: and SIZE.
func cutSize(from string) string {
	var kept []string
	for _, f := range strings.Fields(strings.TrimPrefix(from, "FROM:")) {
		if !strings.HasPrefix(f, "SIZE=") {
			kept = append(kept, f)
		}
	}
	return strings.Join(kept, " ")
}

// Content that cannot be read while it is looked at defers, and no command is sent for it.
func TestSurveyOfBrokenContent(t *testing.T) {
	fake, u := start(t, provider(), nil)
	tr := message(t)
	s := asStream(mail.BytesContent(letter))
	s.data, s.fail = s.data[:100<<10], errDisk
	tr.Content, tr.EightBit = s, true
	r := send(t, u, tr)[0]
	if r.Class != mail.Deferral || !errors.Is(r.Err, errDisk) || r.Verbatim {
		t.Errorf("got %s: %s (%v)", r.Class, r.Reply, r.Err)
	}
	if log := strings.Join(fake.Log(), " "); strings.Contains(log, "MAIL") {
		t.Errorf("commands: %s", log)
	}
}

// A sender's address in another alphabet is asked for as it would be sent.
func TestProbeOfOtherLetters(t *testing.T) {
	for _, ext := range [][]string{fakesmtp.Full, fakesmtp.Without("SMTPUTF8")} {
		fc := provider()
		fc.Extensions = ext
		fake, u := start(t, fc, nil)
		steps := u.TestSenders(t.Context(), upstream.Trial{Senders: addresses(t, "anna@bücher.example")})
		if last := steps[len(steps)-1]; !last.OK || !strings.Contains(strings.Join(fake.Log(), "\n"),
			"MAIL FROM:<anna@xn--bcher-kva.example>\n") {
			t.Errorf("%+v\n%v", last, fake.Log())
		}
	}
}
