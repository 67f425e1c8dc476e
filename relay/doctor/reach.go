package doctor

import (
	"net/netip"
	"slices"

	"postern/auth"
	"postern/relay/config"
	"postern/relay/finding"
)

// unreached names devices that no listener is open to: all are for this machine alone, or none takes the networks that
// a device may log in from.
func (x accountExam) unreached(users []auth.User) (list []finding.Finding) {
	if len(x.c.Listeners) == 0 {
		return nil
	}
	for _, u := range users {
		if len(list) == maxAccounts {
			break
		}
		if !u.Device || onlyHere(u.Networks) || slices.ContainsFunc(x.c.Listeners, func(l config.Listener) bool {
			return !isLocal(&l) && takes(&l, u.Networks)
		}) {
			continue
		}
		if !slices.ContainsFunc(x.c.Listeners, func(l config.Listener) bool { return !isLocal(&l) }) {
			list = append(list, found(codeDeviceUnreached, finding.Fault, said(u.Login),
				"The device "+said(u.Login)+" can reach no listener: all accept connections of this machine alone.",
				"The values on its card are right, and nothing answers it.",
				"Write an address of the network, or none, into address of a [[listener]] of "+
					x.Path+`, such as ":587".`))
			continue
		}
		list = append(list, found(codeDeviceUnreached, finding.Fault, said(u.Login),
			"The device "+said(u.Login)+" can reach no listener: none takes connections from its network.",
			"The values on its card are right, and nothing answers it.",
			"Add its address to networks of a [[listener]] of "+x.Path+", or correct those of the device: postern "+
				"device set "+said(u.Login)+" --network ADDRESS"))
	}
	return list
}

// isLocal reports that only programs of this machine reach a listener.
func isLocal(l *config.Listener) bool {
	host, err := hostOf(l.Address)
	return err == nil && host.IsLoopback()
}

func hostOf(address string) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(address)
	return ap.Addr().Unmap(), err
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
