package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/internal/thunderbird"
)

// setupOffice is an office whose mail programs set themselves up. Its names lead where they should by a proxy, which
// stands for the DNS of the office.
type setupOffice struct {
	*office
	implicit, starttls, secure, plain int    // ports
	hidden                            string // a name that the office's DNS does not have
	proxy                             *testkit.Proxy
	socks                             string
}

func newSetupOffice(t *testing.T, names ...string) *setupOffice {
	t.Helper()
	s := &setupOffice{starttls: testkit.FreePort(t), secure: testkit.FreePort(t), plain: testkit.FreePort(t)}
	s.office = newOffice(t, fmt.Sprintf(`[[listener]]
name = "starttls"
address = "localhost:%d"
handoff = "1m"
[autoconfig]
domains = ["example.com"]
address = "127.0.0.1:%d"
http_address = "127.0.0.1:%d"
url = "https://relay.example.com"
name = "Example & Sons"
[autoconfig.incoming]
host = "imap.example.com"
`, s.starttls, s.secure, s.plain))
	if _, err := fmt.Sscanf(s.address, "localhost:%d", &s.implicit); err != nil {
		t.Fatal(err)
	}
	cert := s.ca.Leaf(testkit.LeafOptions{Names: append([]string{"localhost", "relay.example.com"}, names...)})
	s.edit(`hostname = "localhost"`, `hostname = "relay.example.com"`)
	s.edit(`tls = "auto"`, `tls = "implicit"`)
	s.edit(`tls.cert_file = "`, fmt.Sprintf("tls.cert_file = %q # \"", cert.CertFile))
	s.edit(`tls.key_file = "`, fmt.Sprintf("tls.key_file = %q # \"", cert.KeyFile))
	s.proxy = &testkit.Proxy{Route: s.route}
	socks, err := s.proxy.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.socks = socks
	t.Cleanup(s.proxy.Close)
	return s
}

// route leads the names of the office to their ports; nothing else is there.
func (s *setupOffice) route(address string) string {
	local := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	if host, _, _ := net.SplitHostPort(address); host == s.hidden {
		return ""
	}
	switch address {
	case "autoconfig.example.com:443", "autodiscover.example.com:443", "relay.example.com:443":
		return local(s.secure)
	case "autoconfig.example.com:80":
		return local(s.plain)
	case fmt.Sprintf("relay.example.com:%d", s.implicit):
		return local(s.implicit)
	case fmt.Sprintf("relay.example.com:%d", s.starttls):
		return local(s.starttls)
	}
	return ""
}

// TestThunderbirdSetsItselfUp: Thunderbird finds our settings for an address and a password, adds the account, and
// sends by it: by HTTPS where the certificate has the name, else by plain HTTP and our redirect. Where it finds none of
// these it reads what Outlook is told.
func TestThunderbirdSetsItselfUp(t *testing.T) {
	const login, secret = "anna@example.com", "a chosen password"
	testkit.Need(t, "thunderbird")
	for _, c := range []struct {
		source, hidden, name string
		names                []string
	}{{"xml-from-isp-https", "", "Example & Sons", []string{"autoconfig.example.com"}},
		{"xml-from-isp-http", "", "Example & Sons", nil},
		{"exchange-from-url1", "autoconfig.example.com", "", []string{"autodiscover.example.com"}},
	} {
		t.Run(c.source, func(t *testing.T) {
			s := newSetupOffice(t, c.names...)
			s.hidden = c.hidden
			s.postern(secret+"\n", "user", "add", login, "--password-stdin")
			p := s.serve()
			tb := thunderbird.Start(t, s.ca.PEM)
			tb.Through(s.socks)
			got := tb.SetUp("Anna", login, secret)
			want := thunderbird.Account{Source: c.source, Name: c.name, Key: got.Key,
				Incoming: thunderbird.Endpoint{Type: "imap", Host: "imap.example.com", Port: 993,
					Security: thunderbird.TLS, Login: login},
				Outgoing: thunderbird.Endpoint{Type: "smtp", Host: "relay.example.com", Port: s.implicit,
					Security: thunderbird.TLS, Login: login}}
			if got != want {
				t.Fatalf("set up\n%+v\nwant\n%+v\nasked for %v\n%s", got, want, s.proxy.Asked(), p.Log())
			}
			out := tb.Send(thunderbird.Message{Server: got.Key, From: login, To: []string{"bob@example.net"},
				Subject: "set up by itself", Body: "Grüße\n"}, "")
			if !out.Sent || len(out.Dialogs) > 0 {
				t.Fatalf("%+v\n%s", out, p.Log())
			}
			m, err := s.upstream.WaitMessage(t.Context())
			if err != nil || m.From != login || !strings.Contains(string(m.Data), "Subject: set up by itself") {
				t.Errorf("%v: %+v", err, m)
			}
			if strings.Contains(p.Log(), secret) {
				t.Error("the password, which Thunderbird tries at autodiscover too, is in the log")
			}
			p.Stop()
		})
	}
}
