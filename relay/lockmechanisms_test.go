package relay

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"postern/auth"
	"postern/auth/oidc/oidctest"
	"postern/internal/testkit"
	"postern/operate"
	relaystore "postern/relay/store"
)

// tryScram logs in, bound to TLS 1.3 or not, and returns the last reply.
func (c *lineClient) tryScram(plus bool, login, password string) string {
	c.t.Helper()
	client, err := scram.SHA256.NewClient(login, password, "")
	if err != nil {
		c.t.Fatal(err)
	}
	name, talk := auth.ScramSHA256, client.NewConversation()
	if plus {
		state := c.conn.(*tls.Conn).ConnectionState()
		data, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			c.t.Fatal(err)
		}
		name, talk = auth.ScramPlus, client.NewConversationWithChannelBinding(scram.ChannelBinding{Data: data,
			Type: "tls-exporter"})
	}
	message, _ := talk.Step("")
	heard := c.say("AUTH "+name+" "+base64.StdEncoding.EncodeToString([]byte(message)), "")
	for strings.HasPrefix(heard, "334 ") {
		challenge, _ := base64.StdEncoding.DecodeString(heard[4:])
		if message, err = talk.Step(string(challenge)); err != nil {
			c.t.Fatal(err)
		}
		heard = c.say(base64.StdEncoding.EncodeToString([]byte(message)), "")
	}
	return heard
}

// tryToken logs in with a token, and returns the last reply.
func (c *lineClient) tryToken(mechanism, message string) string {
	c.t.Helper()
	heard := c.say("AUTH "+mechanism+" "+base64.StdEncoding.EncodeToString([]byte(message)), "")
	if strings.HasPrefix(heard, "334 ") {
		return c.say("AQ==", "")
	}
	return heard
}

// tryCram logs in, and returns the last reply.
func (c *lineClient) tryCram(login, password string) string {
	c.t.Helper()
	challenge, _ := base64.StdEncoding.DecodeString(c.say("AUTH CRAM-MD5", "334 ")[4:])
	mac := hmac.New(md5.New, []byte(strings.ReplaceAll(password, "-", "")))
	mac.Write(challenge)
	return c.say(base64.StdEncoding.EncodeToString([]byte(login+" "+hex.EncodeToString(mac.Sum(nil)))), "")
}

// clientCert is a certificate of a person or device.
func clientCert(ca *testkit.CA, address string) testkit.Cert {
	return ca.Leaf(testkit.LeafOptions{Change: func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses, c.EmailAddresses = nil, nil, []string{address}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}})
}

// TestLockHoldsAgainstEachMechanism: whatever proves a login, and wherever its account is, a lock keeps it out and ends
// its open session, until it is unlocked.
func TestLockHoldsAgainstEachMechanism(t *testing.T) {
	t.Parallel()
	const bert, app = "bert@example.com", "app@example.com"
	keys, err := auth.DeriveScram([]byte("secret of the test"), bert, "right")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(bert+":{SCRAM-SHA-256}"+string(keys.Encode())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer, ca := oidctest.New(t), testkit.NewCA(t)
	r := newRig(t, newProvider(t), fmt.Sprintf(`listener: client_ca_file = %q
		listener: mechanisms = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "CRAM-MD5"]
		[[auth.source]]
		[[auth.source]]
		type = "file"
		path = %q
		[[auth.source]]
		type = "oidc"
		issuer = %q
		audience = ["relay"]`, ca.File, path, issuer.URL))
	r.keepScram(rigLogin)
	ops, root := r.operations(), operate.Actor{Name: "root", Channel: operate.CommandLine}
	enrolled(t, ops)
	odas, berts := made(t, ops, oda, oda.Name, "printer").Password, made(t, ops, root, bert, "printer").Password
	var device operate.Credential
	r.adopts(func() {
		device, err = ops.Accounts.Add(t.Context(), root, operate.NewAccount{Login: "scanner", Device: true,
			Senders: []string{rigLogin}})
		if err != nil {
			t.Fatal(err)
		}
	})
	named, pinned := clientCert(ca, bert), clientCert(testkit.NewCA(t), "whoever@example.net")
	x, err := x509.ParseCertificate(pinned.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store().AddCertificate(t.Context(), relaystore.Certificate{Digest: auth.DigestOf(x), Login: rigLogin,
		Added: time.Now()}); err != nil {
		t.Fatal(err)
	}
	plain := func(login, password string) func(*lineClient) string {
		return func(c *lineClient) string { return c.say("AUTH PLAIN "+plainOf(login, password), "") }
	}
	for _, m := range []struct {
		name, login string
		cert        *testkit.Cert
		prove       func(c *lineClient) string
	}{
		{"SCRAM, of a file", bert, nil, func(c *lineClient) string { return c.tryScram(false, bert, "right") }},
		{"SCRAM-PLUS, of a file", bert, nil, func(c *lineClient) string { return c.tryScram(true, bert, "right") }},
		{"SCRAM, of the store", rigLogin, nil,
			func(c *lineClient) string { return c.tryScram(false, rigLogin, rigPassword) }},
		{"CRAM-MD5", "scanner", nil, func(c *lineClient) string { return c.tryCram("scanner", device.Password) }},
		{"OAUTHBEARER", app, nil, func(c *lineClient) string {
			return c.tryToken(auth.OAuthBearer, "n,a="+app+",\x01auth=Bearer "+issuer.Token(nil)+"\x01\x01")
		}},
		{"OAUTHBEARER without a name", app, nil, func(c *lineClient) string {
			return c.tryToken(auth.OAuthBearer, "n,,\x01auth=Bearer "+issuer.Token(nil)+"\x01\x01")
		}},
		{"XOAUTH2", app, nil, func(c *lineClient) string {
			return c.tryToken(auth.XOAuth2, "user="+app+"\x01auth=Bearer "+issuer.Token(nil)+"\x01\x01")
		}},
		{"EXTERNAL by name", bert, &named, func(c *lineClient) string { return c.say("AUTH EXTERNAL =", "") }},
		{"EXTERNAL by key", rigLogin, &pinned, func(c *lineClient) string { return c.say("AUTH EXTERNAL =", "") }},
		{"PLAIN, of a file", bert, nil, plain(bert, "right")},
		{"LOGIN, of a file", bert, nil, func(c *lineClient) string {
			c.say("AUTH LOGIN "+base64.StdEncoding.EncodeToString([]byte(strings.ToUpper(bert))), "334 ")
			return c.say(base64.StdEncoding.EncodeToString([]byte("right")), "")
		}},
		{"an app password, of a file", bert, nil, plain(bert, berts)},
		{"an app password, of a provider", oda.Name, nil, plain(oda.Name, odas)},
	} {
		t.Run(m.name, func(t *testing.T) {
			proves := func(what, want string) *lineClient {
				t.Helper()
				c := &tls.Config{}
				if m.cert != nil {
					c.Certificates = []tls.Certificate{m.cert.TLS}
				}
				l := r.secured(c)
				l.hello()
				if heard := m.prove(l); !strings.HasPrefix(heard, want) {
					t.Errorf("%s: %s, want %s", what, heard, want)
				}
				return l
			}
			open := proves("before", "235 ")
			r.adopts(func() {
				if err := ops.Accounts.Lock(t.Context(), root, m.login, "lost laptop"); err != nil {
					t.Fatal(err)
				}
			})
			proves("locked", "535 ")
			open.say("MAIL FROM:<"+m.login+">", "421 ")
			r.adopts(func() {
				if _, err := ops.Accounts.Unlock(t.Context(), root, m.login); err != nil {
					t.Fatal(err)
				}
			})
			proves("unlocked", "235 ")
		})
	}
}
