package oauth

import (
	"strings"
	"testing"

	"postern/relay/fakeprovider"
)

func TestEndpointsAndScopes(t *testing.T) {
	for _, tc := range []struct {
		name                   string
		o                      Options
		token, auth, device    string
		scopes                 string
		basic, localhostByName bool
	}{
		{"microsoft app", Options{Provider: Microsoft, Flow: ClientCredentials, Tenant: "contoso.onmicrosoft.com"},
			"https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
			"https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/authorize",
			"https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/devicecode",
			"https://outlook.office365.com/.default", false, true},
		{"microsoft person", Options{Provider: Microsoft, Flow: DeviceCode},
			"https://login.microsoftonline.com/common/oauth2/v2.0/token", "", "",
			"https://outlook.office.com/SMTP.Send offline_access", false, true},
		{"us-gov", Options{Provider: Microsoft, Flow: ClientCredentials, Tenant: "t", Cloud: "us-gov"},
			"https://login.microsoftonline.us/t/oauth2/v2.0/token", "", "",
			"https://outlook.office365.us/.default", false, true},
		{"china", Options{Provider: Microsoft, Flow: AuthorizationCode, Cloud: "china"},
			"https://login.partner.microsoftonline.cn/common/oauth2/v2.0/token", "", "",
			"https://partner.outlook.cn/SMTP.Send offline_access", false, true},
		{"graph app", Options{Provider: MicrosoftGraph, Flow: ClientCredentials, Tenant: "t"},
			"https://login.microsoftonline.com/t/oauth2/v2.0/token", "", "",
			"https://graph.microsoft.com/.default", false, true},
		{"graph person", Options{Provider: MicrosoftGraph, Flow: DeviceCode},
			"https://login.microsoftonline.com/common/oauth2/v2.0/token", "", "",
			"https://graph.microsoft.com/Mail.Send offline_access", false, true},
		{"google", Options{Provider: Google, Flow: AuthorizationCode}, "https://oauth2.googleapis.com/token",
			"https://accounts.google.com/o/oauth2/auth", "",
			"https://mail.google.com/", false, false},
		{"overridden", Options{Provider: Microsoft, Flow: ClientCredentials, TokenURL: "https://sts.example.com/token",
			Scopes: []string{"a", "b"}}, "https://sts.example.com/token", "", "", "a b", false, true},
		{"other", Options{Flow: ClientCredentials, TokenURL: "https://sts.example.com/token", Scopes: []string{"a"}},
			"https://sts.example.com/token", "", "", "a", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.o.ClientSecret = NewSecret("x")
			p := resolve(&tc.o)
			if p.endpoint.TokenURL != tc.token || tc.auth != "" && p.endpoint.AuthURL != tc.auth || tc.device != "" &&
				p.endpoint.DeviceAuthURL != tc.device {
				t.Errorf("endpoints %+v", p.endpoint)
			}
			if got := strings.Join(p.scopes, " "); got != tc.scopes {
				t.Errorf("scopes %q, want %q", got, tc.scopes)
			}
			if (p.endpoint.AuthStyle == 2) != tc.basic || (p.loopback == "localhost") != tc.localhostByName {
				t.Errorf("style %v, loopback %s", p.endpoint.AuthStyle, p.loopback)
			}
		})
	}
}

// Each message names the key that is wrong.
func TestOptionsRefused(t *testing.T) {
	a := fake(fakeprovider.OAuthOptions{})
	app, person := appOptions(a), personOptions(a, NewMemoryGrants())
	for _, tc := range []struct {
		want   string
		base   Options
		change func(*Options)
	}{
		{`flow: unknown value ""`, app, func(o *Options) { o.Flow = "" }},
		{`flow: unknown value "password"`, app, func(o *Options) { o.Flow = "password" }},
		{"no name", app, func(o *Options) { o.Upstream = "" }},
		{`provider: unknown value "yahoo"`, app, func(o *Options) { o.Provider = "yahoo" }},
		{`cloud: unknown value "moon", write "us-gov", "us-gov-dod" or "china"`, app,
			func(o *Options) { o.Cloud = "moon" }},
		{"scopes: is missing", app, func(o *Options) { o.Cloud = "us-gov-dod" }},
		{`scopes[2]: "a b" is not a scope`, app, func(o *Options) { o.Scopes = []string{"a", "a b"} }},
		{"tenant: client-credentials", app, func(o *Options) { o.Tenant = "common" }},
		{"tenant: client-credentials", app, func(o *Options) { o.Tenant = "" }},
		{`tenant: "../x"`, app, func(o *Options) { o.Tenant = "../x" }},
		{"client_id: is missing", app, func(o *Options) { o.ClientID = "" }},
		{"client_secret: is missing", app, func(o *Options) { o.ClientSecret = Secret{} }},
		{"certificate_file: stands beside", app, func(o *Options) { o.Certificate = NewSecret("x") }},
		{"certificate_file: needs a PEM file", app, func(o *Options) {
			o.ClientSecret, o.Certificate = Secret{},
				NewSecret("x")
		}},
		{"token_url: is not the address of a server with TLS", app,
			func(o *Options) { o.TokenURL = "http://sts.example.com/token" }},
		{"token_url: is missing", app, func(o *Options) { o.Provider, o.Tenant = "", ""; o.Scopes = []string{"x"} }},
		{"token_url: is not", app, func(o *Options) { o.TokenURL = "https://user:pw@sts.example.com/token" }},
		{"Google has no client-credentials", app, func(o *Options) { o.Provider = Google }},
		{"Google does not give", person, func(o *Options) { o.Provider = Google }},
		{"device_url: is missing", person, func(o *Options) {
			o.Provider, o.Tenant, o.TokenURL, o.Scopes = "", "", "https://sts.example.com/token", []string{"x"}
		}},
		{"no store", person, func(o *Options) { o.Grants = nil }},
		{"no store", person, func(o *Options) { o.Sealer = nil }},
		{"refresh_token: is missing", person, func(o *Options) { o.Flow = RefreshToken }},
		{"refresh_token: has no effect", app, func(o *Options) { o.RefreshToken = NewSecret("x") }},
		{"service_account_file: is missing", app, func(o *Options) { o.Provider, o.Flow = Google, ServiceAccount }},
		{"service_account_file: is not the JSON", app, func(o *Options) { o.ServiceAccount = NewSecret("{}") }},
		{"service_account_file: private_key", app,
			func(o *Options) { o.ServiceAccount = NewSecret(`{"type":"service_account","client_email":"x"}`) }},
		{"service_account_file: has no effect", app, func(o *Options) { o.ServiceAccount = serviceAccountFile(t) }},
		{"service-account is Google's", app, func(o *Options) {
			o.Flow, o.ServiceAccount, o.ClientSecret = ServiceAccount, serviceAccountFile(t), Secret{}
		}},
	} {
		o := tc.base
		tc.change(&o)
		_, err := NewSource(o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v; want %q", err, tc.want)
		}
	}
	for _, o := range []Options{app, person} {
		if _, err := NewSource(o); err != nil {
			t.Error(err)
		}
	}
}

func TestSecretsNeedTLS(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://a.example/token": true, "http://127.0.0.1:8080/token": true, "http://[::1]/token": true,
		"http://localhost/token": true,
		"http://a.example/":      false, "ftp://a.example/": false, "https://": false, "": false,
		"http://localhost.a.example/": false, "https://a.example/#x": false,
	} {
		if got := isSafe(text); got != ok {
			t.Errorf("%q: %t", text, got)
		}
	}
}
