package operate

import (
	"fmt"
	"net"

	"postern/relay/config"
)

// DeviceCard is what is to be typed into a device.
type DeviceCard struct {
	Credential
	Server     string `json:"server"` // "host port N"
	Encryption string `json:"encryption"`
}

// DeviceServer chooses the listener that a device finds easiest: one that takes TLS first or STARTTLS,
// then STARTTLS, then implicit TLS.
func DeviceServer(c *config.Config) (server, encryption string) {
	words := map[string]string{"auto": "TLS or STARTTLS, whichever the device has", "starttls": "STARTTLS",
		"implicit": "TLS (also called SSL)", "none": "none"}
	for _, mode := range []string{"auto", "starttls", "implicit", "none"} {
		for _, l := range c.Listeners {
			if l.TLS != mode {
				continue
			}
			_, port, _ := net.SplitHostPort(l.Address)
			return fmt.Sprintf("%s port %s", c.Hostname, port), words[mode]
		}
	}
	return c.Hostname, words["starttls"]
}
