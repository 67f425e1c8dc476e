package operate

import (
	"fmt"
	"slices"

	"postern/relay/config"
)

// DeviceCard is what is to be typed into a device.
type DeviceCard struct {
	Credential
	Server     string `json:"server"` // "host port N"
	Encryption string `json:"encryption"`
}

// encryptions are the uses of TLS of a listener, as a device names them.
var encryptions = map[string]string{config.Auto: "TLS or STARTTLS, whichever the device has",
	config.StartTLS: "STARTTLS", config.Implicit: "TLS (also called SSL)", config.NoTLS: "none"}

// DeviceServer is where a device logs in: the server for old devices if there is one, else the first of Servers.
func DeviceServer(c *config.Config) (server, encryption string) {
	servers := serversOf(c)
	if len(servers) == 0 {
		return c.Hostname, encryptions[config.StartTLS]
	}
	s := servers[max(0, slices.IndexFunc(servers, func(s Server) bool { return s.Devices }))]
	return fmt.Sprintf("%s port %s", s.Host, s.Port), encryptions[s.TLS]
}
