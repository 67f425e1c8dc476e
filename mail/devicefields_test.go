package mail

import (
	"strings"
	"testing"
	"time"
)

// TestMendFields: what devices write into fields of recipients, parameters and encodings.
func TestMendFields(t *testing.T) {
	for _, c := range [][2]string{
		{"To: bob@example.net", "To: bob@example.net"},
		{"To: Bob <bob@example.net>, alice@example.net (Alice)",
			"To: Bob <bob@example.net>, alice@example.net (Alice)"},
		{"To: undisclosed-recipients:;", "To: undisclosed-recipients:;"},
		{"To: staff: bob@example.net, alice@example.net;", "To: staff: bob@example.net, alice@example.net;"},
		{"To: bob@example.net; alice@example.net;", "To: <bob@example.net>, <alice@example.net>"},
		{"Cc: bob@example.net,, alice@example.net,", "Cc: <bob@example.net>, <alice@example.net>"},
		{`To: "Smith; Bob" <bob@example.net>;x`, `To: "Smith; Bob" <bob@example.net>`},
		{"To: SMTP:bob@example.net", "To: <bob@example.net>"},
		{"To: [bob@example.net]", "To: <bob@example.net>"},
		{"To: bob at example.net", ""},
		{"Reply-To: helpdesk", ""},
		{"Cc: ", "Cc: "}, // Complete's
		{"Content-Type: text/plain; charset=utf-8", "Content-Type: text/plain; charset=utf-8"},
		{"Content-Type: multipart/mixed; boundary=----=_P", `Content-Type: multipart/mixed; boundary="----=_P"`},
		{"Content-Type: multipart/mixed; boundary=\xfc", "Content-Type: multipart/mixed; boundary=\xfc"},
		{"Content-Type: application/pdf; name=a b.pdf; name=c; x", `Content-Type: application/pdf; name="a b.pdf"`},
		{"Content-Disposition: attachment; filename=Grö ße.pdf",
			"Content-Disposition: attachment; filename*=utf-8''Gr%C3%B6%20%C3%9Fe.pdf"},
		{"Content-Type: no type at all", "Content-Type: no type at all"},
		{"Content-Transfer-Encoding: BASE64", "Content-Transfer-Encoding: BASE64"},
		{"Content-Transfer-Encoding: base 64", "Content-Transfer-Encoding: base64"},
		{"Content-Transfer-Encoding: \"8-bit\";", "Content-Transfer-Encoding: 8bit"},
		{"Content-Transfer-Encoding: utf-8", ""},
		{"Content-Transfer-Encoding: x-uuencode", "Content-Transfer-Encoding: x-uuencode"},
		{"From: bob@example.net;", "From: bob@example.net;"}, // the authors' own rules
	} {
		h, _, err := ReadDeviceHeader([]byte(c[0] + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.TrimSuffix(string(h.Bytes()), "\r\n")
		if got = strings.TrimSuffix(got, "\r\n"); got != c[1] || (c[0] != c[1]) != (len(h.Mended) == 1) {
			t.Errorf("%q became %q, want %q; %q", c[0], got, c[1], h.Mended)
		}
	}
}

// TestMendFieldsInTime: what takes long to take apart is not there. A second is a thousand times what it takes.
func TestMendFieldsInTime(t *testing.T) {
	for _, field := range []string{"To: \"" + strings.Repeat(`\"`, 60_000), "To: " + strings.Repeat("x,", 60_000),
		"To: " + strings.Repeat("<", 120_000), "To: " + strings.Repeat("a@b;", 30_000),
		"Content-Type: a/b" + strings.Repeat("; x=y z", 15_000), "Content-Type: a/b; " + strings.Repeat(`"\`, 60_000),
		"To: \"" + strings.Repeat(`\";`, 40_000), "To: " + strings.Repeat("(", 120_000)} {
		began := time.Now()
		if _, _, err := ReadDeviceHeader([]byte(field + "\r\n\r\n")); time.Since(began) > time.Second {
			t.Errorf("%.20q takes %s (%v)", field, time.Since(began), err)
		}
	}
}

// FuzzMendFields: what is mended once needs no mending, and is a header of one meaning.
func FuzzMendFields(f *testing.F) {
	f.Add("bob@example.net;alice@example.net", "multipart/mixed; boundary=----=_P", "8 bit")
	f.Add("<<a@b>>,'c@d',\"", "a/b; name=\"x", "base64;")
	f.Fuzz(func(t *testing.T, to, kind, encoding string) {
		h, _, err := ReadDeviceHeader([]byte("To: " + to + "\r\nContent-Type: " + kind +
			"\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n"))
		if err != nil || len(h.Mended) == 0 {
			return
		}
		again, _, err := ReadDeviceHeader([]byte(string(h.Bytes()) + "\r\n"))
		if err != nil {
			t.Fatalf("%q: %v", h.Bytes(), err)
		}
		again.mendFields()
		for _, note := range again.Mended {
			if strings.Contains(note, "written anew") || strings.Contains(note, "of use") {
				t.Errorf("%q again: %s", h.Bytes(), note)
			}
		}
	})
}
