package access

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/operate"
)

func TestTokens(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	add := func(n NewToken) string {
		token, err := r.Tokens.Add(ctx, owner, n)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	plain := add(NewToken{Name: "plain", Scopes: []operate.Scope{operate.ScopeRead}})
	bound := add(NewToken{Name: "bound", Scopes: []operate.Scope{operate.ScopeQueue},
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
	ends := add(NewToken{Name: "ends", Scopes: []operate.Scope{operate.ScopeAdmin},
		Expires: r.clock.now.Add(time.Hour)})
	gone := add(NewToken{Name: "gone", Scopes: []operate.Scope{operate.ScopeRead}})
	if err := r.Tokens.Revoke(ctx, owner, "gone"); err != nil {
		t.Fatal(err)
	}
	mistyped := plain[:len(plain)-1] + map[bool]string{true: "b", false: "a"}[plain[len(plain)-1] == 'a']
	for _, c := range []struct {
		what, token, client string
		want                Reason
	}{
		{"right", plain, "203.0.113.9", ""},
		{"inside its networks", bound, "192.0.2.7", ""},
		{"inside its networks, mapped", bound, "::ffff:192.0.2.7", ""},
		{"inside its networks, IPv6", bound, "2001:db8::1", ""},
		{"outside its networks", bound, "198.51.100.1", ReasonTokenNetwork},
		{"before it expires", ends, client, ""},
		{"revoked", gone, client, ReasonToken},
		{"mistyped", mistyped, client, ReasonToken},
		{"cut", plain[:20], client, ReasonToken},
		{"empty", "", client, ReasonToken},
		{"never made", newToken(), client, ReasonToken},
		{"in capitals", strings.ToUpper(plain), "203.0.113.8", ReasonToken},
	} {
		who, err := r.Tokens.Actor(ctx, c.token, c.client)
		refused(t, c.what, err, c.want)
		if err == nil && (who.Channel != operate.API || len(who.Scopes) != 1 || who.Name == "" ||
			who.Client != c.client) {
			t.Errorf("%s: %+v", c.what, who)
		}
	}
	r.clock.pass(time.Hour)
	_, err := r.Tokens.Actor(ctx, ends, client)
	refused(t, "expired", err, ReasonTokenExpired)
	who, err := r.Tokens.Actor(ctx, plain, client)
	if err != nil || who.May(operate.RetryMessages) == nil || who.May(operate.SeeQueue) != nil {
		t.Errorf("the scope of %+v, %v", who, err)
	}
	tokens, err := r.Tokens.List(ctx, owner)
	if err != nil || len(tokens) != 3 || tokens[2].Name != "plain" || !tokens[2].Used.Equal(r.clock.now) {
		t.Errorf("%+v, %v", tokens, err)
	}
	for _, n := range []NewToken{
		{Name: "plain", Scopes: operate.Scopes}, {Name: "", Scopes: operate.Scopes}, {Name: " x",
			Scopes: operate.Scopes},
		{Name: "a\x1b[31m", Scopes: operate.Scopes}, {Name: strings.Repeat("x", 101), Scopes: operate.Scopes},
		{Name: "x"},
		{Name: "x", Scopes: []operate.Scope{"all"}}, {Name: "x", Scopes: operate.Scopes, Expires: r.clock.now},
	} {
		if token, err := r.Tokens.Add(ctx, owner, n); err == nil || token != "" {
			t.Errorf("%+v is made", n)
		}
	}
}

func TestWrongTokensLockTheirAddress(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	token, err := r.Tokens.Add(ctx, owner, NewToken{Name: "t", Scopes: operate.Scopes})
	if err != nil {
		t.Fatal(err)
	}
	const guesser = "198.51.100.1"
	for range 20 {
		_, err := r.Tokens.Actor(ctx, "pst_old", guesser)
		refused(t, "one old token, again and again", err, ReasonToken)
	}
	for i := range 4 {
		_, err := r.Tokens.Actor(ctx, fmt.Sprint("pst_", i), guesser)
		refused(t, "a guess", err, ReasonToken)
	}
	_, err = r.Tokens.Actor(ctx, "pst_x", guesser)
	refused(t, "one too many", err, ReasonLockedOut)
	_, err = r.Tokens.Actor(ctx, token, guesser)
	refused(t, "a right one from there", err, "")
	_, err = r.Tokens.Actor(ctx, "pst_x", client)
	refused(t, "elsewhere", err, ReasonToken)
}

func FuzzToken(f *testing.F) {
	f.Add(newToken())
	f.Add("pst_")
	f.Add("pst_aaaa")
	f.Fuzz(func(t *testing.T, token string) {
		if wellFormed(token) && (!strings.HasPrefix(token, TokenPrefix) || len(token) != len(newToken())) {
			t.Errorf("%q", token)
		}
	})
}
