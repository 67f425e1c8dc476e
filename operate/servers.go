package operate

import (
	"context"
	"net"
	"slices"
	"strings"

	"postern/relay/config"
)

// Server is where a client logs in, as it is typed into a program or a device.
type Server struct {
	Host string `json:"host"`
	Port string `json:"port"`
	TLS  string `json:"tls"` // config.Auto, StartTLS, Implicit or NoTLS

	Local bool `json:"local,omitempty"` // only programs of this machine reach it
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
	servers, here := []Server{}, []Server{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		host, port, err := net.SplitHostPort(l.Address)
		switch server := (Server{Host: c.Hostname, Port: port, TLS: l.TLS}); {
		case err != nil:
		case isLoopback(host):
			server.Local = true
			here = append(here, server)
		default:
			servers = append(servers, server)
		}
	}
	if len(servers) == 0 {
		servers = here
	}
	slices.SortStableFunc(servers, func(a, b Server) int {
		return slices.Index(easiest, a.TLS) - slices.Index(easiest, b.TLS)
	})
	return servers
}

// isLoopback reports that only this machine reaches a host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}
