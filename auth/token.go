package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postern/mail"
)

// MaxToken bounds a bearer token, in octets. Those of Entra ID with many groups have 4000.
const MaxToken = 8192

// ErrToken is a token that proves nothing: forged, expired, or meant for somebody else. It is wrapped, with the reason
// for the log.
var ErrToken = errors.New("the token is not accepted")

// ErrOwned: a token, or a source with its own name for a login, means a login that a source before it has.
var ErrOwned = errors.New("the login is an account of another source, which stands before its own")

var replyToken = mail.R(535, "5.7.8", "the access token is not accepted; get a new one, for this server")

// TokenSource is a Source that verifies bearer tokens (RFC 6750) and no passwords. It is never asked for those.
type TokenSource interface {
	Source
	// VerifyToken returns whose token it is, with a login: ErrUnknownLogin for a token of another issuer, ErrToken for
	// one that proves nothing.
	VerifyToken(ctx context.Context, token string) (Identity, error)
	// Challenge is what a client is told that has no good token.
	Challenge() TokenChallenge
}

// TokenChallenge tells a client where to get a token (RFC 7628 §3.2.2).
type TokenChallenge struct {
	Scope, OpenIDConfiguration string // either may be ""
}

// Token returns whose bearer token it is; login is what the client calls itself, or "". Its errors are *mail.Error: 535
// 5.7.8 for what is wrong with the token, 454 4.7.0 while it cannot be verified. Nobody guesses a token, so only the
// client's address is counted, and no login can be locked by bad ones.
func (a *Authenticator) Token(ctx context.Context, login, token string, client netip.Addr) (
	Identity, TokenChallenge, error) {
	r := a.roster.Load()
	var challenge TokenChallenge
	for _, m := range r.members {
		if m.tokens != nil {
			challenge = m.tokens.Challenge()
			break
		}
	}
	now := time.Now()
	if until := a.LockedUntil("", client); !until.IsZero() {
		_, err := a.answer(Identity{}, fmt.Errorf("%w until %s", ErrLockedOut, until.UTC().Format(time.RFC3339)))
		return Identity{}, challenge, err
	}
	id, err := a.verifyToken(ctx, r, login, token, client)
	_, err = a.answer(Identity{}, err)
	if reply, refused := mail.ReplyFor(err); refused && reply.Permanent() {
		sum := sha256.Sum256([]byte(token))
		a.failed(now, "", hex.EncodeToString(sum[:]), client)
		err = mail.Refuse(replyToken, err)
	}
	if err != nil {
		return Identity{}, challenge, err
	}
	return id, challenge, nil
}

func (a *Authenticator) verifyToken(ctx context.Context, r *roster, login, token string, client netip.Addr) (
	Identity, error) {
	if len(token) > MaxToken {
		return Identity{}, fmt.Errorf("%w: it is longer than %d octets", ErrToken, MaxToken)
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	if err := a.turns.acquire(ctx); err != nil {
		return Identity{}, err
	}
	defer a.turns.release()
	a.stats.verified.Add(1)
	for i, m := range r.members {
		if m.tokens == nil {
			continue
		}
		id, err := a.ask(ctx, m, func() (Identity, error) { return m.tokens.VerifyToken(ctx, token) })
		switch {
		case errors.Is(err, ErrUnknownLogin):
			continue
		case errors.Is(err, ErrToken), errors.Is(err, ErrLocked):
			return Identity{}, m.said(err)
		case err != nil:
			return Identity{}, m.down(err)
		}
		return a.admitToken(ctx, r.members[:i], m, login, id, client)
	}
	return Identity{}, fmt.Errorf("%w: no source of relay.toml knows its issuer", ErrToken)
}

// admitToken decides about a login whose token is good.
func (a *Authenticator) admitToken(ctx context.Context, before []*member, m *member, login string, id Identity,
	client netip.Addr) (Identity, error) {
	name, ok := NormalizeLogin(id.Login)
	if !ok {
		return Identity{}, m.said(fmt.Errorf("%w: it names no login that anybody can have", ErrToken))
	}
	id.Login = name
	if login != "" && mail.LowerASCII(login) != name {
		return Identity{}, m.said(fmt.Errorf("%w: it is that of %s, and the client says %s", ErrToken, name,
			mail.Printable(mail.Cut(login, 100))))
	}
	if err := a.ownedBy(ctx, before, name); err != nil {
		return Identity{}, err
	}
	if err := a.unlocked(ctx, m.Name(), name); err != nil {
		if errors.Is(err, ErrLocked) {
			err = m.said(err)
		}
		return Identity{}, err
	}
	if id = m.named(id, name); !id.Allows(client) {
		return Identity{}, fmt.Errorf("%w: %s is not in %v", ErrNetwork, client, id.Networks)
	}
	return id, nil
}

// ownedBy returns why a login is not that of a later source: one of these knows it, or cannot say.
func (a *Authenticator) ownedBy(ctx context.Context, members []*member, login string) error {
	owner, err := a.lookupIn(ctx, members, login)
	switch {
	case errors.Is(err, ErrUnknownLogin):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("source %s: %w", owner.Source, ErrOwned)
}

// bearer reports whether s can be a token: b64token of RFC 6750 §2.1.
func bearer(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		word := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !word && !strings.ContainsRune("-._~+/=", r)
	})
}
