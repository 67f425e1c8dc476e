package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// echo refuses every request and repeats what it was sent, in a form of its choice.
type echo func(body, authorization string) []byte

func (e echo) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code(r), Header: http.Header{}, Request: r,
		Body: io.NopCloser(bytes.NewReader(e(string(body), r.Header.Get("Authorization"))))}, nil
}

// code refuses with 400, and as some servers do, with 200, where the request says so.
func code(r *http.Request) int {
	if r.URL.Query().Has("fine") {
		return 200
	}
	return 400
}

func inJSON(code, description string) []byte {
	b, _ := json.Marshal(map[string]string{"error": code, "error_description": description})
	return b
}

// An authorization server that repeats what it was sent, whole or where our texts are cut, tells nobody our secrets.
func TestSecretsDoNotComeBack(t *testing.T) {
	refresh := "0.AXoA" + strings.Repeat("Kf9xQ2w_z-7", 120)
	for name, e := range map[string]echo{
		"the form": func(body, auth string) []byte { return inJSON("invalid_client", body+" "+auth) },
		"decoded": func(body, _ string) []byte {
			form, _ := url.QueryUnescape(body)
			return inJSON("invalid_grant",
				form)
		},
		"as the code": func(body, auth string) []byte { return inJSON(body, auth) },
		"at the cut": func(body, _ string) []byte {
			return inJSON("invalid_grant", strings.Repeat("x", maxDetail-20)+" "+body)
		},
		"as a form": func(body, _ string) []byte {
			return []byte("error=invalid_grant&error_description=" + url.QueryEscape(body))
		},
		"the form, with 200": func(body, auth string) []byte { return inJSON("invalid_client", body+" "+auth) },
		"decoded, with 200": func(body, _ string) []byte {
			form,
				_ := url.QueryUnescape(body)
			return inJSON("invalid_grant", form)
		},
		"escaped": func(body, _ string) []byte {
			form, _ := url.QueryUnescape(body)
			var b strings.Builder
			for _, r := range form {
				fmt.Fprintf(&b, "\\u%04x", r)
			}
			return []byte(`{"error":"invalid_grant","error_description":"` + b.String() + `"}`)
		},
		"without codes": func(body, auth string) []byte { return []byte(body + auth) },
	} {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			s := newSource(t, Options{Upstream: "office", Provider: Microsoft, Flow: RefreshToken,
				Tenant:   "contoso.onmicrosoft.com",
				ClientID: client, ClientSecret: NewSecret(secret), RefreshToken: NewSecret(refresh), Transport: e,
				Grants: NewMemoryGrants(), Sealer: testSealer()})
			s.p.endpoint.AuthStyle = style
			if strings.HasSuffix(name, "with 200") {
				s.p.endpoint.TokenURL += "?fine"
			}
			_, err := s.Token(t.Context(), mailbox)
			var known *Error
			if !errors.As(err, &known) {
				t.Fatalf("%s: %v", name, err)
			}
			told := strings.ToLower(fmt.Sprintf("%v %+v %v", err, *known, known.Err))
			for _, s := range []string{secret, refresh} {
				for i := 0; i+14 <= len(s); i++ {
					if strings.Contains(told, strings.ToLower(s[i:i+14])) {
						t.Fatalf("%s: %q is told: %s", name, s[i:i+14], told)
					}
				}
			}
		}
	}
}
