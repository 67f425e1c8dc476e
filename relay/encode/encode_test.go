package encode

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"postern/mail"
)

var update = flag.Bool("update", false, "write what is made now into the files of testdata as what is expected")

// opaque is content that is not in memory and comes in small reads.
type opaque struct{ mail.BytesContent }

func (o opaque) Bytes() []byte { return nil }
func (o opaque) Open() (io.ReadCloser, error) {
	return io.NopCloser(iotest.OneByteReader(bytes.NewReader(o.BytesContent))), nil
}

// encoded returns what becomes of a message, itself where nothing has to change.
func encoded(message []byte, content mail.Content) (after []byte, p *Plan, err error) {
	h, body, err := mail.ReadHeader(message[:min(len(message), mail.HeaderPrefix)])
	if err != nil {
		return nil, nil, err
	}
	line := int64(bytes.Count(message[:body], []byte("\n"))) + 1
	p, err = NewPlan(Message{Header: h, Content: content, Body: int64(body), Line: line})
	if err != nil {
		return nil, nil, err
	}
	if p.Empty() {
		return append(h.Bytes(), message[body:]...), p, nil
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return nil, nil, err
	}
	return append(p.Header().Bytes(), b.Bytes()...), p, nil
}

// expand makes a message of a file of testdata: {"text"*N} is text N times, \xNN an octet, and lines end with CRLF.
func expand(s string) []byte {
	var b strings.Builder
	for s != "" {
		before, rest, found := strings.Cut(s, "{\"")
		b.WriteString(before)
		if !found {
			break
		}
		text, rest, _ := strings.Cut(rest, "\"*")
		count, rest, _ := strings.Cut(rest, "}")
		n := 0
		fmt.Sscan(count, &n)
		b.WriteString(strings.Repeat(text, n))
		s = rest
	}
	out := strings.NewReplacer("\n", "\r\n", `\xe4`, "\xe4", `\xfc`, "\xfc").Replace(b.String())
	return []byte(out)
}

// TestMessages: each file of testdata is a message, a line "=== after", and what becomes of it: the message, or
// the refusal.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.eml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no files in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".eml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			before, want, _ := strings.Cut(string(data), "=== after\n")
			got := outcome(t, expand(before))
			if *update {
				if err := os.WriteFile(file, []byte(before+"=== after\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// outcome is the message that comes out, with LF, or the refusal; in whatever pieces it is read.
func outcome(t *testing.T, message []byte) string {
	t.Helper()
	after, p, err := encoded(message, mail.BytesContent(message))
	again, _, errAgain := encoded(message, opaque{message})
	if !bytes.Equal(after, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
		t.Errorf("in pieces it becomes %q, %v", again, errAgain)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	checkFit(t, after, p)
	note := "unchanged"
	if !p.Empty() {
		note = p.Note()
	}
	return "(" + note + ")\n" + strings.ReplaceAll(string(after), "\r\n", "\n")
}

// checkFit: every line is short enough and ends with CRLF, and eight-bit octets are told.
func checkFit(t *testing.T, after []byte, p *Plan) {
	t.Helper()
	for i, line := range bytes.SplitAfter(after, []byte("\n")) {
		if len(line) > mail.MaxLine+2 || len(line) > 0 && !bytes.HasSuffix(line, []byte("\r\n")) {
			t.Errorf("line %d has %d octets: %.60q", i+1, len(line), line)
		}
	}
	if _, body, _ := bytes.Cut(after, []byte("\r\n\r\n")); !p.Empty() && hasEightBit(body) != p.EightBit() {
		t.Errorf("EightBit is %v", p.EightBit())
	}
}

func hasEightBit(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

func TestCharset(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "us-ascii",
		"plain\r\n":                 "us-ascii",
		"Gr\u00fc\u00dfe\r\n":       "utf-8",
		"\u20ac\U0001f600\r\n":      "utf-8",
		"Gr\xfc\xdfe\r\n":           "unknown-8bit",
		"cut \xe2\x82":              "unknown-8bit",
		"\xc0\xaf":                  "unknown-8bit",
		"\xed\xa0\x80":              "unknown-8bit", // a surrogate
		"\u00e4 then \xe4":          "unknown-8bit",
		strings.Repeat("€", 40_000): "utf-8",
	} {
		for _, c := range []mail.Content{mail.BytesContent("head" + in), opaque{mail.BytesContent("head" + in)}} {
			if got, err := Charset(c, 4); got != want || err != nil {
				t.Errorf("%.20q is %s, %v, want %s", in, got, err, want)
			}
		}
	}
}

// TestPartsAreBounded: the work for a message does not grow with what it pretends to have.
func TestPartsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1000) + "\r\n"
	for name, c := range map[string]struct{ message, want string }{
		"parts": {"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n", maxParts+1) +
			long, "more than 10000 parts"},
		"long parts": {"Content-Type: multipart/mixed; boundary=b\r\n\r\n" +
			strings.Repeat("--b\r\n\r\n"+long, maxActions+1),
			"more than 1000 parts have such lines"},
		"depth": {strings.Repeat("Content-Type: message/rfc822\r\n\r\n", maxDepth+2) + "\r\n" + long,
			"more than 20 levels deep"},
		"header": {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" +
			strings.Repeat("A: b\r\n", mail.MaxHeader/6+1) + "\r\n" + long, "malformed or too large"},
	} {
		_, _, err := encoded([]byte(c.message), mail.BytesContent(c.message))
		if r, _ := mail.ReplyFor(err); r.Code != 550 || !strings.Contains(r.Text, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
