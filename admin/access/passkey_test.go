package access

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/descope/virtualwebauthn"

	"postern/operate"
)

var party = virtualwebauthn.RelyingParty{ID: "relay.example.com", Name: "Postern",
	Origin: "https://relay.example.com:8587"}

// device is an authenticator with one passkey.
type device struct {
	virtualwebauthn.Authenticator
	key virtualwebauthn.Credential
	at  virtualwebauthn.RelyingParty
}

func newDevice() *device {
	key := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
	for len(key.Key.AttestationData()) != wholeKey {
		key = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
	}
	return &device{virtualwebauthn.NewAuthenticator(), key, party}
}

// wholeKey is the length of a public key (COSE, P-256). The library drops zeros at the beginning of a coordinate, which
// one key in 128 has, and which is no valid key then.
const wholeKey = 77

// create is navigator.credentials.create.
func (d *device) create(t *testing.T, options json.RawMessage) json.RawMessage {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	if err != nil {
		t.Fatal(err)
	}
	return json.RawMessage(virtualwebauthn.CreateAttestationResponse(d.at, d.Authenticator, d.key, *o))
}

// get is navigator.credentials.get.
func (d *device) get(t *testing.T, options json.RawMessage) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(options))
	if err != nil {
		t.Fatal(err)
	}
	d.key.Counter++
	return []byte(virtualwebauthn.CreateAssertionResponse(d.at, d.Authenticator, d.key, *o))
}

// joinWithPasskey makes a user with a passkey and returns the cookie of the first session.
func (r *rig) joinWithPasskey(name string, d *device) string {
	r.t.Helper()
	token := r.invite(name, operate.Admin)
	options, flow, err := r.Invitations.BeginPasskey(r.t.Context(), token)
	if err != nil {
		r.t.Fatal(err)
	}
	cookie, err := r.Invitations.Accept(r.t.Context(), token, Acceptance{Password: password, Passkey: d.create(r.t,
		options), Flow: flow},
		client)
	if err != nil {
		r.t.Fatal(err)
	}
	return cookie
}

func TestPasskeyOfAnInvitation(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	token, other := r.invite("anna", operate.Admin), r.invite("ben", operate.Admin)
	options, flow, err := r.Invitations.BeginPasskey(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	_, otherFlow, err := r.Invitations.BeginPasskey(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, unverified := newDevice(), newDevice()
	elsewhere.at.Origin = "https://relay.example.net"
	unverified.Options.UserNotVerified = true
	for _, c := range []struct {
		what   string
		device *device
		flow   string
		want   Reason
	}{
		{"of another site", elsewhere, flow, ReasonPasskey},
		{"without PIN or finger", unverified, flow, ReasonPasskey},
		{"for another invitation", newDevice(), otherFlow, ReasonFlow},
		{"a forged cookie", newDevice(), flow + "A", ReasonFlow},
		{"right", newDevice(), flow, ""},
	} {
		_, err := r.Invitations.Accept(ctx, token, Acceptance{Password: password, Passkey: c.device.create(t, options),
			Flow: c.flow}, client)
		refused(t, c.what, err, c.want)
	}
}

func TestLoginWithPasskey(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	anna, ben := newDevice(), newDevice()
	r.joinWithPasskey("anna", anna)
	r.joinWithPasskey("ben", ben)
	begin := func(name string) (json.RawMessage, string) {
		options, flow, err := r.Passkeys.Begin(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		return options, flow
	}
	options, flow := begin("ANNA")
	response := anna.get(t, options)
	cookie, err := r.Passkeys.Finish(ctx, flow, response, client)
	refused(t, "right", err, "")
	if s := r.session("", cookie, ""); s.Name != "anna" || !s.HasPasskey || s.HasCode || !s.Actor("",
		r.clock.now).Strong {
		t.Errorf("%+v", s)
	}
	_, err = r.Passkeys.Finish(ctx, flow, response, client)
	if err == nil {
		t.Error("a replayed answer is taken")
	}

	_, err = r.Passkeys.Finish(ctx, flow, ben.get(t, options), client)
	refused(t, "another's passkey, and a cookie that was used", err, ReasonFlow)
	options, flow = begin("anna")
	_, err = r.Passkeys.Finish(ctx, flow, ben.get(t, options), client)
	refused(t, "another's passkey", err, ReasonPasskey)
	_, err = r.Passkeys.Finish(ctx, flow, []byte("{}"), client)
	refused(t, "no answer", err, ReasonPasskey)
	_, benFlow := begin("ben")
	_, err = r.Passkeys.Finish(ctx, benFlow, anna.get(t, options), client)
	refused(t, "an answer to another question", err, ReasonPasskey)
	unverified := *anna
	unverified.Options.UserNotVerified = true
	_, err = r.Passkeys.Finish(ctx, flow, unverified.get(t, options), client)
	refused(t, "without PIN or finger", err, ReasonPasskey)
	copied := *anna
	copied.key.Counter = 0
	_, err = r.Passkeys.Finish(ctx, flow, copied.get(t, options), client)
	refused(t, "a copy whose counter is behind", err, ReasonPasskey)
	r.clock.pass(FlowFor)
	_, err = r.Passkeys.Finish(ctx, flow, anna.get(t, options), client)
	refused(t, "too late", err, ReasonFlow)

	if err := r.Users.Disable(ctx, owner, "anna", true); err != nil {
		t.Fatal(err)
	}
	options, flow = begin("anna")
	_, err = r.Passkeys.Finish(ctx, flow, anna.get(t, options), client)
	refused(t, "switched off", err, ReasonPasskey)
	_, err = r.login("ben", "")
	refused(t, "password alone", err, ReasonWrong)
}

// TestUnknownNamesLookKnown: whoever asks for the passkeys of names learns nothing of who there is.
func TestUnknownNamesLookKnown(t *testing.T) {
	r := newRig(t)
	r.joinWithPasskey("anna", newDevice())
	shape := func(name string) (ids []string, keys int) {
		var o struct {
			PublicKey struct {
				AllowCredentials []map[string]any `json:"allowCredentials"`
			} `json:"publicKey"`
		}
		options, _, err := r.Passkeys.Begin(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(options, &o); err != nil {
			t.Fatal(err)
		}
		for _, c := range o.PublicKey.AllowCredentials {
			ids, keys = append(ids, c["id"].(string)), len(c)
		}
		return ids, keys
	}
	anna, keys := shape("anna")
	for _, name := range []string{"nobody", "", strings.Repeat("x", 1000)} {
		first, n := shape(name)
		again, _ := shape(name)
		if len(first) != 1 || len(anna) != 1 || n != keys || first[0] != again[0] || len(first[0]) != len(anna[0]) {
			t.Errorf("%.10q: %v, then %v; anna %v", name, first, again, anna)
		}
	}
}

func TestStepUpWithPasskey(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	anna := newDevice()
	first := r.joinWithPasskey("anna", anna)
	r.clock.pass(StrongFor)
	s := r.session("", first, "")
	options, flow, err := r.Passkeys.BeginStepUp(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Passkeys.Finish(ctx, flow, anna.get(t, options), client)
	refused(t, "a step-up as login", err, ReasonFlow)
	_, login, err := r.Passkeys.Begin(ctx, "anna")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Passkeys.FinishStepUp(ctx, s, login, anna.get(t, options), client)
	refused(t, "a login as step-up", err, ReasonFlow)
	second, err := r.Passkeys.FinishStepUp(ctx, s, flow, anna.get(t, options), client)
	refused(t, "right", err, "")
	if s := r.session("", second, ""); !s.Actor("", r.clock.now).Strong {
		t.Error("the second factor does not count")
	}
	r.session("the cookie before", first, ReasonSession)
	_, err = r.Passkeys.FinishStepUp(ctx, s, flow, anna.get(t, options), client)
	refused(t, "again", err, ReasonFlow)
}

func TestPasskeysNeedAName(t *testing.T) {
	r := newRig(t, func(o *Options) { o.URL = &url.URL{Scheme: "http", Host: "127.0.0.1:8587"} })
	_, _, err := r.Passkeys.Begin(t.Context(), "anna")
	refused(t, "at an address", err, ReasonNoPasskeys)
	if r.HasPasskeys() {
		t.Error("passkeys are offered")
	}
	if err := r.Use(Options{URL: &url.URL{Scheme: "http", Host: "localhost:8587"}}); err != nil || !r.HasPasskeys() {
		t.Errorf("passkeys at localhost: %v", err)
	}
}
