package mail

import (
	"mime"
	netmail "net/mail"
	"strings"
	"testing"
)

// Text beyond ASCII becomes encoded words that say the same; what encoded words cannot stand for keeps its octets.
func TestEncodeText(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("Überlänge ist auch ein Thema ", 40))
	for name, c := range map[string]struct{ in, want string }{
		"subject":      {"Subject: Gr\u00fc\u00dfe aus K\u00f6ln", "Gr\u00fc\u00dfe aus K\u00f6ln"},
		"Windows-1252": {"Subject: Gr\xfc\xdfe, 5 \x80", "Gr\u00fc\u00dfe, 5 \u20ac"},
		"GBK": {"Subject: \xce\xd2\xb5\xc4\r\nContent-Type: text/plain; charset=\"gb2312\"",
			"\u6211\u7684"},
		"Shift JIS": {"Subject: \x83X\x83L\x83\x83\x83i\r\nContent-Type: text/html; charset=Shift_JIS",
			"\u30b9\u30ad\u30e3\u30ca"},
		"not what it says": {"Subject: Gr\xfc\xdfe\r\nContent-Type: text/plain; charset=utf-8", "Gr\u00fc\u00dfe"},
		"beside a word":    {"Subject: =?utf-8?q?K=C3=B6ln?= und K\u00f6ln", "K\u00f6ln und K\u00f6ln"},
		"long":             {"Subject: " + long, long},
		"folded":           {"Subject: Gr\u00fc\u00dfe\r\n  aus K\u00f6ln", "Gr\u00fc\u00dfe aus K\u00f6ln"},
		"unknown field":    {"X-Abteilung: B\u00fcro", "B\u00fcro"},
		"cannot be undone": {"Subject: =?x-none?q?a?= \u00fc", "=?x-none?q?a?= \u00fc"},
	} {
		h, _, err := ReadHeader([]byte(c.in + "\r\n\r\n"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		notes := EncodeText(&h)
		raw := string(h.Bytes())
		got, err := new(mime.WordDecoder).DecodeHeader(h.Fields[0].Value())
		if err != nil || got != c.want || len(notes) != 1 ||
			strings.ContainsFunc(raw, func(r rune) bool { return r > '~' }) {
			t.Errorf("%s: %q is %q, %v, %q", name, raw, got, err, notes)
		}
		for line := range strings.SplitSeq(raw, "\r\n") {
			if len(line) > 200 {
				t.Errorf("%s: a line of %d octets", name, len(line))
			}
		}
	}
	in := "To: J\u00f6rg <joerg@example.net>, \"M\u00fcller, Ann\" <ann@example.net>\r\n\r\n"
	h, _, err := ReadHeader([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	EncodeText(&h)
	list, err := netmail.ParseAddressList(h.Get("To"))
	if err != nil || len(list) != 2 || list[0].Name != "J\u00f6rg" || list[1].Name != "M\u00fcller, Ann" ||
		list[1].Address != "ann@example.net" {
		t.Errorf("%q: %v, %v", h.Bytes(), list, err)
	}
	for in, want := range map[string]string{
		"Content-Type: application/pdf;\r\n\tname=\"Gr\u00f6\u00dfe 1.pdf\"": "Gr\u00f6\u00dfe 1.pdf",
		"Content-Disposition: attachment; name=\"B\xfcro.pdf\"":              "B\u00fcro.pdf",
	} {
		h, _, err := ReadHeader([]byte(in + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		notes := EncodeText(&h)
		_, parameters, err := mime.ParseMediaType(h.Fields[0].Value())
		if err != nil || parameters["name"] != want || len(notes) != 1 ||
			strings.ContainsFunc(string(h.Bytes()), func(r rune) bool { return r > '~' }) {
			t.Errorf("%q became %q: %v, %v", in, h.Bytes(), parameters, err)
		}
	}
	for _, kept := range []string{
		"Subject: plain", "Content-Type: \u00fc; name=x", "Content-Type: application/pdf; name=B\u00fcro.pdf",
		"Content-Type: text/plain; name=x; name=\"\u00fc\"", "To: j\u00f6rg@example.net",
		"Content-Type: multipart/mixed; boundary=\"gr\u00fc\u00dfe\"", "Cc: gr\u00fc\u00dfe: a@b.example, c@d.example;",
	} {
		h, _, err := ReadHeader([]byte(kept + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if notes := EncodeText(&h); len(notes) > 0 ||
			string(h.Bytes()) != kept+"\r\n" && string(h.Bytes()) != kept+"\r\n\r\n" {
			t.Errorf("%q became %q: %q", kept, h.Bytes(), notes)
		}
	}
}

func FuzzEncodeText(f *testing.F) {
	f.Add("Subject", "Gr\u00fc\u00dfe")
	f.Add("To", "\u00fc <a@b.example>, (\xff) c@d.example")
	f.Fuzz(func(t *testing.T, name, value string) {
		h, _, err := ReadHeader([]byte(name + ": " + value + "\r\n\r\n"))
		if err != nil || len(h.Fields) != 1 {
			return
		}
		EncodeText(&h)
		again, _, err := ReadHeader(append(h.Bytes(), "\r\n"...))
		if err != nil || len(again.Fields) != 1 {
			t.Fatalf("%q: %v", h.Bytes(), err)
		}
		if notes := EncodeText(&again); len(notes) > 0 {
			t.Errorf("%q is encoded twice: %q", h.Bytes(), notes)
		}
	})
}
