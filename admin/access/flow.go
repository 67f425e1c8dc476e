package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/hashicorp/golang-lru/v2/expirable"

	"postern/relay/seal"
)

// FlowFor is how long a step of a login may take.
const FlowFor = 10 * time.Minute

// The kinds of flow.
const (
	flowInvite = "invite" // a passkey for an invitation
	flowKept   = "kept"   // the password chosen for one
	flowLogin  = "login"  // with a passkey
	flowStepUp = "step-up"
	flowAdd    = "add" // another passkey
	flowOIDC   = "oidc"
)

// flow is what lies between two steps of a login. The browser keeps it, sealed, as a cookie or in a form.
type flow struct {
	Kind     string                `json:"k"`
	ID       string                `json:"i"`
	Expires  time.Time             `json:"e"`
	Name     string                `json:"n,omitempty"`
	Bound    []byte                `json:"b,omitempty"` // digest of the session or link that it belongs to
	Passkey  *webauthn.SessionData `json:"p,omitempty"`
	Hash     string                `json:"h,omitempty"` // of a password; an auth.Secret would hide it
	State    string                `json:"s,omitempty"`
	Nonce    string                `json:"o,omitempty"`
	Verifier string                `json:"v,omitempty"`
	Next     string                `json:"x,omitempty"`
}

// EndedFlows remembers which flows have ended well, for all nodes. *store.Store does.
type EndedFlows interface {
	// EndFlow reports whether it is the first time. It may be forgotten after until.
	EndFlow(ctx context.Context, id string, now, until time.Time) (first bool, err error)
}

// flows seal what lies between two steps, and let each end well once.
type flows struct {
	sealer *seal.Sealer
	label  string // whose they are
	clock  func() time.Time
	ended  EndedFlows
	seen   *expirable.LRU[string, struct{}] // those that have ended well here: they need not be asked for
}

func newFlows(key []byte, label string, ended EndedFlows, now func() time.Time) (*flows, error) {
	sealer, err := seal.New(key)
	return &flows{sealer: sealer, label: label, clock: now, ended: ended,
		seen: expirable.NewLRU[string, struct{}](maxSeen, nil, FlowFor)}, err
}

func (a *flows) sealFlow(f flow) (string, error) {
	f.ID, f.Expires = random(), a.clock().Add(FlowFor)
	b, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(a.sealer.Seal(a.label, b)), nil
}

// openFlow returns what sealFlow kept, unless it is too old, of another kind, or has ended well before.
func (a *flows) openFlow(kind, sealed string) (flow, error) {
	var f flow
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	if err == nil {
		b, err = a.sealer.Open(a.label, b)
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	switch {
	case err != nil:
		return flow{}, refuse(ReasonFlow, err)
	case f.Kind != kind:
		return flow{}, refusef(ReasonFlow, "a %s cookie for a %s", f.Kind, kind)
	case !a.clock().Before(f.Expires):
		return flow{}, refusef(ReasonFlow, "the cookie has expired")
	case a.seen.Contains(f.ID):
		return flow{}, errFlowUsed
	}
	return f, nil
}

// endFlow keeps a flow from ending well twice: it refuses if another request was faster.
func (a *flows) endFlow(ctx context.Context, f flow) error {
	first, err := a.ended.EndFlow(ctx, f.ID, a.clock(), f.Expires)
	if err != nil {
		return err
	}
	a.seen.Add(f.ID, struct{}{})
	if !first {
		return errFlowUsed
	}
	return nil
}

var errFlowUsed = refusef(ReasonFlow, "the cookie was used already")

// beginFlow returns what a browser is asked for, and the cookie.
func (a *flows) beginFlow(options any, f flow) (json.RawMessage, string, error) {
	b, err := json.Marshal(options)
	if err != nil {
		return nil, "", err
	}
	cookie, err := a.sealFlow(f)
	return b, cookie, err
}
