package relay

import (
	"net"
	"slices"
)

// inherited are sockets that listened before this process was: those that the daemon before it has left with systemd,
// or those of a socket unit. Clients that came meanwhile wait in them.
type inherited []net.Listener

// take returns the socket of an address, nil if there is none, and leaves the others.
func (in *inherited) take(address string) net.Listener {
	at := slices.IndexFunc(*in, func(l net.Listener) bool { return listensAt(l, address) })
	if at < 0 {
		return nil
	}
	l := (*in)[at]
	*in = slices.Delete(*in, at, at+1)
	return l
}

// end closes what nobody took.
func (in *inherited) end() {
	for _, l := range *in {
		l.Close()
	}
	*in = nil
}

// listensAt reports whether a socket is what net.Listen opens for an address.
func listensAt(l net.Listener, address string) bool {
	have, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return false
	}
	want, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || want.Port != have.Port || want.Port == 0 {
		return false
	}
	if len(want.IP) == 0 { // ":587" is for both families where there are both
		return have.IP.IsUnspecified()
	}
	return want.IP.Equal(have.IP)
}
