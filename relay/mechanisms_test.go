package relay

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"postern/auth"
	"postern/auth/oidc/oidctest"
	"postern/internal/testkit"
	relaystore "postern/relay/store"
)

// submission is a message for a program of others.
func (r *rig) submission(login, password, mechanism string) testkit.Submission {
	_, port, _ := strings.Cut(r.server.Addresses()["submission"], ":")
	return testkit.Submission{Server: "localhost:" + port, TLS: testkit.StartTLS,
		CAFile: filepath.Join(r.dir, "data", "tls", "self-signed.crt"), Login: login, Password: password,
		Mechanism: mechanism, From: login, To: []string{"bob@example.net"},
		Message: []byte("From: <" + login + ">\r\nSubject: " + mechanism + "\r\n\r\nHello\r\n")}
}

// hasScram reports whether an account has keys for SCRAM.
func (r *rig) hasScram(login string) bool {
	s := r.store()
	defer s.Close()
	_, keys, err := s.ScramUser(r.t.Context(), login)
	if err != nil {
		r.t.Fatal(err)
	}
	return !keys.IsZero()
}

// TestScramOfPrograms: an account gets its keys at its first login with a password, and then msmtp and gsasl log in
// with SCRAM.
func TestScramOfPrograms(t *testing.T) {
	r := newRig(t, newProvider(t), "listener: mechanisms = [\"SCRAM-SHA-256\", \"PLAIN\", \"LOGIN\"]")
	if out := testkit.Msmtp(t, r.submission(rigLogin, rigPassword, "scram-sha-256")); out.OK ||
		!strings.Contains(out.Text, "535") {
		t.Fatalf("without keys: %s", out.Text)
	}
	if out := testkit.Swaks(t, r.submission(rigLogin, rigPassword, "LOGIN")); !out.OK {
		t.Fatal(out.Text)
	}
	r.eventually("the keys", func() bool { return r.hasScram(rigLogin) })
	if out := testkit.Msmtp(t, r.submission(rigLogin, rigPassword, "scram-sha-256")); !out.OK ||
		!strings.Contains(out.Text, "AUTH SCRAM-SHA-256") {
		t.Errorf("msmtp: %s", out.Text)
	}
	if out := testkit.Msmtp(t, r.submission(rigLogin, "wrong", "scram-sha-256")); out.OK ||
		!strings.Contains(out.Text, "535") {
		t.Errorf("msmtp with a wrong password: %s", out.Text)
	}
	// It refuses to log in without the binding that it could have.
	out := testkit.Gsasl(t, r.submission(rigLogin, rigPassword, auth.ScramPlus))
	if !strings.Contains(out.Text, "235 2.7.0") {
		t.Errorf("gsasl: %s", out.Text)
	}
	r.provider.wait(2)
}

// TestScramPlus: a client of the library binds to TLS 1.3, and to TLS 1.2; one in between is found out.
func TestScramPlus(t *testing.T) {
	r := newRig(t, newProvider(t), "listener: mechanisms = [\"SCRAM-SHA-256\", \"PLAIN\"]")
	r.keepScram(rigLogin)
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		c := r.secured(&tls.Config{MaxVersion: version})
		if said := c.hello(); !strings.Contains(said, "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN\r") {
			t.Fatalf("%s offers %s", tls.VersionName(version), said)
		}
		state := c.conn.(*tls.Conn).ConnectionState()
		bindings := map[string][]byte{"tls-unique": state.TLSUnique}
		bindings["tls-exporter"], _ = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		for kind, data := range bindings {
			if len(data) == 0 {
				continue
			}
			c := c
			if kind == "tls-unique" { // its value belongs to the connection
				c = r.secured(&tls.Config{MaxVersion: version})
				data = c.conn.(*tls.Conn).ConnectionState().TLSUnique
				c.hello()
			}
			c.scramPlus(kind, data, "235 ")
		}
	}
	c := r.secured(&tls.Config{})
	c.hello()
	c.scramPlus("tls-exporter", []byte("the other connection's material."), "535 ")
}

func (r *rig) keepScram(login string) auth.ScramKeys {
	r.t.Helper()
	s := r.store()
	defer s.Close()
	secret, err := s.Secret(r.t.Context(), auth.ScramSaltName, auth.ScramSaltSize)
	if err != nil {
		r.t.Fatal(err)
	}
	keys, err := auth.DeriveScram(secret, login, rigPassword)
	if err != nil {
		r.t.Fatal(err)
	}
	u, err := s.User(r.t.Context(), login)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.SetScram(r.t.Context(), login, u.Hash, keys); err != nil {
		r.t.Fatal(err)
	}
	return keys
}

// secured is a client behind STARTTLS with TLS as it wants it.
func (r *rig) secured(c *tls.Config) *lineClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Addresses()["submission"])
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	l := &lineClient{t: r.t, conn: conn, in: bufio.NewReader(conn)}
	l.expect("220 ")
	l.say("STARTTLS", "220 ")
	c.ServerName, c.RootCAs = "localhost", r.roots
	secured := tls.Client(conn, c)
	if err := secured.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	l.conn, l.in = secured, bufio.NewReader(secured)
	return l
}

// hello sends EHLO and returns all that the server says to it.
func (c *lineClient) hello() (said string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, "EHLO client.example.com\r\n"); err != nil {
		c.t.Fatal(err)
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		if said += line; len(line) > 3 && line[3] == ' ' {
			return said
		}
	}
}

// scramPlus logs in.
func (c *lineClient) scramPlus(kind string, data []byte, want string) {
	c.t.Helper()
	client, err := scram.SHA256.NewClient(rigLogin, rigPassword, "")
	if err != nil {
		c.t.Fatal(err)
	}
	talk := client.NewConversationWithChannelBinding(scram.ChannelBinding{Data: data,
		Type: scram.ChannelBindingType(kind)})
	first, _ := talk.Step("")
	e := base64.StdEncoding.EncodeToString
	heard := c.say("AUTH SCRAM-SHA-256-PLUS "+e([]byte(first)), "334 ")
	challenge, _ := base64.StdEncoding.DecodeString(heard[4:])
	final, err := talk.Step(string(challenge))
	if err != nil {
		c.t.Fatal(err)
	}
	if want != "235 " {
		c.say(e([]byte(final)), want)
		return
	}
	heard = c.say(e([]byte(final)), "334 ")
	challenge, _ = base64.StdEncoding.DecodeString(heard[4:])
	if _, err := talk.Step(string(challenge)); err != nil || !talk.Valid() {
		c.t.Fatalf("%s: the server does not prove itself: %v", kind, err)
	}
	c.say("", want)
}

// TestTokensOfPrograms: msmtp and curl log in with tokens of an issuer whose key rotates; an outage is 454.
func TestTokensOfPrograms(t *testing.T) {
	i := oidctest.New(t)
	r := newRig(t, newProvider(t), fmt.Sprintf(`listener: mechanisms = ["OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"]
		[[auth.source]]
		[[auth.source]]
		type = "oidc"
		issuer = %q
		audience = ["relay"]
		scope = "mail.send"`, i.URL))
	const app = "app@example.com"
	for _, m := range []string{"oauthbearer", "xoauth2"} {
		if out := testkit.Msmtp(t, r.submission(app, i.Token(nil), m)); !out.OK {
			t.Errorf("msmtp %s: %s", m, out.Text)
		}
		if m == "oauthbearer" { // more than one in ten seconds would be 454 for a moment
			i.Rotate()
		}
		if out := testkit.Msmtp(t, r.submission(app, i.Token(map[string]any{"aud": "other"}), m)); out.OK ||
			!strings.Contains(out.Text, "535") {
			t.Errorf("msmtp %s, for somebody else: %s", m, out.Text)
		}
	}
	sub := r.submission(app, "", "OAUTHBEARER")
	sub.Token = i.Token(nil)
	if out := testkit.Curl(t, sub); !out.OK {
		t.Errorf("curl: %s", out.Text)
	}
	if out := nodemailer(t, r.submission(app, i.Token(nil), "")); !strings.Contains(out, "sent") {
		t.Errorf("nodemailer: %s", out)
	}
	out := nodemailer(t, r.submission(app, i.Token(map[string]any{"aud": "other"}), ""))
	if !strings.Contains(out, "new access token") { // it has heard of the refusal, and would fetch another
		t.Errorf("nodemailer, for somebody else: %s", out)
	}
	r.provider.wait(4)
	i.SetDown(true)
	i.Rotate()
	c := r.rawClient()
	c.say("AUTH XOAUTH2 "+base64.StdEncoding.EncodeToString([]byte("user="+app+"\x01auth=Bearer "+
		i.Token(nil)+"\x01\x01")), "454 ")
	c.say("AUTH PLAIN "+plainOf(rigLogin, rigPassword), "235 ")
}

// nodemailer sends with a token as its password, and returns what it prints.
func nodemailer(t *testing.T, s testkit.Submission) string {
	t.Helper()
	module := testkit.Need(t, "node-nodemailer")
	_, port, _ := strings.Cut(s.Server, ":")
	cmd := exec.Command("node", "-e", `const fs = require("fs"), e = process.env;
		require(e.MODULE).createTransport({host: "localhost", port: e.PORT, requireTLS: true,
			tls: {ca: fs.readFileSync(e.CA)}, auth: {type: "OAuth2", user: e.LOGIN, accessToken: e.TOKEN}})
		.sendMail({from: e.LOGIN, to: "bob@example.net", text: "Hello"})
		.then(() => console.log("sent"), (err) => console.log(err.message))`)
	cmd.Env = []string{"MODULE=" + module, "PORT=" + port, "CA=" + s.CAFile, "LOGIN=" + s.Login, "TOKEN=" + s.Password,
		"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("node: %v", err)
	}
	return string(out)
}

// TestCertificatesOfPrograms: curl logs in with a pinned key, and with a certificate of client_ca_file, and not with
// that of another authority or none.
func TestCertificatesOfPrograms(t *testing.T) {
	ca, other := testkit.NewCA(t), testkit.NewCA(t)
	r := newRig(t, newProvider(t), fmt.Sprintf(`listener: mechanisms = ["EXTERNAL", "PLAIN", "LOGIN"]
		listener: client_ca_file = %q`, ca.File))
	leaf := func(ca *testkit.CA, address string) testkit.Cert {
		return ca.Leaf(testkit.LeafOptions{Change: func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.EmailAddresses = nil, nil, []string{address}
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}})
	}
	pinned := leaf(other, "whoever@example.net")
	s := r.store()
	x, err := x509.ParseCertificate(pinned.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddCertificate(t.Context(), relaystore.Certificate{Digest: auth.DigestOf(x), Login: rigLogin,
		Added: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		cert       testkit.Cert
	}{
		{"pinned", "235", pinned},
		{"of the authority", "235", leaf(ca, rigLogin)},
		{"for somebody else", "535", leaf(ca, "boss@example.com")},
		{"of another authority", "535", leaf(other, rigLogin)},
	} {
		sub := r.submission("", "", "EXTERNAL")
		sub.Certificate, sub.From = c.cert, rigLogin
		out := testkit.Curl(t, sub)
		if !strings.Contains(out.Text, "< "+c.want) {
			t.Errorf("%s: %s", c.name, out.Text)
		}
	}
	c := r.rawClient()
	if said := c.hello(); strings.Contains(said, "EXTERNAL") {
		t.Errorf("it is offered to who has no certificate: %s", said)
	}
	c.say("AUTH EXTERNAL =", "504 5.5.4 this program has shown no certificate")
	if n, err := s.RemoveCertificates(t.Context(), rigLogin, time.Now()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	sub := r.submission("", "", "EXTERNAL")
	sub.Certificate, sub.From = pinned, rigLogin
	if out := testkit.Curl(t, sub); !strings.Contains(out.Text, "< 535") {
		t.Errorf("unpinned: %s", out.Text)
	}
}

// TestMechanismsUnderReload: hundreds of logins by SCRAM and PLAIN while the configuration is loaded again and again.
func TestMechanismsUnderReload(t *testing.T) {
	r := newRig(t, newProvider(t), "listener: mechanisms = [\"SCRAM-SHA-256\", \"PLAIN\"]\n"+
		"listener: max_connections_per_ip = 400")
	keys := r.keepScram(rigLogin)
	client, err := scram.SHA256.NewClient(rigLogin, rigPassword, "") // of all: it derives its keys once
	if err == nil {
		_, err = client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(keys.Salt), Iters: keys.Iterations})
	}
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 200 {
		all.Go(func() {
			c := r.rawClient()
			if n%2 == 0 {
				c.say("AUTH PLAIN "+plainOf(rigLogin, rigPassword), "235 ")
				return
			}
			c.scram(client)
		})
	}
	for range 10 {
		if err := r.server.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
}

// scram logs in without a binding.
func (c *lineClient) scram(client *scram.Client) {
	c.t.Helper()
	talk := client.NewConversation()
	first, _ := talk.Step("")
	e := base64.StdEncoding.EncodeToString
	heard := c.say("AUTH SCRAM-SHA-256 "+e([]byte(first)), "334 ")
	challenge, _ := base64.StdEncoding.DecodeString(heard[4:])
	final, err := talk.Step(string(challenge))
	if err != nil {
		c.t.Error(err)
		return
	}
	c.say(e([]byte(final)), "334 ")
	c.say("", "235 ")
}
