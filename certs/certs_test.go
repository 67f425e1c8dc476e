package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/testkit"
	"postern/internal/textfile"
)

// put writes a file as a careless or careful operator would.
func put(t *testing.T, path string, data []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// pair writes a certificate and its key into a directory of its own.
func pair(t *testing.T, c testkit.Cert) Options {
	dir := t.TempDir()
	return Options{
		CertFile: put(t, filepath.Join(dir, "cert.pem"), c.CertPEM, 0o644),
		KeyFile:  put(t, filepath.Join(dir, "key.pem"), c.KeyPEM, 0o600),
		Hostname: "localhost",
	}
}

func TestRefusals(t *testing.T) {
	ca := testkit.NewCA(t)
	good, other := ca.Leaf(testkit.LeafOptions{}), ca.Leaf(testkit.LeafOptions{})
	cases := []struct {
		name, want string
		options    func(t *testing.T) Options
	}{
		{"expired", "expired on " + time.Now().Add(-time.Hour).UTC().Format("2006-01-02"),
			func(t *testing.T) Options { return pair(t, ca.Expired()) }},
		{"not yet valid", "is not valid before", func(t *testing.T) Options {
			return pair(t, ca.Leaf(testkit.LeafOptions{NotBefore: time.Now().Add(time.Hour)}))
		}},
		{"key of another certificate", "does not belong to the certificate", func(t *testing.T) Options {
			o := pair(t, good)
			put(t, o.KeyFile, other.KeyPEM, 0o600)
			return o
		}},
		{"chain in the wrong order", "wrong order", func(t *testing.T) Options {
			o := pair(t, good)
			put(t, o.CertFile, append(bytes.Clone(ca.PEM), good.CertPEM...), 0o644)
			return o
		}},
		{"key for everybody", "can be read by every user of this machine (mode 0644), run: chmod o-rwx",
			func(t *testing.T) Options {
				o := pair(t, good)
				put(t, o.KeyFile, good.KeyPEM, 0o644)
				return o
			}},
		{"no certificate file", "cert.pem does not exist", func(t *testing.T) Options {
			o := pair(t, good)
			os.Remove(o.CertFile)
			return o
		}},
		{"no key file", "key.pem does not exist", func(t *testing.T) Options {
			o := pair(t, good)
			os.Remove(o.KeyFile)
			return o
		}},
		{"directory", "is not a regular file", func(t *testing.T) Options {
			o := pair(t, good)
			o.CertFile = filepath.Dir(o.CertFile)
			return o
		}},
		{"no PEM", "has no certificate in PEM form", func(t *testing.T) Options {
			o := pair(t, good)
			put(t, o.CertFile, []byte("hello"), 0o644)
			return o
		}},
		{"the certificate twice",
			"has no private key in PEM form, but a certificate: write the file with its key as key_file",
			func(t *testing.T) Options {
				o := pair(t, good)
				put(t, o.KeyFile, good.CertPEM, 0o600)
				return o
			}},
		{"passphrase", "protected by a passphrase", func(t *testing.T) Options {
			o := pair(t, good)
			put(t, o.KeyFile, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED "+
				"PRIVATE KEY-----\n"), 0o600)
			return o
		}},
		{"damaged", "certificate ", func(t *testing.T) Options {
			o := pair(t, good)
			put(t, o.CertFile, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o644)
			return o
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := c.options(t)
			_, err := New(o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("New: %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "PRIVATE KEY-----\n") {
				t.Fatalf("the error holds the key: %v", err)
			}
			if _, checked := Check(o, time.Now()); checked == nil || checked.Error() != err.Error() {
				t.Fatalf("Check says %v where New says %v", checked, err)
			}
		})
	}
}

func TestUnreadableKey(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	o := pair(t, testkit.NewCA(t).Leaf(testkit.LeafOptions{}))
	put(t, o.KeyFile, nil, 0)
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "change its owner or group") {
		t.Fatal(err)
	}
}

func TestWarnings(t *testing.T) {
	ca := testkit.NewCA(t)
	soon := time.Now().Add(50 * time.Hour)
	cases := []struct {
		name, hostname, want string
		cert                 testkit.Cert
	}{
		{"another name", "relay.example.com", "but not the host name relay.example.com", ca.WrongName()},
		{"ends soon", "localhost", "in 2 days; renew it", ca.Leaf(testkit.LeafOptions{NotAfter: soon})},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := pair(t, c.cert)
			o.Hostname = c.hostname
			info, err := Check(o, time.Now())
			if err != nil || len(info) != 1 {
				t.Fatal(info, err)
			}
			if all := strings.Join(info[0].Warnings, "\n"); !strings.Contains(all, c.want) {
				t.Fatalf("warnings %q lack %q", all, c.want)
			}
		})
	}
}

func TestNoWarnings(t *testing.T) {
	ca := testkit.NewCA(t)
	o := pair(t, ca.Leaf(testkit.LeafOptions{Names: []string{"relay.example.com", "192.0.2.7"},
		NotAfter: time.Now().Add(40 * 24 * time.Hour), Key: testkit.RSA}))
	chain, _ := os.ReadFile(o.CertFile)
	put(t, o.CertFile, append(chain, ca.PEM...), 0o644)
	o.Hostname = "relay.example.com"
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	info := m.Info()[0]
	if len(info.Warnings) != 0 || info.SelfSigned || info.Key != "RSA 2048" ||
		strings.Join(info.Names, " ") != "relay.example.com 192.0.2.7" || info.File != o.CertFile {
		t.Fatalf("%+v", info)
	}
}

// handshake connects to a listener of m and returns the certificate that the client was given.
func handshake(t *testing.T, m *Manager, client *tls.Config) *x509.Certificate {
	t.Helper()
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	server := tls.Server(left, &tls.Config{GetCertificate: m.GetCertificate})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	conn := tls.Client(right, client)
	if err := errors.Join(conn.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0]
}

// self returns a manager of self-signed certificates in dir.
func self(t *testing.T, dir string, log *bytes.Buffer) *Manager {
	t.Helper()
	o := Options{Dir: dir, Hostname: "relay.example.com", Names: []string{"192.0.2.7"}}
	if log != nil {
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSelfSigned(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "tls")
	m := self(t, dir, &log)
	for _, name := range []string{ecdsaFile, rsaFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v %v", name, info.Mode(), err)
		}
	}
	trust, _ := os.ReadFile(filepath.Join(dir, trustName))
	if strings.Contains(string(trust), "PRIVATE") {
		t.Fatal("the trust file holds a key")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trust)
	for _, name := range []string{"relay.example.com", "192.0.2.7", "localhost", "127.0.0.1"} {
		c := handshake(t, m, &tls.Config{RootCAs: pool, ServerName: name})
		if c.PublicKeyAlgorithm != x509.ECDSA {
			t.Fatalf("a current client was given %v", c.PublicKeyAlgorithm)
		}
	}
	old := &tls.Config{RootCAs: pool, ServerName: "relay.example.com", MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	if c := handshake(t, m, old); c.PublicKeyAlgorithm != x509.RSA {
		t.Fatalf("a client without ECDSA was given %v", c.PublicKeyAlgorithm)
	}
	unknown := &tls.Config{InsecureSkipVerify: true, ServerName: "mail.example.net"}
	if c := handshake(t, m, unknown); c.PublicKeyAlgorithm != x509.ECDSA {
		t.Fatalf("a client that asks for another name was given %v", c.PublicKeyAlgorithm)
	}
	info := m.Info()
	for _, want := range []string{"self-signed", "tls.cert_file", info[0].Fingerprint, info[1].Fingerprint,
		m.options.trustFile()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not mention %q: %s", want, log.String())
		}
	}
	if !info[0].SelfSigned || info[0].Key != "ECDSA P-256" || info[1].Key != "RSA 2048" || len(info[0].Warnings) != 0 {
		t.Errorf("%+v", info)
	}
}

// A reload that changes nothing about the certificate does not say again what it said; a new certificate is told.
func TestSaidOnce(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	m := self(t, dir, &log)
	count := func() (warned, inUse int) {
		return strings.Count(log.String(), "present a self-signed certificate"),
			strings.Count(log.String(), "certificate in use")
	}
	for range 3 {
		if err := errors.Join(m.Reload(), m.Use(m.options)); err != nil {
			t.Fatal(err)
		}
	}
	if warned, inUse := count(); warned != 1 || inUse != 2 {
		t.Errorf("warned %d times, %d certificates in use", warned, inUse)
	}
	o := m.options
	o.Hostname = "mail.example.com" // which the certificates do not cover: new ones
	if err := errors.Join(m.Use(o), m.Use(o)); err != nil {
		t.Fatal(err)
	}
	if warned, inUse := count(); warned != 2 || inUse != 4 {
		t.Errorf("warned %d times, %d certificates in use, after a new certificate", warned, inUse)
	}
}

func TestSelfSignedKeptAndRenewed(t *testing.T) {
	dir := t.TempDir()
	first := self(t, dir, nil).Info()
	if again := self(t, dir, nil).Info(); again[0].Fingerprint != first[0].Fingerprint ||
		again[1].Fingerprint != first[1].Fingerprint {
		t.Fatal("a second start made new certificates")
	}
	t.Run("another name", func(t *testing.T) {
		m, err := New(Options{Dir: dir, Hostname: "mail.example.com"})
		if err != nil || m.Info()[0].Fingerprint == first[0].Fingerprint {
			t.Fatal("kept although it does not cover the host name", err)
		}
	})
	t.Run("damaged file", func(t *testing.T) {
		put(t, filepath.Join(dir, rsaFile), []byte("rubbish"), 0o600)
		if m := self(t, dir, nil); len(m.Info()) != 2 {
			t.Fatal(m.Info())
		}
	})
	t.Run("nothing to judge", func(t *testing.T) {
		if info, err := Check(Options{Dir: t.TempDir(), Hostname: "localhost"}, time.Now()); info != nil || err != nil {
			t.Fatal(info, err)
		}
	})
	t.Run("directory cannot be written", func(t *testing.T) {
		blocked := put(t, filepath.Join(t.TempDir(), "file"), nil, 0o600)
		if _, err := New(Options{Dir: filepath.Join(blocked, "tls"), Hostname: "localhost"}); err == nil {
			t.Fatal("no error")
		}
	})
}

func TestKeyOfSelfSignedForEverybody(t *testing.T) {
	dir := t.TempDir()
	first := self(t, dir, nil).Info()
	if err := os.Chmod(filepath.Join(dir, ecdsaFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if m := self(t, dir, nil); m.Info()[0].Fingerprint == first[0].Fingerprint {
		t.Fatal("a key that everybody could read is still in use")
	}
}

// reports collects what Changed was told.
type reports struct {
	mu  sync.Mutex
	all []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, err)
}

func (r *reports) take() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

func TestRunTakesChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testkit.NewCA(t)
		leaf := func(o testkit.LeafOptions) testkit.Cert { return ca.Leaf(o) }
		first, second := leaf(testkit.LeafOptions{}), leaf(testkit.LeafOptions{})
		var changed reports
		o := pair(t, first)
		o.Changed = changed.add
		m, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		serial := func() string { return m.Info()[0].Fingerprint }
		before := serial()
		wait := func(d time.Duration) { <-time.After(d); synctest.Wait() }

		wait(10 * interval)
		if got := changed.take(); len(got) != 0 {
			t.Fatalf("reloaded without a change: %v", got)
		}

		// A renewal between whose two writes the watcher looks is one change and no error.
		put(t, o.CertFile, second.CertPEM, 0o644)
		wait(interval)
		put(t, o.KeyFile, second.KeyPEM, 0o600)
		wait(3 * interval)
		if got := changed.take(); len(got) != 1 || got[0] != nil || serial() == before {
			t.Fatalf("after a renewal: %v", got)
		}

		// A bad change is refused once and the certificate stays, until it is mended.
		before = serial()
		put(t, o.CertFile, ca.Expired().CertPEM, 0o644)
		wait(10 * interval)
		if got := changed.take(); len(got) != 1 || got[0] == nil || serial() != before {
			t.Fatalf("after a bad change: %v", got)
		}
		if err := os.Remove(o.CertFile); err != nil {
			t.Fatal(err)
		}
		wait(10 * interval)
		if got := changed.take(); len(got) != 1 || !strings.Contains(got[0].Error(), "does not exist") ||
			serial() != before {
			t.Fatalf("after the file vanished: %v", got)
		}
		put(t, o.CertFile, second.CertPEM, 0o644)
		wait(3 * interval)
		if got := changed.take(); len(got) != 1 || got[0] != nil || serial() != before {
			t.Fatalf("after it was mended: %v", got)
		}
	})
}

// A file that is replaced by one of the same size and time is seen as well.
func TestStampSeesReplacement(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "a"), []byte("1"), 0o600)
	next := put(t, filepath.Join(dir, "b"), []byte("2"), 0o600)
	when := time.Now().Add(-time.Hour)
	for _, p := range []string{path, next} {
		if err := os.Chtimes(p, when, when); err != nil {
			t.Fatal(err)
		}
	}
	before := textfile.FingerprintOf(path, path)
	if !before.Same(textfile.FingerprintOf(path, path)) {
		t.Fatal("a file differs from itself")
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	if before.Same(textfile.FingerprintOf(path, path)) {
		t.Fatal("a replaced file looks the same")
	}
}

func TestLookRenewsSelfSigned(t *testing.T) {
	m := self(t, t.TempDir(), nil)
	before := m.Info()
	due := before[0].NotAfter.Add(-renewalBefore)
	m.look(due.Add(-time.Minute), nil)
	if m.Info()[0].Fingerprint != before[0].Fingerprint {
		t.Fatal("renewed too early")
	}
	m.look(due.Add(time.Minute), nil)
	after := m.Info()
	if after[0].Fingerprint == before[0].Fingerprint || after[1].Fingerprint == before[1].Fingerprint ||
		!after[0].NotAfter.After(before[0].NotAfter) {
		t.Fatalf("not renewed: %+v", after)
	}
}

// A certificate from a file that ends while in use is kept and spoken of once a day.
func TestReminder(t *testing.T) {
	var log bytes.Buffer
	o := pair(t, testkit.NewCA(t).Leaf(testkit.LeafOptions{}))
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	log.Reset()
	later := m.Info()[0].NotAfter.Add(24 * time.Hour)
	for hour := range 48 {
		m.look(later.Add(time.Duration(hour)*time.Hour), m.seen)
	}
	if n := strings.Count(log.String(), "clients refuse it, renew it now"); n != 2 {
		t.Fatalf("spoken of %d times in two days:\n%s", n, log.String())
	}
	if err := m.Reload(); err != nil {
		t.Fatal(err)
	}
}

func TestUse(t *testing.T) {
	ca := testkit.NewCA(t)
	m, err := New(pair(t, ca.Leaf(testkit.LeafOptions{})))
	if err != nil {
		t.Fatal(err)
	}
	before := m.Info()[0]
	if err := m.Use(pair(t, ca.Expired())); err == nil || m.Info()[0].File != before.File {
		t.Fatal("a bad certificate was taken", err)
	}
	if err := m.Reload(); err != nil || m.Info()[0].File != before.File {
		t.Fatal("the refused options stayed", err)
	}
	next := pair(t, ca.Leaf(testkit.LeafOptions{}))
	if err := m.Use(next); err != nil || m.Info()[0].File != next.CertFile {
		t.Fatal(err, m.Info())
	}
}
