//go:build unix

package check

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// WhyForbidden says why a port may be forbidden, and what allows it.
const WhyForbidden = "ports below 1024 need root, a service with AmbientCapabilities=CAP_NET_BIND_SERVICE as in " +
	"deploy/postern.service, or in a container the sysctl net.ipv4.ip_unprivileged_port_start=0"

// tryBind binds an address and lets go of it without listening: it finds who listens there, and stands in nobody's way
// who is about to.
func tryBind(address string) error {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: a.Port,
		Addr: [16]byte(a.AddrPort().Addr().As16())})
	if ip := a.IP.To4(); ip != nil {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
	}
	if a.IP == nil { // all interfaces, of both families where there are two
		to = &unix.SockaddrInet6{Port: a.Port}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && a.IP == nil {
		to = &unix.SockaddrInet4{Port: a.Port}
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 && a.IP == nil {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	return unix.Bind(fd, to)
}
