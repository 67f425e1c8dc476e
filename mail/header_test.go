package mail

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestReadHeader(t *testing.T) {
	const message = "Received: from a\r\n\tby b\r\nFROM: Ann <ann@example.com>\r\nSubject:\r\n  two  \r\n words " +
		"\r\nX-Empty:\r\n\r\nBody: no field\r\n"
	h, body, err := ReadHeader([]byte(message))
	if err != nil {
		t.Fatal(err)
	}
	if got := message[body:]; got != "Body: no field\r\n" {
		t.Errorf("body is %q", got)
	}
	if got := string(h.Bytes()); got != message[:body] {
		t.Errorf("Bytes changed the header to %q", got)
	}
	var names []string
	for _, f := range h.Fields {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, ","); got != "Received,FROM,Subject,X-Empty" {
		t.Errorf("names are %s", got)
	}
	for name, want := range map[string]string{
		"received": "from a\tby b", "From": "Ann <ann@example.com>", "SUBJECT": "two   words", "x-empty": "",
		"missing": "",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("Get(%q) = %q, want %q", name, got, want)
		}
	}
	if got := string(h.Fields[2].Body()); got != "\r\n  two  \r\n words " {
		t.Errorf("body of Subject is %q", got)
	}
}

func TestReadHeaderBodyOffset(t *testing.T) {
	for _, c := range []struct {
		in     string
		fields int
		body   int
		bytes  string
	}{
		{"", 0, 0, "\r\n"},
		{"\r\n", 0, 2, "\r\n"},
		{"\r\nFrom: a@b\r\n", 0, 2, "\r\n"},
		{"A: b\r\n", 1, 6, "A: b\r\n\r\n"}, // header only: it gets its blank line
		{"A: b\r\n c\r\n", 1, 10, "A: b\r\n c\r\n\r\n"},
		{"A: b\r\n\r\n", 1, 8, "A: b\r\n\r\n"},
		{"A: b\r\n\r\n\r\n", 1, 8, "A: b\r\n\r\n"},
		{"A:\r\nB:x\r\n\r\nA: c", 2, 11, "A:\r\nB:x\r\n\r\n"},
		{"A: \xff\xfe\tb\r\n\r\n", 1, 11, "A: \xff\xfe\tb\r\n\r\n"},
	} {
		h, body, err := ReadHeader([]byte(c.in))
		if err != nil || len(h.Fields) != c.fields || body != c.body || string(h.Bytes()) != c.bytes {
			t.Errorf("ReadHeader(%q): %d fields, body at %d, %q, %v", c.in, len(h.Fields), body, h.Bytes(), err)
		}
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, reason string }{
		{"leading continuation", " A: b\r\n\r\n", "continuation line"},
		{"leading white space line", " \r\nA: b\r\n\r\n", "continuation line"},
		{"white space continuation in front", " \t\r\nB: c\r\n\r\n", "continuation line"},
		{"space before the colon", "From : a@b\r\n\r\n", "before the colon"},
		{"tab before the colon", "Sender\t: a@b\r\n\r\n", "before the colon"},
		{"name of two words", "From me: a@b\r\n\r\n", "neither"},
		{"mbox line inside", "A: b\r\nFrom a@b Mon Jan  1\r\nFrom: a@b\r\n\r\n", "neither"},
		{"mbox line with a continuation", "From a@b Mon Jan  1\r\n x\r\nFrom: a@b\r\n\r\n", "continuation line"},
		{"no colon", "A: b\r\nhello\r\n\r\n", "neither"},
		{"missing blank line before text", "A: b\r\nDear all,\r\n", "neither"},
		{"empty name", ": b\r\n\r\n", "neither"},
		{"name beyond ASCII", "Fröm: a@b\r\n\r\n", "neither"},
		{"NUL in the name", "Fr\x00om: a@b\r\n\r\n", "control"},
		{"NUL", "A: b\x00\r\n\r\n", "control"},
		{"escape", "A: \x1b[31m\r\n\r\n", "control"},
		{"DEL", "A: \x7f\r\n\r\n", "control"},
		{"bare CR", "A: b\rFrom: c\r\n\r\n", "control"},
		{"CR CR LF", "A: b\r\r\n\r\n", "control"},
		{"bare LF", "A: b\nFrom: c\r\n\r\n", "CRLF"},
		{"bare LF as blank line", "A: b\r\n\nFrom: c\r\n\r\n", "CRLF"},
		{"LF first", "\nA: b\r\n", "CRLF"},
		{"no line end", "A: b", "CRLF"},
	} {
		_, _, err := ReadHeader([]byte(c.in))
		reply, ok := ReplyFor(err)
		if !ok || reply.Code != 550 || reply.Enhanced != "5.6.0" || !strings.Contains(reply.Text, c.reason) {
			t.Errorf("%s: %v, want 550 5.6.0 with %q", c.name, err, c.reason)
		}
	}
}

func TestReadHeaderBounds(t *testing.T) {
	field := "X-Filler: " + strings.Repeat("x", 500) + "\r\n"
	fill := func(n int) string { // a header of exactly n octets
		s := strings.Repeat(field, n/len(field)-1)
		return s + "X: " + strings.Repeat("y", n-len(s)-5) + "\r\n"
	}
	many := func(n int) string { return strings.Repeat("A: b\r\n", n) }
	for _, c := range []struct {
		name, in string
		code     int
	}{
		{"largest", fill(MaxHeader) + "\r\nbody\r\n", 0},
		{"one octet more", fill(MaxHeader+1) + "\r\nbody\r\n", 552},
		{"no end in the prefix", fill(MaxHeader) + "Z: z\r\n", 552},
		{"one endless line", "A: " + strings.Repeat("x", HeaderPrefix), 552},
		{"as many fields as may be", many(MaxHeaderFields) + "\r\n", 0},
		{"one field more", many(MaxHeaderFields+1) + "\r\n", 550},
	} {
		prefix := []byte(c.in)
		if len(prefix) > HeaderPrefix {
			prefix = prefix[:HeaderPrefix]
		}
		_, _, err := ReadHeader(prefix)
		reply, _ := ReplyFor(err)
		if reply.Code != c.code || c.code == 552 && reply.Enhanced != "5.3.4" {
			t.Errorf("%s: %v, want %d", c.name, err, c.code)
		}
	}
	// What we add must not make a message unreadable to ourselves.
	h, _, err := ReadHeader([]byte(fill(MaxHeader) + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	h.Prepend(NewField("Received", "by relay.example.com"))
	if _, _, err := SplitHeader(h.Bytes()); err != nil {
		t.Errorf("SplitHeader after completion: %v", err)
	}
}

func header(t testing.TB, s string) Header {
	t.Helper()
	h, _, err := ReadHeader([]byte(strings.ReplaceAll(s, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHeaderEdits(t *testing.T) {
	const before = "A: 1\nB:2 \n\tfolded\na: 3\nC: 4\n"
	for _, c := range []struct {
		name string
		edit func(*Header)
		want string
	}{
		{"nothing", func(h *Header) {}, before},
		{"prepend", func(h *Header) { h.Prepend(NewField("X", "1"), NewField("Y", "2")) }, "X: 1\nY: 2\n" + before},
		{"append", func(h *Header) { h.Append(NewField("X", "1")) }, before + "X: 1\n"},
		{"remove by name", func(h *Header) { h.Remove("A", "c", "none") }, "B:2 \n\tfolded\n"},
		{"remove by place", func(h *Header) { h.RemoveAt(2) }, "A: 1\nB:2 \n\tfolded\nC: 4\n"},
		{"replace", func(h *Header) { h.Replace(1, NewField("B", "9")) }, "A: 1\nB: 9\na: 3\nC: 4\n"},
	} {
		h := header(t, before)
		kept := h
		c.edit(&h)
		if got := strings.ReplaceAll(string(h.Bytes()), "\r\n", "\n"); got != c.want+"\n" {
			t.Errorf("%s: %q, want %q", c.name, got, c.want+"\n")
		}
		if got := strings.ReplaceAll(string(kept.Bytes()), "\r\n", "\n"); got != before+"\n" {
			t.Errorf("%s: a copy of the header changed to %q", c.name, got)
		}
	}
	h := header(t, before)
	if h.Count("A") != 2 || len(h.All("a")) != 2 || h.Index("C") != 3 || h.Has("D") || h.Remove("A") != 2 {
		t.Error("fields are counted wrongly")
	}
}

func TestNewField(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"Date", "Sun, 22 Nov 2026 10:00:00 +0000", "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n"},
		{"X", "", "X:\r\n"},
		{"X", "a\r\nBcc: evil@example.com\x00", "X: a??Bcc: evil@example.com?\r\n"},
		{"X", "a\tb", "X: a b\r\n"},
		{"Received", "from client.example.net by relay.example.com with ESMTPSA id 0123456789abcdef for " +
			"<someone@example.org>; now",
			"Received: from client.example.net by relay.example.com with ESMTPSA id\r\n 0123456789abcdef for " +
				"<someone@example.org>; now\r\n"},
		{"Message-ID", "<" + strings.Repeat("x", 100) + "@example.com>",
			"Message-ID: <" + strings.Repeat("x", 100) + "@example.com>\r\n"},
		{"X", "a" + strings.Repeat(" ", 2000) + "b", "X: a b\r\n"},
		{"X", strings.Repeat("y", 2000), "X: " + strings.Repeat("y", 995) + "\r\n"},
	} {
		if got := string(NewField(c.name, c.value).Raw); got != c.want {
			t.Errorf("NewField(%q, %q) = %q, want %q", c.name, c.value, got, c.want)
		}
	}
}

// TestNewFieldProperties: a field of ours is one field, keeps its value, and its lines are short.
func TestNewFieldProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := strings.Join(rapid.SliceOfN(rapid.StringMatching(`[!-~ü]{1,40} {0,3}`), 0, 30).Draw(t, "words"), " ")
		f := NewField("X-Test", value)
		h, _, err := ReadHeader(f.Raw)
		if err != nil || len(h.Fields) != 1 {
			t.Fatalf("%q reads as %d fields, %v", f.Raw, len(h.Fields), err)
		}
		if got := h.Fields[0].Value(); got != strings.Trim(value, " ") {
			t.Fatalf("value %q became %q", value, got)
		}
		for _, line := range strings.Split(string(f.Raw), "\r\n") {
			if len(line) > 78 && strings.Contains(strings.TrimLeft(line[8:], " "), " ") {
				t.Fatalf("line of %d octets that could be folded: %q", len(line), line)
			}
		}
	})
}

func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{
		"A: b\r\n\r\nbody", "A: b\r\n c\r\n", "\r\n", "From : a\r\n", "A\r\n", " x\r\n", "A:\x00\r\n",
		"A: b\nB: c\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := ReadHeader(b)
		if err != nil {
			if _, ok := ReplyFor(err); !ok {
				t.Fatalf("error without reply: %v", err)
			}
			return
		}
		out := h.Bytes()
		if s, err := scanHeader(b, MaxHeader, MaxHeaderFields); err != nil || s.long {
			b, body = out, len(out) // mended
		}
		if !bytes.Equal(out, b[:body]) && !bytes.Equal(out, append(b[:body:body], "\r\n"...)) {
			t.Fatalf("header %q written as %q", b[:body], out)
		}
		again, _, err := ReadHeader(out)
		if err != nil || len(again.Fields) != len(h.Fields) {
			t.Fatalf("%q read again: %v", out, err)
		}
		for _, field := range h.Fields {
			if field.Name == "" || strings.ContainsAny(field.Name, " \t\r\n:") ||
				!bytes.HasPrefix(field.Raw, []byte(field.Name+":")) {
				t.Fatalf("field %q in %q", field.Name, field.Raw)
			}
		}
	})
}

func BenchmarkReadHeader(b *testing.B) {
	var s strings.Builder
	for i := range 20 {
		fmt.Fprintf(&s, "X-Field-%d: %s\r\n", i, strings.Repeat("value ", 10))
	}
	s.WriteString("From: Ann <ann@example.com>\r\n\r\n")
	message := []byte(s.String())
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		h, _, err := ReadHeader(message)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := CanonicalAuthors(&h); err != nil {
			b.Fatal(err)
		}
	}
}
