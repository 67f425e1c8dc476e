package ldap_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/auth"
	"postern/auth/ldap"
	"postern/relay/config"
	"postern/relay/sources"
)

// TestGuideToActiveDirectory: what docs/accounts/active-directory.md writes lets a person in, with addresses and
// groups, and shows what its table says.
func TestGuideToActiveDirectory(t *testing.T) {
	text, err := os.ReadFile("../../docs/accounts/active-directory.md")
	if err != nil {
		t.Fatal(err)
	}
	url, ca := ldap.NewActiveDirectory(t)
	block := string(regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(text)[1])
	block = strings.ReplaceAll(block, `"ldaps://dc1.corp.example.com", "ldaps://dc2.corp.example.com"`, `"`+url+`"`)
	dir := t.TempDir()
	for name, content := range map[string]string{"corp-ca.pem": string(ca), "ldap-password": "relay password\n",
		"relay.toml": "hostname = \"relay.example.com\"\n[[upstream]]\nname = \"a\"\n" +
			"host = \"smtp.example.net\"\n" + block} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(filepath.Join(dir, "relay.toml"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := sources.One(&c.Auth.Sources[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sources.Close([]auth.Source{s}, nil)
	try := func(login, password string) sources.Trial {
		return sources.Try(t.Context(), []auth.Source{s}, []string{"ldap"}, login, password, false)
	}
	if got := try("anna@corp.example.com", "right"); !got.OK || !slices.Equal(got.Groups, []string{"Sales", "Staff"}) ||
		len(got.Senders) != 3 {
		t.Errorf("%+v", got)
	}
	for login, want := range map[string]string{"old": "data 532", "off": "data 533", "ended": "data 701",
		"change": "data 773", "locked": "data 775", "hours": "data 530", "station": "data 531"} {
		got := try(login, "right").Answers[0]
		if got.Answer != sources.Locked || !strings.Contains(got.Reason, want) {
			t.Errorf("%s: %+v", login, got)
		}
		if code := strings.TrimPrefix(want, "data "); !strings.Contains(string(text), "`locked … data "+code) &&
			!strings.Contains(string(text), "`"+code+"`") {
			t.Errorf("the guide does not have %s", code)
		}
	}
}
