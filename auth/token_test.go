package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/mail"
)

// issuer is a TokenSource in memory.
type issuer struct {
	tokens map[string]Identity
	err    error
	asked  int
}

func (*issuer) Name() string { return "sso" }
func (*issuer) Verify(context.Context, string, string) (Identity, error) {
	panic("it is asked for a password")
}
func (*issuer) Probe(context.Context) error { return nil }
func (*issuer) StaleOK() time.Duration      { return 0 }
func (*issuer) Challenge() TokenChallenge {
	return TokenChallenge{"mail.send", "https://login.example.com/.well-known/openid-configuration"}
}

func (i *issuer) VerifyToken(_ context.Context, token string) (Identity, error) {
	i.asked++
	if i.err != nil {
		return Identity{}, i.err
	}
	if id, ok := i.tokens[token]; ok {
		return id, nil
	}
	return Identity{}, fmt.Errorf("%w: forged", ErrToken)
}

func newTokenRig(t testing.TB, o Options) (*rig, *issuer) {
	i := &issuer{tokens: map[string]Identity{"good": {Login: "App@Example.com"}, "annas": {Login: "anna"},
		"odd": {Login: ""}, "near": {Login: "near", Networks: prefixes("192.0.2.0/24")}}}
	o.Sources = []Source{i}
	r, _ := newScramRig(t, o)
	return r, i
}

func (r *rig) present(t testing.TB, mechanism string, client netip.Addr, responses ...string) (challenges []string,
	reply mail.Reply, why error) {
	t.Helper()
	x, err := NewExchange(mechanism, Checks{
		Token: func(ctx context.Context, login, token string) (mail.Reply, TokenChallenge) {
			_, challenge, err := r.Token(ctx, login, token, client)
			why = err
			if reply, refused := mail.ReplyFor(err); refused {
				return reply, challenge
			}
			return replyOK, challenge
		},
	})
	wantOK(t, err)
	for _, m := range responses {
		challenge, reply := x.Next(t.Context(), []byte(m))
		if !reply.IsZero() {
			if _, own := x.Refusal(); own != nil {
				why = own
			}
			return challenges, reply, why
		}
		challenges = append(challenges, string(challenge))
	}
	return challenges, mail.Reply{}, why
}

func oauthMessage(login, token string) string {
	return "n,a=" + login + ",\x01host=relay.example.com\x01port=587\x01auth=Bearer " + token + "\x01\x01"
}

func TestToken(t *testing.T) {
	for _, c := range []struct {
		name, message string
		code          int
		why           error
	}{
		{"good", oauthMessage("app@example.com", "good"), 235, nil},
		{"capitals", oauthMessage("APP@example.com", "good"), 235, nil},
		{"without a login", "n,,\x01auth=bearer good\x01\x01", 235, nil},
		{"forged", oauthMessage("app@example.com", "bad"), 535, ErrToken},
		{"another login", oauthMessage("boss@example.com", "good"), 535, ErrToken},
		{"a login of the store", oauthMessage("anna", "annas"), 535, ErrOwned},
		{"no login in it", "n,,\x01auth=Bearer odd\x01\x01", 535, ErrToken},
		{"outside its networks", "n,,\x01auth=Bearer near\x01\x01", 535, ErrNetwork},
		{"huge", oauthMessage("app@example.com", long(MaxToken+1)), 535, ErrToken},
		{"escaped", oauthMessage("a=2Cb=3Dc", "good"), 535, ErrToken},
	} {
		r, _ := newTokenRig(t, Options{})
		challenges, reply, why := r.present(t, OAuthBearer, there, c.message, "\x01")
		if reply.Code != c.code || c.code != 235 && !errors.Is(why, c.why) {
			t.Errorf("%s: %q, %v", c.name, reply, why)
		}
		if c.code == 535 {
			var said map[string]string
			if json.Unmarshal([]byte(challenges[0]), &said) != nil || said["status"] != "invalid_token" ||
				said["scope"] != "mail.send" ||
				said["openid-configuration"] != "https://login.example.com/.well-known/openid-configuration" {
				t.Errorf("%s: challenge %q", c.name, challenges)
			}
		}
	}
}

// TestOAuthEnds: after the error challenge any answer ends the exchange: an octet 1, as RFC 7628 has it, or nothing.
func TestOAuthEnds(t *testing.T) {
	for _, answer := range []string{"", "\x01", "more"} {
		for m, message := range map[string]string{OAuthBearer: oauthMessage("app@example.com", "bad"),
			XOAuth2: "user=app@example.com\x01auth=Bearer bad\x01\x01"} {
			r, _ := newTokenRig(t, Options{})
			if _, reply, _ := r.present(t, m, there, message, answer); reply.Code != 535 {
				t.Errorf("%s %q: %q", m, answer, reply)
			}
		}
	}
	r, _ := newTokenRig(t, Options{})
	if _, reply, why := r.present(t, XOAuth2, there, "user=app@example.com\x01auth=Bearer good\x01\x01"); !reply.OK() {
		t.Error(reply, why)
	}
}

func TestOAuthSyntax(t *testing.T) {
	for _, message := range []string{"", "n", "n,,", "n,,\x01\x01", "n,,\x01auth=Bearer good\x01",
		"x,,\x01auth=Bearer good\x01\x01",
		"n,a=a=b,\x01auth=Bearer good\x01\x01", "n,,\x01auth=Basic good\x01\x01", "n,,\x01auth=Bearer\x01\x01",
		"n,,\x01auth=Bearer go od\x01\x01", "n,,\x01auth=Bearer good\x01auth=Bearer good\x01\x01",
		"p=tls-exporter,,\x01auth=Bearer good\x01\x01", "n,a=an\x00na,\x01auth=Bearer good\x01\x01",
		"n,,\x01auth=Bearer g\x00od\x01\x01", "user=x\x01auth=Bearer good\x01\x01"} {
		r, i := newTokenRig(t, Options{})
		if _, reply, _ := r.present(t, OAuthBearer, there, message, "\x01"); reply.Code != 501 || i.asked != 0 {
			t.Errorf("%q: %q, asked %d times", message, reply, i.asked)
		}
	}
}

// TestTokenOutage: an issuer that cannot be asked is 454, no failure, and nothing to those who have passwords.
func TestTokenOutage(t *testing.T) {
	r, i := newTokenRig(t, Options{Lockout: Lockout{Failures: 2, Window: minute, Duration: minute}})
	i.err = errors.New("unreachable")
	for range 5 {
		challenges, reply, _ := r.present(t, OAuthBearer, there, oauthMessage("app@example.com", "good"))
		if reply.Code != 454 || len(challenges) != 0 {
			t.Fatalf("%q %q", reply, challenges)
		}
	}
	wantOK(t, r.try("anna", "right", there))
	if reply, why := r.talk(t, ScramSHA256, "anna", "right", there, nil, nil, nil); !reply.OK() {
		t.Error(why)
	}
	if len(r.locks) > 0 {
		t.Error(r.locks)
	}
}

// TestTokenLocks: bad tokens lock their address, once each, and no login.
func TestTokenLocks(t *testing.T) {
	r, _ := newTokenRig(t, Options{Lockout: Lockout{Failures: 3, Window: minute, Duration: minute}})
	for range 10 {
		r.present(t, OAuthBearer, there, oauthMessage("app@example.com", "expired"), "")
	}
	if len(r.locks) != 0 {
		t.Fatal("one old token locks its address")
	}
	for n := range 5 {
		r.present(t, OAuthBearer, there, oauthMessage("app@example.com", fmt.Sprint("bad", n)), "")
	}
	if len(r.locks) != 1 || r.locks[0].Login != "" {
		t.Error(r.locks)
	}
	if _, reply, _ := r.present(t, OAuthBearer, here, oauthMessage("app@example.com", "good")); !reply.OK() {
		t.Error(reply)
	}
}

// TestTokenExpires: a session ends with its token.
func TestTokenExpires(t *testing.T) {
	r, _ := newTokenRig(t, Options{})
	was := Identity{Login: "app", Source: "sso", Expires: time.Now().Add(time.Hour)}
	if _, err := r.Renew(t.Context(), was, time.Now()); err != nil {
		t.Error(err)
	}
	was.Expires = time.Now().Add(-time.Second)
	_, err := r.Renew(t.Context(), was, time.Now())
	wantRefusal(t, err, 421, errExpired)
}

func FuzzOAuth(f *testing.F) {
	r, _ := newTokenRig(f, Options{})
	f.Add(oauthMessage("app@example.com", "good"), "\x01", false)
	f.Add("user=app@example.com\x01auth=Bearer good\x01\x01", "", true)
	f.Fuzz(func(t *testing.T, first, last string, google bool) {
		m := OAuthBearer
		if google {
			m = XOAuth2
		}
		_, reply, _ := r.present(t, m, there, first, last)
		if reply.OK() && !strings.Contains(first, " good\x01") && !strings.Contains(first, " annas\x01") {
			t.Fatalf("%q lets in", first)
		}
		if reply.IsZero() {
			t.Fatal("it does not end")
		}
	})
}
