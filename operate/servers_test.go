package operate

import (
	"testing"

	"postern/relay/config"
)

// TestServersForDevices: people are not sent to the weak listener, and devices are.
func TestServersForDevices(t *testing.T) {
	c := &config.Config{Hostname: "relay.example.com", Listeners: []config.Listener{
		{Name: "devices", Address: ":2525", TLS: config.Auto, Auth: config.AuthRequired, Profile: config.Appliance},
		{Name: "fax", Address: ":2526", TLS: config.NoTLS, Auth: config.AuthNetwork, Profile: config.Appliance},
		{Name: "submissions", Address: ":465", TLS: config.Implicit, Auth: config.AuthRequired, Profile: "standard"},
	}}
	servers := serversOf(c)
	if len(servers) != 2 || servers[0].Port != "465" || servers[1].Port != "2525" || !servers[1].Devices {
		t.Errorf("%+v", servers)
	}
	if server, encryption := DeviceServer(c); server != "relay.example.com port 2525" ||
		encryption != encryptions[config.Auto] {
		t.Errorf("%s, %s", server, encryption)
	}
	c.Listeners = c.Listeners[2:]
	if server, _ := DeviceServer(c); server != "relay.example.com port 465" {
		t.Errorf("%s", server)
	}
}
