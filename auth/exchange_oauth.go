package auth

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"postern/mail"
)

var (
	errOAuth       = errors.New("the response is no message of OAUTHBEARER (RFC 7628) or XOAUTH2")
	errNoToken     = errors.New("the response has no bearer token in it")
	replyOAuth     = mail.R(501, "5.5.2", "the login is malformed: that is no message of this mechanism")
	escapedOfOAuth = strings.NewReplacer("=2C", ",", "=3D", "=")
)

// oauthExchange is OAUTHBEARER (RFC 7628) or Google's XOAUTH2. go-sasl's server panics at an empty answer to an error
// and does not undo the escapes of the user name.
type oauthExchange struct {
	outcome
	check    func(ctx context.Context, login, token string) (mail.Reply, TokenChallenge)
	google   bool // XOAUTH2
	prompted bool
	ended    bool
	refusal  mail.Reply // to be sent when the client has heard why
}

func (x *oauthExchange) Next(ctx context.Context, response []byte) ([]byte, mail.Reply) {
	switch {
	case !x.refusal.IsZero(): // whatever the client answers: an octet 1, or nothing
		r := x.refusal
		x.refusal = mail.Reply{}
		return nil, r
	case x.ended:
		return x.refuse(replyEnded, errEnded)
	case response == nil && !x.prompted:
		x.prompted = true
		return []byte{}, mail.Reply{}
	}
	x.ended = true
	login, token, err := x.parse(string(response))
	x.name = login
	if err != nil {
		return x.refuse(replyOAuth, err)
	}
	reply, challenge := x.check(ctx, login, token)
	if !reply.Permanent() {
		return nil, reply
	}
	x.refusal = reply
	return x.failure(challenge), mail.Reply{}
}

// failure is the error that a client gets in a challenge (RFC 7628 §3.2.2).
func (x *oauthExchange) failure(c TokenChallenge) []byte {
	said := map[string]string{"status": "invalid_token"}
	if x.google {
		said = map[string]string{"status": "401", "schemes": "bearer"}
	}
	if c.Scope != "" {
		said["scope"] = c.Scope
	}
	if c.OpenIDConfiguration != "" && !x.google {
		said["openid-configuration"] = c.OpenIDConfiguration
	}
	b, _ := json.Marshal(said) // strings only
	return b
}

// parse reads "n,a=login,^Aauth=Bearer token^A^A" or "user=login^Aauth=Bearer token^A^A".
func (x *oauthExchange) parse(message string) (login, token string, err error) {
	fields, ok := strings.CutSuffix(message, "\x01\x01")
	head, rest, some := strings.Cut(fields, "\x01")
	if !ok || !some {
		return "", "", errOAuth
	}
	if login, err = x.loginIn(head); err != nil {
		return "", "", err
	}
	for field := range strings.SplitSeq(rest, "\x01") {
		key, value, _ := strings.Cut(field, "=")
		if key != "auth" { // host, port and others say nothing that we need
			continue
		}
		scheme, credential, _ := strings.Cut(value, " ")
		if token != "" || !strings.EqualFold(scheme, "bearer") {
			return login, "", errNoToken
		}
		if token = strings.TrimLeft(credential, " "); !bearer(token) {
			return login, "", errNoToken
		}
	}
	if token == "" {
		return login, "", errNoToken
	}
	return login, token, nil
}

func (x *oauthExchange) loginIn(head string) (login string, err error) {
	if x.google {
		name, ok := strings.CutPrefix(head, "user=")
		if !ok {
			return "", errOAuth
		}
		return checkedName(name)
	}
	parts := strings.Split(head, ",") // gs2-header: flag, authzid, nothing
	if len(parts) != 3 || parts[0] != "n" && parts[0] != "y" || parts[2] != "" {
		return "", errOAuth
	}
	if parts[1] == "" {
		return "", nil
	}
	name, ok := strings.CutPrefix(parts[1], "a=")
	if !ok || strings.Count(name, "=") != strings.Count(name, "=2C")+strings.Count(name, "=3D") {
		return "", errOAuth
	}
	return checkedName(escapedOfOAuth.Replace(name))
}

func checkedName(name string) (string, error) {
	if len(name) > MaxLength || !printable(name) {
		return "", errOAuth
	}
	return name, nil
}
