package check

import (
	"net"

	"golang.org/x/sys/windows"
)

// WhyForbidden says why a port may be forbidden, and what shows it.
const WhyForbidden = "another program has the port for itself, or Windows keeps it back: " +
	"netsh int ipv4 show excludedportrange tcp"

// tryBind binds an address and lets go of it without listening: it finds who listens there, and stands in nobody's way
// who is about to. Without SO_EXCLUSIVEADDRUSE Windows would let us bind what another has.
func tryBind(address string) error {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	family, to := windows.AF_INET6, windows.Sockaddr(&windows.SockaddrInet6{Port: a.Port})
	if ip := a.IP.To4(); ip != nil {
		family, to = windows.AF_INET, &windows.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
	} else if a.IP != nil {
		to = &windows.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP)}
	}
	s, err := windows.Socket(family, windows.SOCK_STREAM, windows.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer windows.Closesocket(s)
	if a.IP == nil { // all interfaces, of both families
		_ = windows.SetsockoptInt(s, windows.IPPROTO_IPV6, windows.IPV6_V6ONLY, 0)
	}
	const exclusive = ^4 // SO_EXCLUSIVEADDRUSE
	if err := windows.SetsockoptInt(s, windows.SOL_SOCKET, exclusive, 1); err != nil {
		return err
	}
	return windows.Bind(s, to)
}
