package relay

import (
	"bytes"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-smtp"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/keyring"
	"postern/relay/trace"
)

func TestReplacedMessageIDIsToldAndNotSigned(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `upstream: message_id = "replaced"`)
	record := r.keep(r.store(), "s", keyring.Signing, 0)
	r.eventually("key in force", func() bool { return len(r.server.state.Load().routes.Ring.For("example.com")) == 1 })
	if _, err := r.send("anna@example.com", []string{"bob@example.net"},
		"Message-ID: <ours@example.com>\n"+plainMessage); err != nil {
		t.Fatal(err)
	}
	replaced := strings.Replace(p.wait(1)[0].data, "<ours@example.com>", "<theirs@example.net>", 1)
	verified, err := dkim.VerifyWithOptions(bytes.NewReader([]byte(replaced)), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{record}, nil },
	})
	if err != nil || len(verified) != 1 || verified[0].Err != nil {
		t.Errorf("the signature does not survive what the provider is known to do: %+v, %v", verified, err)
	}
	if e := r.events(trace.Delivered); len(e) != 1 || e[0].Detail != "the provider replaces Message-ID" {
		t.Errorf("the trace says %+v", e)
	}
	if !strings.Contains(r.log.String(), "the provider replaces Message-ID") {
		t.Error("the log does not say it")
	}
}

// A provider that refuses the sender is answered for with its sender rule; one that refuses the account is not.
func TestSenderFaultsTellTheSenderRule(t *testing.T) {
	p := newProvider(t)
	p.onMail = func(from string) error {
		if strings.HasPrefix(from, "anna") {
			return refusal(554, smtp.EnhancedCode{5, 2, 252}, "SendAsDenied; relay not allowed to send as "+from)
		}
		return refusal(554, smtp.EnhancedCode{5, 2, 2}, "mailbox full")
	}
	_, port, _ := strings.Cut(p.address, ":")
	r := newRig(t, p, `
		[[upstream]]
		name = "office"
		provider = "microsoft365"
		host = "127.0.0.1"
		port = `+port+`
		ca_file = "`+p.caFile+`"
		mechanisms = ["PLAIN"]
		username = "relay"
		password = "upstream secret"
		[[policy]]
		senders = ["{login}", "bert@example.com"]
		[[route]]
		upstreams = ["office"]`)
	const rule = "the sender and From must be relay, an alias of it, or an address that it may send as"
	for _, from := range []string{"anna@example.com", "bert@example.com"} {
		if _, err := r.send(from, []string{"bob@example.net"},
			strings.ReplaceAll(plainMessage, "anna@example.com", from)); err != nil {
			t.Fatal(err)
		}
	}
	var events []trace.Event
	r.eventually("both deferred", func() bool { events = r.events(trace.Deferred); return len(events) == 2 })
	for _, e := range events {
		if told := strings.Contains(e.Detail, rule); told != (e.From == "anna@example.com") {
			t.Errorf("<%s>: %s (%s)", e.From, e.Reply, e.Detail)
		}
	}
	if !strings.Contains(r.log.String(), rule) {
		t.Error("the log does not say the sender rule")
	}
}

// add_headers are on top of what this upstream gets, in the place of what the message came with, whatever its dkim is,
// and what the signer covers of them is covered.
func TestAddedHeaders(t *testing.T) {
	for _, mode := range []string{"sign", "skip", "strip"} {
		t.Run(mode, func(t *testing.T) {
			p := newProvider(t)
			r := newRig(t, p, `upstream: add_headers = ["X-PM-Message-Stream: outbound", "Feedback-ID: relay"]
				upstream: dkim = "`+mode+`"`)
			r.keep(r.store(), "s", keyring.Signing, 0)
			r.eventually("key in force",
				func() bool { return len(r.server.state.Load().routes.Ring.For("example.com")) == 1 })
			const foreign = "DKIM-Signature: v=1; a=rsa-sha256; d=example.org\n"
			body := strings.Repeat("long line of a long message\n", 8<<10) // more than is copied into one piece
			message := "x-pm-message-stream: broadcast\n" + foreign + plainMessage + body
			if _, err := r.send("anna@example.com", []string{"bob@example.net"}, message); err != nil {
				t.Fatal(err)
			}
			got := p.wait(1)[0].data
			h, at, err := mail.ReadHeader([]byte(got)[:min(len(got), mail.HeaderPrefix)])
			if err != nil {
				t.Fatal(err)
			}
			if stream := h.All("X-PM-Message-Stream"); len(stream) != 1 || stream[0].Value() != "outbound" {
				t.Errorf("%d fields for the stream: %s", len(stream), stream)
			}
			if !strings.HasSuffix(strings.ReplaceAll(got[at:], "\r\n", "\n"), body) {
				t.Error("the body is another")
			}
			if n, want := h.Count("DKIM-Signature"), map[string]int{"sign": 2, "skip": 1, "strip": 0}[mode]; n != want {
				t.Errorf("%d signatures, want %d", n, want)
			}
			if i := h.Index("X-PM-Message-Stream"); i > h.Index("Received") || h.Index("Feedback-ID") != i+1 {
				t.Errorf("they are not on top, in order: %s", h.Bytes())
			}
			if mode != "sign" {
				return
			}
			ours := h.Fields[0].Value()
			if strings.Contains(ours, "X-PM-Message-Stream") || !strings.Contains(ours, "Feedback-ID") {
				t.Errorf("our signature covers %s", ours)
			}
		})
	}
}

// Graph has no reply rules of SMTP: its refusal of a header author is told the same way.
func TestGraphSenderFaultsTellTheSenderRule(t *testing.T) {
	r := newGraphRig(t, fakeprovider.GraphOptions{SendAs: map[string][]string{}}, "", "", "")
	from := people[0]
	text := "From: <" + from + ">\nTo: <zoe@example.net>\nSubject: hi\n\nhello\n"
	if _, err := sendOn(r.client(from), from, []string{"zoe@example.net"}, text); err != nil {
		t.Fatal(err)
	}
	e := r.events(trace.Deferred)[0]
	if want := "the sender and From must be " + graphMailbox + ", an alias of it"; e.Class != "account-fault" ||
		!strings.Contains(e.Detail, want) {
		t.Errorf("%s: %s (%s), want %q", e.Class, e.Reply, e.Detail, want)
	}
}
