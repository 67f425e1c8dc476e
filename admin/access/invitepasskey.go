package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern/relay/store"
)

// BeginPasskey returns what the browser is to make a passkey with (navigator.credentials.create), and a cookie.
func (a Invitations) BeginPasskey(ctx context.Context, token string) (options json.RawMessage, cookie string,
	err error) {
	w := a.inUse.Load().webauthn
	if w == nil {
		return nil, "", refuse(ReasonNoPasskeys, nil)
	}
	digest := sha256.Sum256([]byte(token))
	i, err := a.store.ConsoleInvite(ctx, digest)
	if err := a.judgeInvite(i, err); err != nil {
		return nil, "", err
	}
	creation, session, err := w.BeginRegistration(a.owner(store.ConsoleUser{Name: i.Name}))
	if err != nil {
		return nil, "", err
	}
	return a.beginFlow(creation, flow{Kind: flowInvite, Name: i.Name, Bound: digest[:], Passkey: session})
}

// finishPasskey checks a new passkey and returns it as it is kept.
func (a Invitations) finishPasskey(digest [32]byte, name string, got Acceptance) (json.RawMessage, error) {
	f, err := a.openFlow(flowInvite, got.Flow)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(f.Bound, digest[:]) || f.Name != name {
		return nil, refusef(ReasonFlow, "the cookie is of another invitation")
	}
	key, err := a.madeKey(a.owner(store.ConsoleUser{Name: name}), f, got.Passkey)
	if err != nil {
		return nil, err
	}
	key.Added = a.now()
	return json.Marshal(key)
}

// madeKey checks what a browser made of the options of a flow.
func (a factors) madeKey(owner *keyOwner, f flow, response []byte) (keptKey, error) {
	w := a.inUse.Load().webauthn
	if w == nil || f.Passkey == nil {
		return keptKey{}, refuse(ReasonNoPasskeys, nil)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return keptKey{}, refuse(ReasonPasskey, err)
	}
	key, err := w.CreateCredential(owner, *f.Passkey, parsed)
	if err != nil {
		return keptKey{}, refuse(ReasonPasskey, err)
	}
	key.Attestation = webauthn.CredentialAttestation{} // of no use any more
	return keptKey{Credential: *key}, nil
}
