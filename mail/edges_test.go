package mail

import (
	"mime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever is completed, no line leaves longer than MaxLine: servers cut those, and what is behind a cut is a field.
func TestCompletedLinesAreShort(t *testing.T) {
	for what, in := range map[string]string{
		"a To field that is full already": "To:" + strings.Repeat("b", 985) + "@x.example\r\nTo: c@x.example\r\n",
		"two of them": "To:" + strings.Repeat("b", 985) + "@x.example\r\nTo:" +
			strings.Repeat("c", 985) + "@x.example\r\n",
		"text behind a name that is a line": strings.Repeat("X", 990) + ": \u00fc\r\n",
	} {
		h, _, err := ReadHeader([]byte(in + "\r\n"))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		EncodeText(&h)
		Complete(&h, time.Now(), "<ours@relay.example.com>")
		for line := range strings.SplitSeq(string(h.Bytes()), "\r\n") {
			if len(line) > MaxLine {
				t.Errorf("%s: a line of %d octets: %.40s", what, len(line), line)
			}
		}
		if again, _, err := ReadHeader(h.Bytes()); err != nil || len(again.Fields) != len(h.Fields) {
			t.Errorf("%s: read again it is %d fields instead of %d, %v", what, len(again.Fields), len(h.Fields), err)
		}
	}
}

// A field of any name stays what and where it is when others are united.
func TestCompleteLeavesOtherFields(t *testing.T) {
	for _, in := range []string{
		"-: a\r\nTo: b@x.example\r\nTo: c@x.example\r\nSubject: d\r\nSubject: e\r\n",
		"To:\r\n-: a\r\nTo:\r\nSubject: d\r\n-: a\r\nSubject: e\r\n",
	} {
		h, _, err := ReadHeader([]byte(in + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		Complete(&h, time.Now(), "<ours@relay.example.com>")
		if got := string(h.Bytes()); strings.Count(got, "-: a\r\n") != strings.Count(in, "-: a\r\n") {
			t.Errorf("%q became %q", in, got)
		}
		for _, f := range h.Fields {
			if len(f.Raw) == 0 {
				t.Errorf("%q: a field %q without octets", in, f.Name)
			}
		}
	}
}

// Encoded words that decode to the end of a line would be fields to whoever decodes a header before he splits it.
func TestEncodedLineEndsDoNotLeave(t *testing.T) {
	for _, in := range []string{
		"Subject: =?utf-8?q?a=0D=0AFrom:_ceo=40evil.example?=",
		"Subject: =?utf-8?b?YQ0KRnJvbTogY2VvQGV2aWwuZXhhbXBsZQ==?= b",
		"X-Note: =?us-ascii?q?a=0AFrom:_ceo=40evil.example?=", "Subject: a =?iso-8859-1?q?=0d?= b",
		"Subject: =?utf-8?q?a=00b?=",
		"Subject: =?utf-8?q?a?= =?utf-8?b?Cg==?= =?utf-8?q?From:_ceo=40evil.example?=",
		"To: =?utf-8?q?a=0AFrom:_ceo=40evil.example?= <bob@example.net>",
		"Reply-To: \"=?utf-8?q?=0D=0AX?=\" <bob@example.net>",
		"Keywords: =?gb18030?q?a=0A?=", "Subject: =?utf-16le?q?=0a=00=0d=00?=",
	} {
		h, _, err := ReadHeader([]byte(in + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		notes := EncodeText(&h)
		decoded := strings.ReplaceAll(string(h.Bytes()), "\r\n", "")
		for range 2 {
			if decoded, err = new(mime.WordDecoder).DecodeHeader(decoded); err != nil {
				t.Logf("%q: %v", in, err)
			}
		}
		if strings.ContainsAny(decoded, "\r\n\x00") || len(notes) == 0 ||
			strings.Contains(string(h.Bytes()), "=?utf-16") {
			t.Errorf("%q became %q, %q", in, h.Bytes(), notes)
		}
	}
	for _, in := range []string{"Subject: =?utf-8?q?a_b?= =0A", "Subject: =?utf-8?b?w7w=?=",
		"To: =?utf-8?q?=C3=BC?= <bob@example.net>"} {
		h, _, err := ReadHeader([]byte(in + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if notes := EncodeText(&h); len(notes) > 0 || string(h.Bytes()) != in+"\r\n\r\n" {
			t.Errorf("%q became %q, %q", in, h.Bytes(), notes)
		}
	}
}

// A name that is longer than any is refused before its commas and colons are looked at over and over.
func TestEndlessNamesAreRefused(t *testing.T) {
	for _, piece := range []string{";", "a,", "a, ", "\xff, ", "=?utf-8?b?w7w=?= ", "\"a\" "} {
		value := strings.Repeat(piece, 200<<10/len(piece)) + "<alice@example.com>"
		if _, err := readMailboxes(value); err != errListName {
			t.Errorf("%q: %v", piece, err)
		}
	}
	if boxes, err := readMailboxes(strings.Repeat("Word ", 500) + "<alice@example.com>"); err != nil ||
		len(boxes) != 1 {
		t.Errorf("a long name: %v, %v", boxes, err)
	}
}

// What is judged of a name is what leaves, also where brackets that do not match go, or a name is cut.
func TestNamesAreJudgedAsTheyLeave(t *testing.T) {
	cut := strings.Repeat("\u00e9", maxName/2-10)
	for _, name := range []string{
		"\u00e9 ceo\uff20bank)example.test", "\u00e9 ceo\uff20ba]nk.test", "\u00e9 ceo\uff20bank.te)st",
		"\u00e9 c)eo\ufe6bbank.test",
		"\u00e9 ceo\uff20ba(nk.test", cut + " ceo\uff20b.example.test", "\u00e9 ceo\uff20bank,,.test",
		"\u00e9 ceo\uff20bank.te=?st",
	} {
		m := mailbox{address: Address{Local: "me", Domain: "example.com"}, name: name}
		field := authorField("From", []mailbox{m})
		boxes, err := readMailboxes(field.Value())
		if err != nil || len(boxes) != 1 {
			t.Errorf("%q: %v, %v", name, boxes, err)
			continue
		}
		judged := m.named()
		for _, shown := range boxes[0].named() {
			if !slices.Contains(judged, shown) {
				t.Errorf("%q leaves as %q, which shows %s; judged were %v", name, boxes[0].name, shown, judged)
			}
		}
	}
}
