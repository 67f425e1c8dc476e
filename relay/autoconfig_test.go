package relay

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"postern/internal/testkit"
)

// mailProgram asks a server by an address and a name. It follows no redirect.
type mailProgram struct {
	t      *testing.T
	client *http.Client
}

func (m *mailProgram) get(url, host string) (code int, body, to string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), "GET", url, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Host = host
	resp, err := m.client.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header.Get("Location")
}

// edit changes relay.toml and reloads.
func (r *rig) edit(from, to string) error {
	r.t.Helper()
	text, err := os.ReadFile(r.path())
	if err != nil {
		r.t.Fatal(err)
	}
	changed := strings.Replace(string(text), from, to, 1)
	if changed == string(text) {
		r.t.Fatalf("%q is not in relay.toml", from)
	}
	if err := os.WriteFile(r.path(), []byte(changed), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return r.server.Reload(r.t.Context())
}

// startAutoconfig starts a rig that mail programs may ask by every way.
func startAutoconfig(t *testing.T) *rig {
	t.Helper()
	r := startWithAdmin(t, `address = "127.0.0.1:0"`)
	r.close()
	text, err := os.ReadFile(r.path())
	if err != nil {
		t.Fatal(err)
	}
	port := testkit.FreePort(t)
	text = []byte(strings.Replace(string(text), "name = \"submission\"\naddress = \"127.0.0.1:0\"",
		fmt.Sprintf("name = \"submission\"\naddress = \"127.0.0.1:%d\"", port), 1) + `
[autoconfig]
domains = ["example.com"]
address = "127.0.0.1:0"
http_address = "127.0.0.1:0"
url = "https://relay.example.com"
[autoconfig.incoming]
host = "imap.example.com"
`)
	if err := os.WriteFile(r.path(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

// Mail programs are answered at the address of their own, where there is nothing else, and at the admin address.
func TestMailProgramsAreTold(t *testing.T) {
	r := startAutoconfig(t)
	m := &mailProgram{t, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots,
		ServerName: "relay.example.com"}}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
	defer m.client.CloseIdleConnections()
	secure := "https://" + r.server.mailPrograms.secure.Addr().String()
	plain := "http://" + r.server.mailPrograms.plain.Addr().String()
	admin := "http://" + r.server.admin.Addr().String()
	const path = "/mail/config-v1.1.xml"
	for _, c := range []struct {
		url, host string
		code      int
		has, to   string
	}{
		{secure + path, "autoconfig.example.com", 200, "<hostname>imap.example.com</hostname>", ""},
		{secure + "/mail/profile.mobileconfig?emailaddress=anna@example.com", "relay.example.com", 200, "<plist", ""},
		{secure + "/metrics", "relay.example.com", 404, "nothing here", ""},
		{secure + "/", "relay.example.com", 404, "nothing here", ""},
		{plain + path, "autoconfig.example.com", 302, "", "https://relay.example.com" + path + "?domain=example.com"},
		{plain + "/healthz", "relay.example.com", 404, "nothing here", ""},
		{admin + path, "autoconfig.example.com", 200, "<hostname>relay.example.com</hostname>", ""},
		{admin + "/healthz", "autoconfig.example.com", 421, "autoconfig.example.com", ""},
		{admin + "/healthz", "localhost", 200, "ok", ""},
	} {
		code, body, to := m.get(c.url, c.host)
		if code != c.code || !strings.Contains(body, c.has) || to != c.to {
			t.Errorf("%s of %s: %d to %q, want %d to %q\n%s", c.url, c.host, code, to, c.code, c.to, body)
		}
	}
	// A reload takes what is told; where it is told needs a restart.
	if err := r.edit("host = \"imap.example.com\"", "host = \"mail.example.com\""); err != nil {
		t.Fatal(err)
	}
	if _, body, _ := m.get(secure+path, "autoconfig.example.com"); !strings.Contains(body, "mail.example.com") {
		t.Errorf("after a reload:\n%s", body)
	}
	for _, key := range []string{"http_address", "address"} {
		before := "\n" + key + " = \"127.0.0.1:0\"\n" + map[string]string{"address": "http", "http_address": "url"}[key]
		after := strings.Replace(before, ":0", ":1", 1)
		if err := r.edit(before, after); err == nil || !strings.Contains(err.Error(), "autoconfig."+key) ||
			!strings.Contains(err.Error(), "restart") {
			t.Errorf("another %s by a reload: %v", key, err)
		}
		if err := r.edit(after, before); err != nil {
			t.Fatal(err)
		}
	}
}

// An address that is taken keeps it from starting, with everything closed.
func TestAutoconfigAddressTaken(t *testing.T) {
	r := startAutoconfig(t)
	taken := r.server.mailPrograms.secure.Addr().String()
	for _, key := range []string{"address", "http_address"} {
		m := &mailPrograms{}
		addresses := map[string][2]string{"address": {taken, ""}, "http_address": {"127.0.0.1:0", taken}}[key]
		if err := m.bind(addresses[0], addresses[1]); err == nil || !strings.Contains(err.Error(), "autoconfig."+key) {
			t.Errorf("%s: %v", key, err)
		}
		if m.secure != nil {
			if _, err := m.secure.Accept(); err == nil {
				t.Errorf("%s: the other address stays open", key)
			}
		}
	}
}
