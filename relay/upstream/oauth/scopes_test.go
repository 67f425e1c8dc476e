package oauth

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"postern/relay/fakeprovider"
)

// A person's consent at Graph covers what the configuration needs.
func TestScopesOfAConsent(t *testing.T) {
	for _, c := range []struct {
		flow          Flow
		tenant        string
		large, others bool
		scopes        []string
		want          string
	}{
		{DeviceCode, "contoso.onmicrosoft.com", false, false, nil, "Mail.Send offline_access"},
		{DeviceCode, "contoso.onmicrosoft.com", true, false, nil, "Mail.ReadWrite Mail.Send offline_access"},
		{AuthorizationCode, "contoso.onmicrosoft.com", false, true, nil, "Mail.Send.Shared Mail.Send offline_access"},
		{AuthorizationCode, "contoso.onmicrosoft.com", true, true, nil,
			"Mail.Send.Shared Mail.ReadWrite Mail.ReadWrite.Shared Mail.Send offline_access"},
		{DeviceCode, "contoso.onmicrosoft.com", true, true, []string{"own"}, "own"},
		{DeviceCode, "consumers", true, true, nil, "Mail.ReadWrite Mail.Send offline_access"},
		{ClientCredentials, "contoso.onmicrosoft.com", true, true, nil, ".default"},
	} {
		o := Options{
			Upstream: "office", Provider: MicrosoftGraph, Flow: c.flow, Tenant: c.tenant, ClientID: client,
			ClientSecret: NewSecret(secret),
			Grants:       NewMemoryGrants(), Sealer: testSealer(), LargeMail: c.large, Others: c.others,
			Scopes: c.scopes,
		}
		got := strings.ReplaceAll(strings.Join(newSource(t, o).p.scopes, " "), "https://graph.microsoft.com/", "")
		if got != c.want {
			t.Errorf("%s, large %v, others %v: %s, want %s", c.flow, c.large, c.others, got, c.want)
		}
	}
}

// A refresh names what was consented to, not what the configuration would like now, and falls back where nobody knows.
func TestRefreshCarriesTheScopes(t *testing.T) {
	for name, c := range map[string]struct {
		kept      []string // scopes in the grant
		consented []string
		strict    bool // the server wants scope
		want      []string
		asks      int
	}{
		"kept": {[]string{scope, "offline_access"}, []string{scope, "offline_access"}, true,
			[]string{scope, "offline_access"}, 1},
		"from before": {nil, []string{scope, "offline_access"}, true, []string{scope, "offline_access"},
			1},
		"from elsewhere, for more": {nil, []string{"https://outlook.office365.com/.default"}, false,
			[]string{"https://outlook.office365.com/.default"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			a := fake(fakeprovider.OAuthOptions{ScopeAtRefresh: c.strict})
			s := newSource(t, personOptions(a, NewMemoryGrants()))
			if _, err := s.saveGrant(t.Context(), &grant{ClientID: client,
				Refresh: a.Consent(client, mailbox, c.consented...), Scopes: c.kept}, 0); err != nil {
				t.Fatal(err)
			}
			_, scopes, ok := a.Valid(mustToken(t, s).AccessToken.Reveal())
			if !ok || !slices.Equal(scopes, c.want) {
				t.Errorf("the token is for %v", scopes)
			}
			wantRequests(t, a, "token:refresh_token", c.asks)
		})
	}
}

// A login keeps the scopes that it asked for.
func TestConsentKeepsItsScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fake(fakeprovider.OAuthOptions{ScopeAtRefresh: true, Consenter: mailbox})
		o := personOptions(a, NewMemoryGrants())
		o.Provider, o.LargeMail = MicrosoftGraph, true
		s := newSource(t, o)
		c, err := s.Consent(t.Context(), DeviceCode)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		g, _, failed := s.loadGrant(t.Context())
		if failed != nil || !slices.Contains(g.Scopes, "https://graph.microsoft.com/Mail.ReadWrite") {
			t.Errorf("kept %v: %v", g, failed)
		}
	})
}
