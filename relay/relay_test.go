package relay

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	netmail "net/mail"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-smtp"

	"postern/auth"
	"postern/mail"
	"postern/relay/keyring"
	"postern/relay/queue"
	"postern/relay/sign"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

const plainMessage = "From: Anna <anna@example.com>\nTo: bob@example.net\nSubject: test\n\nbody\n"

func TestHandOffAnswersWithTheUpstreamsWords(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "taken by provider") {
		t.Fatalf("reply %q, %v", reply, err)
	}
	got := r.provider.wait(1)[0]
	if got.from != "anna@example.com" || len(got.to) != 1 || got.to[0] != "bob@example.net" {
		t.Errorf("envelope %+v", got)
	}
	added, ok := strings.CutSuffix(got.data, strings.ReplaceAll(plainMessage, "\n", "\r\n"))
	if !ok {
		t.Errorf("the message was changed:\n%s", got.data)
	}
	for _, field := range []string{"Received: by relay.example.com with ESMTPSA id ", "\r\nDate: ", "\r\nMessage-ID: <",
		"\r\nMIME-Version: 1.0\r\n"} {
		if !strings.Contains("\r\n"+added, field) {
			t.Errorf("the added fields lack %q:\n%s", field, added)
		}
	}
	if strings.Contains(added, "127.0.0.1") {
		t.Errorf("the client's address shows:\n%s", added)
	}
	if stats, err := r.store().Stats(t.Context()); err != nil || stats.Messages != 0 {
		t.Errorf("the queue has %+v, %v", stats, err)
	}
	delivered := r.events(trace.Delivered)[0]
	if delivered.To != "bob@example.net" || delivered.Login != rigLogin || delivered.Upstream != "provider" ||
		delivered.Reply.Code != 250 {
		t.Errorf("trace: %+v", delivered)
	}
}

func TestWhatLeavesAndWhatStays(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	message := "Bcc: secret@example.org\nReturn-Path: <x@example.org>\nFrom: " +
		"anna@example.com\nAuthentication-Results: relay.example.com;\n spf=pass\n" +
		"Authentication-Results: other.example; spf=pass\nDate: Sun, 22 Nov 2026 10:00:00 +0100\nMessage-ID: " +
		"<mine@example.com>\nMIME-Version: 1.0\n" +
		"To: bob@example.net\nX-Odd:   kept  \n\tas it is\n\nbody\n"
	if _, err := r.send("anna@example.com", []string{"bob@example.net", "secret@example.org"}, message); err != nil {
		t.Fatal(err)
	}
	data := r.provider.wait(1)[0].data
	for _, gone := range []string{"Bcc:", "Return-Path:", "Authentication-Results: relay.example.com",
		"secret@example.org"} {
		if strings.Contains(data, gone) {
			t.Errorf("%q left with the message:\n%s", gone, data)
		}
	}
	for _, kept := range []string{"Authentication-Results: other.example; spf=pass\r\n",
		"Message-ID: <mine@example.com>\r\n", "X-Odd:   kept  \r\n\tas it is\r\n"} {
		if strings.Count(data, kept) != 1 {
			t.Errorf("%q is not there once:\n%s", kept, data)
		}
	}
	if strings.Count(data, "\r\nDate:") != 1 || strings.Count(data, "\r\nMessage-ID:") != 1 ||
		strings.Count(data, "\r\nMIME-Version:") != 1 {
		t.Errorf("fields were doubled:\n%s", data)
	}
}

func TestSenderMustBelongToTheLogin(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	ok := "From: anna@example.com\nTo: b@example.net\n"
	for _, test := range []struct {
		name, from, header string
		code               int
	}{
		{"own", "anna@example.com", ok, 250},
		{"own in capitals", "Anna@Example.COM", "From: ANNA@example.com\n", 250},
		{"null reverse-path, for read receipts", "", ok, 250},
		{"foreign reverse-path", "ceo@example.com", ok, 550},
		{"foreign author", "anna@example.com", "From: ceo@example.com\n", 550},
		{"null reverse-path, foreign author", "", "From: ceo@example.com\n", 550},
		{"two authors, one foreign", "anna@example.com", "From: anna@example.com, ceo@example.com\n", 550},
		{"foreign sender field", "anna@example.com", ok + "Sender: ceo@example.com\n", 550},
		{"foreign resent-from", "anna@example.com", ok + "Resent-From: ceo@example.com\n", 550},
		{"two From fields", "anna@example.com", ok + "From: ceo@example.com\n", 550},
		{"two equal From fields", "anna@example.com", ok + ok, 550},
		{"From in disguise", "anna@example.com", ok + "From : ceo@example.com\n", 550},
		{"no From", "anna@example.com", "To: b@example.net\n", 250}, // the reverse-path is the author
		{"empty From", "anna@example.com", "From: \n", 250},
		{"null address as From, empty Sender", "anna@example.com", "From: <>\nSender:\n", 250},
		{"no From and null reverse-path", "", "To: b@example.net\n", 550},
		{"empty From and null reverse-path", "", "From:\n", 550},
		{"no From, foreign Sender", "anna@example.com", "Sender: ceo@example.com\n", 550},
		{"empty group", "anna@example.com", "From: undisclosed:;\n", 550},
		{"group", "anna@example.com", "From: staff: anna@example.com;\n", 550},
		{"address in the display name", "anna@example.com", "From: \"ceo@example.com\" <anna@example.com>\n", 550},
		{"own address in the display name", "anna@example.com", "From: \"anna@example.com\" <anna@example.com>\n", 250},
		{"folded in odd places", "anna@example.com", "From:\n anna@example.com\n", 250},
		{"folded inside a quoted string", "anna@example.com",
			"From: \"x\n <ceo @evil.example> (\"\n <anna@example.com>\n", 550},
		{"list syntax in an encoded word", "anna@example.com", "From: =?utf-8?q?=22ceo=22=40evil.example=2C?= " +
			"<anna@example.com>\n", 550},
		{"address in two words of a name", "anna@example.com", "From: \"ceo@\"evil.example <anna@example.com>\n", 550},
		{"raw Latin-1", "anna@example.com", "From: J\xfcrgen <anna@example.com>\n", 250},
		{"folded to hide", "anna@example.com", "From: anna@example.com,\n ceo@example.com\n", 550},
		{"route", "anna@example.com", "From: <@evil.example:anna@example.com>\n", 550},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.send(test.from, []string{"bob@example.net"}, test.header+"\nbody\n")
			if code(err) != test.code {
				t.Errorf("got %v, want %d", err, test.code)
			}
			var e *smtp.SMTPError
			if errors.As(err, &e) && (len(e.Message) < 20 || e.EnhancedCode[0] != 5) {
				t.Errorf("the reply does not explain itself: %v", err)
			}
		})
	}
}

func TestUnlistedSenderIsRewritten(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		senders = ["scans@example.com"]
		unlisted_sender = "rewrite"`)
	if _, err := r.send("mfp@printer.local", []string{"bob@example.net"},
		"From: The MFP <mfp@printer.local>\nTo: bob@example.net\n\nscan\n"); err != nil {
		t.Fatal(err)
	}
	got := r.provider.wait(1)[0]
	h, err := netmail.ReadMessage(strings.NewReader(got.data))
	if err != nil {
		t.Fatal(err)
	}
	if got.from != "scans@example.com" || !strings.Contains(h.Header.Get("From"), "<scans@example.com>") ||
		!strings.Contains(h.Header.Get("Reply-To"), "mfp@printer.local") {
		t.Errorf("from %s, header:\n%v", got.from, h.Header)
	}
}

func TestRecipientRules(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		recipients = ["*@example.com"]`)
	_, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if code(err) != 550 {
		t.Errorf("got %v, want 550", err)
	}
	if _, err := r.send("anna@example.com", []string{"bob@example.com"}, plainMessage); err != nil {
		t.Error(err)
	}
}

func TestLimitsSurviveARestart(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		limits = ["3 messages/day"]`)
	for range 3 {
		if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
			t.Fatal(err)
		}
	}
	over := func() {
		t.Helper()
		_, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
		var e *smtp.SMTPError
		if !errors.As(err, &e) || e.Code != 452 || !strings.Contains(e.Message, "3 messages/day") {
			t.Fatalf("got %v, want 452 naming the limit", err)
		}
	}
	over()
	r.close()
	r.start()
	over()
}

func TestPermanentRefusalIsAnsweredNotBounced(t *testing.T) {
	p := newProvider(t)
	p.onRcpt = func(string) error { return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user here") }
	r := newRig(t, p, "")
	_, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	var e *smtp.SMTPError
	if !errors.As(err, &e) || e.Code != 550 || !strings.Contains(e.Message, "no such user here") {
		t.Errorf("got %v, want the upstream's 550", err)
	}
	failed, rejected := r.events(trace.Failed), r.events(trace.Rejected)
	if len(failed) != 1 || len(rejected) != 1 || failed[0].ID == "" || rejected[0].ID != failed[0].ID {
		t.Errorf("it is not one message: %+v, %+v", failed, rejected)
	}
	if n := len(r.queued()); n != 0 {
		t.Errorf("%d messages were queued", n)
	}
}

func (r *rig) queued() []*queue.Message {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	messages, err := s.List(r.t.Context(), queue.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return messages
}

func TestPartialRefusalQueuesTheRestAndReports(t *testing.T) {
	p := newProvider(t)
	p.onRcpt = func(to string) error {
		if to == "gone@example.net" {
			return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
		}
		return nil
	}
	r := newRig(t, p, "")
	reply, err := r.send("anna@example.com", []string{"bob@example.net", "gone@example.net"}, plainMessage)
	if err != nil {
		t.Fatalf("reply %q, %v", reply, err)
	}
	messages := p.wait(2)
	report := messages[1]
	if report.from != "" || report.to[0] != "anna@example.com" || !strings.Contains(report.data, "gone@example.net") ||
		!strings.Contains(report.data, "multipart/report") ||
		strings.Contains(report.data, "Final-Recipient: rfc822;bob") {
		t.Errorf("report: %+v", report)
	}
	r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
}

// A read receipt that cannot be delivered ends without a report: there is nobody to tell (RFC 5321 §4.5.5).
func TestNoReportAboutANullReversePath(t *testing.T) {
	p := newProvider(t)
	p.onRcpt = func(to string) error {
		if to == "gone@example.net" {
			return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no such user")
		}
		return nil
	}
	r := newRig(t, p, `listener:handoff = "0s"`)
	if _, err := r.send("", []string{"bob@example.net", "gone@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	if failed := r.events(trace.Failed); len(failed) != 1 || failed[0].To != "gone@example.net" {
		t.Errorf("failed: %+v", failed)
	}
	r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
	if told := r.events(trace.Report); len(told) != 1 || !strings.Contains(told[0].Detail,
		"withheld: the reverse-path is null") {
		t.Errorf("the trace tells of %+v", told)
	}
	if got := p.wait(1); len(got) != 1 || got[0].from != "" || len(got[0].to) != 1 ||
		got[0].to[0] != "bob@example.net" {
		t.Errorf("the provider got %+v", got)
	}
}

func TestAccountFaultKeepsTheMailAndNeverBounces(t *testing.T) {
	p := newProvider(t)
	p.onAuth = func(_, _ string) error { return refusal(535, smtp.EnhancedCode{5, 7, 8}, "bad credentials") }
	r := newRig(t, p, "")
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Fatalf("reply %q, %v", reply, err)
	}
	r.eventually("a deferral with the upstream's reply", func() bool {
		q := r.queued()
		return len(q) == 1 && q[0].LastReply.Code == 535
	})
	if p.count() != 0 {
		t.Error("something was delivered")
	}
}

func TestUpstreamDownQueuesAndDeliversLater(t *testing.T) {
	p := newProvider(t)
	busy := true
	p.onMail = func(string) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if busy {
			return refusal(451, smtp.EnhancedCode{4, 3, 0}, "not now")
		}
		return nil
	}
	r := newRig(t, p, "")
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Fatalf("reply %q, %v", reply, err)
	}
	p.mu.Lock()
	busy = false
	p.mu.Unlock()
	r.retryAll()
	p.wait(1)
	r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
}

// retryAll does what `postern queue retry --all` does.
func (r *rig) retryAll() {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	if _, err := s.Retry(r.t.Context(), queue.Filter{}, time.Now()); err != nil {
		r.t.Fatal(err)
	}
}

// Mail that finds no slot in time is queued, and leaves in order when there is one.
func TestBusyUpstreamQueues(t *testing.T) {
	p := newProvider(t)
	first, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.onData = func(received) error {
		once.Do(func() { close(first) })
		<-release
		return nil
	}
	r := newRig(t, p, "listener:handoff = \"1m\"\nupstream:max_connections = 1")
	submit := func(to string) string {
		reply, err := r.send("anna@example.com", []string{to}, plainMessage)
		if err != nil {
			t.Error(err)
		}
		return reply
	}
	replied := make(chan string)
	go func() { replied <- submit("1@example.net") }()
	<-first
	for _, to := range []string{"2@example.net", "3@example.net"} {
		if reply := submit(to); !strings.Contains(reply, "queued as") {
			t.Errorf("to %s while the only slot is taken: %q", to, reply)
		}
	}
	close(release)
	if reply := <-replied; !strings.Contains(reply, "taken by provider") {
		t.Errorf("to the first: %q", reply)
	}
	for i, m := range p.wait(3) {
		if want := strconv.Itoa(i+1) + "@example.net"; m.to[0] != want {
			t.Errorf("message %d is to %s", i+1, m.to[0])
		}
	}
}

func TestHandOffDeadlineQueuesWhileTheAttemptRuns(t *testing.T) {
	p := newProvider(t)
	release := make(chan struct{})
	p.onData = func(received) error { <-release; return nil }
	r := newRig(t, p, `listener:handoff = "50ms"`)
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Fatalf("reply %q, %v", reply, err)
	}
	if q := r.queued(); len(q) != 1 || q[0].LeaseOwner == "" || q[0].Attempts != 1 {
		t.Fatalf("the message is not leased to the attempt under way: %+v", q)
	}
	close(release)
	r.eventually("an empty queue", func() bool { return len(r.queued()) == 0 })
	if n := p.count(); n != 1 {
		t.Errorf("delivered %d times", n)
	}
}

func TestOperatorHoldsReleasesBouncesAndDeletes(t *testing.T) {
	p := newProvider(t)
	p.onMail = func(from string) error {
		if from == "" {
			return nil // reports
		}
		return refusal(451, smtp.EnhancedCode{4, 3, 0}, "not now")
	}
	r := newRig(t, p, `listener:handoff = "0s"`)
	for range 3 {
		if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("three deferrals", func() bool {
		q := r.queued()
		return len(q) == 3 && q[0].LastReply.Code == 451 && q[1].LastReply.Code == 451 && q[2].LastReply.Code == 451
	})
	s, q := r.store(), r.queued()
	one := func(i int) queue.Filter { return queue.Filter{IDs: []string{q[i].ID}} }
	if n, err := s.Hold(t.Context(), one(0), "looks odd"); n != 1 || err != nil {
		t.Fatalf("hold: %d, %v", n, err)
	}
	if n, err := s.Delete(t.Context(), one(1)); n != 1 || err != nil {
		t.Fatalf("delete: %d, %v", n, err)
	}
	if n, err := s.Bounce(t.Context(), one(2), time.Now()); n != 1 || err != nil {
		t.Fatalf("bounce: %d, %v", n, err)
	}
	report := p.wait(1)[0]
	if report.from != "" || report.to[0] != "anna@example.com" {
		t.Errorf("report %+v", report)
	}
	r.eventually("the held message alone", func() bool {
		left := r.queued()
		return len(left) == 1 && left[0].ID == q[0].ID && left[0].Held
	})
}

func TestOverLimitHoldAcceptsAndWaits(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `[[policy]]
		limits = ["1 messages/day"]
		over_limit = "hold"`)
	for range 2 {
		if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
			t.Fatal(err)
		}
	}
	p.wait(1)
	q := r.queued()
	if len(q) != 1 || !q[0].Held || !strings.Contains(q[0].HoldReason, "/day") {
		t.Fatalf("queue: %+v", q)
	}
	s := r.store()
	if _, err := s.Release(t.Context(), queue.Filter{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	p.wait(2)
}

// Held mail of a login is bounded: over max_held it is told to come back, and may when a person has made room.
func TestHeldMailIsBounded(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `[[policy]]
		limits = ["1 messages/day"]
		over_limit = "hold"
		max_held = 2`)
	send := func() error {
		_, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
		return err
	}
	for range 3 { // one passes, two are held
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(); code(err) != 452 || !strings.Contains(err.Error(), "max_held = 2") ||
		!strings.Contains(err.Error(), "released or deleted") {
		t.Fatalf("over max_held: %v", err)
	}
	if e := r.events(trace.Rejected); e[0].Reply.Code != 452 || !strings.Contains(e[0].Reply.Text, "max_held") {
		t.Errorf("the trace says %+v", e)
	}
	r.close()
	r.start()
	if err := send(); code(err) != 452 {
		t.Fatalf("after a restart: %v", err)
	}
	held := r.queued()
	if len(held) != 2 {
		t.Fatalf("%d are held", len(held))
	}
	if _, err := r.store().Delete(t.Context(), queue.Filter{IDs: []string{held[0].ID}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("room for one more", func() bool { return send() == nil })
	if err := send(); code(err) != 452 {
		t.Errorf("with two held again: %v", err)
	}
}

func TestOverLimitLockLocksTheLogin(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		limits = ["1 messages/day"]
		over_limit = "lock"`)
	c := r.client(rigLogin)
	if _, err := sendOn(c, "anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	if _, err := sendOn(c, "anna@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Fatalf("got %v, want 550", err)
	}
	u, err := r.store().User(t.Context(), rigLogin)
	if err != nil || !u.Locked {
		t.Errorf("user %+v, %v", u, err)
	}
}

func TestSignaturesVerify(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	records := map[string]string{}
	s := r.store()
	for _, alg := range []string{sign.RSA2048, sign.Ed25519} {
		signer, pem, err := sign.Generate(alg)
		if err != nil {
			t.Fatal(err)
		}
		k := sign.Key{Domain: "example.com", Selector: "s-" + alg, Signer: signer}
		if records[k.RecordName()], err = k.Record(); err != nil {
			t.Fatal(err)
		}
		if err := s.AddKeys(t.Context(), relaystore.Key{Domain: k.Domain, Selector: k.Selector, Algorithm: alg,
			PEM: string(pem), Created: time.Now(), State: keyring.State{Stage: keyring.Signing}}); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("keys in force",
		func() bool { return len(r.server.state.Load().routes.Ring.For("sub.example.com")) == 2 })
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	verified, err := dkim.VerifyWithOptions(bytes.NewReader([]byte(r.provider.wait(1)[0].data)), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return []string{records[name]}, nil },
	})
	if err != nil || len(verified) != 2 || verified[0].Err != nil || verified[1].Err != nil {
		t.Errorf("%+v, %v", verified, err)
	}
}

// brokenSigner is a key that cannot sign, such as one in a module that has been pulled out.
type brokenSigner struct{ public crypto.PublicKey }

func (b brokenSigner) Public() crypto.PublicKey { return b.public }
func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key is gone")
}

// What cannot be signed waits: there is no unsigned send.
func TestSignatureThatFailsDefers(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	signer, _, err := sign.Generate(sign.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	st := *r.server.state.Load()
	routes := *st.routes
	st.routes = &routes
	routes.Ring = sign.NewRing([]sign.Key{{Domain: "example.com", Selector: "s",
		Signer: brokenSigner{signer.Public()}}})
	r.server.state.Store(&st)
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Fatalf("reply %q, %v", reply, err)
	}
	if q := r.queued(); len(q) != 1 || q[0].LastReply.Enhanced != "4.7.5" {
		t.Errorf("queue: %+v", q)
	}
	if e := r.events(trace.Deferred)[0]; e.Stage != string(mail.StageSign) ||
		!strings.Contains(e.Detail, "the key is gone") {
		t.Errorf("the trace says %+v", e)
	}
	if n := r.provider.count(); n != 0 {
		t.Errorf("%d messages went out", n)
	}
}

func TestReloadTakesANewConfigurationAndRefusesABadOne(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	old := r.client(rigLogin)
	r.write(`[[policy]]
		recipients = ["*@example.com"]`)
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Errorf("a new session: %v, want 550", err)
	}
	if _, err := sendOn(old, "anna@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Errorf("an open session: %v, want 550", err)
	}
	if err := os.WriteFile(r.path(), []byte("nonsense = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a bad configuration: %v", err)
	}
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Errorf("after a refused reload: %v, want 550", err)
	}
}

// An open session learns, before a reload and after it, who is in a group.
func TestOpenSessionKnowsNewMembers(t *testing.T) {
	r := newRig(t, newProvider(t), `[[policy]]
		senders = ["{login}", "@board"]`)
	open := r.client(rigLogin)
	r.write(`[[policy]]
		senders = ["{login}", "@board"]
		recipients = ["*@example.net"]`)
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	mayBe := func(want int) func() bool {
		return func() bool {
			err := open.Mail("ceo@example.com", nil)
			if err == nil {
				err = open.Reset()
			}
			return code(err) == want
		}
	}
	if !mayBe(550)() {
		t.Fatal("nobody is in the group yet")
	}
	r.addUser(auth.User{Login: "ceo@example.com", Groups: []string{"board"}})
	r.eventually("the new member's address", mayBe(250))
	if err := r.store().DeleteUser(t.Context(), "ceo@example.com", nil); err != nil {
		t.Fatal(err)
	}
	r.eventually("the end of its membership", mayBe(550))
}

// TestPeopleOfTheProviderAreInGroups: who comes by OpenID Connect is a member of the groups that the provider said at
// their last login to the page, until the login is released or becomes an account.
func TestPeopleOfTheProviderAreInGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), `[[policy]]
		senders = ["{login}", "@board"]`)
	open, s := r.client(rigLogin), r.store()
	mayBe := func(address string, want int) {
		t.Helper()
		r.eventually(address+", "+strconv.Itoa(want), func() bool {
			err := open.Mail(address, nil)
			if err == nil {
				err = open.Reset()
			}
			return code(err) == want
		})
	}
	oda := auth.Person{Login: "oda@example.com", Source: "oidc", Subject: "x 1", Groups: []string{"Board"},
		Senders: []string{"info@example.com"}, Seen: time.Now()}
	put := func(p auth.Person) {
		t.Helper()
		if _, err := s.PutPerson(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	mayBe("info@example.com", 550)
	put(oda)
	mayBe("info@example.com", 250)
	r.write(`[[policy]]
		senders = ["{login}", "@board"]
		recipients = ["*@example.net"]`)
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	mayBe("info@example.com", 250)
	oda.Groups = nil
	put(oda)
	mayBe("info@example.com", 550)
	oda.Groups, oda.Senders = []string{"board"}, nil
	put(oda)
	mayBe("oda@example.com", 250)
	r.addUser(auth.User{Login: oda.Login}) // it is somebody else's now, who is in no group
	mayBe("oda@example.com", 550)
}

func TestRemovedAccountIsRefusedAtOnce(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	r.client(rigLogin).Close()
	if err := r.store().DeleteUser(t.Context(), rigLogin, nil); err != nil {
		t.Fatal(err)
	}
	r.eventually("a refusal", func() bool {
		_, err := r.server.accounts.Authenticate(context.Background(), rigLogin, rigPassword, r.anywhere())
		return err != nil
	})
}

func TestNetworkListenerGivesItsAccount(t *testing.T) {
	r := newRig(t, newProvider(t), `listener:auth = "network"
		listener:networks = ["127.0.0.1"]
		listener:login = "anna@example.com"`)
	c, err := smtp.DialStartTLS(r.server.Addresses()["submission"], r.tls())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := sendOn(c, "ceo@example.com", []string{"bob@example.net"}, plainMessage); code(err) != 550 {
		t.Errorf("a foreign sender: %v, want 550", err)
	}
	if _, err := sendOn(c, "anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
		t.Error(err)
	}
}

func TestSecondUpstreamIsTriedWhenTheFirstRefusesUs(t *testing.T) {
	first, second := newProvider(t), newProvider(t)
	first.onAuth = func(_, _ string) error { return refusal(535, smtp.EnhancedCode{5, 7, 8}, "bad credentials") }
	host, port, _ := strings.Cut(second.address, ":")
	r := newRig(t, first, `[[upstream]]
		name = "backup"
		host = "`+host+`"
		port = `+port+`
		ca_file = "`+second.caFile+`"
		username = "relay"
		password = "upstream secret"`)
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "taken by backup") {
		t.Errorf("reply %q, %v", reply, err)
	}
	if second.count() != 1 || first.count() != 0 {
		t.Errorf("first %d, second %d", first.count(), second.count())
	}
	if e := r.events(trace.Delivered)[0]; !strings.Contains(e.Detail, "after provider: 535") {
		t.Errorf("the trace does not say why the first upstream was passed over: %+v", e)
	}
}

func TestLoopIsRefused(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	message := strings.Repeat("Received: by a.example; Sun, 22 Nov 2026 10:00:00 +0000\n", 101) + plainMessage
	if _, err := r.send("anna@example.com", []string{"bob@example.net"}, message); code(err) != 554 {
		t.Errorf("got %v, want 554", err)
	}
}

func TestStoreThatIsFullRefusesAtMail(t *testing.T) {
	fileOnly(t)
	r := newRig(t, newProvider(t), `[store]
		min_free = "900TB"`)
	c := r.client(rigLogin)
	if err := c.Mail("anna@example.com", nil); code(err) != 452 {
		t.Errorf("got %v, want 452", err)
	}
	if err := r.server.ready(t.Context()); err == nil {
		t.Error("readyz says ready")
	}
}

func TestDeviceRestrictedToItsNetwork(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	r.addUser(auth.User{Login: "scanner", Networks: mustPrefixes("192.0.2.0/24")})
	_, err := r.server.accounts.Authenticate(t.Context(), "scanner", rigPassword, r.anywhere())
	if err == nil {
		t.Error("a login from outside its network was let in")
	}
}

func TestRatesOfAnUpstreamSurviveARestart(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, `upstream:rate = ["2 messages/day"]`)
	for n := range 2 {
		if _, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage); err != nil {
			t.Fatal(err)
		}
		p.wait(n + 1)
	}
	r.close()
	quotas, err := r.store().LoadQuotas(t.Context(), "provider") // as the doctor looks
	if err != nil || len(quotas) != 1 || quotas[0].Identity != "relay" {
		t.Fatalf("what was sent: %+v, %v", quotas, err)
	}
	sent := int64(0)
	for _, c := range quotas[0].Counts {
		if c.Per == 24*time.Hour {
			sent += c.Count
		}
	}
	if sent != 2 {
		t.Errorf("%d of the day are known, 2 were sent", sent)
	}
	r.start()
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "queued as") {
		t.Errorf("the third message of the day: %q, %v", reply, err)
	}
	if n := p.count(); n != 2 {
		t.Errorf("the provider took %d messages, at a rate of 2 a day", n)
	}
}
