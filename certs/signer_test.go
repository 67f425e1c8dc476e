package certs

import (
	"testing"
	"time"

	"postern/internal/testkit"
)

// What an authority issued signs; what we made ourselves does not.
func TestSigner(t *testing.T) {
	o := Options{Dir: t.TempDir(), Hostname: "relay.example.com"}
	if Signer(o, time.Now()) != nil {
		t.Error("a certificate that is not made yet signs")
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if m.Signer() != nil || Signer(o, time.Now()) != nil {
		t.Error("a self-signed certificate signs")
	}
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}})
	o.CertFile, o.KeyFile = leaf.CertFile, leaf.KeyFile
	if err := m.Use(o); err != nil {
		t.Fatal(err)
	}
	if by := m.Signer(); by == nil || string(by.Certificate[0]) != string(leaf.TLS.Certificate[0]) {
		t.Errorf("%v signs", by)
	}
	if by := Signer(o, time.Now()); by == nil || by.PrivateKey == nil {
		t.Errorf("%v signs", by)
	}
	o.CertFile = "missing"
	if Signer(o, time.Now()) != nil {
		t.Error("a certificate that is not there signs")
	}
}
