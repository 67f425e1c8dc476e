package mail

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestReadDeviceHeader: each of these means one thing afterwards, and the trace tells.
func TestReadDeviceHeader(t *testing.T) {
	for name, c := range map[string]struct{ in, header, body, note string }{
		"clean": {"From: a@b\nTo: c@d\n\nx\n", "From: a@b\nTo: c@d\n", "x\n", ""},
		"no blank": {"From: a@b\nSubject: x\nPaper jam in tray 2\nCall us\n",
			"From: a@b\nSubject: x\n",
			"Paper jam in tray 2\nCall us\n", "added before line 3"},
		"boundary": {"From: a@b\nContent-Type: multipart/mixed; boundary=x\n--x\nContent-Type: text/plain\n\nx\n",
			"From: a@b\nContent-Type: multipart/mixed; boundary=x\n",
			"--x\nContent-Type: text/plain\n\nx\n", "added before line 3"},
		"white blank": {"From: a@b\n \nhello\n", "From: a@b\n", "hello\n", "line 2 is taken for the blank line"},
		"white line":  {"From: a@b\n \t\nTo: c@d\n\nhello\n", "From: a@b\nTo: c@d\n", "hello\n", "line 2 removed"},
		"broken fold": {"From: a@b\nContent-Type: multipart/mixed;\nboundary=\"x\"\nTo: c@d\n\nhello\n",
			"From: a@b\nContent-Type: multipart/mixed;\n boundary=\"x\"\nTo: c@d\n",
			"hello\n", "line 3 joined"},
		"colon": {"From : a@b\nDate\t: x\n\nhello\n",
			"From: a@b\nDate: x\n",
			"hello\n", "colon of 2 header fields"},
		"controls": {"From: a@b\nSubject: a\x07b\x1b\n\nhello\n",
			"From: a@b\nSubject: a b \n",
			"hello\n", "became blanks, in 1 lines"},
		"no header":  {"Paper jam\nin tray 2\n", "", "Paper jam\nin tray 2\n", "added before line 1"},
		"junk first": {"+OK ready\nFrom: a@b\n\nhello\n", "From: a@b\n", "hello\n", "line 1 removed"},
		"mbox": {"From a@b Mon Jan  1 00:00:00 2024\nFrom: a@b\n\nhello\n",
			"From: a@b\n",
			"hello\n", "line 1 removed"},
		"mark":    {"\xef\xbb\xbfFrom : a@b\n\nhello\n", "From: a@b\n", "hello\n", "colon of 1"},
		"leading": {"  From: a@b\n\nhello\n", "From: a@b\n", "hello\n", ""},
		"8-bit name": {"From: a@b\nBetreff\xfc: x\nSubject: y\n\nhello\n",
			"From: a@b\n Betreff\xfc: x\nSubject: y\n",
			"hello\n", "line 2 joined"},
		"long": {"From: a@b\nX-A: " + strings.Repeat("word ", 300) + "\n\nx\n", "", "x\n", "folded"},
	} {
		crlfs := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
		in := crlfs(c.in)
		h, body, err := ReadDeviceHeader([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := strings.TrimSuffix(string(h.Bytes()), "\r\n")
		if in[body:] != crlfs(c.body) || name != "long" && got != crlfs(c.header) {
			t.Errorf("%s: header %q, body %q", name, got, in[body:])
		}
		if said := strings.Join(h.Mended, "; "); !strings.Contains(said, c.note) || c.note == "" && said != "" {
			t.Errorf("%s: %q, want %q", name, said, c.note)
		}
	}
	for in, code := range map[string]int{
		"X: " + strings.Repeat("y", MaxHeader) + "\r\n\r\n":                      552,
		strings.Repeat("no field\r\nX-A: b\r\n", MaxHeaderFields+1) + "\r\nbody": 550,
	} {
		if _, _, err := ReadDeviceHeader([]byte(in)); err == nil {
			t.Errorf("%.20q is taken", in)
		} else if r, _ := ReplyFor(err); r.Code != code {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}

// FuzzDeviceHeader: what comes out is a header that the strict reader reads the same, of a message that has not grown
// a body from nowhere; and what the strict reader takes as it is, the tolerant one does too.
func FuzzDeviceHeader(f *testing.F) {
	for _, s := range []string{"From: a@b\r\n\r\nx", "a\r\nFrom : b\r\n \r\n--x\r\n", "X\x00: y\r\nTo: z\r\n", " \r\n",
		"From a@b Mon Jan  1 00:00:00 2024\r\n>From x 1:2\r\nTo: b\r\n\r\n",
		"a: " + strings.Repeat("b ", 600) + "\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bytes.Clone(in)
		strict, strictBody, strictErr := ReadHeader(b)
		h, body, err := ReadDeviceHeader(b)
		if !bytes.Equal(b, in) {
			t.Fatal("the message was changed")
		}
		if err != nil {
			if strictErr == nil {
				t.Fatalf("%q: refused though strict takes it: %v", in, err)
			}
			return
		}
		if body < 0 || body > len(in) {
			t.Fatalf("%q: body at %d", in, body)
		}
		again, at, err := ReadHeader(h.Bytes())
		if err != nil || at != len(h.Bytes()) || !slices.EqualFunc(again.Fields, h.Fields,
			func(a, b Field) bool { return a.Name == b.Name && bytes.Equal(a.Raw, b.Raw) }) {
			t.Fatalf("%q: %q is read as %q, %v", in, h.Bytes(), again.Bytes(), err)
		}
		if strictErr == nil && strict.Mended == nil && (body != strictBody || !bytes.Equal(h.Bytes(), strict.Bytes())) {
			t.Fatalf("%q: %q and %q", in, h.Bytes(), strict.Bytes())
		}
	})
}
