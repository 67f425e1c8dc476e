package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"image/png"
	"net/url"
	"time"

	"github.com/pquerna/otp"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

// InviteFor is how long a link works.
const InviteFor = 15 * time.Minute

// InvitePath is where a link leads; what is behind it proves the invitation.
const InvitePath = "/invite/"

// Link is an invitation that was made just now. It is shown once.
type Link struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

// newLink makes a link for a user that is in the store.
func (a Users) newLink(ctx context.Context, name string, role operate.Role) (Link, error) {
	token, now := random(), a.now()
	i := store.ConsoleInvite{Digest: sha256.Sum256([]byte(token)), Name: name, Expires: now.Add(InviteFor)}
	if err := a.store.AddConsoleInvite(ctx, i, now); err != nil {
		return Link{}, err
	}
	return Link{name, role.String(), a.URL().JoinPath(InvitePath, token).String(), i.Expires}, nil
}

// Invitations are links by which people come.
type Invitations struct{ factors }

// Invitation is what a link is about.
type Invitation struct {
	Name    string
	Role    operate.Role
	Expires time.Time
	Authenticator
}

// Authenticator is what an application makes codes of.
type Authenticator struct {
	Secret string // base32; the same whenever the page is shown
	URI    string // the same as otpauth://, for a link on a phone
}

// QR is the secret as a picture of so many pixels, PNG.
func (i Authenticator) QR(size int) ([]byte, error) {
	key, err := otp.NewKeyFromURL(i.URI)
	if err != nil {
		return nil, err
	}
	picture, err := key.Image(size, size)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = png.Encode(&b, picture)
	return b.Bytes(), err
}

// Get returns what a link is about, and uses nothing up: mail scanners and previews open links too.
func (a Invitations) Get(ctx context.Context, token string) (*Invitation, error) {
	digest := sha256.Sum256([]byte(token))
	i, err := a.store.ConsoleInvite(ctx, digest)
	if err := a.judgeInvite(i, err); err != nil {
		return nil, err
	}
	u, err := a.store.ConsoleUser(ctx, i.Name)
	if errors.Is(err, store.ErrNoConsoleUser) {
		return nil, refuse(ReasonLinkUnknown, err)
	}
	if err != nil {
		return nil, err
	}
	return &Invitation{u.Name, roleOf(u), i.Expires, a.authenticator(u.Name, digest)}, nil
}

// authenticator is the one that follows from a link or session, so that there is nothing to keep until its code comes.
func (a factors) authenticator(name string, digest [32]byte) Authenticator {
	secret := a.totpSecret(digest)
	return Authenticator{secret, otpURI(a.URL().Hostname(), name, secret)}
}

func otpURI(host, name, secret string) string {
	label := url.PathEscape("Postern (" + host + "):" + name)
	v := url.Values{"secret": {secret}, "issuer": {"Postern (" + host + ")"}}
	return "otpauth://totp/" + label + "?" + v.Encode()
}

// judgeInvite tells apart why a link does not work.
func (a Invitations) judgeInvite(i store.ConsoleInvite, err error) error {
	switch {
	case errors.Is(err, store.ErrNoInvite):
		return refuse(ReasonLinkUnknown, err)
	case err != nil:
		return err
	case !i.Used.IsZero():
		return refusef(ReasonLinkUsed, "it was used at %s", i.Used.UTC().Format(time.RFC3339))
	case i.Void:
		return refuse(ReasonLinkReplaced, nil)
	case !a.now().Before(i.Expires):
		return refuse(ReasonLinkExpired, nil)
	}
	return nil
}

// totpSecret is the secret that belongs to the digest of a link or session: 160 bits (RFC 4226 §4).
func (a factors) totpSecret(digest [32]byte) string {
	mac := hmac.New(sha256.New, a.derive("totp"))
	mac.Write(digest[:])
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(mac.Sum(nil)[:20])
}

// Acceptance is what somebody brings who accepts: a password, and a code of the authenticator or a passkey.
type Acceptance struct {
	Password string
	Kept     string // what Keep returned, in the place of a password
	Code     string
	Passkey  json.RawMessage // what the browser made of the options of BeginPasskey; nil: none
	Flow     string          // what BeginPasskey returned for the cookie
}

// Accept uses a link up: it gives the user a password and a second factor and logs them in. It returns what the browser
// is to keep as cookie. A link that was refused for what was brought works still.
func (a Invitations) Accept(ctx context.Context, token string, got Acceptance, client string) (string, error) {
	digest := sha256.Sum256([]byte(token))
	i, err := a.store.ConsoleInvite(ctx, digest)
	if err := a.judgeInvite(i, err); err != nil {
		return "", err
	}
	factor, err := a.newFactor(ctx, digest, i.Name, got)
	if err != nil {
		return "", err
	}
	hash, err := a.chosen(ctx, digest, i.Name, got)
	if err != nil {
		return "", err
	}
	var user store.ConsoleUser
	who := operate.Actor{Name: i.Name, Channel: operate.Console, Client: client}
	accept := a.recorded(ctx, who, opAccept, i.Name, "")
	err = a.store.UseConsoleInvite(accept, digest, a.now(), func(i store.ConsoleInvite, u *store.ConsoleUser) error {
		if err := a.judgeInvite(i, nil); err != nil {
			return err
		}
		if u.Hash != "" { // an earlier link was accepted while this one was made
			return refusef(ReasonLinkUsed, "the user has a password already")
		}
		u.Hash, u.WrongCodes, u.LastLogin = hash, 0, a.now()
		u.Generation++
		factor(u)
		user = *u
		return nil
	})
	if errors.Is(err, store.ErrNoConsoleUser) || errors.Is(err, store.ErrNoInvite) {
		return "", refuse(ReasonLinkUnknown, err)
	}
	if err != nil {
		return "", err
	}
	a.auth.Forget(user.Name)
	return a.enter(ctx, user, who, true, "invitation")
}

// newPassword hashes a password that somebody chose. Unlike the rules of SMTP's logins it insists on the length: behind
// this password is everything.
func (a factors) newPassword(ctx context.Context, name, password string) (auth.Secret, error) {
	if err := auth.CheckPassword(auth.Prepare(password)); err != nil {
		return "", refuse(ReasonPassword, err)
	}
	if n := len([]rune(password)); n < auth.MinChosen {
		return "", refusef(ReasonPassword, "it has %d characters; write at least %d", n, auth.MinChosen)
	}
	if same, _ := auth.NormalizeLogin(password); same == name {
		return "", refusef(ReasonPassword, "it is the name")
	}
	hash, err := a.auth.HashChosen(ctx, password)
	if errors.Is(err, auth.ErrBusy) {
		return "", refuse(ReasonBusy, err)
	}
	return hash, err
}

// newFactor checks the second factor that somebody brings, and returns what sets it.
func (a Invitations) newFactor(ctx context.Context, digest [32]byte, name string, got Acceptance) (
	func(*store.ConsoleUser), error) {
	if len(got.Passkey) > 0 {
		key, err := a.finishPasskey(digest, name, got)
		if err != nil {
			return nil, err
		}
		return func(u *store.ConsoleUser) { u.TOTP, u.TOTPStep, u.Passkeys = "", 0, []json.RawMessage{key} }, nil
	}
	if got.Code == "" {
		return nil, refuse(ReasonNoFactor, nil)
	}
	secret := a.totpSecret(digest)
	step, ok := matchCode(secret, got.Code, a.now())
	if !ok {
		return nil, refuse(ReasonCode, nil)
	}
	return func(u *store.ConsoleUser) { u.TOTP, u.TOTPStep, u.Passkeys = auth.Secret(secret), step, nil }, nil
}
