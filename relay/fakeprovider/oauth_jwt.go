package fakeprovider

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	jwtBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"            // RFC 7523 §2.1
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 §2.2
	// skewAllowed is how far clocks may differ.
	skewAllowed = 5 * time.Minute
)

// jwt is a token that somebody signed (RFC 7519), not yet believed.
type jwt struct {
	header struct {
		Alg  string `json:"alg"`
		X5t  string `json:"x5t"`
		X5t2 string `json:"x5t#S256"`
	}
	claims struct {
		Iss   string `json:"iss"`
		Sub   string `json:"sub"`
		Aud   string `json:"aud"`
		Scope string `json:"scope"`
		Jti   string `json:"jti"`
		Exp   int64  `json:"exp"`
		Iat   int64  `json:"iat"`
		Nbf   int64  `json:"nbf"`
	}
	signed    string
	signature []byte
}

var errJWT = errors.New("not a JWT")

func parseJWT(text string) (*jwt, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, errJWT
	}
	t := &jwt{signed: parts[0] + "." + parts[1]}
	b64 := base64.RawURLEncoding
	for i, into := range []any{&t.header, &t.claims} {
		raw, err := b64.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, into) != nil {
			return nil, errJWT
		}
	}
	var err error
	if t.signature, err = b64.DecodeString(parts[2]); err != nil {
		return nil, errJWT
	}
	return t, nil
}

// signedBy checks the signature (RFC 7518 §3.3, §3.5).
func (t *jwt) signedBy(key *rsa.PublicKey) bool {
	digest := sha256.Sum256([]byte(t.signed))
	switch t.header.Alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], t.signature) == nil
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, digest[:], t.signature,
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}

// timely reports whether now is between the times of the token.
func (t *jwt) timely(now time.Time) bool {
	from := time.Unix(max(t.claims.Nbf, t.claims.Iat), 0)
	return now.Before(time.Unix(t.claims.Exp, 0)) && !now.Before(from.Add(-skewAllowed))
}

// audience is the address of the endpoint that r came to.
func audience(r *http.Request) string {
	scheme := "https"
	if r.URL.Scheme == "http" || r.URL.Scheme == "" && r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + r.Host + r.URL.Path
}

// checkAssertionLocked checks what a client proves itself with (RFC 7523 §3).
func (a *OAuth) checkAssertionLocked(c Client, r *http.Request) *problem {
	t, err := parseJWT(r.PostForm.Get("client_assertion"))
	if err != nil || r.PostForm.Get("client_assertion_type") != assertionType {
		return bad("invalid_client", 50027, "JWT token is invalid or malformed.")
	}
	if c.Certificate == nil {
		return bad("invalid_client", 700027, "The application has no certificate.")
	}
	long, short := sha256.Sum256(c.Certificate.Raw), sha1.Sum(c.Certificate.Raw)
	b64 := base64.RawURLEncoding
	named := t.header.X5t2 == b64.EncodeToString(long[:]) || t.header.X5t2 == "" &&
		t.header.X5t == b64.EncodeToString(short[:])
	key, ok := c.Certificate.PublicKey.(*rsa.PublicKey)
	switch {
	case !named || !ok || !t.signedBy(key):
		return bad("invalid_client", 700027,
			"The certificate with identifier used to sign the client assertion is not registered on application.")
	case t.claims.Iss != c.ID || t.claims.Sub != c.ID:
		return bad("invalid_client", 700021,
			"Client assertion application identifier doesn't match 'client_id' parameter.")
	case t.claims.Aud != audience(r):
		return bad("invalid_client", 700023,
			"Client assertion audience claim does not match Realm issuer: %s, want %s.", t.claims.Aud, audience(r))
	case !t.timely(a.nowLocked()):
		return bad("invalid_client", 700024, "Client assertion is not within its valid time range.")
	case t.claims.Jti == "" || a.seen[t.claims.Jti]:
		return bad("invalid_client", 0, "The assertion was used before.")
	}
	a.seen[t.claims.Jti] = true
	return nil
}

// serviceAccountLocked is Google's way: the assertion is the grant.
func (a *OAuth) serviceAccountLocked(r *http.Request) (map[string]any, *problem) {
	t, err := parseJWT(r.PostForm.Get("assertion"))
	if err != nil {
		return nil, bad("invalid_grant", 0, "Invalid JWT.")
	}
	account, known := a.accounts[t.claims.Iss]
	now := a.nowLocked()
	switch {
	case !known:
		return nil, bad("invalid_grant", 0, "Invalid grant: account not found")
	case !t.signedBy(account.Key):
		return nil, bad("invalid_grant", 0, "Invalid JWT Signature.")
	case t.claims.Aud != audience(r):
		return nil, bad("invalid_grant", 0, "Invalid JWT: Failed audience check.")
	case !t.timely(now) || t.claims.Exp-t.claims.Iat > 3600:
		return nil, bad("invalid_grant", 0,
			"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check "+
				"your iat and exp values in the JWT claim.")
	case t.claims.Scope == "":
		return nil, bad("invalid_scope", 0, "Empty or missing scope not allowed.")
	case len(account.Mailboxes) > 0 && !slices.ContainsFunc(account.Mailboxes,
		func(m string) bool { return strings.EqualFold(m, t.claims.Sub) }):
		return nil, bad("invalid_grant", 0, "Invalid email or User ID")
	}
	return a.issueLocked(&issued{identity: t.claims.Sub, client: account.Email,
		scopes: strings.Fields(t.claims.Scope)}), nil
}
