package relay

import (
	"context"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/fakeprovider"
	"postern/relay/queue"
	"postern/relay/trace"
	"postern/relay/upstream"
)

// One mailbox sends for ten people, and the provider denies it one of them, with 5yz behind the final dot: that
// person's mail is kept and nothing bounces, and the mail of the others flows.
func TestDeniedSenderKeepsItsMail(t *testing.T) {
	t.Parallel()
	const each = 5
	denied := people[3]
	allow := func(but string) fakeprovider.Regime {
		return fakeprovider.Regime{SendAs: func(_, from string) bool { return from != but }}
	}
	r := newOAuthRig(t, fakeprovider.SMTPOptions{Messages: 1000},
		"provider = \"microsoft365\"\nrate = [\"1000 "+
			"messages/minute\"]", "", func(r *oauthRig) { r.smtp.Set(allow(denied)) })
	r.push(each)
	others := each * (len(people) - 1)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if got, err := r.smtp.Wait(ctx, others); err != nil {
		t.Fatalf("%d of %d messages of the others arrived: %+v", len(got), others, r.smtp.Counts())
	}
	s := r.store()
	var left []*queue.Message
	r.eventually("the denied sender's mail in the queue, and no other", func() bool {
		var err error
		left, err = s.List(t.Context(), queue.Filter{})
		return err == nil && len(left) == each
	})
	for _, m := range left {
		if from := m.Envelope.From.String(); from != denied {
			t.Errorf("mail of %s is left", from)
		}
	}
	r.eventually("a refusal on record", func() bool { return r.smtp.Counts().Refused["send-as"] > 0 })
	for _, st := range r.server.state.Load().routes.Upstreams[0].States() {
		if st.Status != upstream.Ready {
			t.Errorf("%+v: the mailbox waits for one sender", st)
		}
	}
	if asked := r.smtp.Counts().Refused["send-as"]; asked > 2*each {
		t.Errorf("the provider was asked %d times for what it denies", asked) // it throttles who keeps asking
	}
	for _, a := range r.smtp.Arrivals() {
		if a.From == denied {
			t.Error("mail of the denied sender arrived")
		}
	}
	r.wantDeferred(denied)
	for _, kind := range []trace.Kind{trace.Failed, trace.Report} {
		if events, err := s.Events(t.Context(), trace.Query{Kinds: []trace.Kind{kind}}); err != nil || len(events) > 0 {
			t.Errorf("%s: %v, %+v", kind, err, events)
		}
	}
}

// wantDeferred proves that the trace tells why.
func (r *oauthRig) wantDeferred(from string) {
	r.t.Helper()
	for _, e := range r.events(trace.Deferred) {
		if e.From == from && e.Rule == "send-as-denied" && e.Class == mail.AccountFault.String() &&
			strings.Contains(e.Reply.Text, "SendAsDenied") {
			return
		}
	}
	r.t.Errorf("no event tells that %s is denied", from)
}
