package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postern/mail"
)

// tolerantTransfer is scripted for a listener of old devices.
func tolerantTransfer(pieces [][]byte) *Transfer {
	o := testOptions(&backend{})
	o.MaxMessageSize, o.LongLines, o.Appliance = 1<<20, true, true
	return newConn(NewServer(o), t0, nil, &scriptConn{pieces: pieces}).newTransfer(
		Transfer{stuffed: stuffing{lineStart: true}})
}

// naiveEnds repairs line ends of a whole content. It returns how many, and whether a lone dot must be refused: one
// with CRLF not on both sides.
func naiveEnds(content []byte) (repaired []byte, n int64, refused bool) {
	start, bare := 0, false
	for i := 0; i < len(content); {
		if content[i] != '\r' && content[i] != '\n' {
			repaired = append(repaired, content[i])
			i++
			continue
		}
		crs := 0
		for i < len(content) && content[i] == '\r' {
			crs, i = crs+1, i+1
		}
		ends, before := crs, bare
		if i < len(content) && content[i] == '\n' {
			i++
			ends = max(crs-maxHeld, 0) + 1
			bare = crs != 1
		} else {
			bare = true
		}
		changed := int64(ends)
		if ends == 1 && !bare {
			changed = 0
		}
		if string(repaired[start:]) == "." && (before || bare) {
			refused = true
		}
		repaired, n = append(repaired, bytes.Repeat([]byte("\r\n"), ends)...), n+changed
		start = len(repaired)
	}
	return repaired, n, refused
}

// lenientEnds are what careless servers take for the end of a message (SMTP smuggling, CVE-2023-51764 and its kin).
var lenientEnds = []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r.\n",
	"\r\n.\r\r\n", "\r\r\n.\r\r\n", "\r\r\n.\r\n", "\n\r.\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n"}

// checkTolerant holds a transfer of a tolerant listener against the naive reading of the same octets.
func checkTolerant(t interface {
	Helper()
	Fatalf(string, ...any)
}, wire, cuts []byte) {
	t.Helper()
	want := naiveData(wire, true)
	tr := tolerantTransfer(cutInto(bytes.Clone(wire), cuts))
	got, err := writeAll(tr)
	if !want.complete { // the same octets end a message as at any other listener
		if !errors.Is(err, ErrCut) {
			t.Fatalf("%q: no end, yet %q, %v", wire, got, err)
		}
		return
	}
	left, _ := io.ReadAll(io.MultiReader(bytes.NewReader(tr.c.io.buffered()), tr.c.io.conn))
	if !bytes.Equal(left, want.rest) {
		t.Fatalf("%q: left %q behind the end, want %q", wire, left, want.rest)
	}
	repaired, n, refused := naiveEnds(want.content)
	reply, isRefusal := mail.ReplyFor(err)
	if refused || bytes.IndexByte(repaired, 0) >= 0 {
		if !isRefusal || reply.Code != 550 || reply.Enhanced != "5.6.0" {
			t.Fatalf("%q: got %q, %v, want it refused", wire, got, err)
		}
		return
	}
	if err != nil || !bytes.Equal(got, repaired) || tr.RepairedLineEnds() != n {
		t.Fatalf("%q: got %q (%d repaired), %v, want %q (%d)", wire, got, tr.RepairedLineEnds(), err, repaired, n)
	}
	checkHarmless(t, wire, got, want.content)
}

// checkHarmless is what makes smuggling impossible: what leaves has only CRLF, no lone dot that CRLF did not make, and
// stuffed as RFC 5321 §4.5.2 wants it nothing that even the most careless server takes for an end.
func checkHarmless(t interface {
	Helper()
	Fatalf(string, ...any)
}, wire, got, content []byte) {
	t.Helper()
	if bytes.ContainsAny(bytes.ReplaceAll(got, []byte("\r\n"), nil), "\r\n") {
		t.Fatalf("%q: bare CR or LF in %q", wire, got)
	}
	if dots := loneDots(got); dots > loneDots(content) {
		t.Fatalf("%q: %d lone dots in %q, more than there were", wire, dots, got)
	}
	sent := "\r\n" + strings.ReplaceAll("\r\n"+string(got), "\r\n.", "\r\n..")[2:]
	for _, end := range lenientEnds {
		if strings.Contains(sent, end) {
			t.Fatalf("%q leaves as %q, which has %q in it", wire, sent, end)
		}
	}
}

// loneDots counts the lines of a dot alone between CRLF.
func loneDots(b []byte) int {
	text, n := "\r\n"+string(b), 0
	for i := range text {
		if strings.HasPrefix(text[i:], "\r\n.\r\n") {
			n++
		}
	}
	return n
}

func FuzzLineEnds(f *testing.F) {
	for _, end := range lenientEnds {
		f.Add([]byte("a"+end+"MAIL FROM:<a@b>\r\n\r\n.\r\n"), []byte{1, 1, 1})
		f.Add([]byte("a"+end+end+"\r\n.\r\nRSET\r\n"), []byte{})
	}
	for _, s := range []string{"a\nb\r\n.\r\n", "a\r\r\n\r\n.\r\n", "..\n\r\n.\r\n", "\r\n..\n\r\n.\r\n", "..\r\n.\r\n",
		"a\n..\r\n.\r\n", strings.Repeat("\r", 40) + "\n\r\n.\r\n"} {
		f.Add([]byte(s), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, wire, cuts []byte) { checkTolerant(t, wire, cuts) })
}

// TestLineEndsAgainstNaive: over strings of what matters to framing, the tolerant listener ends every message where
// the strict one does, repairs as a naive reading of the whole does, and lets nothing out that smuggles.
func TestLineEndsAgainstNaive(t *testing.T) {
	token := rapid.SampledFrom(append([]string{"\r", "\n", ".", "..", "\r\n", "a", "\r\n.\r\n", "\r\r", "\x00",
		"MAIL FROM:<ceo@example.com>\r\n", strings.Repeat("x", 1200), "\xff"}, lenientEnds...))
	rapid.Check(t, func(t *rapid.T) {
		wire := []byte(strings.Join(rapid.SliceOfN(token, 0, 24).Draw(t, "tokens"), ""))
		checkTolerant(t, append(wire, "\r\n.\r\nRSET\r\n"...), rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "cuts"))
	})
}

// TestSmallestStrings: all strings of up to seven octets of the five kinds that matter.
func TestSmallestStrings(t *testing.T) {
	const kinds = "\r\n.a"
	for n := range 8 {
		total := 1
		for range n {
			total *= len(kinds)
		}
		for i := range total {
			wire := make([]byte, 0, 16)
			for v, k := i, 0; k < n; k++ {
				wire, v = append(wire, kinds[v%len(kinds)]), v/len(kinds)
			}
			checkTolerant(t, append(wire, "\r\n.\r\nX"...), nil)
			checkTolerant(t, append(wire, "\r\n.\r\nX"...), []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
		}
	}
}

// TestRepairedChunks: BDAT content is repaired the same way, also in the line that the last chunk leaves open.
func TestRepairedChunks(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\r\n": "a\r\nb\r\n", "a\r": "a\r\n", "a\r\n\r": "a\r\n\r\n", "a\r\r\n": "a\r\n", "a": "a\r\n", "": "",
		".\r\n": ".\r\n", "a\n.": "550", "a\n.\r\n": "550", "a\r\n.\nb\r\n": "550", "\n\n": "\r\n\r\n",
	} {
		for _, cuts := range [][]byte{nil, {1, 1, 1, 1}} {
			tr := tolerantTransfer(cutInto([]byte(in), cuts))
			tr.chunked, tr.left, tr.last = true, int64(len(in)), true
			got, err := writeAll(tr)
			r, refused := mail.ReplyFor(err)
			if want == "550" && (!refused || r.Code != 550 || !strings.Contains(r.Text, "smuggling")) ||
				want != "550" && (err != nil || string(got) != want) {
				t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
			}
		}
	}
}

// TestRepairKeepsTheLimit: repaired line ends count, so that they cannot double a message beyond its limit.
func TestRepairKeepsTheLimit(t *testing.T) {
	o := testOptions(&backend{})
	o.MaxMessageSize, o.Appliance = 1000, true
	c := newConn(NewServer(o), t0, nil, &scriptConn{pieces: [][]byte{[]byte(strings.Repeat("\n", 600) + "\r\n.\r\n")}})
	_, err := writeAll(c.newTransfer(Transfer{stuffed: stuffing{lineStart: true}}))
	if r, _ := mail.ReplyFor(err); r.Code != 552 {
		t.Errorf("%v", err)
	}
}

func BenchmarkLineEnds(b *testing.B) {
	for name, line := range map[string]string{"clean": strings.Repeat("x", 74) + "\r\n",
		"bare": strings.Repeat("x", 74) + "\n"} {
		b.Run(name, func(b *testing.B) {
			body := strings.Repeat(line, 900_000/len(line)) + "\r\n.\r\n"
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tolerantTransfer([][]byte{[]byte(body)}).WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
