package config

import (
	"errors"
	"time"

	"postern/auth"
	"postern/auth/oidc"
	"postern/mail"
)

// SourceOIDC verifies bearer tokens.
const SourceOIDC = "oidc"

// oidcKeys are those of a source of type oidc.
var oidcKeys = []string{"issuer", "audience", "authorized_parties", "scope", "login_claim", "groups_claim",
	"senders_claim", "client_id", "client_secret", "clock_skew", "ca_file", "timeout", "stale_ok"}

// OIDC returns the options of an issuer, without trust anchors.
func (s *AuthSource) OIDC() oidc.Options {
	return oidc.Options{
		Name: s.Name, Issuer: s.Issuer, Audience: s.Audience, AuthorizedParties: s.AuthorizedParties, Scope: s.Scope,
		LoginClaim: s.LoginClaim, GroupsClaim: s.GroupsClaim, SendersClaim: s.SendersClaim, ClientID: s.ClientID,
		ClientSecret: auth.Secret(s.ClientSecret.Value()), ClockSkew: s.ClockSkew.Std(), Timeout: s.Timeout.Std(),
		StaleOK: s.StaleOK.Std(),
	}
}

func (v *validator) sourceOIDC(key string, s *AuthSource) {
	v.secret(key+".client_secret", s.ClientSecret, "secret of client_id")
	v.atMost(key+".clock_skew", s.ClockSkew, 5*time.Minute, "expired tokens would be taken so long")
	bad, ok := errors.AsType[*mail.KeyError](oidc.Check(s.OIDC()))
	if ok && !v.problems.within(key+"."+bad.Key) && !v.problems.within(key+".client_secret") {
		v.fail(key+"."+bad.Key, "%s", bad.Msg)
	}
}
