package monitor

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"postern/certs"
	"postern/certs/acme"
	"postern/internal/testkit"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/status"
)

// Operators hear of a name without a certificate at once, and of renewal when it has failed three times.
func TestACMEConditions(t *testing.T) {
	t.Parallel()
	now := time.Now()
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}}).TLS.Leaf
	for _, c := range []struct {
		failures int
		chain    []*x509.Certificate
		want     string // in the alert; "": none
	}{
		{0, nil, ""},
		{1, nil, "cannot be obtained from the CA"},
		{2, []*x509.Certificate{leaf}, ""},
		{3, []*x509.Certificate{leaf}, "cannot be renewed from the CA"},
	} {
		one := acme.Status{Name: "relay.example.com", Key: acme.ECDSA, Chain: c.chain, State: acme.State{
			Failures: c.failures, Error: "no such record", Since: now, Next: now.Add(time.Hour), Attempted: now}}
		two := one
		two.Key = acme.RSA // told once for a name
		hold := acmeConditions([]acme.Status{one, two}, now)
		if (len(hold) == 1) != (c.want != "") || len(hold) > 1 {
			t.Errorf("%d failures: %+v", c.failures, hold)
		}
		if len(hold) == 1 && (!strings.Contains(hold[0].Summary, c.want) ||
			!strings.Contains(hold[0].Summary, "no such record") || hold[0].Subject != "acme:relay.example.com") {
			t.Errorf("%+v", hold[0])
		}
		r := &status.Report{Certificates: []status.Certificate{}}
		if infos := ACMEInfos([]acme.Status{one}, now); len(infos) > 0 {
			addCertificates(r, &config.Config{}, infos, now)
		}
		addACME(r, []acme.Status{one})
		if len(r.Certificates) != 1 ||
			strings.Contains(r.Certificates[0].Problem, "no such record") != (c.failures > 0) {
			t.Errorf("%d failures: %+v", c.failures, r.Certificates)
		}
	}
}

// A certificate by ACME that should have been renewed is told, however short its life is.
func TestIssuedCertificateThatEnds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	one := certs.Issued{Name: "relay.example.com", Certificate: testkit.NewCA(t).Leaf(testkit.LeafOptions{
		Names: []string{"relay.example.com"}, NotBefore: now, NotAfter: now.Add(6 * 24 * time.Hour)}).TLS}
	at := now
	a := stand(t, Options{
		Certs: func() []certs.Info { return []certs.Info{certs.InfoOf(one, at)} },
		InForce: func() InForce {
			return InForce{Config: &config.Config{}, Routes: &outbound.Routes{}}
		},
	})
	for left, want := range map[time.Duration]int{130 * time.Hour: 0, 40 * time.Hour: 0, 20 * time.Hour: 1} {
		at = one.Certificate.Leaf.NotAfter.Add(-left)
		a.certificates(t.Context(), at)
		n := 0
		for _, c := range a.alerter.Open(alert.CertificateExpiry) {
			if strings.Contains(c.Summary, "renewed by itself") {
				n = 1
			}
		}
		if n != want {
			t.Errorf("%s left: %d alerts", left, n)
		}
	}
}
