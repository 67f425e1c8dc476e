package relay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/sources"
)

const accountGuides = "../docs/accounts"

// guideOf returns the text of a guide and its blocks of relay.toml.
func guideOf(t *testing.T, name string) (text string, blocks []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(accountGuides, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range tomlBlock.FindAllSubmatch(b, -1) {
		blocks = append(blocks, string(m[1]))
	}
	return string(b), blocks
}

// tried is a configuration with the sources of a guide; its certificates and secrets are those of the test.
func tried(t *testing.T, block, ca string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"ldap-password": "relay password", "accounts-token": "token",
		"entra-secret": "secret",
		"users":        "anna@example.com:" + bcryptRight + "\n", "corp-ca.pem": ca, "office-ca.pem": ca,
		"relay.toml": "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[listener]]\n" +
			"address = \"127.0.0.1:0\"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n" + block} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, problems := check.Config(t.Context(), filepath.Join(dir, "relay.toml"))
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, block)
	}
	if w := check.Unwise(t.Context(), c); len(w) > 0 {
		t.Errorf("%v\n%s", w, block)
	}
	return c
}

// What the guides write is what postern check takes, and each says how to try it.
func TestAccountGuidesAreRight(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(accountGuides, "*.md"))
	if err != nil || len(files) < 6 {
		t.Fatalf("%v, %v", files, err)
	}
	ca := string(testkit.NewCA(t).PEM)
	index, _ := guideOf(t, "README.md")
	for _, file := range files {
		name := filepath.Base(file)
		text, blocks := guideOf(t, name)
		for _, b := range blocks {
			want := 2
			switch name {
			case "scram.md", "certificates.md", "app-passwords.md", "entra-only.md": // not about sources
				want = 1
			}
			if c := tried(t, b, ca); len(c.Auth.Sources) != want {
				t.Errorf("%s: %d sources", name, len(c.Auth.Sources))
			}
		}
		if name == "README.md" {
			continue
		}
		if len(blocks) == 0 || !strings.Contains(text, "\npostern auth test ") ||
			!strings.Contains(index, "("+name+")") {
			t.Errorf("%s has no relay.toml, does not say how to try it, or is not in README.md", name)
		}
	}
}

// login tries a login of the sources of a guide but the store.
func login(t *testing.T, c *config.Config, login, password string) sources.Trial {
	t.Helper()
	s, err := sources.One(&c.Auth.Sources[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	list := []auth.Source{s}
	defer sources.Close(list, nil)
	return sources.Try(t.Context(), list, []string{c.Auth.Sources[1].Type}, login, password, false)
}

func wantLogin(t *testing.T, c *config.Config, name string) {
	t.Helper()
	if got := login(t, c, name, "right"); !got.OK {
		t.Errorf("%+v", got.Answers)
	}
	if got := login(t, c, name, "wrong"); got.OK || got.Answers[0].Answer != sources.Wrong {
		t.Errorf("%+v", got.Answers)
	}
}

var ldifBlock = regexp.MustCompile("(?s)```ldif\n(.*?)```")

// followOpenLDAP does what the guide says, on a server as Debian installs it. The name that Postern is given in the
// directory and its password are those of the guide's relay.toml.
func followOpenLDAP(t *testing.T, text string, slapd *testkit.PlainSlapd, cert testkit.Cert) {
	t.Helper()
	blocks := ldifBlock.FindAllStringSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of LDIF", len(blocks))
	}
	password, err := exec.Command(testkit.Need(t, "slappasswd"), "-s", "relay password").Output()
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer("\n   ", "\n", "{SSHA}kY1Qe…", strings.TrimSpace(string(password)))
	slapd.Add(strings.TrimSpace(plain.Replace(blocks[0][1])) + "\n")
	slapd.Configure(strings.NewReplacer("/etc/ldap/ldap1.crt", cert.CertFile, "/etc/ldap/ldap1.key", cert.KeyFile).
		Replace(strings.TrimSpace(plain.Replace(blocks[1][1])) + "\n"))
}

// followDovecot is the line of a passwd-file that the guide shows, with the password that tests use.
func followDovecot(t *testing.T, text string) string {
	t.Helper()
	line := regexp.MustCompile("(?m)^anna@example.com:.*$").FindString(text)
	if !strings.Contains(line, "{SHA512-CRYPT}$6$…:") {
		t.Fatalf("the line of the passwd-file is %q", line)
	}
	return strings.ReplaceAll(line, "{SHA512-CRYPT}$6$…", sha512Right)
}

// The guides lead to a login, with real servers.
func TestAccountGuidesWork(t *testing.T) {
	t.Run("OpenLDAP", func(t *testing.T) {
		text, blocks := guideOf(t, "openldap.md")
		ca, slapd := testkit.NewCA(t), testkit.NewPlainSlapd(t)
		slapd.Add(testkit.SlapdAnna + `dn: cn=staff,dc=example,dc=com
objectClass: groupOfNames
cn: staff
member: uid=anna,ou=people,dc=example,dc=com
`)
		followOpenLDAP(t, text, slapd, ca.Leaf(testkit.LeafOptions{}))
		here := strings.NewReplacer("ldaps://ldap1.example.com", slapd.TLS, "ldap://ldap2.example.com", slapd.Open)
		for _, b := range blocks {
			c := tried(t, here.Replace(b), string(ca.PEM))
			wantLogin(t, c, "anna")
			if got := login(t, c, "anna", "right"); len(got.Groups) != 1 || got.Groups[0] != "staff" ||
				len(got.Senders) != 1 {
				t.Errorf("%+v", got)
			}
		}
	})
	t.Run("Dovecot", func(t *testing.T) {
		text, blocks := guideOf(t, "dovecot.md")
		d := testkit.NewDovecot(t, followDovecot(t, text)+"\n")
		d.Kill()
		me, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		// The socket of the test's server goes: the one of the guide is there instead, as the user who runs this.
		d.Configure(strings.NewReplacer("user = postern", "user = "+me.Username, "auth-client", "auth-guide").Replace(
			strings.ReplaceAll(regexp.MustCompile("(?s)```\n(   service auth .*?)```").FindStringSubmatch(text)[1],
				"\n   ", "\n")))
		d.Start()
		c := tried(t, strings.ReplaceAll(blocks[0], "/run/dovecot/auth-client",
			filepath.Join(filepath.Dir(d.Socket), "auth-guide")), "")
		wantLogin(t, c, "anna@example.com")
		if got := login(t, c, "anna@example.com", "right"); len(got.Groups) != 1 || got.Groups[0] != "staff" ||
			len(got.Senders) != 2 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("password file", func(t *testing.T) {
		_, blocks := guideOf(t, "password-files.md")
		wantLogin(t, tried(t, blocks[0], ""), "anna@example.com")
	})
	t.Run("HTTP", func(t *testing.T) {
		_, blocks := guideOf(t, "http.md")
		program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var q struct{ Login, Password string }
			if json.NewDecoder(r.Body).Decode(&q) != nil || r.Header.Get("Authorization") != "Bearer token" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			result := "wrong"
			if q.Password == "right" {
				result = "ok"
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"result": %q}`, result)
		}))
		defer program.Close()
		wantLogin(t, tried(t, strings.ReplaceAll(blocks[0], "https://accounts.example.com", program.URL), ""),
			"anna@example.com")
	})
}
