package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

// newWebAuthn makes the verifier of passkeys that are bound to a host. The user must be verified by the authenticator
// (PIN, finger, face): a passkey is then two factors by itself.
func newWebAuthn(host string, origin *url.URL) (*webauthn.WebAuthn, error) {
	return webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: "Postern", RPOrigins: []string{origin.Scheme + "://" + origin.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
		},
	})
}

// Passkeys are logins, and the second factor given again, with a passkey.
type Passkeys struct{ *core }

// keptKey is a passkey as the store has it.
type keptKey struct {
	webauthn.Credential
	keyNotes
}

// keyNotes are what we keep beside a credential.
type keyNotes struct {
	Label string    `json:"label,omitempty"` // what its owner calls it
	Added time.Time `json:"added,omitzero"`
	Used  time.Time `json:"used,omitzero"`
}

// UnmarshalJSON implements json.Unmarshaler, in the place of Credential's, which leaves the notes out.
func (k *keptKey) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &k.keyNotes); err != nil {
		return err
	}
	return k.Credential.UnmarshalJSON(data)
}

// keyOwner shows a user to package webauthn.
type keyOwner struct {
	name   string
	handle []byte
	keys   []webauthn.Credential
}

func (k *keyOwner) WebAuthnID() []byte                         { return k.handle }
func (k *keyOwner) WebAuthnName() string                       { return k.name }
func (k *keyOwner) WebAuthnDisplayName() string                { return k.name }
func (k *keyOwner) WebAuthnCredentials() []webauthn.Credential { return k.keys }

// secretOf is 256 bits that follow from a name, and that nobody else can tell.
func (a *core) secretOf(purpose, name string) []byte {
	mac := hmac.New(sha256.New, a.derive(purpose))
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// owner is a user with their passkeys. What cannot be read is left out.
func (a *core) owner(u store.ConsoleUser) *keyOwner {
	k := &keyOwner{name: u.Name, handle: a.secretOf("handle", u.Name)}
	for _, raw := range u.Passkeys {
		var c keptKey
		if err := json.Unmarshal(raw, &c); err != nil {
			a.log.Error("console: a passkey in the store is damaged", "name", u.Name, "err", err)
			continue
		}
		k.keys = append(k.keys, c.Credential)
	}
	return k
}

// Begin returns what the browser is to ask a passkey for (navigator.credentials.get), and a cookie. Whether the
// name exists does not show: who has no passkey gets the name of one that nobody has.
func (a Passkeys) Begin(ctx context.Context, name string) (options json.RawMessage, cookie string, err error) {
	name, _ = auth.NormalizeLogin(name)
	u, err := a.store.ConsoleUser(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNoConsoleUser) {
		return nil, "", err
	}
	if err != nil || !u.Active() {
		u = store.ConsoleUser{Name: name}
	}
	return a.ask(u, flow{Kind: flowLogin, Name: name})
}

// ask begins a ceremony that ends with take.
func (a Passkeys) ask(u store.ConsoleUser, f flow) (json.RawMessage, string, error) {
	w := a.inUse.Load().webauthn
	if w == nil {
		return nil, "", refuse(ReasonNoPasskeys, nil)
	}
	owner := a.owner(u)
	if len(owner.keys) == 0 {
		owner.keys = []webauthn.Credential{{ID: a.secretOf("no passkey", u.Name)}}
	}
	var allowed []protocol.CredentialDescriptor
	for _, k := range owner.keys { // without transports, which nobody's invented passkey has
		allowed = append(allowed, protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType,
			CredentialID: k.ID})
	}
	assertion, session, err := w.BeginLogin(owner, webauthn.WithAllowedCredentials(allowed),
		webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, "", err
	}
	f.Passkey = session
	return a.beginFlow(assertion, f)
}

// Finish lets in who has a passkey. response is what the browser made of the options, cookie that of
// Begin. It returns what the browser is to keep as cookie.
func (a Passkeys) Finish(ctx context.Context, cookie string, response []byte, client string) (string, error) {
	f, err := a.openFlow(flowLogin, cookie)
	if err != nil {
		return "", err
	}
	who := operate.Actor{Name: f.Name, Channel: operate.Console, Client: client}
	u, err := a.take(ctx, f, response, true)
	if err != nil {
		a.auditFailure(ctx, who, opLogin, err)
		return "", err
	}
	return a.enter(ctx, u, who, true, "passkey")
}

// take checks what a passkey has signed, and remembers its counter in the same transaction.
func (a Passkeys) take(ctx context.Context, f flow, response []byte, login bool) (user store.ConsoleUser,
	err error) {
	w := a.inUse.Load().webauthn
	if w == nil || f.Passkey == nil {
		return user, refuse(ReasonNoPasskeys, nil)
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return user, refuse(ReasonPasskey, err)
	}
	err = a.store.ChangeConsoleUser(ctx, f.Name, func(u *store.ConsoleUser, exists bool, _ []store.ConsoleUser) (bool,
		error) {
		if !exists || !u.Active() || len(u.Passkeys) == 0 {
			return false, refusef(ReasonPasskey, "the user has none")
		}
		key, err := w.ValidateLogin(a.owner(*u), *f.Passkey, parsed)
		switch {
		case err != nil:
			return false, refuse(ReasonPasskey, err)
		case key.Authenticator.CloneWarning: // WebAuthn §6.1.1
			return false, refusef(ReasonPasskey, "its counter went back: there may be a copy of it")
		}
		for i, raw := range u.Passkeys {
			var old keptKey
			if json.Unmarshal(raw, &old) == nil && bytes.Equal(old.ID, key.ID) {
				old.Credential, old.Used = *key, a.now()
				if u.Passkeys[i], err = json.Marshal(old); err != nil {
					return false, err
				}
			}
		}
		u.WrongCodes = 0
		if login {
			u.LastLogin = a.now()
		}
		user = *u
		return true, nil
	})
	if err == nil {
		err = a.endFlow(ctx, f)
	}
	return user, err
}

// BeginStepUp is Begin for somebody who has a session, to give the second factor again.
func (a Passkeys) BeginStepUp(_ context.Context, s *Session) (options json.RawMessage, cookie string, err error) {
	return a.ask(s.user, flow{Kind: flowStepUp, Name: s.Name, Bound: s.digest[:]})
}

// FinishStepUp is Logins.StepUp with a passkey.
func (a Passkeys) FinishStepUp(ctx context.Context, s *Session, cookie string, response []byte, client string) (
	string, error) {
	f, err := a.openFlow(flowStepUp, cookie)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(f.Bound, s.digest[:]) || f.Name != s.Name {
		return "", refusef(ReasonFlow, "the cookie is of another session")
	}
	who := s.Actor(client, a.now())
	u, err := a.take(ctx, f, response, false)
	if err != nil {
		a.auditFailure(ctx, who, opStepUp, err)
		return "", err
	}
	return a.stronger(ctx, s, u, who)
}
