package relay

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/relay/fakeprovider"
	"postern/relay/status"
)

// asked is the answer of the daemon in a rig.
func (r *rig) asked() *status.Report {
	r.t.Helper()
	got, err := status.Ask(r.t.Context(), r.server.state.Load().config.DataDir)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func TestStatusOfAPausedUpstream(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.onAuth = func(_, password string) error {
		return refusal(535, smtp.EnhancedCode{5, 7, 8}, "wrong, said the provider, is "+password)
	}
	r := newRig(t, p, "[delivery]\nretry = [\"1s\"]\n")
	if got := r.asked(); !got.OK || got.Phase != status.Serving || got.Upstreams[0].State != status.Works ||
		len(got.Listeners) != 1 ||
		len(got.Certificates) != 2 || got.Certificates[0].DaysLeft != 824 || got.Listeners[0].Certificate == "" {
		t.Errorf("at first: %+v", got)
	}
	if _, err := r.send(rigLogin, []string{"b@example.net"}, "From: "+rigLogin+"\n\nhello\n"); err != nil {
		t.Fatal(err)
	}
	r.eventually("a pause, and mail that sleeps", func() bool { return len(r.asked().Queue.Sleeping) == 1 })
	got := r.asked()
	up := got.Upstreams[0]
	if got.OK || up.State != status.Paused || up.Waiting != 1 ||
		!strings.Contains(got.Summary, "No mail can leave: provider is paused for") ||
		!strings.Contains(up.Identities[0].Reply, "535 5.7.8 wrong, said the provider") ||
		up.Identities[0].NextTry.IsZero() {
		t.Errorf("%+v", got)
	}
	if w := got.Queue.Sleeping[0]; w.Messages != 1 || w.Upstream != "provider" || got.Queue.Waiting != 1 {
		t.Errorf("the queue: %+v", got.Queue)
	}
	if b, _ := json.Marshal(got); strings.Contains(string(b), "upstream secret") {
		t.Errorf("it has the password: %s", b)
	}
	r.write("listener:auth_timeout = \"nonsense\"")
	if err := r.server.Reload(t.Context()); err == nil {
		t.Fatal("a wrong configuration was taken")
	}
	if got := r.asked(); !strings.Contains(got.Refused, "auth_timeout") {
		t.Errorf("it does not say that the reload was refused: %q", got.Refused)
	}
}

// Of a thousand identities the worst are shown, and a sender that is denied is not one of them.
func TestStatusIsBounded(t *testing.T) {
	t.Parallel()
	denied := people[3]
	r := newOAuthRig(t, fakeprovider.SMTPOptions{Messages: 1000},
		"provider = \"microsoft365\"\nrate = [\"1000 messages/minute\"]", "",
		func(r *oauthRig) {
			r.smtp.Set(fakeprovider.Regime{SendAs: func(_, from string) bool { return from != denied }})
		})
	r.push(1)
	up := r.server.state.Load().routes.Upstreams[0]
	for i := range 500 {
		slot, _ := up.Reserve(time.Now(), fmt.Sprintf("user%d@contoso.example", i))
		slot.Release()
	}
	got := r.asked()
	u := got.Upstreams[0]
	if len(u.Identities) != status.Most || u.Total < 500 || !got.OK {
		t.Errorf("%d of %d identities; %s", len(u.Identities), u.Total, got.Summary)
	}
}
