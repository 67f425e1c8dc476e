package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern/auth"
	"postern/auth/oidc/oidctest"
)

func newSource(t testing.TB, i *oidctest.Issuer, change func(*Options)) *Source {
	t.Helper()
	o := Options{Name: "sso", Issuer: i.URL, Audience: []string{"relay", "api://relay"}, ClientID: oidctest.Client,
		ClientSecret: oidctest.Secret, ClockSkew: time.Minute, StaleOK: time.Hour}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func none(claims map[string]any) string {
	b, _ := json.Marshal(claims)
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none"}`)) + "." + e(b) + "."
}

func TestTokens(t *testing.T) {
	i := oidctest.New(t)
	foreign, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	now := time.Now()
	with := func(changes map[string]any) string { return i.Token(changes) }
	i.Opaque("good-opaque", i.Claims(map[string]any{"active": true, "iss": nil}))
	i.Opaque("old-opaque", i.Claims(map[string]any{"active": true, "exp": now.Add(-time.Hour).Unix()}))
	i.Opaque("elsewhere-opaque", i.Claims(map[string]any{"active": true, "aud": "other"}))
	i.Opaque("nobody-opaque", i.Claims(map[string]any{"active": true, "aud": nil}))
	scoped := func(o *Options) { o.Scope = "api://relay/mail.send" }
	parties := func(o *Options) { o.AuthorizedParties = []string{"app"} }
	for _, c := range []struct {
		name, token string
		options     func(*Options)
		want        error // nil: it is good
	}{
		{"good", with(nil), nil, nil},
		{"one of several audiences", with(map[string]any{"aud": []string{"x", "api://relay"}}), nil, nil},
		{"expired within the skew", with(map[string]any{"exp": now.Add(-30 * time.Second).Unix()}), nil, nil},
		{"scope", with(nil), scoped, nil},
		{"scp", with(map[string]any{"scope": nil, "scp": "mail.send"}), scoped, nil},
		{"roles", with(map[string]any{"scope": nil, "roles": []string{"mail.send"}}), scoped, nil},
		{"party", with(nil), parties, nil},
		{"party of Entra's first version", with(map[string]any{"azp": nil, "appid": "app"}), parties, nil},
		{"expired", with(map[string]any{"exp": now.Add(-time.Hour).Unix()}), nil, auth.ErrToken},
		{"without an end", with(map[string]any{"exp": nil}), nil, auth.ErrToken},
		{"not yet good", with(map[string]any{"nbf": now.Add(time.Hour).Unix()}), nil, auth.ErrToken},
		{"wrong audience", with(map[string]any{"aud": "other"}), nil, auth.ErrToken},
		{"no audience", with(map[string]any{"aud": nil}), nil, auth.ErrToken},
		{"wrong party", with(map[string]any{"azp": "other"}), parties, auth.ErrToken},
		{"no scope", with(map[string]any{"scope": "openid"}), scoped, auth.ErrToken},
		{"no address", with(map[string]any{"email": nil}), nil, auth.ErrToken},
		{"an address that nobody verified", with(map[string]any{"email_verified": false}), nil, auth.ErrToken},
		{"another issuer", with(map[string]any{"iss": "https://evil.example"}), nil, auth.ErrUnknownLogin},
		{"another key of the same name", oidctest.Sign(t, foreign, jose.ES256, "1", i.Claims(nil)), nil, auth.ErrToken},
		{"signed with the public key as a secret", oidctest.Sign(t, i.Public(), jose.HS256, "1", i.Claims(nil)), nil,
			auth.ErrToken},
		{"alg none", none(i.Claims(nil)), nil, auth.ErrToken},
		{"cut", with(nil)[:100], nil, auth.ErrToken},
		{"no signature", with(nil)[:strings.LastIndex(with(nil), ".")+1], nil, auth.ErrToken},
		{"opaque", "good-opaque", nil, nil},
		{"opaque, unknown", "bad-opaque", nil, auth.ErrToken},
		{"opaque, expired", "old-opaque", nil, auth.ErrToken},
		{"opaque, for somebody else", "elsewhere-opaque", nil, auth.ErrToken},
		{"opaque, for nobody", "nobody-opaque", nil, auth.ErrToken},
		{"opaque, not asked about", "good-opaque", func(o *Options) { o.ClientID, o.ClientSecret = "", "" },
			auth.ErrToken},
	} {
		id, err := newSource(t, i, c.options).VerifyToken(t.Context(), c.token)
		if c.want == nil && (err != nil || id.Login != "app@example.com" || id.Expires.IsZero()) ||
			c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", c.name, id, err)
		}
		if err != nil && strings.Contains(err.Error(), c.token) {
			t.Errorf("%s: the token is in the error", c.name)
		}
	}
}

func TestClaims(t *testing.T) {
	i := oidctest.New(t)
	s := newSource(t, i, func(o *Options) {
		o.LoginClaim, o.GroupsClaim, o.SendersClaim = "preferred_username", "groups", "addresses"
	})
	id, err := s.VerifyToken(t.Context(), i.Token(map[string]any{"preferred_username": "anna", "email_verified": false,
		"groups": []string{"staff", "it"}, "addresses": []string{"anna@example.com", "*@example.com", "x"}}))
	if err != nil || id.Login != "anna" || fmt.Sprint(id.Groups, id.Senders) != "[staff it] [anna@example.com]" {
		t.Errorf("%+v, %v", id, err)
	}
}

// TestRotation: a token of a new key is good at once, one of the old key is not, and tokens with keys that nobody has
// cannot have the issuer asked again and again.
func TestRotation(t *testing.T) {
	i := oidctest.New(t)
	s := newSource(t, i, nil)
	now := time.Now()
	s.now = func() time.Time { return now }
	verify := func(token string) error {
		_, err := s.VerifyToken(t.Context(), token)
		return err
	}
	old := i.Token(nil)
	if err := verify(old); err != nil {
		t.Fatal(err)
	}
	i.Rotate()
	if err := verify(i.Token(nil)); err != nil {
		t.Error("a new key is not fetched:", err)
	}
	foreign, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	before := i.Count("/keys")
	for n := range 50 {
		token := oidctest.Sign(t, foreign, jose.ES256, fmt.Sprint("key", n), i.Claims(nil))
		if err := verify(token); !errors.Is(err, auth.ErrUndecided) {
			t.Fatal(err)
		}
	}
	if n := i.Count("/keys") - before; n != 0 {
		t.Errorf("the issuer was asked %d times for keys that it does not have", n)
	}
	now = now.Add(keysBetween)
	if err := verify(old); !errors.Is(err, auth.ErrToken) {
		t.Error("a token of an old key:", err)
	}
	if err := verify(i.Token(nil)); err != nil {
		t.Error(err)
	}
}

// TestOutage: keys that were fetched are good for an hour and StaleOK, and then the source is down.
func TestOutage(t *testing.T) {
	i := oidctest.New(t)
	s := newSource(t, i, nil)
	now := time.Now()
	s.now = func() time.Time { return now }
	i.SetDown(true)
	long := i.Token(map[string]any{"exp": now.Add(9 * time.Hour).Unix()})
	if _, err := s.VerifyToken(t.Context(), long); err == nil || errors.Is(err, auth.ErrToken) {
		t.Error("down:", err)
	}
	if s.Probe(t.Context()) == nil {
		t.Error("a probe does not see it")
	}
	i.SetDown(false)
	if _, err := s.VerifyToken(t.Context(), long); err != nil {
		t.Error(err)
	}
	i.SetDown(true)
	for _, c := range []struct {
		after time.Duration
		good  bool
	}{{30 * time.Minute, true}, {keysFresh + 30*time.Minute, true}, {keysFresh + 61*time.Minute, false}} {
		s.now = func() time.Time { return now.Add(c.after) }
		if _, err := s.VerifyToken(t.Context(), long); (err == nil) != c.good || errors.Is(err, auth.ErrToken) {
			t.Errorf("after %s: %v", c.after, err)
		}
	}
}

// TestParallel: hundreds of logins, rotations and outages at once, for the race detector.
func TestParallel(t *testing.T) {
	i := oidctest.New(t)
	s := newSource(t, i, nil)
	var all sync.WaitGroup
	for n := range 200 {
		all.Go(func() {
			if n%50 == 0 {
				i.Rotate()
			}
			_, err := s.VerifyToken(t.Context(), i.Token(nil))
			if err != nil && !errors.Is(err, auth.ErrUndecided) && !errors.Is(err, auth.ErrToken) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := i.Count("/keys"); n > 10 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func FuzzToken(f *testing.F) {
	i := oidctest.New(f)
	s := newSource(f, i, func(o *Options) { o.ClientID, o.ClientSecret = "", "" })
	good := i.Token(nil)
	f.Add(good)
	f.Add(none(i.Claims(nil)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.VerifyToken(context.Background(), token); err == nil && token != good {
			t.Fatalf("%q is taken", token)
		}
	})
}
