package testkit

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// PebbleOptions say how a Pebble is.
type PebbleOptions struct {
	DNS      string            // host:port of the name server that it asks
	BadNonce int               // percent of the nonces that it refuses
	Validity time.Duration     // of certificates; 0: 90 days
	EAB      map[string]string // keys of external accounts by their ID, which are required then; base64url
}

// Pebble is Let's Encrypt's ACME server for tests, running.
type Pebble struct {
	Directory         string
	CAFile            string // vouches for the server itself
	ServerRoots       *x509.CertPool
	HTTPPort, TLSPort int // where it validates http-01 and tls-alpn-01
	management        string
	client            *http.Client
	*Process
}

// pebble is its command, in the version that go.mod names: built, and kept, by the go command.
var pebble = sync.OnceValues(func() (string, error) {
	var errs bytes.Buffer
	cmd := exec.Command("go", "tool", "-n", "github.com/letsencrypt/pebble/v2/cmd/pebble")
	cmd.Stderr = &errs
	path, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build pebble: %w\n%s", err, &errs)
	}
	return strings.TrimSpace(string(path)), nil
})

// NewPebble starts an ACME server. The test ends it.
func NewPebble(t testing.TB, o PebbleOptions) *Pebble {
	t.Helper()
	path, err := pebble()
	if err != nil {
		Skipf(t, "no ACME server: %v", err)
	}
	ca := NewCA(t)
	server := ca.Leaf(LeafOptions{Names: []string{"localhost", "127.0.0.1"}})
	p := &Pebble{HTTPPort: FreePort(t), TLSPort: FreePort(t), CAFile: ca.File, ServerRoots: x509.NewCertPool()}
	p.ServerRoots.AppendCertsFromPEM(ca.PEM)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.ServerRoots}}}
	address := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	p.management = fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	p.Directory = "https://" + address + "/dir"
	if o.Validity == 0 {
		o.Validity = 90 * 24 * time.Hour
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "managementListenAddress": p.management,
		"certificate": server.CertFile, "privateKey": server.KeyFile,
		"externalAccountBindingRequired": len(o.EAB) > 0, "externalAccountMACKeys": o.EAB,
		"httpPort": p.HTTPPort, "tlsPort": p.TLSPort, "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "for tests",
			"validityPeriod": int64(o.Validity.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "pebble.json", config)
	env := append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0",
		fmt.Sprintf("PEBBLE_WFE_NONCEREJECT=%d", o.BadNonce))
	p.Process = Start(t, env, path, "-config", file, "-dnsserver", o.DNS)
	p.WaitLog("ACME directory available at")
	p.get(t, p.Directory) // it logs that before it listens
	return p
}

// get asks until the server listens.
func (p *Pebble) get(t testing.TB, url string) []byte {
	t.Helper()
	limit := time.Now().Add(startTime)
	for {
		resp, err := p.client.Get(url)
		if err == nil {
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status, err)
			}
			return body
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Roots are what vouches for the certificates that it issues.
func (p *Pebble) Roots(t testing.TB) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(p.get(t, "https://"+p.management+"/roots/0")) {
		t.Fatal("pebble has no root")
	}
	return pool
}
