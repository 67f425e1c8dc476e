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
}

// easiest are the ways to use TLS, the one that most devices can be set to first.
var easiest = []string{config.Auto, config.StartTLS, config.Implicit, config.NoTLS}

// Servers returns where clients may log in: what a device is told first comes first.
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
		if _, port, err := net.SplitHostPort(l.Address); err == nil {
			servers = append(servers, Server{Host: c.Hostname, Port: port, TLS: l.TLS})
		}
	}
	slices.SortStableFunc(servers, func(a, b Server) int {
		return slices.Index(easiest, a.TLS) - slices.Index(easiest, b.TLS)
	})
	return servers
}
