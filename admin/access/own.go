package access

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern/auth"
	"postern/mail"
	"postern/operate"
	"postern/relay/store"
)

// The names of what people do to their own account, in the audit.
const (
	opPassword      = "console own password"
	opApp           = "console own authenticator"
	opAddPasskey    = "console own passkey add"
	opNamePasskey   = "console own passkey name"
	opRemovePasskey = "console own passkey remove"
	opEndSessions   = "console own sessions end"
)

const (
	maxPasskeys = 10
	maxLabel    = 60 // of a passkey, in octets
)

// Own is what people change of their own account. Whatever changes a way in asks for the second factor within the last
// five minutes and is refused to whom the lockout keeps out; what takes one away ends all other sessions, and returns
// the cookie with which one's own goes on.
type Own struct{ factors }

// mayChange asks whether a session may change a way in.
func (a Own) mayChange(s *Session, op, client string) error {
	switch {
	case s.ByOIDC:
		return refuse(ReasonProvider, nil)
	case !s.Actor(client, a.now()).Strong:
		return fmt.Errorf("%s: %w", op, operate.ErrStrong)
	}
	return a.lockedNow(s.Name, client)
}

// deed is what the audit is told of a change, in the transaction of the change.
type deed struct{ op, subject, detail string }

// change changes the user of a session that has not ended, unless somebody else has since it was looked at. The change
// may complete did. Unless next is nil it takes the session's place.
func (a Own) change(ctx context.Context, s *Session, did *deed, client string, next *store.ConsoleSession,
	change func(*store.ConsoleUser) error) error {
	entry := func() store.AuditEntry {
		return a.entry(s.Actor(client, a.now()), did.op, did.subject, did.detail, store.AuditDone)
	}
	ctx = store.Recorded(ctx, &store.Record{Entry: entry})
	apply := func(u *store.ConsoleUser, exists bool, _ []store.ConsoleUser) (bool, error) {
		if !exists || !u.Active() || u.Generation != s.user.Generation {
			return false, refusef(ReasonSession, "the user was changed meanwhile")
		}
		return true, change(u)
	}
	err := a.store.ChangeOwnConsoleUser(ctx, s.Name, s.digest, next, apply)
	if errors.Is(err, store.ErrNoSession) {
		return refuse(ReasonSession, err)
	}
	return err
}

// changeAndEnd is change that ends the other sessions.
func (a Own) changeAndEnd(ctx context.Context, s *Session, op, detail, client string,
	change func(*store.ConsoleUser) error) (cookie string, err error) {
	token, next := newSession(store.ConsoleSession{Name: s.Name, Generation: s.user.Generation + 1,
		Created: s.Began, Client: client}, a.now())
	if !s.StrongUntil.IsZero() {
		next.Strong = s.StrongUntil.Add(-StrongFor)
	}
	err = a.change(ctx, s, &deed{op: op, detail: detail}, client, &next, func(u *store.ConsoleUser) error {
		u.Generation++
		return change(u)
	})
	if err != nil {
		return "", err
	}
	a.auth.Forget(s.Name) // the old password, which was right
	return token, nil
}

// SetPassword takes a new password from whoever knows the old one.
func (a Own) SetPassword(ctx context.Context, s *Session, old, password, client string) (cookie string, err error) {
	if err := a.mayChange(s, opPassword, client); err != nil {
		return "", err
	}
	if err := a.checkPassword(ctx, s.Name, old, client); err != nil {
		a.auditFailure(ctx, s.Actor(client, a.now()), opPassword, err)
		return "", err
	}
	if auth.Prepare(old) == auth.Prepare(password) {
		return "", refusef(ReasonPassword, "it is the one that you have")
	}
	hash, err := a.newPassword(ctx, s.Name, password)
	if err != nil {
		return "", err
	}
	return a.changeAndEnd(ctx, s, opPassword, "", client, func(u *store.ConsoleUser) error {
		u.Hash = hash
		return nil
	})
}

// App is the authenticator that SetApp would take, the same however often a session asks.
func (a Own) App(s *Session) Authenticator { return a.authenticator(s.Name, s.digest) }

// SetApp takes an authenticator in the place of the one before, if any: code is one of App's.
func (a Own) SetApp(ctx context.Context, s *Session, code, client string) (cookie string, err error) {
	if err := a.mayChange(s, opApp, client); err != nil {
		return "", err
	}
	secret := a.App(s).Secret
	step, ok := matchCode(secret, code, a.now())
	if !ok {
		return "", refuse(ReasonCode, nil)
	}
	return a.changeAndEnd(ctx, s, opApp, "", client, func(u *store.ConsoleUser) error {
		u.TOTP, u.TOTPStep, u.WrongCodes = auth.Secret(secret), step, 0
		return nil
	})
}

// Passkey is what one sees of a passkey of one's own.
type Passkey struct {
	ID    string // of the credential, base64url
	Label string
	Added time.Time // zero: before this was kept
	Used  time.Time // to log in or as second factor; zero: never, or before this was kept
}

func idOf(k keptKey) string { return base64.RawURLEncoding.EncodeToString(k.ID) }

// Passkeys are those of a session's user, in the order in which they were added.
func (s *Session) Passkeys() (list []Passkey) {
	for i, raw := range s.user.Passkeys {
		var k keptKey
		if json.Unmarshal(raw, &k) == nil {
			list = append(list, Passkey{idOf(k), labelOf(k.Label, i), k.Added, k.Used})
		}
	}
	return list
}

// labelOf is a name for a passkey: what somebody calls it, or its number.
func labelOf(label string, i int) string {
	label = mail.Cut(strings.TrimSpace(mail.Printable(strings.Join(strings.Fields(label), " "))), maxLabel)
	if label == "" {
		return fmt.Sprintf("Passkey %d", i+1)
	}
	return label
}

// BeginPasskey returns what the browser is to make another passkey with, and a cookie.
func (a Own) BeginPasskey(s *Session, client string) (options json.RawMessage, cookie string, err error) {
	w := a.inUse.Load().webauthn
	if w == nil {
		return nil, "", refuse(ReasonNoPasskeys, nil)
	}
	if err := a.mayChange(s, opAddPasskey, client); err != nil {
		return nil, "", err
	}
	owner := a.owner(s.user)
	if len(owner.keys) >= maxPasskeys {
		return nil, "", refuse(ReasonTooMany, nil)
	}
	var there []protocol.CredentialDescriptor
	for _, k := range owner.keys {
		there = append(there, k.Descriptor())
	}
	creation, session, err := w.BeginRegistration(owner, webauthn.WithExclusions(there))
	if err != nil {
		return nil, "", err
	}
	return a.beginFlow(creation, flow{Kind: flowAdd, Name: s.Name, Bound: s.digest[:], Passkey: session})
}

// AddPasskey takes the passkey that the browser made of BeginPasskey's options.
func (a Own) AddPasskey(ctx context.Context, s *Session, cookie string, response []byte, label, client string) error {
	if err := a.mayChange(s, opAddPasskey, client); err != nil {
		return err
	}
	f, err := a.openFlow(flowAdd, cookie)
	if err != nil {
		return err
	}
	if !bytes.Equal(f.Bound, s.digest[:]) || f.Name != s.Name {
		return refusef(ReasonFlow, "the cookie is of another session")
	}
	made, err := a.madeKey(a.owner(s.user), f, response)
	if err != nil {
		return err
	}
	made.Added = a.now()
	if err := a.endFlow(ctx, f); err != nil {
		return err
	}
	did := deed{op: opAddPasskey}
	return a.change(ctx, s, &did, client, nil, func(u *store.ConsoleUser) error {
		if len(u.Passkeys) >= maxPasskeys {
			return refuse(ReasonTooMany, nil)
		}
		made.Label = labelOf(label, len(u.Passkeys))
		did.subject = made.Label
		raw, err := json.Marshal(made)
		u.Passkeys = append(u.Passkeys, raw)
		return err
	})
}

// NamePasskey gives a passkey another name. It changes no way in.
func (a Own) NamePasskey(ctx context.Context, s *Session, id, label, client string) error {
	did := deed{op: opNamePasskey}
	return a.change(ctx, s, &did, client, nil, func(u *store.ConsoleUser) error {
		i, k, err := findKey(u, id)
		if err != nil {
			return err
		}
		k.Label = labelOf(label, i)
		did.subject = k.Label
		u.Passkeys[i], err = json.Marshal(k)
		return err
	})
}

// RemovePasskey takes a passkey away, unless it is the last way in.
func (a Own) RemovePasskey(ctx context.Context, s *Session, id, client string) (cookie string, err error) {
	if err := a.mayChange(s, opRemovePasskey, client); err != nil {
		return "", err
	}
	i, k, err := findKey(&s.user, id)
	if err != nil {
		return "", err
	}
	return a.changeAndEnd(ctx, s, opRemovePasskey, labelOf(k.Label, i), client, func(u *store.ConsoleUser) error {
		i, _, err := findKey(u, id)
		if err != nil {
			return err
		}
		codes := u.TOTP != "" && u.WrongCodes < maxWrongCodes
		if len(a.owner(*u).keys) == 1 && !codes { // of those that can be read
			return refuse(ReasonLastWay, nil)
		}
		u.Passkeys = slices.Delete(slices.Clone(u.Passkeys), i, i+1)
		return nil
	})
}

func findKey(u *store.ConsoleUser, id string) (int, keptKey, error) {
	for i, raw := range u.Passkeys {
		var k keptKey
		if json.Unmarshal(raw, &k) == nil && idOf(k) == id {
			return i, k, nil
		}
	}
	return 0, keptKey{}, refuse(ReasonNoSuch, nil)
}

// OpenSession is what one sees of a session of one's own.
type OpenSession struct {
	ID     string // names it to EndSession; it does not log in
	Began  time.Time
	Used   time.Time // to the minute
	Client string    // address that it began from
	This   bool      // it is the one that asks
}

// Sessions are those of a session's user, the one used last first.
func (a Own) Sessions(ctx context.Context, s *Session) (list []OpenSession, err error) {
	found, err := a.openSessions(ctx, s)
	for _, c := range found {
		list = append(list, OpenSession{sessionID(c), c.Created, c.Used, c.Client, c.Digest == s.digest})
	}
	return list, err
}

// openSessions are the sessions that count.
func (a Own) openSessions(ctx context.Context, s *Session) ([]store.ConsoleSession, error) {
	now := a.now()
	found, err := a.store.ConsoleSessions(ctx, s.Name, now.Add(-SessionFor), now.Add(-IdleFor))
	return slices.DeleteFunc(found, func(c store.ConsoleSession) bool { return c.Generation != s.user.Generation }), err
}

func sessionID(c store.ConsoleSession) string { return hex.EncodeToString(c.Digest[:8]) }

// EndSession ends one of the sessions of a session's user.
func (a Own) EndSession(ctx context.Context, s *Session, id, client string) error {
	found, err := a.openSessions(ctx, s)
	if err != nil {
		return err
	}
	for _, c := range found {
		if sessionID(c) != id {
			continue
		}
		return a.end(ctx, s, client, "one, from "+c.Client, &c.Digest)
	}
	return refuse(ReasonNoSuch, nil)
}

// EndOthers ends all sessions of a session's user but this one.
func (a Own) EndOthers(ctx context.Context, s *Session, client string) error {
	return a.end(ctx, s, client, "all others", nil)
}

// end ends another session, nil all others, unless the one that asks has ended itself.
func (a Own) end(ctx context.Context, s *Session, client, detail string, other *[32]byte) error {
	ctx = a.recorded(ctx, s.Actor(client, a.now()), opEndSessions, "", detail)
	err := a.store.EndOtherSessions(ctx, s.Name, s.digest, other)
	if errors.Is(err, store.ErrNoSession) {
		return refuse(ReasonSession, err)
	}
	return err
}
