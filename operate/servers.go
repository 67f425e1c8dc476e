package operate

import (
	"context"
	"net"
	"slices"

	"postern/relay/config"
)

// Server is where a client logs in, as it is typed into a program or a device.
type Server struct {
	Host string `json:"host"`
	Port string `json:"port"`
	TLS  string `json:"tls"` // config.Auto, StartTLS, Implicit or NoTLS
	// Devices says that it is for old devices: its TLS is weaker, and only their networks reach it.
	Devices bool `json:"devices,omitempty"`
	Local   bool `json:"local,omitempty"` // only programs of this machine reach it
}

// easiest are the ways to use TLS, the one that most devices can be set to first.
var easiest = []string{config.Auto, config.StartTLS, config.Implicit, config.NoTLS}

// Servers returns where clients may log in, the easiest first, and last what is for old devices.
func (a Accounts) Servers(_ context.Context, by Actor) ([]Server, error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	return serversOf(a.Config()), nil
}

// serversOf are the listeners, the easiest first. Those that only this machine reaches are left out, unless there
// are no others.
func serversOf(c *config.Config) []Server {
	servers := []Server{}
	for _, l := range c.Reachable() {
		_, port, err := net.SplitHostPort(l.Address)
		server := Server{Host: c.Hostname, Port: port, TLS: l.TLS, Devices: l.IsAppliance(), Local: l.IsLocal()}
		if err == nil && !(server.Devices && l.Auth == config.AuthNetwork) { // nobody logs in there
			servers = append(servers, server)
		}
	}
	slices.SortStableFunc(servers, func(a, b Server) int {
		if a.Devices != b.Devices {
			return map[bool]int{true: 1, false: -1}[a.Devices]
		}
		return slices.Index(easiest, a.TLS) - slices.Index(easiest, b.TLS)
	})
	return servers
}
