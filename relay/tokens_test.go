package relay

import (
	"context"
	"strings"
	"testing"
	"time"

	"postern/relay/fakeprovider"
)

// When the secret is mended by a reload the mail goes, and when a person logs in nobody waits for the end of a pause.
func TestMailWaitsForAToken(t *testing.T) {
	r := newOAuthRig(t, fakeprovider.SMTPOptions{}, "max_connections = 3", "", func(r *oauthRig) {
		r.smtp.Set(fakeprovider.Regime{SendAs: func(string, string) bool { return true }})
		r.login.Fail(fakeprovider.Fault{Endpoint: "token", AADSTS: 7000222, Error: "invalid_client",
			Description: "The provided client secret keys are expired."})
	})
	r.push(1)
	r.eventually("a paused upstream", func() bool {
		states := r.server.state.Load().routes.Upstreams[0].States()
		return len(states) == 1 && states[0].Status == "paused" &&
			strings.Contains(states[0].Reply.Text, "the client secret has expired")
	})
	if n := r.smtp.Counts().Connections; n != 0 {
		t.Errorf("%d connections without a token", n)
	}
	r.login.Fail()
	r.server.state.Load().routes.Upstreams[0].Tokens.Forget() // as a login does
	s := r.store()
	if _, err := s.SaveGrant(t.Context(), "m365", []byte("sealed"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Consented(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if got, err := r.smtp.Wait(ctx, len(people)); err != nil {
		t.Errorf("%d arrived: %v", len(got), err)
	}
}
