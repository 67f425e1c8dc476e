package check

import (
	"net/netip"
	"slices"

	"postern/auth"
	"postern/relay/config"
)

// AllLocal reports that no other machine reaches any listener.
func AllLocal(c *config.Config) bool {
	return !slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return !l.IsLocal() })
}

// Unreached reports that a device can connect to no listener: all are for this machine alone, or none takes the
// networks that it may log in from.
func Unreached(c *config.Config, u auth.User) bool {
	return u.Device && len(c.Listeners) > 0 && !onlyHere(u.Networks) &&
		!slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return !l.IsLocal() && takes(&l, u.Networks) })
}

// takes reports that a listener admits some of the networks; a listener or an account without any has all.
func takes(l *config.Listener, networks []netip.Prefix) bool {
	return len(l.Networks) == 0 || len(networks) == 0 || slices.ContainsFunc(networks, func(n netip.Prefix) bool {
		return slices.ContainsFunc(l.Networks, func(own config.Network) bool { return own.Overlaps(n) })
	})
}

// onlyHere reports that an account is for programs of this machine.
func onlyHere(networks []netip.Prefix) bool {
	return len(networks) > 0 && !slices.ContainsFunc(networks, func(n netip.Prefix) bool {
		return !n.Addr().IsLoopback()
	})
}
