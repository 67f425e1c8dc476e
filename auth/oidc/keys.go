package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"postern/auth"
)

const (
	keysFresh   = time.Hour        // they are used so long without a look
	keysBetween = 10 * time.Second // from one fetch for an unknown key to the next
	maxKeys     = 100
)

// keys are the issuer's, and where it is asked about opaque tokens. The library's set fetches them for every signature
// that does not fit, as often as anybody sends one.
type keys struct {
	source *Source
	flight singleflight.Group

	mu            sync.Mutex // guards what follows
	set           []jose.JSONWebKey
	introspection string
	fetched       time.Time // zero: never
	tried         time.Time // a fetch for an unknown key
}

// use is one verification. It keeps the error that the library makes a text of.
type use struct {
	keys *keys
	err  error // that the keys cannot be had; nil: the token is wrong
}

// VerifySignature implements goidc.KeySet.
func (u *use) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	algs := make([]jose.SignatureAlgorithm, len(algorithms))
	for i, a := range algorithms {
		algs[i] = jose.SignatureAlgorithm(a)
	}
	jws, err := jose.ParseSignedCompact(token, algs)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, errors.New("it is not signed as it should be")
	}
	id := jws.Signatures[0].Header.KeyID
	if err := u.keys.ready(ctx); err != nil {
		u.err = err
		return nil, err
	}
	payload, known := u.keys.verify(jws, id)
	if payload == nil && !known {
		if u.err = u.keys.again(ctx); u.err != nil {
			return nil, u.err
		}
		payload, _ = u.keys.verify(jws, id)
	}
	if payload == nil {
		return nil, errors.New("its signature is not of a key of the issuer")
	}
	return payload, nil
}

// verify returns the payload, nil if no key fits; known says that there is a key with this id.
func (k *keys) verify(jws *jose.JSONWebSignature, id string) (payload []byte, known bool) {
	k.mu.Lock()
	set := k.set
	k.mu.Unlock()
	for i := range set {
		if id != "" && set[i].KeyID != id {
			continue
		}
		known = known || id != ""
		if p, err := jws.Verify(&set[i]); err == nil {
			return p, true
		}
	}
	return nil, known
}

// ready has keys fetched where there are none, or old ones. Those stay good for a while where that fails.
func (k *keys) ready(ctx context.Context) error {
	k.mu.Lock()
	age := k.source.now().Sub(k.fetched)
	never := k.fetched.IsZero()
	k.mu.Unlock()
	if !never && age < keysFresh {
		return nil
	}
	err := k.fetch(ctx)
	if err != nil && !never && age < keysFresh+k.source.Options.StaleOK {
		return nil
	}
	return err
}

// again has keys fetched for a token whose key is not known.
func (k *keys) again(ctx context.Context) error {
	k.mu.Lock()
	now := k.source.now()
	soon := now.Sub(k.tried) < keysBetween
	if !soon {
		k.tried = now
	}
	k.mu.Unlock()
	if soon {
		return fmt.Errorf("%w: the token has a key that is not known, and the issuer was asked for keys a moment ago",
			auth.ErrUndecided)
	}
	return k.fetch(ctx)
}

// fetch reads what the issuer says of itself, and its keys, once however many ask for it together.
func (k *keys) fetch(ctx context.Context) error {
	_, err, _ := k.flight.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*k.source.Timeout)
		defer cancel()
		return nil, k.fetchOnce(ctx)
	})
	return err
}

func (k *keys) fetchOnce(ctx context.Context) error {
	s := k.source
	p, err := goidc.NewProvider(goidc.ClientContext(ctx, s.client), s.Issuer)
	if err != nil {
		return fmt.Errorf("what the issuer says of itself: %w", err)
	}
	var about struct {
		Keys          string `json:"jwks_uri"`
		Introspection string `json:"introspection_endpoint"`
	}
	if err := p.Claims(&about); err != nil {
		return err
	}
	if err := checkURL(about.Keys); err != nil {
		return fmt.Errorf("its jwks_uri %w", err)
	}
	set, err := k.read(ctx, about.Keys)
	if err != nil {
		return fmt.Errorf("its keys: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set, k.introspection, k.fetched = set, about.Introspection, s.now()
	return nil
}

// read reads a set of keys. Those of kinds that are not known, or that are no public ones, are left out.
func (k *keys) read(ctx context.Context, address string) (set []jose.JSONWebKey, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	answer, err := k.source.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, answer.Status)
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&raw); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if len(raw.Keys) > maxKeys {
		return nil, fmt.Errorf("%s has %d keys, which is more than %d", address, len(raw.Keys), maxKeys)
	}
	for _, r := range raw.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(r, &key) == nil && key.IsPublic() && key.Valid() && key.Use != "enc" {
			set = append(set, key)
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%s has no key that signatures can be verified with", address)
	}
	return set, nil
}
