package via

import (
	"io"
	"net"
	"net/netip"
	"strconv"
)

// Octets of SOCKS5 (RFC 1928).
const (
	socksVersion = 5
	noLogin      = 0
	userPassword = 2
	noMethod     = 0xff
	cmdConnect   = 1
	addrIPv4     = 1
	addrName     = 3
	addrIPv6     = 4
)

// socks makes the tunnel by SOCKS5.
func (p *Proxy) socks(nc net.Conn, address string) error {
	request, err := socksRequest(address)
	if err != nil {
		return err
	}
	if err := p.socksLogin(nc, address); err != nil {
		return err
	}
	if _, err := nc.Write(request); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(nc, b); err != nil {
		return err
	}
	if b[0] != socksVersion {
		return errNoSOCKS
	}
	if b[1] != 0 {
		return p.socksRefused(address, b[1])
	}
	return skipBound(nc, b[3])
}

// socksLogin agrees on how we show who we are (RFC 1929).
func (p *Proxy) socksLogin(nc net.Conn, address string) error {
	hello := []byte{socksVersion, 1, noLogin}
	if p.login {
		hello = []byte{socksVersion, 2, noLogin, userPassword}
	}
	if _, err := nc.Write(hello); err != nil {
		return err
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(nc, b); err != nil {
		return err
	}
	switch {
	case b[0] != socksVersion:
		return errNoSOCKS
	case b[1] == noLogin:
		return nil
	case b[1] == noMethod:
		e := p.fail(address, nil, "wants another login than user and password")
		if !p.login {
			e = p.fail(address, nil, "wants a login; write user and password into its address, as in "+
				"socks5://user:password@host:port")
		}
		e.Login = true
		return e
	case b[1] != userPassword || !p.login:
		return errNoSOCKS
	}
	line := append([]byte{1, byte(len(p.user))}, p.user...)
	line = append(append(line, byte(len(p.password))), p.password...)
	if _, err := nc.Write(line); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, b); err != nil {
		return err
	}
	if b[1] != 0 {
		e := p.fail(address, nil, "refuses the user name or password in its address")
		e.Login = true
		return e
	}
	return nil
}

func socksRequest(address string) ([]byte, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	b := []byte{socksVersion, cmdConnect, 0}
	switch addr, err := netip.ParseAddr(host); {
	case err == nil && addr.Unmap().Is4():
		ip := addr.Unmap().As4()
		b = append(append(b, addrIPv4), ip[:]...)
	case err == nil:
		ip := addr.As16()
		b = append(append(b, addrIPv6), ip[:]...)
	case len(host) > 255:
		return nil, errLongName
	default:
		b = append(append(b, addrName, byte(len(host))), host...)
	}
	return append(b, byte(n>>8), byte(n)), nil
}

// skipBound reads the address that the proxy connects from, which is of no use.
func skipBound(nc net.Conn, kind byte) error {
	n := 0
	switch kind {
	case addrIPv4:
		n = 4
	case addrIPv6:
		n = 16
	case addrName:
		b := make([]byte, 1)
		if _, err := io.ReadFull(nc, b); err != nil {
			return err
		}
		n = int(b[0])
	default:
		return errNoSOCKS
	}
	_, err := io.ReadFull(nc, make([]byte, n+2))
	return err
}

// socksReplies are RFC 1928 §6.
var socksReplies = map[byte]string{
	1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
	5: "connection refused", 6: "TTL expired", 7: "command not supported", 8: "address type not supported",
}

func (p *Proxy) socksRefused(address string, code byte) *Error {
	said, ok := socksReplies[code]
	if !ok {
		said = "reply " + strconv.Itoa(int(code))
	}
	if code == 2 {
		return p.fail(address, nil, "does not let us connect to "+address+": its rules must allow this host and port")
	}
	return p.fail(address, nil, "does not connect us to "+address+" ("+said+")")
}
