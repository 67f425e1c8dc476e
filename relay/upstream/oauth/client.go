package oauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"postern/relay/upstream/internal/scrub"
	"postern/relay/upstream/via"
)

const (
	// maxResponse bounds what a server may answer. Tokens with many group claims reach some 10 kB.
	maxResponse = 128 << 10
	// maxToken bounds a token; RFC 4954 §4 wants servers to take 12288 octets of AUTH, which is 9216 before base64.
	maxToken = 32 << 10
	// assumedLife is for servers that do not say expires_in (RFC 6749 §5.1 leaves it open); an hour is what all of them
	// use.
	assumedLife = time.Hour
	// Lives outside these bounds are not believed.
	minLife, maxLife = time.Minute, day
)

// bound is a transport that ends with ctx, reads a bounded response whole, and so leaves no connection behind. What a
// refusal repeats of the secrets in the request is taken out.
type bound struct {
	base http.RoundTripper
	ctx  context.Context
}

func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(b.ctx) // golang.org/x/oauth2 sends some requests without a context
	r.Header.Set("User-Agent", "Postern")
	secrets, err := secretsOf(r)
	if err != nil {
		return nil, err
	}
	resp, err := b.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	_ = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	if len(body) > maxResponse {
		return nil, errors.New("the response does not end")
	}
	// Some refuse with 200; a grant has secrets of its own.
	if resp.StatusCode/100 != 2 || !bytes.Contains(body, []byte("access_token")) {
		body = []byte(secrets.Text(string(body)))
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// secretParameters are those that RFC 6749, 7521, 7636 and 8628 let a request carry and that let in who has them.
var secretParameters = []string{
	"client_secret", "password", "refresh_token", "code", "code_verifier", "device_code", "assertion",
	"client_assertion",
}

// secretsOf reads the secrets that a request sends in its form or by Basic. The request can be sent afterwards.
func secretsOf(r *http.Request) (*scrub.Scrubber, error) {
	secrets := scrub.New()
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, _ := url.ParseQuery(string(body)) // what is no form has none
		for _, name := range secretParameters {
			secrets.Add(form[name]...)
		}
	}
	if _, password, ok := r.BasicAuth(); ok {
		secrets.Add(password)
		if plain, err := url.QueryUnescape(password); err == nil { // RFC 6749 §2.3.1
			secrets.Add(plain)
		}
	}
	return secrets, nil
}

// with returns ctx such that golang.org/x/oauth2 uses our transport. Redirects are answers, not followed: what we send
// has secrets in it, and no token endpoint redirects.
func (s *Source) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport:     bound{s.transport, ctx},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
}

func newTransport(o *Options) (http.RoundTripper, error) {
	if o.Transport != nil {
		return o.Transport, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.RootCAs) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("read the system's certificates: %w", err)
		}
		for _, ca := range o.RootCAs {
			pool.AddCert(ca)
		}
		conf.RootCAs = pool
	}
	dial := o.Dial
	if dial == nil {
		dial = via.Environment((&net.Dialer{Timeout: 10 * time.Second}).DialContext)
	}
	return &http.Transport{ // without Proxy: what a proxy refuses is told by package via
		DialContext:            dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  20 * time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           2,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}, nil
}

// response is a token response (RFC 6749 §5.1) that was found good.
type response struct {
	access, refresh Secret
	expiry          time.Time
	refreshExpires  time.Time // zero: not said
}

// request asks the token endpoint. v has grant_type and what belongs to it; who we are is added.
func (s *Source) request(ctx context.Context, v url.Values, scopes []string) (*response, *Error) {
	now := time.Now()
	conf := &clientcredentials.Config{
		ClientID: s.o.ClientID, ClientSecret: s.o.ClientSecret.Reveal(),
		TokenURL: s.p.endpoint.TokenURL, AuthStyle: s.p.endpoint.AuthStyle,
		Scopes: scopes, EndpointParams: v,
	}
	if s.account != nil { // the assertion says who we are
		conf.ClientID, conf.ClientSecret, conf.AuthStyle = "", "", oauth2.AuthStyleInParams
	} else if err := s.credentials(v, now); err != nil {
		return nil, s.explain(ctx, err, now)
	}
	t, err := conf.Token(s.with(ctx))
	if err != nil {
		return nil, s.explain(ctx, err, time.Now())
	}
	return check(t, now)
}

// check distrusts a token response.
func check(t *oauth2.Token, now time.Time) (*response, *Error) {
	garbled := func(what string) (*response, *Error) {
		return nil, pressureError(codeGarbled, "the token endpoint answers "+what, nil)
	}
	switch {
	case t.TokenType != "" && !strings.EqualFold(t.TokenType, "bearer"):
		return garbled("a token that is not a bearer token")
	case len(t.AccessToken) > maxToken || len(t.RefreshToken) > maxToken:
		return garbled("a token without end")
	case !visible(t.AccessToken) || !visible(t.RefreshToken):
		return garbled("a token with octets that no token has") // RFC 6750 §2.1; and ^A would end it on the wire
	}
	r := &response{access: NewSecret(t.AccessToken), refresh: NewSecret(t.RefreshToken)}
	life := assumedLife
	if !t.Expiry.IsZero() {
		life = min(max(t.Expiry.Sub(now), minLife), maxLife)
	}
	r.expiry = now.Add(life)
	if n, ok := t.Extra("refresh_token_expires_in").(float64); ok && n > 0 && n < 1e9 {
		r.refreshExpires = now.Add(time.Duration(n) * time.Second)
	}
	return r, nil
}

// visible reports whether s is VCHAR only (RFC 6749 appendix A.12 and A.17 allow a space, which nobody uses).
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
