package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"postern/relay/store/internal/db"
)

// APIToken is what a program proves with who it is.
type APIToken struct {
	Digest    [32]byte // SHA-256 of the token
	Name      string
	Scopes    []string       // as operate.Scope spells them
	Networks  []netip.Prefix // where it may be used from; empty: anywhere
	Expires   time.Time      // zero: never
	Created   time.Time
	CreatedBy string
	Used      time.Time // to the minute; zero: never
}

// ErrNoToken: there is no such token.
var ErrNoToken = errors.New("no such token")

// maxTokens bounds how many there are.
const maxTokens = 1000

type tokenData struct {
	Scopes    []string       `json:"scopes"`
	Networks  []netip.Prefix `json:"networks,omitempty"`
	Expires   time.Time      `json:"expires,omitzero"`
	Created   time.Time      `json:"created"`
	CreatedBy string         `json:"created_by"`
}

// AddToken stores a new token; ErrExists if another has its name, ErrTooMany if there are 1000.
func (s *Store) AddToken(ctx context.Context, k APIToken) error {
	data, err := json.Marshal(tokenData{k.Scopes, k.Networks, k.Expires, k.Created, k.CreatedBy})
	if err != nil {
		return err
	}
	err = s.write(ctx, func(t *tx) error {
		count, _, err := t.Int("SELECT count(*) FROM api_token")
		if err != nil {
			return err
		}
		_, exists, err := t.Int("SELECT 1 FROM api_token WHERE name = ?", k.Name)
		switch {
		case err != nil:
			return err
		case exists:
			return refuse(ErrExists)
		case count >= maxTokens:
			return refuse(fmt.Errorf("%w: there are %d tokens", ErrTooMany, count))
		}
		err = t.Run("INSERT INTO api_token VALUES (?, ?, ?, 0)", k.Digest[:], k.Name, string(data))
		return errors.Join(err, bump(t.Conn, TopicConsole))
	})
	return wrap(err, "token %q", k.Name)
}

func scanToken(row db.Row) (APIToken, error) {
	k := APIToken{Name: row.Text(1), Used: fromNano(row.Int(3))}
	copy(k.Digest[:], row.Blob(0))
	var d tokenData
	if err := json.Unmarshal(row.Blob(2), &d); err != nil {
		return k, fmt.Errorf("token %q: its row is damaged: %w", k.Name, err)
	}
	k.Scopes, k.Networks, k.Expires, k.Created, k.CreatedBy = d.Scopes, d.Networks, d.Expires, d.Created, d.CreatedBy
	return k, nil
}

const selectTokens = "SELECT digest, name, data, used FROM api_token"

// Tokens returns all tokens in order of name.
func (s *Store) Tokens(ctx context.Context) ([]APIToken, error) {
	tokens, err := readAll(ctx, s.readers, scanToken, selectTokens+" ORDER BY name")
	return tokens, wrap(err, "list the tokens")
}

// Token returns the token with this digest; ErrNoToken if there is none.
func (s *Store) Token(ctx context.Context, digest [32]byte) (APIToken, error) {
	found, err := readAll(ctx, s.readers, scanToken, selectTokens+" WHERE digest = ?", digest[:])
	if err == nil && len(found) == 0 {
		err = ErrNoToken
	}
	if err != nil {
		return APIToken{}, err
	}
	return found[0], nil
}

// TouchToken says that a token is used.
func (s *Store) TouchToken(ctx context.Context, digest [32]byte, now time.Time) error {
	err := s.write(ctx, func(t *tx) error {
		return t.Run("UPDATE api_token SET used = max(used, ?) WHERE digest = ?", unixNano(now), digest[:])
	})
	return wrap(err, "token")
}

// RevokeToken removes the token with this name; ErrNoToken if there is none.
func (s *Store) RevokeToken(ctx context.Context, name string) error {
	err := s.write(ctx, func(t *tx) error {
		gone, err := update(t, "DELETE FROM api_token WHERE name = ?", name)
		if err == nil && !gone {
			err = refuse(ErrNoToken)
		}
		if err != nil {
			return err
		}
		return bump(t.Conn, TopicConsole)
	})
	return wrap(err, "token %q", name)
}
