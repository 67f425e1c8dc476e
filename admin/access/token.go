package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/store"
)

// TokenPrefix begins each token, for whoever searches for secrets in what is published.
const TokenPrefix = "pst_"

// What a token consists of, in octets: random ones, and a checksum over prefix and them, so that a token that was cut
// or mistyped is told without the store.
const (
	tokenRandom = 32
	tokenSum    = 4
)

var tokenText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newToken() string {
	b := make([]byte, tokenRandom)
	rand.Read(b) // never fails
	return TokenPrefix + tokenText.EncodeToString(append(b, checksum(b)...))
}

func checksum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(append([]byte(TokenPrefix), b...)))
}

// wellFormed reports whether a text may be a token of ours.
func wellFormed(token string) bool {
	text, ok := strings.CutPrefix(token, TokenPrefix)
	b, err := tokenText.DecodeString(text)
	return ok && err == nil && len(b) == tokenRandom+tokenSum && tokenText.EncodeToString(b) == text &&
		string(checksum(b[:tokenRandom])) == string(b[tokenRandom:])
}

// Tokens are what programs prove with who they are.
type Tokens struct{ *core }

// NewToken is what a token is to be.
type NewToken struct {
	Name     string
	Scopes   []operate.Scope
	Networks []netip.Prefix // where it may be used from; empty: anywhere
	Expires  time.Time      // zero: never
}

// check returns what is wrong.
func (n *NewToken) check(now time.Time) error {
	switch {
	case n.Name == "" || len(n.Name) > 100 || n.Name != mail.Printable(n.Name) || strings.TrimSpace(n.Name) != n.Name:
		return invalid("a token needs a name that says what uses it, of at most 100 printable octets")
	case len(n.Scopes) == 0:
		return invalid("a token needs a scope: read, queue, accounts or admin")
	case !n.Expires.IsZero() && !n.Expires.After(now):
		return invalid("the token would have expired already")
	}
	for _, scope := range n.Scopes {
		if !slices.Contains(operate.Scopes, scope) {
			return invalid("%q is no scope; there are read, queue, accounts and admin", scope)
		}
	}
	return nil
}

// Add makes a token. It is shown once: the store has its hash.
func (a Tokens) Add(ctx context.Context, who operate.Actor, n NewToken) (string, error) {
	token := newToken()
	k := store.APIToken{Digest: sha256.Sum256([]byte(token)), Name: n.Name, Networks: n.Networks, Expires: n.Expires,
		Created: a.now(), CreatedBy: who.Name}
	for _, scope := range n.Scopes {
		k.Scopes = append(k.Scopes, string(scope))
	}
	err := a.ledger.Do(ctx, who, operate.AddToken, n.Name, func(ctx context.Context, detail *string) error {
		*detail = "scope " + strings.Join(k.Scopes, ", ")
		if err := n.check(a.now()); err != nil {
			return err
		}
		err := a.store.AddToken(ctx, k)
		if errors.Is(err, store.ErrExists) {
			return conflict("there is a token with the name %q already: revoke it, or take another name", n.Name)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return token, nil
}

// List returns the tokens.
func (a Tokens) List(ctx context.Context, who operate.Actor) ([]store.APIToken, error) {
	if err := who.May(operate.ListTokens); err != nil {
		return nil, err
	}
	return a.store.Tokens(ctx)
}

// Revoke makes a token useless at once.
func (a Tokens) Revoke(ctx context.Context, who operate.Actor, name string) error {
	return a.ledger.Do(ctx, who, operate.RevokeToken, name, func(ctx context.Context, _ *string) error {
		err := a.store.RevokeToken(ctx, name)
		if errors.Is(err, store.ErrNoToken) {
			return &operate.Error{Kind: operate.NotFound,
				Msg: fmt.Sprintf("there is no token with the name %q", name)}
		}
		return err
	})
}

// Actor returns who a token is. Wrong ones count to the lockout of their address; a right one is taken in spite of it,
// since nobody guesses 256 bits.
func (a Tokens) Actor(ctx context.Context, token, client string) (operate.Actor, error) {
	k, err := a.token(ctx, token)
	addr, now := addrOf(client), a.now()
	switch {
	case ReasonOf(err) != "":
		if locked := a.lockedNow("", client); locked != nil {
			return operate.Actor{}, locked
		}
		a.auth.Failed("", "token "+token, addr)
		return operate.Actor{}, err
	case err != nil:
		return operate.Actor{}, err
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return operate.Actor{}, refusef(ReasonTokenExpired, "%s expired at %s", k.Name,
			k.Expires.UTC().Format(time.RFC3339))
	case len(k.Networks) > 0 && !slices.ContainsFunc(k.Networks, func(n netip.Prefix) bool { return n.Contains(addr) }):
		return operate.Actor{}, refusef(ReasonTokenNetwork, "%s is used from %s", k.Name, client)
	}
	if now.Sub(k.Used) >= touchEvery {
		if err := a.store.TouchToken(ctx, k.Digest, now); err != nil {
			a.log.Warn("API: the use of a token was not recorded", "err", err) // a full disk keeps nobody out
		}
	}
	who := operate.Actor{Name: k.Name, Channel: operate.API, Client: client}
	for _, scope := range k.Scopes {
		who.Scopes = append(who.Scopes, operate.Scope(scope))
	}
	return who, nil
}

// token looks a token up by its hash, so that the time it takes says nothing about tokens that there are.
func (a Tokens) token(ctx context.Context, token string) (store.APIToken, error) {
	if !wellFormed(token) {
		return store.APIToken{}, refusef(ReasonToken, "it is malformed: copy it whole")
	}
	digest := sha256.Sum256([]byte(token))
	k, err := a.store.Token(ctx, digest)
	if errors.Is(err, store.ErrNoToken) || err == nil && subtle.ConstantTimeCompare(k.Digest[:], digest[:]) != 1 {
		return store.APIToken{}, refusef(ReasonToken, "it does not exist, or was revoked")
	}
	return k, err
}
