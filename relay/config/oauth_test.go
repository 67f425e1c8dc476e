package config

import (
	"testing"

	"postern/relay/upstream/oauth"
)

func TestLoginService(t *testing.T) {
	for _, c := range []struct {
		host, provider string
		block          OAuth
		want           string
	}{
		{"smtp.office365.com", "generic", OAuth{}, oauth.Microsoft},
		{"SMTP-mail.Outlook.com", "generic", OAuth{}, oauth.Microsoft},
		{"smtp.office365.us", "generic", OAuth{}, oauth.Microsoft},
		{"relay.example.com", "generic", OAuth{Tenant: "contoso.example"}, oauth.Microsoft},
		{"relay.example.com", "microsoft365", OAuth{}, oauth.Microsoft},
		{"smtp.gmail.com", "generic", OAuth{}, oauth.Google},
		{"relay.example.com", "generic", OAuth{Flow: oauth.ServiceAccount}, oauth.Google},
		{"notoffice365.com", "generic", OAuth{}, ""},
		{"smtp.gmail.com", "generic", OAuth{Provider: "microsoft"}, oauth.Microsoft},
	} {
		if got := (&Upstream{Host: c.host, Provider: c.provider, OAuth: &c.block}).loginService(); got != c.want {
			t.Errorf("%s, %s, %+v: %q, want %q", c.host, c.provider, c.block, got, c.want)
		}
	}
}
