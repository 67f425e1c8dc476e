package relay

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/check"
)

const certificateGuide = "../docs/certificates.md"

var (
	shellBlock  = regexp.MustCompile("(?s)```sh\n(.*?)```")
	secretOfKey = regexp.MustCompile(`(?m)^   (sed -n .* postern\.key) >secret$`)
)

// What the guide for certificates writes is what postern check takes, and its program publishes and removes a record.
func TestGuideForCertificatesIsRight(t *testing.T) {
	b, err := os.ReadFile(certificateGuide)
	if err != nil {
		t.Fatal(err)
	}
	text, dir := string(b), t.TempDir()
	var asked []string
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked = append(asked, fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.FormValue("name"), " ", r.FormValue("value"),
			" ", r.Header.Get("Authorization")))
	}))
	defer api.Close()
	testkit.Need(t, "curl")
	program := strings.NewReplacer("/etc/postern/dns-api", filepath.Join(dir, "dns-api"), "https://api.example.net",
		api.URL).Replace(shellBlock.FindStringSubmatch(text)[1])
	for name, content := range map[string]string{"publish": program, "dns-api": "API_TOKEN=t\n", "tsig": "c2VjcmV0\n",
		// as tsig-keygen has it
		"postern.key": "key \"postern\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	here := strings.NewReplacer("/etc/postern/", dir+"/", "/usr/local/bin/", dir+"/")
	blocks := tomlBlock.FindAllStringSubmatch(text, -1)
	for _, m := range blocks {
		block := strings.ReplaceAll(here.Replace(m[1]), "\n   ", "\n")
		host, rest, own := strings.Cut(block, "\n\n[tls.acme]")
		if own && strings.Contains(host, "hostname") {
			rest = "[tls.acme]" + rest
		} else {
			host, rest = "hostname = \"relay.example.com\"", block
		}
		path := filepath.Join(dir, "relay.toml")
		whole := host + "\ndata_dir = \"data\"\n[admin]\naddress = \"\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n" +
			"[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n" + rest
		if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		c, problems := check.Config(t.Context(), path)
		if len(problems) > 0 {
			t.Errorf("%v\n%s", problems, block)
		} else if c.TLS.ACME == nil {
			t.Errorf("no ACME:\n%s", block)
		}
	}
	if len(blocks) != 5 {
		t.Errorf("%d blocks of relay.toml", len(blocks))
	}

	const name = "_acme-challenge.relay.example.com"
	for _, verb := range []string{"present", "cleanup"} {
		out, err := exec.Command(filepath.Join(dir, "publish"), verb, name, "v-_1").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", verb, err, out)
		}
	}
	if got := strings.Join(asked, "\n"); got != "POST /txt "+name+" v-_1 Bearer t\nDELETE /txt/"+name+"   Bearer t" {
		t.Errorf("the program asked\n%s", got)
	}
	cmd := exec.Command("sh", "-c", secretOfKey.FindStringSubmatch(text)[1])
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "c2VjcmV0\n" {
		t.Errorf("the secret of the key is %q, %v", out, err)
	}
}
