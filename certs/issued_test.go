package certs

import (
	"bytes"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
)

func issuedOf(ca *testkit.CA, name string, o testkit.LeafOptions) Issued {
	o.Names = []string{name}
	return Issued{name, ca.Leaf(o).TLS}
}

// Certificates by ACME take the place of the self-signed ones, by the name that a client asks for and by the key that
// it knows, and go again with their setting.
func TestAdopt(t *testing.T) {
	var log bytes.Buffer
	m := self(t, t.TempDir(), &log)
	o := m.options
	o.ACME = true
	if err := m.Use(o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "until the first one by ACME is there") {
		t.Errorf("log: %s", log.String())
	}
	ca := testkit.NewCA(t)
	m.Adopt([]Issued{
		issuedOf(ca, "relay.example.com", testkit.LeafOptions{}),
		issuedOf(ca, "relay.example.com", testkit.LeafOptions{Key: testkit.RSA}),
		issuedOf(ca, "mail.example.com", testkit.LeafOptions{}),
	})
	old := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, c := range []struct {
		ask, got, key string
		suites        []uint16
	}{
		{"relay.example.com", "relay.example.com", "ECDSA", nil},
		{"relay.example.com", "relay.example.com", "RSA", old},
		{"mail.example.com", "mail.example.com", "ECDSA", nil},
		{"other.example.com", "relay.example.com", "ECDSA", nil},
		{"", "relay.example.com", "ECDSA", nil},
		{"", "relay.example.com", "RSA", old},
	} {
		client := &tls.Config{InsecureSkipVerify: true, ServerName: c.ask, CipherSuites: c.suites}
		if c.suites != nil {
			client.MaxVersion = tls.VersionTLS12
		}
		got := handshake(t, m, client)
		if got.DNSNames[0] != c.got || got.PublicKeyAlgorithm.String() != c.key {
			t.Errorf("asked for %q: %v with %v", c.ask, got.DNSNames, got.PublicKeyAlgorithm)
		}
	}
	info := m.Info()
	if len(info) != 3 || info[0].SelfSigned || !info[0].Issued || len(info[0].Warnings) != 0 ||
		info[0].File != "acme:relay.example.com (ECDSA P-256)" {
		t.Errorf("%+v", info)
	}
	o.ACME = false
	if err := m.Use(o); err != nil || !m.Info()[0].SelfSigned {
		t.Error(err, m.Info())
	}
}

// A certificate of six days is not told to end soon while its renewal has time.
func TestRenewalLate(t *testing.T) {
	now := time.Now()
	ca := testkit.NewCA(t)
	one := issuedOf(ca, "relay.example.com", testkit.LeafOptions{NotBefore: now, NotAfter: now.Add(144 * time.Hour)})
	for left, late := range map[time.Duration]bool{140 * time.Hour: false, 40 * time.Hour: false, 30 * time.Hour: true,
		-time.Hour: true} {
		info := InfoOf(one, now.Add(144*time.Hour-left))
		if info.RenewalLate(now.Add(144*time.Hour-left)) != late || (len(info.Warnings) > 0) != late {
			t.Errorf("%s left: %+v", left, info.Warnings)
		}
	}
}
