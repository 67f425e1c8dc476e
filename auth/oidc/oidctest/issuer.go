// Package oidctest is an OpenID Connect issuer for tests: keys that rotate, tokens with whatever claims, introspection,
// and outages.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an issuer on this machine, by HTTP.
type Issuer struct {
	*httptest.Server
	t testing.TB

	mu     sync.Mutex // guards what follows
	key    *ecdsa.PrivateKey
	id     int
	down   bool
	opaque map[string]map[string]any
	person map[string]any   // who logs in next
	grants map[string]grant // by code
	Asked  map[string]int   // by path
}

// Client and Secret are those that may ask about tokens.
const (
	Client = "postern"
	Secret = "secret of the relay"
)

// New starts an issuer.
func New(t testing.TB) *Issuer {
	i := &Issuer{t: t, opaque: map[string]map[string]any{}, grants: map[string]grant{},
		Asked: map[string]int{}}
	i.Rotate()
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Server.Close)
	return i
}

// Rotate replaces the key: tokens of the old one are worth nothing.
func (i *Issuer) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
	i.id++
}

// SetDown has every request answered by 503.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Count returns how often a path was asked for.
func (i *Issuer) Count(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.Asked[path]
}

// Claims are those of a good token, with changes; nil removes one.
func (i *Issuer) Claims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{"iss": i.URL, "aud": "relay", "azp": "app", "sub": "1", "email": "app@example.com",
		"scope": "mail.send openid", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Token returns a signed token with the claims of Claims.
func (i *Issuer) Token(changes map[string]any) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sign(i.Claims(changes))
}

func (i *Issuer) sign(claims map[string]any) string {
	return Sign(i.t, i.key, jose.ES256, fmt.Sprint(i.id), claims)
}

// Sign signs claims with any key.
func Sign(t testing.TB, key any, alg jose.SignatureAlgorithm, id string, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Public returns the key as JWK has it, for a token that is signed with it as a secret.
func (i *Issuer) Public() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	b, _ := jose.JSONWebKey{Key: &i.key.PublicKey, KeyID: fmt.Sprint(i.id)}.MarshalJSON()
	return b
}

// Opaque makes a token that only introspection knows.
func (i *Issuer) Opaque(token string, claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.opaque[token] = claims
}

// ServeHTTP implements http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Asked[r.URL.Path]++
	if i.down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	var answer any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer = map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"introspection_endpoint": i.URL + "/introspect",
			"authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"ES256"}}
	case "/keys":
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.key.PublicKey, KeyID: fmt.Sprint(i.id),
			Use: "sig"}}}
	case "/auth":
		i.authorize(w, r)
		return
	case "/token":
		granted, ok := i.exchange(r)
		if !ok {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		answer = granted
	case "/introspect":
		if user, password, _ := r.BasicAuth(); user != Client || password != "secret+of+the+relay" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		known, ok := i.opaque[r.PostFormValue("token")]
		if !ok {
			known = map[string]any{"active": false}
		}
		answer = known
	default:
		http.NotFound(w, r)
		return
	}
	json.NewEncoder(w).Encode(answer)
}
