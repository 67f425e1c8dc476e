package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// introspect asks the issuer about a token (RFC 7662). An answer that does not say until when the token is good is good
// for a minute.
func (s *Source) introspect(ctx context.Context, token string) (claims, time.Time, error) {
	if err := s.keys.ready(ctx); err != nil {
		return nil, time.Time{}, err
	}
	s.keys.mu.Lock()
	address := s.keys.introspection
	s.keys.mu.Unlock()
	if err := checkURL(address); err != nil {
		return nil, time.Time{}, fmt.Errorf("its introspection_endpoint %w", err)
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, time.Time{}, err
	}
	r.SetBasicAuth(url.QueryEscape(s.ClientID), url.QueryEscape(string(s.ClientSecret))) // RFC 6749 §2.3.1
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	c, err := s.answer(r)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("introspection: %w", err)
	}
	return s.active(c)
}

func (s *Source) answer(r *http.Request) (c claims, err error) {
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	switch {
	case answer.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("the issuer does not take client_id and client_secret")
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the issuer answers %s", answer.Status)
	case kind != "application/json":
		return nil, errors.New("the issuer does not answer in JSON")
	}
	if err := json.NewDecoder(answer.Body).Decode(&c); err != nil {
		return nil, fmt.Errorf("the issuer's answer is not understood: %w", err)
	}
	return c, nil
}

// active looks at what the issuer says of a token.
func (s *Source) active(c claims) (claims, time.Time, error) {
	now, skew := s.now(), s.ClockSkew
	expires := now.Add(time.Minute)
	if n, ok := c["exp"].(float64); ok {
		expires = time.Unix(int64(n), 0)
	}
	notBefore, _ := c["nbf"].(float64)
	switch {
	case c["active"] != true:
		return nil, expires, wrong("the issuer says that it is not good (any more)")
	case c.text("iss") != "" && c.text("iss") != s.Issuer:
		return nil, expires, wrong("it is of another issuer")
	case !now.Add(-skew).Before(expires):
		return nil, expires, wrong("it has expired")
	case time.Unix(int64(notBefore), 0).After(now.Add(skew)):
		return nil, expires, wrong("it is not good yet")
	}
	return c, expires, nil
}
