package operate

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/relay/config"
	"postern/relay/store"
)

// bureau returns the certificates of a relay with a [tls] and below.
func bureau(t *testing.T, tls string) (Certificates, *store.Store) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "relay.toml")
	text := "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n" + tls +
		"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Dir: c.DataDir, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return New(Options{Config: func() *config.Config { return c }, Store: s}).Certificates, s
}

var operator = Actor{Name: "olga", Channel: Console, Role: Operator}

func TestRenew(t *testing.T) {
	c, s := bureau(t, "[tls.acme]\nnames = [\"relay.example.com\", \"Mail.example.com\"]\n"+
		"key_types = [\"ecdsa\", \"rsa\"]")
	ctx := t.Context()
	list, err := c.List(ctx, operator)
	if err != nil || len(list) != 4 || !list[0].Missing() || list[2].Name != "mail.example.com" ||
		list[1].Key != "RSA" {
		t.Fatalf("%+v, %v", list, err)
	}
	before, err := s.Generations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	names, asked, err := c.Renew(ctx, operator, "MAIL.example.com.")
	if err != nil || len(names) != 1 || names[0] != "mail.example.com" {
		t.Fatal(names, err)
	}
	after, err := s.Generations(ctx)
	if err != nil || after[store.TopicACME] == before[store.TopicACME] {
		t.Error("the daemon does not hear of it", err)
	}
	if list, err = c.List(ctx, operator); err != nil || !list[0].Asked.IsZero() || !list[2].Asked.Equal(asked) {
		t.Errorf("%+v, %v", list, err)
	}
	if _, _, err := c.Renew(ctx, operator, "other\x1b.example.com"); err == nil ||
		!strings.Contains(err.Error(), "is not among the names") || strings.Contains(err.Error(), "\x1b") {
		t.Error(err)
	}
	if _, _, err := c.Renew(ctx, Actor{Name: "hal", Channel: Console, Role: Helpdesk}, ""); err == nil {
		t.Error("the helpdesk may")
	}
	// When the CA has said to wait, a person hears that and does not make it worse.
	state, err := json.Marshal(map[string]any{"failures": 1, "error": "too many certificates",
		"next": time.Now().Add(time.Hour), "until": time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	key := "postern/state/acme-v02.api.letsencrypt.org-directory/mail.example.com"
	if err := s.ACME().Store(ctx, key, state); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Renew(ctx, operator, ""); err == nil || !strings.Contains(err.Error(), "the CA said not to ask") {
		t.Error(err)
	}
	if c.Running() {
		t.Error("no daemon runs")
	}
}

func TestRenewWithoutACME(t *testing.T) {
	c, _ := bureau(t, "")
	if _, _, err := c.Renew(t.Context(), operator, ""); err == nil || !strings.Contains(err.Error(), "no [tls.acme]") {
		t.Error(err)
	}
	if _, err := c.Records(t.Context(), operator); err == nil {
		t.Error("records without a CA")
	}
	if list, err := c.List(t.Context(), operator); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func TestRecords(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"username":"u","password":"p","fulldomain":"d420.auth.example.com"}`))
	}))
	defer server.Close()
	c, _ := bureau(t, "[tls.acme]\nchallenges = [\"dns-01\"]\n[tls.acme.acmedns]\nurl = \""+server.URL+"\"")
	for range 2 { // registered once, kept for ever
		records, err := c.Records(t.Context(), operator)
		if err != nil || len(records) != 1 || records[0].Name != "_acme-challenge.relay.example.com" ||
			records[0].Type != "CNAME" || records[0].Value != "d420.auth.example.com." {
			t.Fatal(records, err)
		}
		server.Close()
	}
	c, _ = bureau(t, "[tls.acme]")
	if _, err := c.Records(t.Context(), operator); err == nil || !strings.Contains(err.Error(), "need no record") {
		t.Error(err)
	}
	c, _ = bureau(t, "[tls.acme]\nchallenges = [\"dns-persist-01\"]\ndirectory_url = \"http://127.0.0.1:1/dir\"")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Records(ctx, operator); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}
