package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/mail"
)

// scriptConn is a connection whose peer has said everything: it hands out pieces, one a Read, and
// keeps what is written. Reads find nothing until something was written, as a client waits for the
// greeting.
type scriptConn struct {
	net.Conn
	pieces [][]byte
	quiet  bool // until the first Write
	out    bytes.Buffer
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if c.quiet {
		return 0, os.ErrDeadlineExceeded
	}
	for len(c.pieces) > 0 && len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error) { c.quiet = false; return c.out.Write(p) }
func (c *scriptConn) Close() error                { return nil }
func (c *scriptConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4000}
}
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// cutInto cuts b into pieces whose lengths the octets of cuts give; the rest is one piece.
func cutInto(b []byte, cuts []byte) [][]byte {
	var pieces [][]byte
	for _, n := range cuts {
		n := min(int(n), len(b))
		pieces = append(pieces, b[:n:n])
		b = b[n:]
	}
	return append(pieces, b)
}

func scriptedTransfer(pieces [][]byte, maxSize int64) *Transfer {
	return scripted(pieces, maxSize, false)
}

func scripted(pieces [][]byte, maxSize int64, longLines bool) *Transfer {
	b := &backend{}
	o := testOptions(b)
	o.MaxMessageSize, o.LongLines = maxSize, longLines
	c := newConn(NewServer(o), t0, nil, &scriptConn{pieces: pieces})
	return c.newTransfer(Transfer{stuffed: stuffing{lineStart: true}})
}

// naive reads what follows DATA octet by octet.
type naive struct {
	content, rest []byte
	complete      bool
	fault         string // the first one, with the number of its line
	long          bool   // a line of more than 998 octets
}

func naiveData(b []byte, longLines bool) (n naive) {
	start := true
	for i := 0; i < len(b); i++ {
		if start && b[i] == '.' {
			if bytes.HasPrefix(b[i:], []byte(".\r\n")) {
				n.rest, n.complete = b[i+3:], true
				break
			}
			start = false
			continue
		}
		n.content = append(n.content, b[i])
		start = bytes.HasSuffix(n.content, []byte("\r\n"))
	}
	for i, line := range bytes.SplitAfter(n.content, []byte("\n")) {
		fault := naiveFault(line)
		n.long = n.long || len(bytes.TrimSuffix(line, []byte("\r\n"))) > 998
		if n.fault == "" && fault != "" && !(longLines && fault == longLine) {
			n.fault = fmt.Sprintf("line %d (\"%s\") %s", i+1, naiveHead(line), fault)
		}
	}
	return n
}

// naiveFault finds what comes first in a line.
func naiveFault(line []byte) string {
	text := bytes.TrimSuffix(line, []byte("\r\n"))
	for i, c := range text {
		switch {
		case c == '\r' && i == len(text)-1 && len(text) == len(line):
			return "" // an LF may follow
		case c == '\n':
			return bareLF
		case i > 0 && text[i-1] == '\r':
			return bareCR
		case c == 0:
			return nulOctet
		case i >= 998 && c != '\r':
			return longLine
		}
	}
	if bytes.HasSuffix(text, []byte("\r")) {
		return bareCR
	}
	return ""
}

func naiveHead(line []byte) string {
	text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
	var b strings.Builder
	for n := 0; text != "" && n < 40; n++ {
		r, size := utf8.DecodeRuneInString(text)
		if s := strconv.Quote(text[:size]); r != utf8.RuneError && unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(s[1 : len(s)-1])
		}
		text = text[size:]
	}
	return b.String()
}

func FuzzData(f *testing.F) {
	for _, s := range []string{"", ".\r\n", "a\r\n.\r\n", "..a\r\n.\r\nNOOP\r\n", "a\n.\nb\r\n.\r\n",
		"a\r\n.\n.\r\n.\r\n", ".\r.\r\n\r\n.\r\n",
		"a\r.\r\n.\r\n", "\r\n\r\n.\r\n", "a\x00\r\n.\r\n", ".a\r\n..\r\n...\r\n.\r\n", "\r\r\n.\r\n", ".\n.\r\n.\r\n",
		strings.Repeat("x", 999) + "\r\n.\r\n"} {
		f.Add([]byte(s), []byte{1, 1, 1, 2, 3})
		f.Add([]byte(s), []byte{})
	}
	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		for _, longLines := range []bool{false, true} {
			for _, read := range []func(*Transfer) ([]byte, error){readAll, writeAll} {
				checkData(t, scripted(cutInto(bytes.Clone(b), cuts), 1<<20, longLines), naiveData(b, longLines), read)
			}
		}
	})
}

func checkData(t *testing.T, tr *Transfer, want naive, read func(*Transfer) ([]byte, error)) {
	t.Helper()
	got, err := read(tr)
	switch {
	case !want.complete:
		if !errors.Is(err, ErrCut) {
			t.Fatalf("no end, yet %v", err)
		}
		return
	case want.fault != "":
		if r, ok := mail.ReplyFor(err); !ok || r.Code != 550 || r.Text != want.fault {
			t.Fatalf("%q: want %s, got %v", want.content, want.fault, err)
		}
		if !bytes.HasPrefix(want.content, got) {
			t.Fatalf("handed on %q, want a prefix of %q", got, want.content)
		}
	default:
		if err != nil || !bytes.Equal(got, want.content) || tr.LongLines() != want.long {
			t.Fatalf("got %q, %v, long %v, want %q", got, err, tr.LongLines(), want.content)
		}
	}
	left, _ := io.ReadAll(io.MultiReader(bytes.NewReader(tr.c.io.buffered()), tr.c.io.conn))
	if !bytes.Equal(left, want.rest) {
		t.Fatalf("left %q behind the end, want %q", left, want.rest)
	}
	eightBit := bytes.IndexFunc(want.content, func(r rune) bool { return r >= 0x80 }) >= 0
	if tr.Size() != int64(len(want.content)) || tr.EightBit() != eightBit {
		t.Fatalf("size %d, eight bit %v", tr.Size(), tr.EightBit())
	}
}

// TestFaultNamesItsLine: a refusal says which line, however the message comes in pieces.
func TestFaultNamesItsLine(t *testing.T) {
	x := strings.Repeat("x", 998)
	for in, want := range map[string]string{
		"From: a@b\r\nMIME-Version: 1.0\n\r\nbody\r\n": `line 2 ("MIME-Version: 1.0") ends with a bare LF`,
		"\n":                                `line 1 ("") ends with a bare LF`,
		"a\r\nb\rc\r\n":                     `line 2 ("b\rc") has a bare CR`,
		"a\r\r\n":                           `line 1 ("a\r") has a bare CR`,
		"a\r\n..b\x00c\r\n":                 `line 2 (".b\x00c") has a NUL octet`,
		"Gr\xfc\xdfe an \u00c9va\n":         `line 1 ("Gr\xfc\xdfe an \u00c9va") ends with a bare LF`,
		"\x1b[31mred\u202e\n":               `line 1 ("\x1b[31mred\u202e") ends with a bare LF`,
		"a \"quoted\" word\n":               `line 1 ("a "quoted" word") ends with a bare LF`,
		"ok\r\n" + x + "y\r\n":              `line 2 ("` + x[:40] + `") has more than 998 octets`,
		x + "\r\n" + x + "\ry\r\n":          `line 2 ("` + x[:40] + `") has a bare CR`,
		"one\r\ntwo\nthree\x00\rx\n":        `line 2 ("two") ends with a bare LF`, // the first of many
		strings.Repeat("\u20ac", 50) + "\n": `line 1 ("` + strings.Repeat("\u20ac", 40) + `") ends with a bare LF`,
	} {
		want = strings.ReplaceAll(want, `\u00c9`, "\u00c9") // printable, so it is shown as it is
		for _, n := range []byte{1, 2, 7, 255} {
			tr := scriptedTransfer(cutInto([]byte(in+"\r\n.\r\n"), bytes.Repeat([]byte{n}, 3000)), 1<<20)
			_, err := writeAll(tr)
			if r, _ := mail.ReplyFor(err); r.Code != 550 || r.Enhanced != "5.6.0" || !strings.HasPrefix(r.Text, want) {
				t.Errorf("%.60q in pieces of %d: %v, want %s", in, n, err, want)
			}
		}
	}
}

// TestOpenLastChunk: a line that the last chunk leaves open is closed once, and a fault in it is told.
func TestOpenLastChunk(t *testing.T) {
	for in, want := range map[string]string{
		"a": "", "a\r": "has a bare CR", "a\nb": "ends with a bare LF", "a\x00": "has a NUL octet",
	} {
		c := newConn(NewServer(testOptions(&backend{})), t0, nil, &scriptConn{pieces: [][]byte{[]byte(in)}})
		got, err := writeAll(c.newTransfer(Transfer{chunked: true, left: int64(len(in)), last: true}))
		r, _ := mail.ReplyFor(err)
		said, _, _ := strings.Cut(r.Text, ";")
		if !strings.HasSuffix(said, want) || want == "" && (err != nil || string(got) != in+"\r\n") {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func readAll(tr *Transfer) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(tr)) }

func writeAll(tr *Transfer) ([]byte, error) {
	var b bytes.Buffer
	_, err := tr.WriteTo(&b)
	return b.Bytes(), err
}

// TestTransferKeepsItsEnd: after the end every call says the same.
func TestTransferKeepsItsEnd(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"clean":   {"a\r\n.\r\n", io.EOF.Error()},
		"cut":     {"a\r\n", "message cut short: connection lost"},
		"refused": {"a\n\r\n.\r\n", `550 5.6.0 line 1 ("a") ends with a bare LF; lines must end with CR LF`},
	} {
		tr := scriptedTransfer([][]byte{[]byte(c.in)}, 1000)
		io.Copy(io.Discard, tr)
		for range 2 {
			if n, err := tr.Read(make([]byte, 10)); n != 0 || err.Error() != c.want {
				t.Errorf("%s: got %d, %v, want %s", name, n, err, c.want)
			}
		}
	}
}

// TestRefusedSwallowIsBounded: the end of a message that is too big is not waited for for ever.
func TestRefusedSwallowIsBounded(t *testing.T) {
	line := []byte(strings.Repeat("x", 998) + "\r\n")
	pieces := make([][]byte, 0, 80_000)
	for range cap(pieces) {
		pieces = append(pieces, line)
	}
	tr := scriptedTransfer(pieces, 1000)
	_, err := io.Copy(io.Discard, tr)
	if !errors.Is(err, ErrCut) || tr.octets < 64<<20 || tr.octets > 65<<20 {
		t.Errorf("got %v after %d octets", err, tr.octets)
	}
	if r, ok := errors.AsType[*refusal](tr.cause); !ok || r.reply.Code != 552 {
		t.Errorf("cause %v", tr.cause)
	}
}

func BenchmarkData(b *testing.B) {
	for name, line := range map[string]string{
		"text": strings.Repeat("x", 74) + "\r\n", "dots": "..\r\n", "base64": strings.Repeat("QUJD", 19) + "\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			body := strings.Repeat(line, 1_000_000/len(line)) + ".\r\n"
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				tr := scriptedTransfer([][]byte{[]byte(body)}, 2_000_000)
				if _, err := tr.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
