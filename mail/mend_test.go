package mail

import (
	"bytes"
	"encoding/base64"
	"mime"
	"strings"
	"testing"
)

// TestReadHeaderMends: what no reader wants in a header goes, and the fields behind it are the same.
func TestReadHeaderMends(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"mbox line", "From anna@example.com Mon Jan  1 10:00:00 2026\nA: b\n\nx\n", "A: b\n"},
		{"mbox lines of several programs",
			"From - Mon Jan  1 10:00:00 2026\n>From root Mon Jan  1 10:00:00 2026 remote from host\nA: b\n\nx\n",
			"A: b\n"},
		{"quoted mbox line", ">From anna Mon Jan  1\nA: b\n\nx\n", "A: b\n"},
		{"blank continuation", "A: b\n \t\nB: c\n\nx\n", "A: b\nB: c\n"},
		{"blank continuation inside a field", "A: b\n \n c\n\nx\n", "A: b\n c\n"},
		{"blank continuations before the end", "A: b\n \n\t\n\nx\n", "A: b\n"},
		{"both", "From a@b\nA: b\n \nB: c\n\nx\n", "A: b\nB: c\n"},
		{"byte order mark", "\xef\xbb\xbfA: b\n\nx\n", "A: b\n"},
		{"mbox-like body", "A: b\n\nFrom x y\n \nx\n", "A: b\n"},
	} {
		in := []byte(strings.ReplaceAll(c.in, "\n", "\r\n"))
		h, body, err := ReadHeader(in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.name == "mbox-like body" {
			if len(h.Mended) > 0 {
				t.Errorf("%s: notes %q", c.name, h.Mended)
			}
		} else if len(h.Mended) != 1 || !strings.Contains(h.Mended[0], "removed") {
			t.Errorf("%s: notes %q", c.name, h.Mended)
		}
		if got := strings.ReplaceAll(string(h.Bytes()), "\r\n", "\n"); got != c.want+"\n" {
			t.Errorf("%s: header %q, want %q", c.name, got, c.want)
		}
		if _, want, _ := bytes.Cut(in, []byte("\r\n\r\n")); !bytes.Equal(in[body:], want) {
			t.Errorf("%s: body %q, want %q", c.name, in[body:], want)
		}
	}
}

// TestLongWordsOfText: what programs send as one encoded word, or as one word in a script without blanks, is cut into
// several.
func TestLongWordsOfText(t *testing.T) {
	text := strings.Repeat("\u00fcberlang", 200)
	for name, value := range map[string]string{
		"encoded": "=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?=",
		"raw":     text,
		"folded":  "\r\n " + text,
	} {
		h, _, err := ReadHeader([]byte("A: b\r\nSubject: " + value + "\r\nTo: x@example.net\r\n\r\n"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
		if err != nil || got != text || LongLine(h.Bytes()) < len(h.Bytes()) || len(h.Mended) != 1 ||
			h.Get("To") != "x@example.net" {
			t.Errorf("%s: %.200q, %v, %q", name, h.Bytes(), err, h.Mended)
		}
	}
	for _, f := range []string{"X-Token: " + strings.Repeat("A", 1000), "Message-ID: <" + text + "@example.com>",
		"To: <" + text + "@example.com>"} {
		if _, _, err := ReadHeader([]byte(f + "\r\n\r\n")); err == nil {
			t.Errorf("%.40s… is taken", f)
		}
	}
}

// TestReadHeaderToRewrite: what is odd in author fields refuses nothing where they are replaced; elsewhere it does.
func TestReadHeaderToRewrite(t *testing.T) {
	long := strings.Repeat("x", 1200)
	for _, c := range []struct{ name, in, want string }{
		{"space before the colon", "A: b\nFrom : x\nSender\t: y\n\nx\n", "A: b\nFrom: x\nSender: y\n"},
		{"space before the colon in front", "From : x\n c\n\nx\n", "From: x\n c\n"},
		{"controls", "FROM: a\x01b\n c\x1b[1m\x7f\nA: b\n\nx\n", "FROM: a b\n c [1m \nA: b\n"},
		{"blank continuation", "From: a\x01\n \t\n b\n\nx\n", "From: a \n b\n"},
		{"nothing to fold at", "From: " + long + "\n\nx\n", "From: " + long + "\n"},
		{"control elsewhere", "From: a\nA: \x01\n\n", ""},
		{"control behind an author field", "From: a\x01\nA: b\n \x01\n\n", ""},
		{"space before another colon", "From : a\nSubject : b\n\n", ""},
		{"bare CR", "From: a\rb\x01\n\n", "From: a b \n"},
		{"no name", " : x\n\n", ""},
	} {
		in := []byte(strings.ReplaceAll(c.in, "\n", "\r\n"))
		h, body, err := ReadHeaderToRewrite(in)
		if err != nil || c.want == "" {
			if r, _ := ReplyFor(err); c.want != "" || r.Code != 550 {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := strings.ReplaceAll(string(h.Bytes()), "\r\n", "\n"); got != c.want+"\n" ||
			!bytes.Equal(in[body:], []byte("x\r\n")) && c.name != "bare CR" {
			t.Errorf("%s: header %q, body %q", c.name, got, in[body:])
		}
		if _, _, err := ReadHeader(in); err == nil && c.name != "nothing to fold at" {
			t.Errorf("%s: ReadHeader takes it", c.name)
		}
	}
}

// TestReadHeaderNamesTheLine: the number is that of the line in the message as it came.
func TestReadHeaderNamesTheLine(t *testing.T) {
	long := "X-Token: " + strings.Repeat("A", 1000)
	for _, c := range []struct{ name, in, want string }{
		{"missing blank line", "A: b\nDear all, here is the report of today and more\n",
			`line 2 ("Dear all, here is the report of today an") is neither`},
		{"HTML without a blank line", "A: b\nC: d\n<html>\n\n", `line 3 ("<html>") is neither`},
		{"HTML with a colon", "A: b\n<a href=http://example.com>\n\n",
			`line 2 ("<a href=http://example.com>") is neither`},
		{"behind an mbox line", "From a@b\nA: b\nhello\n\n", `line 3 ("hello") is neither`},
		{"behind blank lines", "A: b\n \nB: c\n \n \nhello\n\n", `line 6 ("hello") is neither`},
		{"Latin-1 name", "A: b\nGr\xfc\xdfe: x\n\n", `line 2 ("Gr\xfc\xdfe: x") is neither`},
		{"first line folded", " A: b\n\n", `line 1 (" A: b") is a continuation line`},
		{"space in a name", "A: b\nX Mailer : x\n\n", `line 2 ("X Mailer : x") is neither`},
		{"space before the colon", "A: b\nFrom : x\n\n", `line 2 ("From : x") has white space before`},
		{"escape", "A: b\nB: \x1b[1m\n\n", `line 2 ("B: \x1b[1m") contains a control`},
		{"nothing to fold at", "A: b\nB: c\n d\n" + long + "\n\n",
			`line 4 ("` + long[:40] + `") has more than 998 octets, and X-Token has no place`},
		{"second line of a field", "From a@b\nX-Token: b\n" + strings.Repeat(" "+strings.Repeat("A", 1000), 2) + "\n",
			`line 3 (" ` + strings.Repeat("A", 39) + `") has more than`},
		{"too many fields", strings.Repeat("A: b\n", 1000) + "B: c\n\n", `line 1001 ("B: c") is field 1001`},
	} {
		_, _, err := ReadHeader([]byte(strings.ReplaceAll(c.in, "\n", "\r\n")))
		r, _ := ReplyFor(err)
		if r.Code != 550 || !strings.HasPrefix(r.Text, "header refused: "+c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestReadHeaderMendsWithinItsBounds(t *testing.T) {
	blank := strings.Repeat(" \r\n", HeaderPrefix/3)
	in := ("A: b\r\n" + blank)[:HeaderPrefix]
	_, _, err := ReadHeader([]byte(in))
	if r, _ := ReplyFor(err); r.Code != 552 {
		t.Errorf("a prefix of blank lines: %v, want 552", err)
	}
}

// TestFoldLong: long lines are folded where the field stays the same to every reader.
func TestFoldLong(t *testing.T) {
	words := strings.Repeat("word ", 250) + "end"
	quoted := `"` + strings.Repeat("name ", 200) + `" <anna@example.com>`
	list := strings.Repeat(`"Doe, Anna" <anna@example.com>, `, 40) + "bob@example.net"
	for _, c := range []struct {
		name, value string
		ok          bool
		breaks      string // what stands before each line end
	}{
		{"Subject", words, true, "d"},
		{"Subject", strings.Repeat(`"a b" (c d) `, 120) + "x", true, `abcd)"`},
		{"Subject", strings.Repeat("x", 1000), false, ""},
		{"Subject", "a" + strings.Repeat(" ", 1200) + "b", false, ""},
		{"Subject", strings.Repeat("w ", 300) + strings.Repeat("x", 990), true, "w"},
		{"X-Mailer", strings.Repeat("a\tb ", 300) + "c", true, "ab"},
		{"To", list, true, ","},
		{"Cc", strings.ReplaceAll(list, ", ", ","), true, ","},
		{"Resent-To", list, true, ","},
		{"To", quoted, false, ""},
		{"To", strings.Repeat("=?utf-8?q?Anna?= ", 70) + "<anna@example.com>", true, "="},
		{"References", strings.Repeat("<0123456789@example.com> ", 60), true, ">"},
		{"References", strings.Repeat("<0123456789@example.com>", 60), true, ">"},
		{"In-Reply-To", "<" + strings.Repeat("x", 1000) + "@example.com>", false, ""},
		// the place behind the colon is the last resort
		{"Message-ID", "<" + strings.Repeat("x", 980) + "@b>", true, ":"},
		{"Content-Type", `multipart/mixed; boundary="` + strings.Repeat("b ", 30) + `";` +
			strings.Repeat(` x-p="a; b";`, 90), true, ";"},
		{"Content-Disposition", `attachment; filename="` + strings.Repeat("name ", 220) + `"`, false, ""},
		{"DKIM-Signature", "v=1; h=" + strings.Repeat("subject:", 130), false, ""},
		{"DKIM-Signature", "v=1; " + strings.Repeat("b=abcdefgh ", 130), true, ";h"},
		{"List-Unsubscribe", strings.Repeat("<https://example.com/u?x=a,b>,", 40) + "<mailto:u@example.com>", true,
			","},
	} {
		f := Field{Name: c.name, Raw: []byte(c.name + ": " + c.value + "\r\n")}
		got, err := FoldLong(f)
		if (err == nil) != c.ok {
			t.Errorf("%s: %.40s: %v", c.name, c.value, err)
			continue
		}
		checkFolded(t, f, got, err)
		lines := strings.Split(strings.TrimSuffix(string(got.Raw), "\r\n"), "\r\n")
		for _, line := range lines[:len(lines)-1] {
			if !strings.ContainsRune(c.breaks, rune(line[len(line)-1])) {
				t.Errorf("%s: folded behind %q", c.name, line)
			}
		}
	}
}

// checkFolded: no line is long or blank, and without the line ends, and the blanks where there were none, it is
// the field that came.
func checkFolded(t *testing.T, f, got Field, err error) {
	t.Helper()
	if err != nil {
		if !bytes.Equal(got.Raw, f.Raw) {
			t.Errorf("%s changed though refused", f.Name)
		}
		return
	}
	if squeeze(got.Raw) != squeeze(f.Raw) {
		t.Errorf("%s: %q became %q", f.Name, f.Raw, got.Raw)
	}
	h, body, err := SplitHeader(append(got.Raw[:len(got.Raw):len(got.Raw)], "\r\n"...))
	if err != nil || len(h.Fields) != 1 || body != len(got.Raw)+2 {
		t.Errorf("%q reads as %d fields, %v", got.Raw, len(h.Fields), err)
	}
	for line := range strings.SplitSeq(string(got.Raw), "\r\n") {
		if len(line) > MaxLine {
			t.Errorf("%s: a line of %d octets", f.Name, len(line))
		}
	}
}

func squeeze(raw []byte) string { return strings.Join(strings.Fields(string(raw)), "") }

func FuzzFoldLong(f *testing.F) {
	f.Add("To", `"a b" <c@d>, (x) y, `)
	f.Add("Subject", "a  b\t")
	f.Add("References", "<a@b><c@d>")
	f.Add("Content-Type", `text/plain; a="b; c"; d=e`)
	f.Fuzz(func(t *testing.T, name, piece string) {
		raw := name + ": " + strings.Repeat(piece, 1+1200/max(len(piece), 1)) + "\r\n"
		s, err := scanHeader([]byte(raw), len(raw), 1)
		if err != nil || len(s.header.Fields) != 1 {
			return
		}
		got, err := FoldLong(s.header.Fields[0])
		checkFolded(t, s.header.Fields[0], got, err)
	})
}
