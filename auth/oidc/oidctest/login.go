package oidctest

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
)

// grant is a login that a browser is on its way back with.
type grant struct {
	client, redirect, challenge, nonce string
	claims                             map[string]any
}

// SignIn says who the browsers are that come to log in: claims of the ID token beside those of every one. nil: whoever
// it is says no.
func (i *Issuer) SignIn(claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.person = claims
}

// authorize sends a browser back with a code, without asking anything.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" {
		http.Error(w, "no PKCE, or not for a code", http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {q.Get("state")}, "iss": {i.URL}}
	if i.person == nil {
		answer.Set("error", "access_denied")
	} else {
		code := fmt.Sprint("code ", len(i.grants))
		i.grants[code] = grant{q.Get("client_id"), q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce"),
			i.person}
		answer.Set("code", code)
	}
	back.RawQuery = answer.Encode()
	w.Header().Set("Location", back.String())
	w.WriteHeader(http.StatusSeeOther)
}

// exchange is the answer for a code, once; false: there is none.
func (i *Issuer) exchange(r *http.Request) (answer any, ok bool) {
	g, known := i.grants[r.PostFormValue("code")]
	delete(i.grants, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !known || base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge ||
		r.PostFormValue("redirect_uri") != g.redirect {
		return nil, false
	}
	claims := i.Claims(map[string]any{"aud": g.client, "nonce": g.nonce, "azp": nil, "scope": nil, "email": nil})
	maps.Copy(claims, g.claims)
	return map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": i.sign(claims)}, true
}
