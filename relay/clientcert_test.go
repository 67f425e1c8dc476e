package relay

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"

	"postern/bench/sink"
	"postern/internal/testkit"
)

// TestUpstreamThatKnowsUsByCertificate: an upstream that lets in only who shows a certificate, as a Microsoft 365
// connector does, takes mail without a login.
func TestUpstreamThatKnowsUsByCertificate(t *testing.T) {
	ca := testkit.NewCA(t)
	server := ca.Leaf(testkit.LeafOptions{}).Server()
	ours := ca.Leaf(testkit.LeafOptions{Names: []string{"example.com"}})
	server.ClientAuth = tls.RequireAnyClientCert // as Exchange, which takes a server's certificate too
	server.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: ca.Pool, DNSName: "example.com"})
		return err
	}
	provider, err := sink.Start(t.Context(), sink.Options{TLS: server, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close()
	_, port, _ := net.SplitHostPort(provider.Addr())
	r := newRig(t, newProvider(t), fmt.Sprintf(`[[upstream]]
		name = "connector"
		host = "127.0.0.1"
		port = %s
		ca_file = %q
		cert_file = %q
		key_file = %q
		[[route]]
		upstreams = ["connector"]`, port, ca.File, ours.CertFile, ours.KeyFile))
	reply, err := r.send("anna@example.com", []string{"bob@example.net"}, plainMessage)
	if err != nil || !strings.Contains(reply, "taken by connector") {
		t.Errorf("reply %q, %v", reply, err)
	}
	if n := len(provider.Messages()); n != 1 {
		t.Errorf("the connector has %d messages", n)
	}
}
