package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

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
	b := &backend{}
	o := testOptions(b)
	o.MaxMessageSize = maxSize
	c := newConn(NewServer(o), t0, nil, &scriptConn{pieces: pieces})
	return &Transfer{c: c, stuffed: stuffing{lineStart: true}}
}

// naiveData reads what follows DATA octet by octet: the content, what is left behind the end, whether
// there is an end, and the fault.
func naiveData(b []byte) (content, rest []byte, complete bool, fault string) {
	start, line := true, 0
	var cr, lf, nul, long bool
	for i := 0; i < len(b); i++ {
		if start && b[i] == '.' {
			if bytes.HasPrefix(b[i:], []byte(".\r\n")) {
				rest, complete = b[i+3:], true
				break
			}
			start = false
			continue
		}
		start = false
		content = append(content, b[i])
		line++
		switch b[i] {
		case 0:
			nul = true
		case '\r':
			if i+1 >= len(b) || b[i+1] != '\n' {
				cr = true
			}
		case '\n':
			if n := len(content); n < 2 || content[n-2] != '\r' {
				lf = true
			} else {
				start, line = true, line-1
			}
			line--
			long = long || line > 998
			line = 0
		}
	}
	long = long || line > 998
	switch {
	case cr:
		fault = "a CR without LF"
	case lf:
		fault = "an LF without CR"
	case nul:
		fault = "a NUL octet"
	case long:
		fault = "a line of more than 998 octets"
	}
	return content, rest, complete, fault
}

func FuzzData(f *testing.F) {
	for _, s := range []string{"", ".\r\n", "a\r\n.\r\n", "..a\r\n.\r\nNOOP\r\n", "a\n.\nb\r\n.\r\n", "a\r\n.\n.\r\n.\r\n", ".\r.\r\n\r\n.\r\n",
		"a\r.\r\n.\r\n", "\r\n\r\n.\r\n", "a\x00\r\n.\r\n", ".a\r\n..\r\n...\r\n.\r\n", "\r\r\n.\r\n", ".\n.\r\n.\r\n", strings.Repeat("x", 999) + "\r\n.\r\n"} {
		f.Add([]byte(s), []byte{1, 1, 1, 2, 3})
		f.Add([]byte(s), []byte{})
	}
	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		content, rest, complete, fault := naiveData(b)
		for _, read := range []func(*Transfer) ([]byte, error){readAll, writeAll} {
			tr := scriptedTransfer(cutInto(bytes.Clone(b), cuts), 1<<20)
			got, err := read(tr)
			switch {
			case !complete:
				if !errors.Is(err, ErrCut) {
					t.Fatalf("no end in %q, yet %v", b, err)
				}
				continue
			case fault != "":
				if r, ok := mail.ReplyFor(err); !ok || r.Code != 550 || !strings.Contains(r.Text, fault) {
					t.Fatalf("%q: want %s, got %v", b, fault, err)
				}
				if !bytes.HasPrefix(content, got) {
					t.Fatalf("%q: handed on %q, want a prefix of %q", b, got, content)
				}
			default:
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%q: got %q, %v, want %q", b, got, err, content)
				}
			}
			left, _ := io.ReadAll(io.MultiReader(bytes.NewReader(tr.c.buffered()), tr.c.stream))
			if !bytes.Equal(left, rest) {
				t.Fatalf("%q: left %q behind the end, want %q", b, left, rest)
			}
			if tr.Size() != int64(len(content)) || tr.EightBit() != (bytes.IndexFunc(content, func(r rune) bool { return r >= 0x80 }) >= 0) {
				t.Fatalf("%q: size %d, eight bit %v", b, tr.Size(), tr.EightBit())
			}
		}
	})
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
		"refused": {"a\n\r\n.\r\n", "550 5.6.0 the message has an LF without CR; lines must be text and end with CR LF"},
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
