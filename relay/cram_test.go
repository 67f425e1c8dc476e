package relay

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit"
	"postern/operate"
)

const withCram = "listener: mechanisms = [\"PLAIN\", \"LOGIN\", \"CRAM-MD5\"]"

// operator is who looks after devices.
var operator = operate.Actor{Name: "root", Channel: operate.CommandLine, Role: operate.Admin}

// offersCram reports whether a new connection is offered CRAM-MD5.
func (r *rig) offersCram() bool {
	r.t.Helper()
	c := r.secured(&tls.Config{})
	defer c.conn.Close()
	return strings.Contains(c.hello(), "CRAM-MD5")
}

// addDevice adds one that sends as anna.
func (r *rig) addDevice(ops *operate.Operations, name string) operate.Credential {
	r.t.Helper()
	made, err := ops.Accounts.Add(r.t.Context(), operator, operate.NewAccount{Login: name, Device: true,
		Senders: []string{rigLogin}})
	if err != nil {
		r.t.Fatal(err)
	}
	return made
}

// cram logs in by CRAM-MD5, and returns the connection and the reply.
func (r *rig) cram(login, password string) (*lineClient, string) {
	r.t.Helper()
	c := r.secured(&tls.Config{})
	c.hello()
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(c.say("AUTH CRAM-MD5", "334 "), "334 "))
	if err != nil {
		r.t.Fatal(err)
	}
	mac := hmac.New(md5.New, []byte(password))
	mac.Write(challenge)
	return c, c.say(base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s %x", login, mac.Sum(nil))), "")
}

// logsIn reports whether CRAM-MD5 lets somebody in.
func (r *rig) logsIn(login, password string) bool {
	r.t.Helper()
	c, reply := r.cram(login, password)
	defer c.conn.Close()
	if !strings.HasPrefix(reply, "235 ") && !strings.HasPrefix(reply, "535 5.7.8") {
		r.t.Fatalf("%s: %s", login, reply)
	}
	return strings.HasPrefix(reply, "235 ")
}

// cramOf returns what is said of CRAM-MD5 where an account is shown.
func (r *rig) cramOf(ops *operate.Operations, login string) operate.Mechanism {
	r.t.Helper()
	v, err := ops.Accounts.Show(r.t.Context(), operator, operate.Everybody, login)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range v.Mechanisms {
		if m.Name == auth.CramMD5 {
			return m
		}
	}
	r.t.Fatalf("%s: CRAM-MD5 is not named in %+v", login, v.Mechanisms)
	return operate.Mechanism{}
}

// TestCramOfDevices: CRAM-MD5 is offered once a device has keys for it, which logs in with it. A person's program that
// chooses it goes on with PLAIN, and is not locked out by that.
func TestCramOfDevices(t *testing.T) {
	r := newRig(t, newProvider(t), withCram)
	if r.offersCram() {
		t.Fatal("CRAM-MD5 is offered, and nobody has keys")
	}
	device := r.addDevice(r.operations(), "scanner")
	r.eventually("it is offered", r.offersCram)
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

// TestCramKeysAtALogin: a device that is older than CRAM-MD5 in relay.toml gets its keys at its next login by PLAIN,
// and then uses it. A person does not, and neither does a device whose password somebody chose.
func TestCramKeysAtALogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), "")
	device := r.addDevice(r.operations(), "scanner")
	if _, err := r.operations().Accounts.Add(t.Context(), operator, operate.NewAccount{Login: "chosen", Device: true,
		Password: rigPassword, Senders: []string{rigLogin}}); err != nil {
		t.Fatal(err)
	}
	r.write(withCram)
	if err := r.server.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	ops := r.operations()
	for login, want := range map[string]string{rigLogin: "for devices alone", "chosen": "postern device password",
		"scanner": "no CRAM-MD5 keys yet"} {
		if m := r.cramOf(ops, login); m.Can || !strings.Contains(m.Why, want) {
			t.Errorf("%s: %+v", login, m)
		}
	}
	for _, login := range []string{rigLogin, "chosen"} {
		if err := r.tryLogin(login, rigPassword); err != nil {
			t.Fatal(err)
		}
	}
	if r.offersCram() {
		t.Fatal("CRAM-MD5 is offered, and nobody has keys")
	}
	if err := r.tryLogin("scanner", device.Password); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is offered", r.offersCram) // had the others got keys, it would have been before
	if m := r.cramOf(ops, "scanner"); !m.Can || m.Why != "" || len(m.Listeners) != 1 {
		t.Errorf("%+v", m)
	}
	for _, login := range []string{rigLogin, "chosen"} {
		if m := r.cramOf(ops, login); m.Can || r.logsIn(login, rigPassword) {
			t.Errorf("%s may use CRAM-MD5: %+v", login, m)
		}
	}
	if !r.logsIn("scanner", device.Password) {
		t.Error("the device is refused")
	}
}

// TestCramEndsWithItsDevices: a password that is renewed and a lock hold for CRAM-MD5 as for PLAIN, also in open
// sessions, and the offer ends with the last device that has keys.
func TestCramEndsWithItsDevices(t *testing.T) {
	t.Parallel()
	r := newRig(t, newProvider(t), withCram)
	ops := r.operations()
	scanner, copier := r.addDevice(ops, "scanner"), r.addDevice(ops, "copier")
	r.eventually("it is offered", r.offersCram)
	session := func(login, password string) *lineClient {
		c, reply := r.cram(login, password)
		if !strings.HasPrefix(reply, "235 ") {
			t.Fatalf("%s: %s", login, reply)
		}
		return c
	}

	open, renewed := session("scanner", scanner.Password), operate.Credential{}
	r.adopts(func() {
		var err error
		renewed, err = ops.Accounts.Password(t.Context(), operator, operate.DevicesOnly, "scanner", "")
		if err != nil {
			t.Fatal(err)
		}
	})
	open.say("MAIL FROM:<"+rigLogin+">", "421 ")
	if r.logsIn("scanner", scanner.Password) {
		t.Error("the old password is good")
	}
	open = session("scanner", renewed.Password)
	if m := r.cramOf(ops, "scanner"); !m.Can {
		t.Errorf("%+v", m)
	}

	r.adopts(func() {
		if err := ops.Accounts.Lock(t.Context(), operator, "scanner", "sold"); err != nil {
			t.Fatal(err)
		}
	})
	open.say("MAIL FROM:<"+rigLogin+">", "421 ")
	if r.logsIn("scanner", renewed.Password) {
		t.Error("a locked device logs in")
	}
	if !r.logsIn("copier", copier.Password) {
		t.Error("the other one does not")
	}
	if _, err := ops.Accounts.Unlock(t.Context(), operator, "scanner"); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is unlocked", func() bool { return r.logsIn("scanner", renewed.Password) })

	remove := func(login string) {
		if err := ops.Accounts.Remove(t.Context(), operator, operate.DevicesOnly, login); err != nil {
			t.Fatal(err)
		}
	}
	r.adopts(func() { remove("scanner") })
	if !r.offersCram() || r.logsIn("scanner", renewed.Password) {
		t.Error("one of two is gone, and it is not offered to the other, or lets in the one that is gone")
	}
	remove("copier")
	r.eventually("nobody is offered it", func() bool { return !r.offersCram() })
}
