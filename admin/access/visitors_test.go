package access

import (
	"testing"
	"time"
)

// A browser may log in to the console and to a page for visitors at the same time: what one has begun cannot be ended
// at the other, even if both had one key and one provider, and neither spoils the other.
func TestVisitorsAreNoUsers(t *testing.T) {
	r, p := newOIDCRig(t)
	ctx := t.Context()
	v, err := NewVisitors(r.derive("flow"), r.core.store, func() time.Time { return r.clock.now })
	if err != nil {
		t.Fatal(err)
	}
	v.Use(&Provider{Issuer: p.URL, ClientID: "postern", ClientSecret: "hunter2",
		RedirectURL: "https://relay.example.com:8587/login/oidc"})
	toConsole, consoles, err := r.OIDC.Begin(ctx, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	toPage, pages, err := v.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{toConsole, toPage} {
		_, _, err = r.OIDC.Finish(ctx, nil, pages, p.authorize(to, r.clock.now, nil), client)
		refused(t, "the page's cookie at the console", err, ReasonFlow)
		_, _, err = v.Finish(ctx, consoles, p.authorize(to, r.clock.now, nil))
		refused(t, "the console's cookie at the page", err, ReasonFlow)
	}
	_, _, err = v.Finish(ctx, pages, p.authorize(toConsole, r.clock.now, nil))
	refused(t, "the console's answer at the page", err, ReasonOIDC)
	_, _, err = r.OIDC.Finish(ctx, nil, consoles, p.authorize(toPage, r.clock.now, nil), client)
	refused(t, "the page's answer at the console", err, ReasonOIDC)
	token, _, err := r.OIDC.Finish(ctx, nil, consoles, p.authorize(toConsole, r.clock.now, nil), client)
	if err != nil || token == "" {
		t.Errorf("the console's own: %v", err)
	}
	issuer, c, err := v.Finish(ctx, pages, p.authorize(toPage, r.clock.now, nil))
	if err != nil || issuer != p.URL || c.Subject != "4711" {
		t.Errorf("the page's own: %s, %+v, %v", issuer, c, err)
	}
	_, _, err = v.Finish(ctx, pages, p.authorize(toPage, r.clock.now, nil))
	refused(t, "the same again", err, ReasonFlow)
	_, pages, err = v.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.clock.pass(FlowFor)
	_, _, err = v.Finish(ctx, pages, p.authorize(toPage, r.clock.now, nil))
	refused(t, "too late", err, ReasonFlow)
}
