package oauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"
	"time"

	"postern/mail"
)

// The signature algorithms of RFC 7518 §3 that we sign with.
const (
	algRS256 = "RS256"
	algPS256 = "PS256"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 §2.2
	jwtBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"            // RFC 7523 §2.1
	// assertionLife is what Microsoft's own libraries use.
	assertionLife = 10 * time.Minute
	// clockSkew is allowed between us and the server.
	clockSkew = 30 * time.Second
)

// sign makes a JWT (RFC 7519) in compact form (RFC 7515 §7.1).
func sign(key *rsa.PrivateKey, header, claims map[string]any) (Secret, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return Secret{}, err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return Secret{}, err
	}
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString(h) + "." + b64.EncodeToString(c)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	if header["alg"] == algPS256 { // RFC 7518 §3.5: the salt is as long as the hash
		signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:],
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	}
	if err != nil {
		return Secret{}, fmt.Errorf("sign the assertion: %w", err)
	}
	return NewSecret(text + "." + b64.EncodeToString(signature)), nil
}

// certificate is what a client proves itself with instead of a secret.
type certificate struct {
	leaf *x509.Certificate
	key  *rsa.PrivateKey
}

func parseCertificate(file Secret) (*certificate, error) {
	if file.IsZero() {
		return nil, nil
	}
	text := []byte(file.Reveal())
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, mail.BadKey("certificate_file",
			"needs a PEM file with a certificate and its private key, without a passphrase")
	}
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, mail.BadKey("certificate_file",
			"the key is not RSA; authorization servers take RSA only, so make another")
	}
	return &certificate{pair.Leaf, key}, nil
}

// assertion proves who the client is (RFC 7523 §3). The server finds the certificate by its thumbprint: SHA-256 beside
// PS256, and SHA-1 beside RS256 for servers that know nothing newer
// (https://learn.microsoft.com/entra/identity-platform/certificate-credentials).
func (c *certificate) assertion(algorithm, clientID, audience string, now time.Time) (Secret, error) {
	header := map[string]any{"typ": "JWT", "alg": algorithm}
	if algorithm == algPS256 {
		sum := sha256.Sum256(c.leaf.Raw)
		header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(sum[:])
	} else {
		sum := sha1.Sum(c.leaf.Raw)
		header["x5t"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return sign(c.key, header, map[string]any{
		"iss": clientID, "sub": clientID, "aud": audience, "jti": rand.Text(),
		"nbf": now.Add(-clockSkew).Unix(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
}

// serviceAccount is Google's key file.
type serviceAccount struct {
	email, keyID, tokenURL string
	key                    *rsa.PrivateKey
}

func parseServiceAccount(file Secret) (*serviceAccount, error) {
	if file.IsZero() {
		return nil, nil
	}
	var f struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		KeyID    string `json:"private_key_id"`
		Key      string `json:"private_key"`
		TokenURL string `json:"token_uri"`
	}
	if err := json.Unmarshal([]byte(file.Reveal()), &f); err != nil || f.Type != "service_account" || f.Email == "" {
		return nil, mail.BadKey("service_account_file", `is not the JSON key file of a service account ("type": `+
			`"service_account")`)
	}
	key, err := parseKey(f.Key)
	if err != nil {
		return nil, err
	}
	return &serviceAccount{f.Email, f.KeyID, f.TokenURL, key}, nil
}

// assertion asks for a token for the mailbox subject
// (https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests).
func (a *serviceAccount) assertion(subject string, scopes []string, audience string, now time.Time) (Secret, error) {
	header := map[string]any{"typ": "JWT", "alg": algRS256}
	if a.keyID != "" {
		header["kid"] = a.keyID
	}
	return sign(a.key, header, map[string]any{
		"iss": a.email, "sub": subject, "scope": strings.Join(scopes, " "), "aud": audience,
		"iat": now.Add(-clockSkew).Unix(), "exp": now.Add(time.Hour - clockSkew).Unix(), // an hour is the most
	})
}

// credentials adds to a request what proves who the client is, where that is not a secret.
func (s *Source) credentials(v url.Values, now time.Time) error {
	if s.cert == nil {
		return nil
	}
	if now.After(s.cert.leaf.NotAfter) {
		return s.fault("certificate_expired", "the certificate of the application ended on "+date(s.cert.leaf.NotAfter),
			"make a new certificate, upload its public half to the application's registration, and write it and its "+
				"key to certificate_file and key_file")
	}
	assertion, err := s.cert.assertion(s.p.algorithm, s.o.ClientID, s.p.endpoint.TokenURL, now)
	if err != nil {
		return err
	}
	v.Set("client_assertion_type", assertionType)
	v.Set("client_assertion", assertion.Reveal())
	return nil
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func parseKey(text string) (*rsa.PrivateKey, error) {
	wrong := mail.BadKey("service_account_file", "private_key is not an RSA key in PEM")
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, wrong
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, wrong
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, wrong
	}
	return key, nil
}
