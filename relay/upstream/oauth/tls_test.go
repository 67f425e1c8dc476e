package oauth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/fakeprovider"
)

func TestTLSIsVerified(t *testing.T) {
	ca := testkit.NewCA(t)
	leaf := ca.Leaf(testkit.LeafOptions{})
	pair, err := tls.LoadX509KeyPair(leaf.CertFile, leaf.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	a := confidential(fakeprovider.OAuthOptions{})
	running, err := a.Listen(&tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	o := appOptions(a)
	o.Transport, o.TokenURL = nil, running.URL+"/contoso/oauth2/v2.0/token"
	_, err = newSource(t, o).Token(t.Context(), mailbox)
	wantFault(t, err, mail.AccountFault, codeCertificate)
	wantRequests(t, a, "token", 0)

	block, _ := pem.Decode(ca.PEM)
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	o.RootCAs = []*x509.Certificate{root}
	mustToken(t, newSource(t, o))

	if err := running.Close(); err != nil {
		t.Error(err)
	}
	_, err = newSource(t, o).Token(t.Context(), mailbox)
	wantFault(t, err, mail.BackPressure, codeUnreachable)
}
