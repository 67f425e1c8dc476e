package relay

import (
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"postern/admin/access"
	"postern/operate"
)

// startWithAdmin starts a rig with another [admin] block.
func startWithAdmin(t *testing.T, block string) *rig {
	t.Helper()
	r := newRig(t, newProvider(t), "")
	r.close()
	text, err := os.ReadFile(r.path())
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "[admin]\naddress = \"\"\n", "[admin]\n"+block+"\n", 1))
	if err := os.WriteFile(r.path(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(r.close)
	return r
}

// With tls = true the admin address speaks HTTPS with the certificate of the listeners, and nothing else.
func TestAdminByTLS(t *testing.T) {
	r := startWithAdmin(t, "address = \":0\"\ntls = true\nurl = \"https://console.example.org\"")
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots,
		ServerName: "relay.example.com"}}}
	defer c.CloseIdleConnections()
	_, port, _ := strings.Cut(r.server.admin.Addr().String(), "]:")
	get := func(scheme, host string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", scheme+"://127.0.0.1:"+port+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	for host, want := range map[string]int{"relay.example.com": 200, "console.example.org": 200, "evil.example": 421} {
		if got, err := get("https", host); err != nil || got != want {
			t.Errorf("%s: %d, %v", host, got, err)
		}
	}
	if got, err := get("http", "relay.example.com"); err == nil && got == 200 {
		t.Error("plain HTTP is answered too")
	}
}

// What the command line changes about the console's users ends their lockouts in the daemon, which has none of its own
// where there is no console.
func TestConsoleChangedOnTheCommandLine(t *testing.T) {
	r := startWithAdmin(t, `address = "127.0.0.1:0"`)
	s := r.store()
	beside, link := r.invited("anna")
	token := link.URL[strings.LastIndex(link.URL, "/")+1:]
	if i, err := r.server.access.Invitations.Get(t.Context(), token); err != nil || i.Name != "anna" {
		t.Fatalf("the daemon does not know the link: %+v, %v", i, err)
	}
	if _, err := beside.Users.Invite(t.Context(), machineOwner, "anna", operate.Viewer); err != nil {
		t.Fatal(err)
	}
	if _, err := r.server.access.Invitations.Get(t.Context(),
		token); access.ReasonOf(err) != access.ReasonLinkReplaced {
		t.Errorf("the link that a newer one replaced: %v", err)
	}
	seen := map[string]int64{}
	r.server.takeChanges(t.Context(), seen, map[string]int64{})
	if seen["console"] == 0 {
		t.Error("the daemon does not look at changes of the console")
	}
	if n, err := s.PruneAudit(t.Context(), time.Now(), time.Now()); err != nil || n != 0 {
		t.Errorf("%d entries of today are removed, %v", n, err)
	}
}

// A reload takes over where browsers find the console; what needs a restart is refused.
func TestReloadOfAdmin(t *testing.T) {
	r := startWithAdmin(t, `address = "127.0.0.1:0"`)
	change := func(from, to string) error {
		text, err := os.ReadFile(r.path())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.path(), []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		return r.server.Reload(t.Context())
	}
	if err := change("[admin]\n", "[admin]\nurl = \"https://console.example.org\"\n"); err != nil {
		t.Fatal(err)
	}
	if got := r.server.access.URL().String(); got != "https://console.example.org" {
		t.Errorf("the console is found at %s", got)
	}
	if err := change("[admin]\n", "[admin]\nconsole = false\n"); err == nil || !strings.Contains(err.Error(),
		"restart") {
		t.Errorf("console switched off by a reload: %v", err)
	}
}
