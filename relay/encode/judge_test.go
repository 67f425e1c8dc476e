package encode

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/mail"
)

// judge has Python's email package read both messages, with both of its policies: the parts, their types, their
// fields (but for the encoding, and however folded) and their decoded contents must be the same.
const judge = `
import email, email.policy, json, sys
def leaves(raw, policy):
    out = []
    for part in email.message_from_bytes(raw, policy=policy).walk():
        fields = sorted((k.lower(), "".join(str(v).split())) for k, v in part.raw_items()
                        if k.lower() != "content-transfer-encoding")
        body = None if part.is_multipart() else part.get_payload(decode=True)
        out.append((part.get_content_type(), fields, body))
    return out
bad = 0
for name, before, after in json.load(sys.stdin):
    for policy in (email.policy.compat32, email.policy.default):
        a, b = (leaves(m.encode("latin-1"), policy) for m in (before, after))
        if not any(k == "content-type" for k, _ in a[0][1]): # the charset is declared
            b[0] = (b[0][0], [f for f in b[0][1] if f[0] != "content-type"], b[0][2])
        if a != b:
            bad += 1
            print(name, "was", repr(a)[:1500], "and became", repr(b)[:1500])
sys.exit(bad)
`

func TestPythonReadsTheSame(t *testing.T) {
	python := testkit.Need(t, "python3")
	var cases [][3]string
	add := func(name string, message []byte) {
		if after, p, err := encoded(message, mail.BytesContent(message)); err == nil && !p.Empty() {
			cases = append(cases, [3]string{name, latin1(message), latin1(after)})
		}
	}
	files, _ := filepath.Glob(filepath.Join("testdata", "*.eml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before, _, _ := strings.Cut(string(data), "=== after\n")
		add(file, expand(before))
	}
	for i, m := range generated() {
		add("generated "+strconv.Itoa(i), m)
	}
	if len(cases) < 100 {
		t.Fatalf("only %d messages are re-encoded", len(cases))
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", judge)
	cmd.Stdin = bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, mail.Cut(string(out), 8000))
	}
}

// latin1 makes a text of octets, one character each.
func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

// generated are messages of every type, encoding and place that a long line may have.
func generated() (all [][]byte) {
	long := strings.Repeat("a long line = \u00fc ", 90)
	texts := []string{
		long + "\r\n",
		"short\r\n" + long + " \r\n\r\n.\r\n" + long + "\r\n",
		"-- \r\n--\r\n" + strings.Repeat("-", 1200) + "\r\nFrom x\r\n",
		strings.Repeat("F", 75) + strings.Repeat("From x.", 200) + "\r\n",
		strings.Repeat("\xe4\xff", 600) + "\t\r\n \r\n",
		strings.Repeat(" ", 1500) + "x" + strings.Repeat(" \t", 700) + "\r\n",
	}
	types := []string{"text/plain; charset=utf-8", "text/html", "text/x-unknown", "application/json",
		"image/svg+xml; x=y"}
	for _, typ := range types {
		for _, enc := range []string{"", "7bit", "8Bit", "binary"} {
			for _, text := range texts {
				part := "Content-Type: " + typ + "\r\n"
				if enc != "" {
					part += "Content-Transfer-Encoding: " + enc + "\r\n"
				}
				part += "\r\n" + text
				all = append(all, []byte("Subject: x\r\nMIME-Version: 1.0\r\n"+part))
				all = append(all, inside("mixed", "short\r\n", part, part))
				all = append(all, inside("mixed", "Content-Type: message/rfc822\r\n\r\nSubject: y\r\n"+part, part))
			}
		}
	}
	quoted := strings.Repeat("=C3=BC =3D soft=20-.From ", 100)
	escapes := strings.Repeat("=C3=BC", 400)
	for _, text := range []string{quoted + "\r\n", quoted + "=\r\n" + quoted + "\r\n", escapes + "=\r\n\r\n"} {
		all = append(all, []byte("Content-Type: text/plain\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\n"+
			text))
	}
	return append(all, huge()[:4]...)
}

// huge are messages with lines that come in several pieces, the line end in one or in two.
func huge() (all [][]byte) {
	pieces := map[string]string{"8bit": "Gr\u00fc\u00dfe = ", "quoted-printable": "=C3=BC ", "base64": "QUJD"}
	for n := pieceSize - 3; n < pieceSize+3; n++ {
		for enc, piece := range pieces {
			line := strings.Repeat(piece, 3*pieceSize/len(piece))
			part := "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + enc + "\r\n\r\n"
			part += line[:n] + "\r\n" + line + "\r\nx"
			all = append(all, inside("mixed", part), []byte("Subject: x\r\n"+part+"\r\n"))
		}
		boundary := "\r\n--a boundary\r\n"
		m := string(inside("mixed", "short\r\n"))
		all = append(all, []byte(strings.Replace(m, boundary, "\r\n"+strings.Repeat("-", n)+boundary, 1)))
	}
	return all
}

func TestHugeLines(t *testing.T) {
	for i, m := range huge() {
		after, p, err := encoded(m, mail.BytesContent(m))
		if err != nil || p.Empty() {
			t.Fatalf("%d: %v", i, err)
		}
		checkFit(t, after, p)
		checkSame(t, m, after)
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, piece := range map[string]string{"html": "<p class=x>text text text</p>", "utf-8": "\u4e2d\u6587"} {
		b.Run(name, func(b *testing.B) {
			m := []byte("Content-Type: text/html; charset=utf-8\r\n\r\n" + strings.Repeat(piece, 5_000_000/len(piece)) +
				"\r\n")
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			h, body, _ := mail.ReadHeader(m[:mail.HeaderPrefix])
			for b.Loop() {
				p, err := NewPlan(Message{Header: h, Content: mail.BytesContent(m), Body: int64(body), Line: 3})
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Write(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// inside puts parts into a multipart.
func inside(subtype string, parts ...string) []byte {
	b := "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/" + subtype + "; boundary=\"a boundary\"\r\n\r\n"
	for _, p := range parts {
		if !strings.HasPrefix(p, "Content-") {
			p = "\r\n" + p
		}
		b += "--a boundary\r\n" + p + "\r\n"
	}
	return []byte(b + "--a boundary--\r\n")
}

// contents collects what a message consists of.
type contents struct {
	bodies  [][]byte // of the leaves, decoded
	headers []string // without the encoding, and however folded
	rest    []byte   // outside of the parts, white space taken out
	raw     []byte
	locked  [][]byte // what must keep its octets
}

func (c *contents) header(e *entity) error {
	if !e.formed {
		c.headers = append(c.headers, string(e.raw))
		return nil
	}
	h := e.header
	h.Remove("Content-Transfer-Encoding")
	c.headers = append(c.headers, strings.Join(strings.Fields(string(h.Bytes())), ""))
	return nil
}

func (c *contents) body(_ *entity, p piece) error { c.raw = append(c.raw, p.b...); return nil }

func (c *contents) outside(_ *entity, p piece) error {
	c.rest = append(c.rest, strings.Join(strings.Fields(string(p.b)), "")...)
	return nil
}

func (c *contents) end(e *entity) error {
	if e.kind == multipart {
		return nil
	}
	if e.locked != "" {
		c.locked = append(c.locked, c.raw)
	}
	switch e.encoding {
	case quotedPrintable:
		c.bodies = append(c.bodies, unquote(c.raw))
	case base64:
		c.bodies = append(c.bodies, []byte(strings.Join(strings.Fields(string(c.raw)), "")))
	default:
		c.bodies = append(c.bodies, c.raw)
	}
	c.raw = nil
	return nil
}

// unquote decodes quoted-printable and leaves what is none.
func unquote(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		if rest, ok := bytes.CutPrefix(b, []byte("=\r\n")); ok {
			b = rest
			continue
		}
		if len(b) >= 3 && b[0] == '=' {
			if c, err := strconv.ParseUint(string(b[1:3]), 16, 8); err == nil {
				out, b = append(out, byte(c)), b[3:]
				continue
			}
		}
		out, b = append(out, b[0]), b[1:]
	}
	return out
}

func contentsOf(t *testing.T, message []byte) *contents {
	t.Helper()
	h, body, err := mail.ReadHeader(message)
	if err != nil {
		t.Fatal(err)
	}
	c := &contents{}
	if err := walk(bytes.NewReader(message[body:]), h, 1, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// checkSame: nothing is lost, and nothing is left to do.
func checkSame(t *testing.T, before, after []byte) {
	t.Helper()
	a, b := contentsOf(t, before), contentsOf(t, after)
	if !slices.EqualFunc(a.bodies, b.bodies, bytes.Equal) || !slices.EqualFunc(a.locked, b.locked, bytes.Equal) {
		t.Fatalf("%q became %q", before, after)
	}
	if !slices.Equal(a.headers, b.headers) || !bytes.Equal(a.rest, b.rest) {
		t.Fatalf("%q became %q, %q became %q", a.headers, b.headers, a.rest, b.rest)
	}
	if again, p, err := encoded(after, mail.BytesContent(after)); err != nil || !p.Empty() ||
		!bytes.Equal(again, after) {
		t.Fatalf("%q changes again into %q, %v", after, again, err)
	}
}

func FuzzEncode(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join("testdata", "*.eml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		before, _, _ := strings.Cut(string(data), "=== after\n")
		f.Add([]byte(before), []byte("x"), uint16(0))
		f.Add([]byte(before), []byte("=--b F."), uint16(len(before)-2))
	}
	// A line of the message is made long with a repeated piece.
	f.Fuzz(func(t *testing.T, message, piece []byte, at uint16) {
		long := bytes.Repeat(piece, 1+1000/max(1, len(piece)))
		i := min(int(at), len(message))
		message = slices.Concat(message[:i], long, message[i:], []byte("\n"))
		message = bytes.ReplaceAll(bytes.ReplaceAll(message, []byte("\r"), nil), []byte("\n"), []byte("\r\n"))
		after, p, err := encoded(message, mail.BytesContent(message))
		again, _, errAgain := encoded(message, opaque{message})
		if !bytes.Equal(after, again) || (err == nil) != (errAgain == nil) {
			t.Fatalf("%q in pieces becomes %q, %v", message, again, errAgain)
		}
		if err != nil {
			if _, ok := mail.ReplyFor(err); !ok {
				t.Fatalf("error without reply: %v", err)
			}
			return
		}
		checkFit(t, after, p)
		if !p.Empty() {
			checkSame(t, message, after)
		}
	})
}
