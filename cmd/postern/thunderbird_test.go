package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/internal/thunderbird"
)

// desk is an office whose people write with Thunderbird: a listener for each way that its settings know.
type desk struct {
	*office
	submission, implicit, auto, narrow int // ports
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{office: newOffice(t, ""), submission: testkit.FreePort(t), implicit: testkit.FreePort(t),
		auto: testkit.FreePort(t), narrow: testkit.FreePort(t)}
	cert := d.ca.Leaf(testkit.LeafOptions{})
	_, port, err := net.SplitHostPort(d.upstream.Addr())
	if err != nil {
		t.Fatal(err)
	}
	d.write("relay.toml", fmt.Sprintf(`hostname = "localhost"
data_dir = "data"
tls.cert_file = %q
tls.key_file = %q
admin.address = ""
[[listener]]
name = "submission"
address = "localhost:%d"
handoff = "1m"
[[listener]]
name = "submissions"
address = "localhost:%d"
tls = "implicit"
handoff = "1m"
[[listener]]
name = "auto"
address = "localhost:%d"
tls = "auto"
handoff = "1m"
[[listener]]
name = "narrow"
address = "localhost:%d"
max_message_size = "64KB"
max_recipients = 2
[[policy]]
recipients = ["*", "!*@rival.example"]
[[upstream]]
name = "provider"
host = "localhost"
port = %s
ca_file = %q
username = "relay"
password = "file:upstream.secret"
`, cert.CertFile, cert.KeyFile, d.submission, d.implicit, d.auto, d.narrow, port, d.ca.File))
	return d
}

// TestThunderbird: mail of a real mail program goes out by every kind of connection, and what its dialogs say of a
// refusal is enough to mend the settings with. It shows the text of a reply and drops the codes.
func TestThunderbird(t *testing.T) {
	const login, secret = "anna@example.com", "a chosen password"
	testkit.Need(t, "thunderbird")
	d := newDesk(t)
	d.postern(secret+"\n", "user", "add", login, "--password-stdin")
	p := d.serve()
	tb := thunderbird.Start(t, d.ca.PEM,
		thunderbird.Server{Key: "starttls", Port: d.submission, Security: thunderbird.StartTLS, Login: login,
			Password: secret},
		thunderbird.Server{Key: "tls", Port: d.implicit, Security: thunderbird.TLS, Login: login, Password: secret},
		thunderbird.Server{Key: "autoStarttls", Port: d.auto, Security: thunderbird.StartTLS, Login: login,
			Password: secret},
		thunderbird.Server{Key: "autoTLS", Port: d.auto, Security: thunderbird.TLS, Login: login, Password: secret},
		thunderbird.Server{Key: "narrow", Port: d.narrow, Security: thunderbird.StartTLS, Login: login,
			Password: secret},
		thunderbird.Server{Key: "asked", Port: d.submission, Security: thunderbird.StartTLS, Login: login},
		thunderbird.Server{Key: "wrong", Port: d.submission, Security: thunderbird.StartTLS, Login: login,
			Password: "not the password"},
		thunderbird.Server{Key: "starttlsOnTLS", Port: d.implicit, Security: thunderbird.StartTLS, Login: login,
			Password: secret},
		thunderbird.Server{Key: "tlsOnStarttls", Port: d.submission, Security: thunderbird.TLS, Login: login,
			Password: secret},
		thunderbird.Server{Key: "clear", Port: d.submission, Security: thunderbird.None},
		thunderbird.Server{Key: "clearOnAuto", Port: d.auto, Security: thunderbird.None},
		thunderbird.Server{Key: "noLogin", Port: d.submission, Security: thunderbird.StartTLS},
	)
	send := func(t *testing.T, m thunderbird.Message, typed string) string {
		t.Helper()
		if m.From == "" {
			m.From = login
		}
		if m.To == nil {
			m.To = []string{"bob@example.net"}
		}
		out := tb.Send(m, typed)
		if said := strings.Join(out.Dialogs, "\n"); !out.Sent {
			return said
		}
		got, err := d.upstream.WaitMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got.Data), "Subject: "+m.Subject+"\r\n") || got.From != m.From {
			t.Errorf("another message came, from %s:\n%s", got.From, got.Data)
		}
		return "sent " + strings.Join(out.Dialogs, "\n")
	}
	for _, key := range []string{"starttls", "tls", "autoStarttls", "autoTLS"} {
		t.Run(key, func(t *testing.T) {
			if got := send(t, thunderbird.Message{Server: key, Subject: key, Body: "Grüße\n"}, ""); got != "sent " {
				t.Errorf("said: %s", got)
			}
		})
	}
	t.Run("421 while idle", func(t *testing.T) { // Thunderbird keeps its connection for the next message
		for _, subject := range []string{"before the restart", "behind the restart"} {
			if got := send(t, thunderbird.Message{Server: "starttls", Subject: subject}, ""); got != "sent " {
				t.Errorf("said: %s", got)
			}
			p.Stop()
			p = d.serve()
		}
	})
	t.Run("asked for the password", func(t *testing.T) {
		if got := send(t, thunderbird.Message{Server: "asked", Subject: "asked"}, secret); !strings.HasPrefix(got,
			"sent ") || !strings.Contains(got, "password") {
			t.Errorf("said: %s", got)
		}
	})
	large := strings.Repeat(strings.Repeat("x", 60)+"\n", 2000)
	for _, c := range []struct {
		what    string
		message thunderbird.Message
		want    string
	}{
		{"wrong password", thunderbird.Message{Server: "wrong"},
			"Login to server localhost with username anna@example.com failed."},
		{"STARTTLS on the port of TLS", thunderbird.Message{Server: "starttlsOnTLS"},
			"this port speaks TLS from the first byte; set the connection security to SSL/TLS"},
		// A greeting that leaves first spoils its handshake, else our alert does: it says less then.
		{"TLS on the port of STARTTLS", thunderbird.Message{Server: "tlsOnStarttls"}, "Sending of the message failed."},
		{"no encryption", thunderbird.Message{Server: "clear"},
			"this connection is not encrypted: set the connection security to STARTTLS"},
		{"no encryption on auto", thunderbird.Message{Server: "clearOnAuto"},
			"this connection is not encrypted: set the connection security to STARTTLS or SSL/TLS"},
		{"no login", thunderbird.Message{Server: "noLogin"},
			`login needed: set the authentication method to "normal password" and enter your user name`},
		{"refused sender", thunderbird.Message{Server: "starttls", From: "ceo@example.com"},
			"anna@example.com may not send as <ceo@example.com>; it may use anna@example.com"},
		{"refused recipient", thunderbird.Message{Server: "starttls",
			To: []string{"bob@example.net", "eve@rival.example"}},
			"anna@example.com may not write to <eve@rival.example>"},
		{"too large", thunderbird.Message{Server: "narrow", Body: large},
			"message too big: the limit is 64 KB; attachments count about a third more than their size"},
		{"too many recipients", thunderbird.Message{Server: "narrow", To: []string{"a@example.net", "b@example.net",
			"c@example.net"}},
			"too many recipients: at most 2 per message; send it in parts"},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.message.Subject = c.what
			if got := send(t, c.message, ""); strings.HasPrefix(got, "sent ") || !strings.Contains(got, c.want) {
				t.Errorf("said: %s\nwant: %s", got, c.want)
			}
		})
	}
	p.WaitLog(`the client began TLS without STARTTLS; set its connection security to STARTTLS`)
	p.Stop()
}
