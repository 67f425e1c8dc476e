package replies

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"

	"postern/mail"
)

func TestReadReply(t *testing.T) {
	for _, c := range []struct {
		in   string
		want mail.Reply
		err  error
	}{
		{"250 2.0.0 Ok: queued as 4F2\r\n", mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "Ok: queued as 4F2"}, nil},
		{"250\r\n", mail.Reply{Code: 250}, nil},
		{"250 \r\n", mail.Reply{Code: 250}, nil},
		{"250 ok\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{"550-5.7.1 first\r\n550-5.7.1 second\r\n550 5.7.1 third\r\n",
			mail.Reply{Code: 550, Enhanced: "5.7.1", Text: "first\nsecond\nthird"}, nil},
		{"550-first\r\n550\r\n", mail.Reply{Code: 550, Text: "first\n"}, nil},
		{"550 5.7.139\r\n", mail.Reply{Code: 550, Enhanced: "5.7.139"}, nil},
		{"550 5.7.1\tx\r\n", mail.Reply{Code: 550, Enhanced: "5.7.1", Text: "x"}, nil},
		{"550 4.7.1 class differs\r\n", mail.Reply{Code: 550, Text: "4.7.1 class differs"}, nil},
		{"550 5.7.1x no code\r\n", mail.Reply{Code: 550, Text: "5.7.1x no code"}, nil},
		{"550 5.7 no code\r\n", mail.Reply{Code: 550, Text: "5.7 no code"}, nil},
		{"550 5.7.1234 no code\r\n", mail.Reply{Code: 550, Text: "5.7.1234 no code"}, nil},
		{"550 \x1b[31mred\x00\xff\r\n", mail.Reply{Code: 550, Text: "?[31mred??"}, nil},
		{"", mail.Reply{}, io.EOF},
		{"250 o", mail.Reply{}, io.ErrUnexpectedEOF},
		{"250-more\r\n", mail.Reply{}, io.ErrUnexpectedEOF},
		{"hello\r\n", mail.Reply{}, ErrSyntax},
		{"25\r\n", mail.Reply{}, ErrSyntax},
		{"150 ok\r\n", mail.Reply{}, ErrSyntax},
		{"650 ok\r\n", mail.Reply{}, ErrSyntax},
		{"2500 ok\r\n", mail.Reply{}, ErrSyntax},
		// Where codes differ, the last line's holds.
		{"250-a\r\n550 b\r\n", mail.Reply{Code: 550, Text: "a\nb"}, nil},
		{"550-5.7.1 a\r\n250-b\r\n250 2.0.0 c\r\n", mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "5.7.1 a\nb\nc"},
			nil},
		{"421-4.7.0 busy\r\n250 ok\r\n", mail.Reply{Code: 250, Text: "4.7.0 busy\nok"}, nil},
		{"550-no such user\r\n550 5.1.1 here\r\n", mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user\nhere"},
			nil},
		// Empty lines are nothing, wherever they are.
		{"\r\n\n250 ok\r\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{"250-a\r\n\r\n250 b\r\n", mail.Reply{Code: 250, Text: "a\nb"}, nil},
		{strings.Repeat("\r\n", 16) + "250 ok\r\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{strings.Repeat("\r\n", 17) + "250 ok\r\n", mail.Reply{}, ErrTooLong},
		{strings.Repeat("\n", 5000), mail.Reply{}, ErrTooLong},
		{"\r\n", mail.Reply{}, io.EOF},
		// Other odd forms that mean one thing only.
		{"250OK\r\n", mail.Reply{Code: 250, Text: "OK"}, nil},
		{"250-a\r\n250\r\n", mail.Reply{Code: 250, Text: "a\n"}, nil},
		{"250-\r\n250 \r\n", mail.Reply{Code: 250, Text: "\n"}, nil},
		{"250\tok\r\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{" \t250 ok\r\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{"\x00\x00250 ok\r\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{"250 ok\r\r\n", mail.Reply{Code: 250, Text: "ok"}, nil},
		{"250 a\x00b \r\n", mail.Reply{Code: 250, Text: "a?b "}, nil},
		{"550 gesperrt f\xfcr \xc3\xbc\r\n", mail.Reply{Code: 550, Text: "gesperrt f?r ü"}, nil},
		{"550\xa0no\r\n", mail.Reply{Code: 550, Text: "?no"}, nil},
		{" \r\n250 ok\r\n", mail.Reply{}, ErrSyntax},
		{"250-a\r\n 250 b\r\n", mail.Reply{}, ErrSyntax},
		{"250-a\r\nb\r\n", mail.Reply{}, ErrSyntax},
		{strings.Repeat("250-x\r\n", 64) + "250 x\r\n", mail.Reply{}, ErrTooLong},
		{strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 17) + "250 x\r\n", mail.Reply{}, ErrTooLong},
		{"250 " + strings.Repeat("x", 5000) + "\r\n", mail.Reply{}, ErrTooLong},
	} {
		got, err := Read(bufio.NewReaderSize(strings.NewReader(c.in), BufferSize), true)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%.60q: got %+v, %v", c.in, got, err)
		}
	}
	r, err := Read(bufio.NewReader(strings.NewReader(strings.Repeat("250-x\r\n", 63)+"250 x\r\n")), true)
	if err != nil || strings.Count(r.Text, "\n") != 63 {
		t.Errorf("64 lines: %v", err)
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("250-mx.example.com\r\n250-PIPELINING\r\n250-AUTH=PLAIN LOGIN\r\n250-SIZE 1000\r\n250 LIMITS "+
		"RCPTMAX=5 MAILMAX=x\r\n"), true)
	f.Add([]byte("550 5.7.1 no\r\n250 ok\r\n"), false)
	f.Add([]byte("421 4.7.0\r\n"), true)
	f.Add([]byte("\r\n250-5.0.0 a\n\r\n550\x00 5.1.1 b\r\r\n"), true)
	f.Fuzz(func(t *testing.T, in []byte, keep bool) {
		br := bufio.NewReaderSize(strings.NewReader(string(in)), BufferSize)
		for {
			r, err := Read(br, keep)
			if err != nil {
				if !r.IsZero() {
					t.Errorf("a reply %v with an error %v", r, err)
				}
				return
			}
			if r.Code < 200 || r.Code > 599 {
				t.Errorf("code %d", r.Code)
			}
			if len(r.Text) > 2*maxOctets {
				t.Errorf("%d octets of text", len(r.Text))
			}
			for _, c := range r.Text {
				if c != '\n' && !unicode.IsPrint(c) {
					t.Errorf("%q is in the text", c)
				}
			}
			if r.Enhanced != "" && r.Enhanced[0] != byte('0'+r.Code/100) {
				t.Errorf("enhanced %q of %d", r.Enhanced, r.Code)
			}
		}
	})
}
