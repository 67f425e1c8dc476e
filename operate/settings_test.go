package operate

import (
	"errors"
	"testing"

	"postern/relay/config"
)

func TestSettings(t *testing.T) {
	c := config.Parse("/etc/postern/relay.toml", []byte("[store]\nhistory = \"60d\"\n"))
	s := New(Options{Config: func() *config.Config { return c }}).Settings
	viewer := Actor{Name: "anna", Channel: Console, Role: Viewer}
	f, err := s.List(t.Context(), viewer, " HISTORY  60d ")
	if err != nil || len(f.Settings) == 0 || f.Settings[0].Key != "store.history" ||
		f.Path != "/etc/postern/relay.toml" {
		t.Errorf("%+v, %v", f, err)
	}
	if all, err := s.List(t.Context(), viewer, ""); err != nil || len(all.Settings) < 50 ||
		len(all.Written().Settings) != 1 {
		t.Errorf("%d settings, %v", len(all.Settings), err)
	}
	if _, err := s.List(t.Context(), Actor{Channel: Console}, ""); !errors.Is(err, ErrForbidden) {
		t.Errorf("nobody: %v", err)
	}
}

// TestServers: what a device is told first comes first, and nothing that only this machine reaches.
func TestServers(t *testing.T) {
	c := config.Parse("relay.toml", []byte(`hostname = "relay.example.com"
[[listener]]
address = "127.0.0.1:25"
tls = "none"
[[listener]]
address = ":465"
tls = "implicit"
[[listener]]
address = ":587"
[[listener]]
address = "10.0.0.5:2525"
tls = "auto"
`))
	a := New(Options{Config: func() *config.Config { return c }}).Accounts
	servers, err := a.Servers(t.Context(), Actor{Channel: CommandLine})
	if err != nil || len(servers) != 3 {
		t.Fatalf("%+v, %v", servers, err)
	}
	for i, port := range []string{"2525", "587", "465"} {
		if servers[i].Port != port || servers[i].Host != "relay.example.com" {
			t.Errorf("%d: %+v, want port %s", i, servers[i], port)
		}
	}
	if server, encryption := DeviceServer(c); server != "relay.example.com port 2525" ||
		encryption != "TLS or STARTTLS, whichever the device has" {
		t.Errorf("a device is told %s, %s", server, encryption)
	}
}

// TestServerOfThisMachine: a listener of the loopback is named when there is no other, the demo's for one.
func TestServerOfThisMachine(t *testing.T) {
	c := config.Parse("relay.toml", []byte(`hostname = "relay.example.com"
[[listener]]
address = "127.0.0.1:2525"
`))
	if server, encryption := DeviceServer(c); server != "relay.example.com port 2525" || encryption != "STARTTLS" {
		t.Errorf("a device is told %s, %s", server, encryption)
	}
}
