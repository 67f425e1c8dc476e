package mail

import (
	"strings"
	"testing"
	"time"
)

// TestComplete: "" as the result stands for ours.
func TestComplete(t *testing.T) {
	now := time.Date(2026, 11, 28, 7, 46, 0, 0, time.FixedZone("", 3600))
	const ours, date = "<ours@relay.example.com>", "Sat, 28 Nov 2026 07:46:00 +0100"
	for _, c := range []struct{ field, want string }{
		{"Date: Sat, 28 Nov 2026 08:00:00 +0100", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: 28 Nov 26 08:00 EST", "Date: 28 Nov 26 08:00 EST"},
		{"DATE:Sat, 28 Nov 2026 08:00:00\r\n +0100 (CET)", "DATE:Sat, 28 Nov 2026 08:00:00\r\n +0100 (CET)"},
		{"Date: Thu, 1 Jan 1970 00:00:00 GMT", "Date: Thu, 1 Jan 1970 00:00:00 GMT"},
		{"Date: Sat, 28 Nov 2026 08:00:00 +0100 (Mitteleurop\xe4ische Zeit)", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: 2026-11-28T08:00:00+01:00", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: Sat Nov 28 2026 08:00:00 GMT+0100 (CET)", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: Sat, 28 Nov 2026 08:00:00 +01:00", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: Sat, 28 Nov 2026 07:00:00 Z", "Date: Sat, 28 Nov 2026 07:00:00 +0000"},
		{"Date: Saturday, 28 Nov 2026 08:00:00 +0100", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: Sat, 28 November 2026 08:00:00 +0100", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: Sa,  8 Nov 2026 08:00:00 +0100", "Date: Sun, 08 Nov 2026 08:00:00 +0100"},
		{"Date: Sat 28 Nov 2026 08:00:00 +0100", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: 05-FEB-2021 22:05:02 +0800", "Date: Fri, 05 Feb 2021 22:05:02 +0800"},
		{"Date: 05-FEB-2021 22:05:02", ""},
		{"Date: Sat, 28 Nov 2026 08:00:00", ""},
		{"Date: 1790000000", ""},
		{"Date: 11/28/2026 8:00:00 AM", ""},
		{"Date:", ""},
		{"Date: yesterday", ""},
		{"Date: 28.11.2026", ""},
		{"Date: Sat Nov 28 08:00:00 2026", ""}, // which zone?
		{"Date: Sat, 31 Feb 2026 08:00:00 +0100", ""},
		{"Date: now\r\nDate: Sat, 28 Nov 2026 08:00:00 +0100", "Date: Sat, 28 Nov 2026 08:00:00 +0100"},
		{"Date: Sat, 28 Nov 2026 08:00:00 +0100\r\nDate: Sat, 28 Nov 2026 09:00:00 +0100",
			"Date: Sat, 28 Nov 2026 08:00:00 +0100"},

		{"Message-ID: <a.b$1@host>", "Message-ID: <a.b$1@host>"},
		{"Message-Id:\r\n <a@[192.0.2.1]>", "Message-Id:\r\n <a@[192.0.2.1]>"},
		{"Message-ID: <\"a b\"@x>", ""},
		{"Message-ID: <\"a@b\"@x>", "Message-ID: <\"a@b\"@x>"},
		{"Message-ID: <a@x> (added by y)", "Message-ID: <a@x> (added by y)"},
		{"Message-ID: a.b@host", "Message-ID: <a.b@host>"},
		{"Message-ID:", ""},
		{"Message-ID: <>", ""},
		{"Message-ID: <a>", ""},
		{"Message-ID: <@x>", ""},
		{"Message-ID: <a@>", ""},
		{"Message-ID: 12345", ""},
		{"Message-ID: <a@b", ""},
		{"Message-ID: <a b@x>", ""},
		{"Message-ID: <a@b@c>", ""},
		{"Message-ID: <a@x> <b@x>", ""},
		{"Message-ID: <\xfc@x>", ""},
		{"Message-ID: <\u00fc@x>", ""},
		{"Message-ID: <a@x>\r\nMessage-ID: <b@x>", "Message-ID: <a@x>"},
		{"Message-ID: x\r\nMessage-ID:\r\nMessage-ID: <b@x>", "Message-ID: <b@x>"},

		{"MIME-Version: 1.0", "MIME-Version: 1.0"},
		{"Mime-Version: 1.0 (Mac OS X Mail 16.0 \\(3826\\))", "Mime-Version: 1.0 (Mac OS X Mail 16.0 \\(3826\\))"},
		{"MIME-Version: (by x) 1 . 0", "MIME-Version: (by x) 1 . 0"},
		{"MIME-Version:", ""},
		{"MIME-Version: 2.0", ""},
		{"MIME-Version: 1", ""},
		{"MIME-Version: 1.0 (x", ""},
		{"MIME-Version: 1.0\r\nMIME-Version: 1.0", "MIME-Version: 1.0"},
	} {
		h, _, err := ReadHeader([]byte("X: y\r\n" + c.field + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		id, notes := Complete(&h, now, ours)
		got := string(h.Bytes())
		name, _, _ := strings.Cut(c.field, ":")
		name = strings.ToLower(name)
		want := c.want
		for _, own := range []string{"Date: " + date, "Message-ID: " + ours, "MIME-Version: 1.0"} {
			if own := own + "\r\n"; !strings.HasPrefix(strings.ToLower(own), name) && !strings.Contains(got, own) {
				t.Errorf("%q: %q lacks %q", c.field, got, own)
			} else if strings.HasPrefix(strings.ToLower(own), name) && want == "" {
				want = strings.TrimSuffix(own, "\r\n")
			}
		}
		if h.Count(name) != 1 || !strings.Contains(got, want+"\r\n") {
			t.Errorf("%q:\n got %q\nwant %q", c.field, got, want)
		}
		if (len(notes) == 0) != (c.want == c.field) {
			t.Errorf("%q: notes %q", c.field, notes)
		}
		if want := bareID(h.Get("Message-ID")); id != want {
			t.Errorf("%q: the id is %q, want %q", c.field, id, want)
		}
	}
}

func TestCompleteUnites(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"Subject: a\nSubject: b\n", "Subject: a\n"},
		{"Subject:\nX: y\nsubject: b\n", "X: y\nsubject: b\n"},
		{"Subject:\nSubject:\n", "Subject:\n"},
		{"References: <a@b>\nReferences: <c@d>\nIn-Reply-To: <a@b>\nIn-Reply-To: <c@d>\n",
			"References: <a@b>\nIn-Reply-To: <a@b>\n"},
		{"To: a@b,\n c@d\nX: y\nTO:\n e@f\n", "To: a@b,\n c@d,\n e@f\nX: y\n"},
		{"Cc: a@b,\nCc:\nCc: \"x, y\" <c@d>\n", "Cc: a@b,\n \"x, y\" <c@d>\n"},
		{"Reply-To: a@b\nReply-To: c@d\n", "Reply-To: a@b,\n c@d\n"},
		{"To:\nTo:\n", ""},
		{"Received: a\nReceived: b\nComments: a\nComments: b\nResent-To: a@b\nResent-To: c@d\nTo: a@b\n",
			"Received: a\nReceived: b\nComments: a\nComments: b\nResent-To: a@b\nResent-To: c@d\nTo: a@b\n"},
	} {
		const own = "Date: Sat, 28 Nov 2026 08:00:00 +0100\nMessage-ID: <a@b>\nMIME-Version: 1.0\n"
		h := header(t, own+c.in+"\n")
		_, notes := Complete(&h, time.Now(), "")
		if got := strings.ReplaceAll(string(h.Bytes()), "\r\n", "\n"); got != own+c.want+"\n" {
			t.Errorf("%q:\n got %q\nwant %q", c.in, got, own+c.want+"\n")
		}
		if (len(notes) == 0) != (c.in == c.want) {
			t.Errorf("%q: notes %q", c.in, notes)
		}
	}
}

// FuzzComplete: whatever there was, afterwards each field is there once and valid, and it stays so.
func FuzzComplete(f *testing.F) {
	f.Add("Date: x\r\nMessage-ID: a@b\r\nMIME-Version: 1.0 (x)\r\nTo: a@b\r\nTo: c@d\r\nSubject:\r\nSubject: x\r\n")
	f.Add("Date: Sat Nov 28 2026 08:00:00 GMT+0100 (CET)\r\nMessage-ID: (x) <a@b>\r\n")
	f.Fuzz(func(t *testing.T, fields string) {
		h, _, err := ReadHeader([]byte(fields + "\r\n"))
		if err != nil {
			return
		}
		now := time.Date(2026, 11, 28, 7, 46, 0, 0, time.UTC)
		id, _ := Complete(&h, now, "<ours@relay.example.com>")
		before := string(h.Bytes())
		read, _, err := ReadHeader(h.Bytes())
		if err != nil {
			t.Fatalf("%q: %v", before, err)
		}
		again, notes := Complete(&read, now, "<other@relay.example.com>")
		if again != id || len(notes) > 0 || string(read.Bytes()) != before {
			t.Fatalf("%q: %q, then %q, %q, %q", fields, before, read.Bytes(), notes, again)
		}
		for _, name := range append([]string{"Date", "Message-ID", "MIME-Version"}, unique...) {
			if n := h.Count(name); n > 1 ||
				n == 0 && name[0] != 'S' && name[0] != 'I' && name[0] != 'R' && name[0] != 'T' && name[0] != 'C' {
				t.Fatalf("%q: %d times %s in %q", fields, n, name, before)
			}
		}
	})
}

// TestEmptyFields: what has to have an address or an identifier, and has none, goes; text may be empty.
func TestEmptyFields(t *testing.T) {
	const valid = "Date: Sat, 28 Nov 2026 08:00:00 +0100\r\nMessage-ID: <a@b>\r\nMIME-Version: 1.0\r\n"
	in := valid + "To:\r\nCC: \r\nReply-To:  \t \r\nIn-Reply-To:\r\nReferences: \r\nSubject:\r\nX-Y:\r\nTo: c@d\r\n\r\n"
	h, _, err := ReadHeader([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	_, notes := Complete(&h, time.Now(), "<c@d>")
	if got := string(h.Bytes()); got != valid+"Subject:\r\nX-Y:\r\nTo: c@d\r\n\r\n" || len(notes) != 5 {
		t.Errorf("%q, %q", got, notes)
	}
	h, _, err = ReadHeader([]byte(valid + "Reply-To:\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, notes := Complete(&h, time.Now(), "<c@d>"); string(h.Bytes()) != valid+"\r\n" || len(notes) != 1 {
		t.Errorf("one: %q, %q", h.Bytes(), notes)
	}
}

// TestRepeatedContentType: the same said twice is said once; two that differ stay, since readers choose.
func TestRepeatedContentType(t *testing.T) {
	const a, b, enc = "Content-Type: text/plain\r\n", "content-type: text/html\r\n",
		"Content-Transfer-Encoding: 8bit\r\n"
	for in, want := range map[string]string{
		a + enc + a + enc + enc: a + enc,
		a + b + a:               a + b,
		b + "Content-Type:\r\n  text/html\r\n" + enc: b + enc,
	} {
		h, _, err := ReadHeader([]byte("Date: Sat, 28 Nov 2026 08:00:00 +0100\r\nMessage-ID: " +
			"<a@b>\r\nMIME-Version: 1.0\r\n" + in + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, notes := Complete(&h, time.Now(), "<c@d>")
		if got := string(h.Bytes()); !strings.HasSuffix(got, "MIME-Version: 1.0\r\n"+want+"\r\n") || len(notes) == 0 {
			t.Errorf("%q became %q, %q", in, got, notes)
		}
	}
}
