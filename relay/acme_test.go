package relay

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/certs/acme"
	"postern/internal/testkit"
	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/dnscheck/dnstest"
	"postern/relay/monitor"
	relaystore "postern/relay/store"
)

const acmeName = "relay.example.com"

// acmeTable is a [tls.acme] for a CA.
func acmeTable(directory, caFile string, port int, more string) string {
	if caFile != "" {
		more += fmt.Sprintf("\nca_file = %q", caFile)
	}
	return fmt.Sprintf("[tls.acme]\ndirectory_url = %q\nhttp_address = \"127.0.0.1:%d\"\n%s\n", directory, port, more)
}

// shown is the certificate that a listener presents to who asks for the name.
func (r *rig) shown() *x509.Certificate {
	r.t.Helper()
	c, err := smtp.DialStartTLS(r.server.Addresses()["submission"],
		&tls.Config{ServerName: acmeName, InsecureSkipVerify: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Noop(); err != nil {
		r.t.Fatal(err)
	}
	state, _ := c.TLSConnectionState()
	return state.PeerCertificates[0]
}

// A relay starts while its CA cannot be reached, takes mail meanwhile, presents the certificate once it has it, renews
// it without a word to open sessions, and has it at once after a restart.
func TestACMEWhileServing(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	world := dnstest.Start(t, dnstest.Zone("example.com")+acmeName+" 300 A 127.0.0.1")
	ca := testkit.NewPebble(t, testkit.PebbleOptions{DNS: world.Resolver.String()})
	dead := acmeTable(fmt.Sprintf("https://127.0.0.1:%d/dir", testkit.FreePort(t)), ca.CAFile, ca.HTTPPort, "")
	r := newRig(t, p, dead)
	r.eventually("a failed attempt", func() bool {
		return strings.Contains(r.log.String(), "no certificate from the CA")
	})
	if !strings.Contains(r.log.String(), "until the first one by ACME is there") {
		t.Error("nobody hears that the certificate is a stand-in")
	}
	if c := r.shown(); c.Issuer.String() != c.Subject.String() {
		t.Errorf("presented: %s", c.Issuer)
	}
	if got := r.asked(); len(got.Certificates) != 3 ||
		!strings.Contains(got.Certificates[2].Problem, "connection refused") ||
		got.Certificates[2].File != "acme:relay.example.com (ECDSA)" {
		t.Errorf("%+v", got.Certificates)
	}
	open := r.client(rigLogin)

	r.write(acmeTable(ca.Directory, ca.CAFile, ca.HTTPPort, "key_types = [\"ecdsa\", \"rsa\"]"))
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.eventually("a certificate of the CA", func() bool {
		c := r.shown()
		return c.Issuer.String() != c.Subject.String()
	})
	first := r.shown()
	trusted, err := smtp.DialStartTLS(r.server.Addresses()["submission"],
		&tls.Config{ServerName: acmeName, RootCAs: ca.Roots(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer trusted.Close()
	if err := trusted.Noop(); err != nil {
		t.Fatal(err)
	}
	if got := r.asked(); len(got.Certificates) != 2 || got.Certificates[0].DaysLeft != 89 ||
		got.Certificates[0].Problem != "" || !strings.HasPrefix(got.Certificates[1].Key, "RSA") {
		t.Errorf("%+v", got.Certificates)
	}
	if _, err := sendOn(open, rigLogin, []string{"b@example.net"}, "From: "+rigLogin+"\n\nhello\n"); err != nil {
		t.Errorf("a session from before: %v", err)
	}

	if err := acme.Ask(t.Context(), r.store().ACME(), acmeName, time.Now()); err != nil { // as cert renew does
		t.Fatal(err)
	}
	r.eventually("a renewed certificate", func() bool { return !r.shown().Equal(first) })
	if err := trusted.Noop(); err != nil {
		t.Errorf("an open session: %v", err)
	}
	r.close()

	ca.Process.Kill() // a restart needs no CA
	before := len(r.log.String())
	r.start()
	if c := r.shown(); c.Issuer.String() == c.Subject.String() {
		t.Error("self-signed after a restart")
	}
	if strings.Contains(r.log.String()[before:], "stand-in") || strings.Contains(r.log.String()[before:],
		"until the first one by ACME") {
		t.Error("it says that there is none yet")
	}
	r.write("") // without [tls.acme] the self-signed one is presented again
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := r.shown(); c.Issuer.String() != c.Subject.String() {
		t.Errorf("presented: %s", c.Issuer)
	}
}

// Operators hear at once of a name without any certificate, and of a renewal that fails again and again.
func TestACMETroubleIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), acmeTable(fmt.Sprintf("https://127.0.0.1:%d/dir", testkit.FreePort(t)), "", 1, ""))
	r.eventually("a failed attempt", func() bool {
		return strings.Contains(r.log.String(), "no certificate from the CA")
	})
	c, err := config.Load(r.path())
	if err != nil {
		t.Fatal(err)
	}
	list, err := monitor.ACMEStatus(t.Context(), c, r.store())
	if err != nil || len(list) != 1 || list[0].State.Failures == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	r.server.monitor.Use(c.Hostname, nil) // look at everything now
	r.eventually("an alert", func() bool {
		alerts, err := r.store().Alerts(t.Context(), relaystore.AlertQuery{Open: true, Limit: 100})
		for _, a := range alerts {
			if a.Event == string(alert.CertificateExpiry) && a.Subject == "acme:"+acmeName &&
				strings.Contains(a.Summary, "cannot be obtained from the CA") &&
				strings.Contains(a.Summary, "postern cert renew "+acmeName) {
				return true
			}
		}
		return err != nil
	})
}
