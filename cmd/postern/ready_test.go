package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever runs health checks gets the exit code of /readyz, whether it is served in clear text or not.
func TestStatusReady(t *testing.T) {
	code := http.StatusOK
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "localhost" || r.URL.Path != "/readyz" {
			t.Errorf("asked for %s at %s", r.URL.Path, r.Host)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, map[int]string{200: "ready", 503: "store: full"}[code], "\nupstream a\n")
	})
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	gone := httptest.NewServer(h)
	gone.Close()
	for _, c := range []struct {
		address string
		tls     bool
		code    int
		exit    int
		says    string
	}{
		{plain.Listener.Addr().String(), false, http.StatusOK, 0, "ready\n"},
		{secure.Listener.Addr().String(), true, http.StatusOK, 0, "ready\n"},
		{plain.Listener.Addr().String(), false, http.StatusServiceUnavailable, exitNo, "not ready: store: full"},
		{gone.Listener.Addr().String(), false, http.StatusOK, exitNo, "no daemon answers at [admin] address 127"},
		{"", false, http.StatusOK, exitNo, `[admin] address is ""`},
	} {
		code = c.code
		path := filepath.Join(t.TempDir(), "relay.toml")
		text := fmt.Sprintf("hostname = \"a.example.com\"\n[admin]\naddress = %q\ntls = %t\n", c.address, c.tls)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		exit, said := runStatus(path, "--ready")
		if exit != c.exit || !strings.Contains(said, c.says) || strings.Contains(said, "upstream a") {
			t.Errorf("%+v: exit code %d, %q", c, exit, said)
		}
	}
	for _, both := range [][]string{{"--ready", "--json"}, {"--alive", "--json"}, {"--ready", "--alive"}} {
		if exit, said := runStatus("relay.toml", both...); exit == 0 {
			t.Errorf("%q says %q", both, said)
		}
	}
}

// Whoever restarts what is not healthy is not told of what a restart does not mend.
func TestStatusAlive(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.Error(w, "store: full", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}))
	path := filepath.Join(t.TempDir(), "relay.toml")
	text := fmt.Sprintf("hostname = \"a.example.com\"\n[admin]\naddress = %q\n", server.Listener.Addr())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if exit, said := runStatus(path, "--alive"); exit != 0 || said != "ok\n" {
		t.Errorf("exit code %d, %q", exit, said)
	}
	if exit, _ := runStatus(path, "--ready"); exit != exitNo {
		t.Errorf("it is ready: exit code %d", exit)
	}
	server.Close()
	if exit, said := runStatus(path, "--alive"); exit != exitNo || !strings.Contains(said, "no daemon answers") {
		t.Errorf("without a daemon: exit code %d, %q", exit, said)
	}
}

func runStatus(path string, args ...string) (exit int, said string) {
	var out bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	exit = run(root, append([]string{"status", "--config", path}, args...))
	return exit, out.String()
}

// An address that stands for all of the machine is asked on the machine.
func TestProbeOfAllAddresses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "ready")
	}))
	defer server.Close()
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	for _, address := range []string{":" + port, "0.0.0.0:" + port} {
		if answer, err := askProbe(context.Background(), address, false, readyPath); answer != "ready" || err != nil {
			t.Errorf("%s: %q, %v", address, answer, err)
		}
	}
}
