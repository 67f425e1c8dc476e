// Package local tells this machine from others: what may cross no network unencrypted goes to it alone.
//
// Failure semantics: a name that is not sure to mean this machine is another's. No name is looked up.
package local

import (
	"net/netip"
	"strings"
)

// Host reports whether a host name or address, without port and brackets, is this machine: localhost, 127.0.0.0/8, ::1.
func Host(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}
