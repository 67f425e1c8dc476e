package relay

import (
	"strings"
	"testing"

	"postern/relay/trace"
)

// TestFieldsThatAreNotValidAreReplaced: RFC 6409 §8 is for fields that say nothing, not only for those that are not
// there, and the trace tells.
func TestFieldsThatAreNotValidAreReplaced(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	message := "From: J\xfcrgen [A1] <anna@example.com> (NAS)\nTo: bob@example.net\nTo: " +
		"max@example.net\nDate:\nMessage-ID: 0815\nMIME-Version:\nSender:\n\nscan\n"
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, message); err != nil {
		t.Fatal(err)
	}
	data := r.provider.wait(1)[0].data
	header, _, _ := strings.Cut(data, "\r\n\r\n")
	for _, line := range []string{"From: =?utf-8?b?SsO8cmdlbiAoQTEp?= <anna@example.com>",
		"To: bob@example.net,\r\n max@example.net", "MIME-Version: 1.0"} {
		if strings.Count("\r\n"+header+"\r\n", "\r\n"+line+"\r\n") != 1 {
			t.Errorf("%q is not there once:\n%s", line, header)
		}
	}
	for _, gone := range []string{"0815", "Sender", "Date:\r\n", "MIME-Version:\r\n", "\xfc"} {
		if strings.Contains(header, gone) {
			t.Errorf("%q left:\n%s", gone, header)
		}
	}
	e := r.events(trace.Accepted)[0]
	for _, told := range []string{"the From field is rewritten", "the Sender field is removed",
		"the Date field is replaced", `the Message-ID field is replaced: "0815"`,
		"the MIME-Version field is replaced", "the To field"} {
		if !strings.Contains(e.Detail, told) {
			t.Errorf("the trace does not tell %q: %s", told, e.Detail)
		}
	}
	if !strings.HasSuffix(e.MessageID, "@relay.example.com>") || !strings.Contains(header, "Message-ID: "+e.MessageID) {
		t.Errorf("the message is traced as %q", e.MessageID)
	}
}

// TestOrdinaryMailIsNotRemarked: what mail programs send says nothing in log and trace, and keeps its octets.
func TestOrdinaryMailIsNotRemarked(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	fields := "Date: Sun, 22 Nov 2026 10:00:00 +0100\nMessage-ID: <mine@example.com>\nMIME-Version: 1.0\nFrom: " +
		"=?UTF-8?Q?M=C3=BCller=2C_Anna?=\n <anna@example.com>\n" +
		"Sender: \"Anna, M.\" <anna@example.com>\nTo: bob@example.net\nSubject: x\n"
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, fields+"\nbody\n"); err != nil {
		t.Fatal(err)
	}
	if data := r.provider.wait(1)[0].data; !strings.Contains(data, strings.ReplaceAll(fields, "\n", "\r\n")) {
		t.Errorf("the header is not what it was:\n%s", data)
	}
	if e := r.events(trace.Accepted)[0]; strings.Contains(e.Detail, ";") {
		t.Errorf("the trace remarks %q", e.Detail)
	}
}

// TestRewriteTakesWhatDevicesWrite: a From field that is replaced needs no reading.
func TestRewriteTakesWhatDevicesWrite(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `[[policy]]
		senders = ["scans@example.com"]
		unlisted_sender = "rewrite"
		limits = []`)
	for i, test := range []struct{ fields, from string }{
		{"From: root (Cron Daemon)\n", "Cron Daemon <scans@example.com>"},
		{"From:\n", "<scans@example.com>"},
		{"From: <>\nSender: <>\n", "<scans@example.com>"},
		{"From: root\nSender: root\n", "<scans@example.com>"},
		{"From: J\xfcrgen <nas>\n", "=?utf-8?q?J=C3=BCrgen?= <scans@example.com>"},
		{"From: \"Scanner <nas@local>\n", "Scanner <scans@example.com>"},
		{"From: a@nas.local\nFrom: b@nas.local\n", "<scans@example.com>"},
		{"From: [A1] Scanner <nas@local>\n", "\"[A1] Scanner\" <scans@example.com>"},
		{"From: <nas> (NAS)\n", "NAS <scans@example.com>"},
		{"From: NAS: backup <nas@local>;\n", "\"NAS: backup\" <scans@example.com>"},
		{"From: =?x-unknown?q?a?= <nas@local>\n", "<scans@example.com>"},
		{"From: \"ceo@example.org\" <nas@local>\n", "<scans@example.com>"},
		{"From: nas@local, , root\n", "<scans@example.com>"},
		{"Subject: no author\n", "<scans@example.com>"},
	} {
		if _, err := r.send("nas@printer.local", []string{"bob@example.net"}, test.fields+"\nscan\n"); err != nil {
			t.Errorf("%q: %v", test.fields, err)
			continue
		}
		data := p.wait(p.count())[p.count()-1].data
		if strings.Count(data, "\r\nFrom:") != 1 || !strings.Contains(data, "\r\nFrom: "+test.from+"\r\n") ||
			strings.Contains(data, "\r\nSender:") {
			t.Errorf("%d: %q left as\n%s", i, test.fields, data)
		}
	}
}
