package doctor

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"postern/internal/testkit"
	"postern/relay/finding"
	relaystore "postern/relay/store"
)

const acmeCA = "acme-v02.api.letsencrypt.org-directory"

// issue stores a certificate and the state of attempts as the daemon does.
func issue(t *testing.T, s *relaystore.Store, cert testkit.Cert, state map[string]any) {
	t.Helper()
	data, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	keep := map[string][]byte{"postern/state/" + acmeCA + "/relay.example.com": data}
	if cert.CertPEM != nil {
		keep[certmagic.StorageKeys.SiteCert(acmeCA, "relay.example.com")] = cert.CertPEM
	}
	for key, value := range keep {
		if err := s.ACME().Store(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACME(t *testing.T) {
	ca := testkit.NewCA(t)
	now := time.Now()
	cert := func(left time.Duration) testkit.Cert {
		return ca.Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"},
			NotBefore: now.Add(left - 90*24*time.Hour), NotAfter: now.Add(left)})
	}
	failed := map[string]any{"failures": 4, "error": "the CA says \"no such record\"", "since": now.Add(-time.Hour),
		"next": now.Add(time.Hour)}
	w := newWard(t, "[tls.acme]\n"+plainUpstream)
	s := w.daemon(nil)
	issue(t, s, testkit.Cert{}, failed)
	list := w.examine("certificates")
	want(t, list, codeCertificateACME, finding.Fault, "cannot be obtained", "no such record",
		"postern cert renew relay.example.com")
	not(t, list, codeCertificateSelfSigned)

	issue(t, s, cert(29*24*time.Hour), failed)
	list = w.examine("certificates")
	want(t, list, codeCertificateACME, finding.Fault, "cannot be renewed")
	not(t, list, codeCertificateEnds, codeCertificateSelfSigned)
	want(t, list, codeCertificateECDSA, finding.Advice, "key_types")

	issue(t, s, cert(10*24*time.Hour), failed)
	list = w.examine("certificates")
	want(t, list, codeCertificateACME, finding.Danger, "cannot be renewed")
	want(t, list, codeCertificateEnds, finding.Danger, "should have been renewed")

	issue(t, s, cert(80*24*time.Hour), map[string]any{})
	list = w.examine("certificates")
	want(t, list, codeCertificateOK, finding.Healthy, "relay.example.com")
	not(t, list, codeCertificateACME, codeCertificateSelfSigned, codeCertificateEnds)
}
