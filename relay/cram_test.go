package relay

import (
	"crypto/tls"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/operate"
)

// TestCramOfDevices: CRAM-MD5 is offered once a device has keys for it, which logs in with it. A person's program that
// chooses it goes on with PLAIN, and is not locked out by that.
func TestCramOfDevices(t *testing.T) {
	r := newRig(t, newProvider(t), "listener: mechanisms = [\"PLAIN\", \"LOGIN\", \"CRAM-MD5\"]")
	offered := func() bool {
		c := r.secured(&tls.Config{})
		defer c.conn.Close()
		return strings.Contains(c.hello(), "CRAM-MD5")
	}
	if offered() {
		t.Fatal("CRAM-MD5 is offered, and nobody has keys")
	}
	by := operate.Actor{Name: "root", Channel: operate.CommandLine, Role: operate.Admin}
	device, err := operate.New(operate.Options{Store: r.store(), Config: r.server.config}).Accounts.Add(t.Context(), by,
		operate.NewAccount{Login: "scanner", Device: true, Senders: []string{rigLogin}})
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("it is offered", offered)
	mail := r.submission("scanner", device.Password, "CRAM-MD5")
	mail.From, mail.Message = rigLogin, []byte("From: <"+rigLogin+">\r\nSubject: scan\r\n\r\nHello\r\n")
	for name, send := range map[string]func(testing.TB, testkit.Submission) testkit.Output{
		"swaks": testkit.Swaks, "smtplib": testkit.Smtplib, "msmtp": testkit.Msmtp} {
		if out := send(t, mail); !out.OK || !strings.Contains(out.Text, "AUTH CRAM-MD5") {
			t.Errorf("%s: %s", name, out.Text)
		}
	}
	mail.Password = "wrong"
	if out := testkit.Swaks(t, mail); out.OK || !strings.Contains(out.Text, "535 5.7.8") {
		t.Errorf("a wrong password: %s", out.Text)
	}
	for range 12 { // more than lock anybody out
		if out := testkit.Smtplib(t, r.submission(rigLogin, rigPassword, "")); !out.OK ||
			!strings.Contains(out.Text, "AUTH CRAM-MD5") || !strings.Contains(out.Text, "AUTH PLAIN") {
			t.Fatalf("a person's smtplib: %s", out.Text)
		}
	}
}
