package config

import (
	"slices"
	"strings"
	"testing"
)

const shown = `hostname = "relay.example.com"
data_dir = "/tmp/x"

[store]
history = "14d"

[[listener]]
address = ":2525"
networks = ["10.0.0.0/8", "192.0.2.1"]

[[policy]]
logins = ["scanner-*"]
limits = []

[[upstream]]
name = "office365"
provider = "microsoft365"
password = "hunter2-very-secret"
proxy = "env:POSTERN_PROXY"
[upstream.oauth]
client_secret = "file:/etc/postern/client-secret"
expires = "2027-03-31"

[[alert]]
url = "https://hooks.example.com/T000/hook-path-secret"
`

func TestEffective(t *testing.T) {
	all := Effective(Parse("relay.toml", []byte(shown)))
	for _, want := range []Setting{
		{Key: "hostname", Value: "relay.example.com", Written: true, Line: 1},
		{Key: "store.history", Value: "14d", Written: true, Line: 5, Default: "30d"},
		{Key: "store.max_size", Value: "10GB", Default: "10GB"},
		{Key: "listener[1].name", Value: "submission"},
		{Key: "listener[1].address", Value: ":2525", Written: true, Line: 8},
		{Key: "listener[1].networks", Value: "10.0.0.0/8, 192.0.2.1/32", Written: true, Line: 9},
		{Key: "listener[1].tls", Value: "starttls", Default: "starttls"},
		{Key: "listener[1].hide_client", Value: "true", Default: "true"},
		{Key: "listener[1].min_version", Value: "1.2"},
		{Key: "auth.source[1].type", Value: "store", Default: "store"},
		{Key: "policy[1].limits", Written: true, Line: 13},
		{Key: "policy[default].max_held", Value: "500"},
		{Key: "upstream[1].password", Value: "[secret]", Written: true, Line: 18, Secret: true},
		{Key: "upstream[1].proxy", Value: "[secret] env:POSTERN_PROXY", Written: true, Line: 19, Secret: true},
		{Key: "upstream[1].oauth.client_secret", Value: "[secret] file:/etc/postern/client-secret", Written: true,
			Line: 21, Secret: true},
		{Key: "upstream[1].oauth.refresh_token", Secret: true},
		{Key: "upstream[1].oauth.expires", Value: "2027-03-31", Written: true, Line: 22},
		{Key: "delivery.retry", Value: "1m, 5m, 15m, 30m, 1h, 2h, 4h", Default: "1m, 5m, 15m, 30m, 1h, 2h, 4h"},
		{Key: "alert[1].url", Value: "[secret]", Written: true, Line: 25, Secret: true},
	} {
		i := slices.IndexFunc(all, func(s Setting) bool { return s.Key == want.Key })
		if i < 0 || all[i] != want {
			t.Errorf("%s: %+v, want %+v", want.Key, all[max(i, 0)], want)
		}
	}
	keys := map[string]bool{}
	for _, s := range all {
		if keys[s.Key] {
			t.Errorf("%s is there twice", s.Key)
		}
		keys[s.Key] = true
		if strings.Contains(s.Value, "hunter2") || strings.Contains(s.Value, "hook-path") {
			t.Errorf("%s shows a secret: %s", s.Key, s.Value)
		}
	}
}

// TestEffectiveNamesWrittenKeys: what stands in the file stands in the list, with its line.
func TestEffectiveNamesWrittenKeys(t *testing.T) {
	c := Parse("relay.toml", []byte(shown))
	all := Effective(c)
	for key, line := range c.doc.lines {
		if slices.ContainsFunc(all, func(s Setting) bool {
			return strings.HasPrefix(s.Key, key+".") || strings.HasPrefix(s.Key, key+"[")
		}) || strings.HasSuffix(key, "]") { // a table, or an element of a list
			continue
		}
		if !slices.ContainsFunc(all, func(s Setting) bool { return s.Key == key && s.Line == line }) {
			t.Errorf("%s of line %d is not in the list", key, line)
		}
	}
}
