package wire

import (
	"bytes"
	"context"
	"encoding/base64"
	"testing"
)

var t0 = context.Background()

// converse runs a whole session on what a client sends, in the given pieces, and returns everything
// that the server answers, and the messages.
func converse(pieces [][]byte) (string, []message) {
	b := &backend{}
	o := testOptions(b)
	o.TLSMode, b.open = None, true
	o.MaxMessageSize, o.MaxErrors = 200, 6
	nc := &scriptConn{pieces: pieces, quiet: true}
	s := NewServer(o)
	c := acceptedConn(s, nc)
	c.serve()
	return nc.out.String(), b.messages
}

// FuzzSplit: the same octets in any pieces make the same dialogue and the same messages.
func FuzzSplit(f *testing.F) {
	transaction := "HELO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
	for _, s := range []string{
		transaction + "DATA\r\na\r\n..b\r\n.\r\nQUIT\r\n", transaction + "DATA\r\na\n.\n\r\n.\r\nNOOP\r\n",
		transaction + "BDAT 3\r\na\r\nNOOP\r\nBDAT 3 LAST\r\nb\r\nNOOP\r\n",
		transaction + "BDAT 3\r\na\r\nRSET\r\nBDAT 3 LAST\r\nb\r\nNOOP\r\n",
		transaction + "BDAT 5 LAST\r\na",
		transaction + "DATA\r\n" + string(bytes.Repeat([]byte("0123456789\r\n"), 30)) + ".\r\nNOOP\r\n",
		transaction + "DATA\r\n" + string(bytes.Repeat([]byte("x"), 1001)) + "\r\n.\r\n", "NOOP\nNOOP\r\n\x16",
		"HELO c\r\nAUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00a\x00b")) + "\r\n",
		"GET / HTTP/1.1\r\n", "BDAT x\r\n", "NOOP " + string(bytes.Repeat([]byte("x"), 5000)) + "\r\nNOOP\r\n",
		"MAIL FROM:<a@example.com>\r\nDATA\r\n",
	} {
		f.Add([]byte(s), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
		f.Add([]byte(s), bytes.Repeat([]byte{1}, 200))
	}
	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		if len(b) > 1<<16 {
			return
		}
		whole, messages := converse([][]byte{bytes.Clone(b)})
		split, others := converse(cutInto(bytes.Clone(b), cuts))
		if whole != split {
			t.Fatalf("%q\nwhole %q\nsplit %q", b, whole, split)
		}
		if len(messages) != len(others) {
			t.Fatalf("%q: %v and %v", b, messages, others)
		}
		for i, m := range messages {
			// A refused or cut message is handed on as far as it is known to be good.
			if m.err == nil && m.String() != others[i].String() || (m.err == nil) != (others[i].err == nil) {
				t.Fatalf("%q:\n%v\n%v", b, m, others[i])
			}
		}
	})
}
