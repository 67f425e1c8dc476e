package certs

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
)

// keyOf is the kind of key that a client is presented.
func keyOf(t *testing.T, c *Companion, m *Manager, client *tls.Config) string {
	t.Helper()
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	server := tls.Server(left, &tls.Config{GetCertificate: c.Beside(m.GetCertificate), MinVersion: tls.VersionTLS10,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_RSA_WITH_AES_128_CBC_SHA}})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	client.InsecureSkipVerify = true
	conn := tls.Client(right, client)
	if err := errors.Join(conn.Handshake(), <-done); err != nil {
		return err.Error()
	}
	return keyName(conn.ConnectionState().PeerCertificates[0])
}

// oldClient knows RSA key exchange alone.
func oldClient() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
}

// TestCompanion: who knows ECDSA gets the certificate of the listener, who does not the RSA one beside it, and without
// one nothing.
func TestCompanion(t *testing.T) {
	m, err := New(pair(t, testkit.NewCA(t).Leaf(testkit.LeafOptions{})))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := NewCompanion(Options{Dir: dir, Hostname: "relay.example.com"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if said := keyOf(t, c, m, oldClient()); strings.HasPrefix(said, "RSA") {
		t.Error("there is an RSA certificate that nobody wants")
	}
	if err := c.Use(Options{Dir: dir, Hostname: "relay.example.com"}, true); err != nil {
		t.Fatal(err)
	}
	for want, client := range map[string]*tls.Config{"RSA 2048": oldClient(), "ECDSA P-256": {}} {
		if got := keyOf(t, c, m, client); got != want {
			t.Errorf("presented %s, want %s", got, want)
		}
	}
	before := c.now().last()
	again, err := NewCompanion(Options{Dir: dir, Hostname: "relay.example.com"}, true)
	if err != nil || !again.now().last().Leaf.Equal(before.Leaf) {
		t.Errorf("%v: a restart makes another certificate, which devices would have to trust anew", err)
	}
}

// rsaOptions writes an RSA certificate, which is made self-signed, as files.
func rsaOptions(t *testing.T, at time.Time) Options {
	t.Helper()
	both, err := SelfSigned([]string{"relay.example.com"}, at)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := encode(&both[1])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return Options{CertFile: put(t, filepath.Join(dir, "rsa.pem"), public, 0o644),
		KeyFile: put(t, filepath.Join(dir, "rsa.key"), private, 0o600), Hostname: "relay.example.com"}
}

// TestCompanionOfFiles: files must have an RSA key, and a bad change leaves what is in use.
func TestCompanionOfFiles(t *testing.T) {
	elliptic := pair(t, testkit.NewCA(t).Leaf(testkit.LeafOptions{}))
	if _, err := NewCompanion(elliptic, true); err == nil || !strings.Contains(err.Error(), "get one with an RSA key") {
		t.Errorf("an ECDSA certificate: %v", err)
	}
	if err := CheckCompanion(elliptic, time.Now()); err == nil {
		t.Error("check takes an ECDSA certificate")
	}
	c, err := NewCompanion(rsaOptions(t, time.Now()), true)
	if err != nil {
		t.Fatal(err)
	}
	if info := c.Info(); len(info) != 1 || info[0].Key != "RSA 2048" {
		t.Errorf("%+v", info)
	}
	before := c.now().last()
	if err := c.Use(elliptic, true); err == nil || c.now().last() != before {
		t.Errorf("%v: not the one before", err)
	}
	if err := c.Use(Options{Dir: t.TempDir(), Hostname: "relay.example.com"}, true); err != nil ||
		c.now().last().Leaf.Equal(before.Leaf) {
		t.Errorf("%v: still the one of files", err)
	}
	if info := c.Info(); len(info) != 0 {
		t.Errorf("what renews itself is to be renewed: %+v", info)
	}
	if err := c.Use(Options{}, false); err != nil || c.now() != nil {
		t.Errorf("%v: still there", err)
	}
}

// TestCompanionIsWatched: a new file is presented without a restart.
func TestCompanionIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, next := rsaOptions(t, time.Now()), rsaOptions(t, time.Now())
		c, err := NewCompanion(o, true)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go c.Run(ctx)
		time.Sleep(2 * interval)
		for from, to := range map[string]string{next.CertFile: o.CertFile, next.KeyFile: o.KeyFile} {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		want, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * interval)
		if !c.now().last().Leaf.Equal(want.Leaf) {
			t.Error("the certificate before is still presented")
		}
		cancel()
		synctest.Wait()
		if _, ok := want.Leaf.PublicKey.(*rsa.PublicKey); !ok {
			t.Error("not an RSA key")
		}
	})
}
