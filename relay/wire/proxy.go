package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"postern/mail"
)

// Bounds of a PROXY header: the longest line of version 1, and what a receiver of version 2 must accept (PROXY protocol
// §2.1 and §2.2).
const (
	maxProxyV1   = 107
	maxProxyV2   = 536
	proxyTimeout = 5 * time.Second
	v2Proxy      = 0x21 // version 2, command PROXY
	v2Unspec     = 0x00 // address family and protocol
)

var errNoProxy = errors.New("no PROXY header")

// readProxy reads the header that a listed proxy must send, and takes the client's address from it.
func (c *Conn) readProxy() error {
	var buf [maxProxyV2]byte
	c.waitUntil(time.Now().Add(proxyTimeout))
	for n := 0; ; {
		m, err := c.io.sock.Read(buf[n:])
		if n += m; n == 0 && err != nil && !isTimeout(err) {
			return errGone // a health check of the proxy
		}
		client, named, used, perr := proxyClient(buf[:n], c.client)
		switch {
		case err != nil && c.srv.closing.Load():
			return errGone // woken by Shutdown
		case err != nil && c.evicted.Load():
			return c.evictedRefusal()
		case perr != nil:
			return refuse(ReasonProxy, mail.Reply{}, "proxy %s sent no valid PROXY header; is it set to send one?",
				c.client.Addr()).because(perr)
		case used > 0:
			if used < n {
				c.io.sock.unread(buf[used:n])
			}
			c.client, c.unnamed, c.io.deadline = client, !named, time.Time{}
			return nil
		case err != nil:
			return refuse(ReasonProxy, mail.Reply{}, "no complete PROXY header from proxy %s",
				c.client.Addr()).because(err)
		}
	}
}

// proxyClient parses the PROXY header at the beginning of b. It returns the client's address and whether the header
// gave it: for the proxy's own connections (LOCAL) and unknown clients (UNKNOWN, UNSPEC) the address is peer. used is
// the length of the header, 0 if more octets are needed.
func proxyClient(b []byte, peer netip.AddrPort) (client netip.AddrPort, named bool, used int, err error) {
	used, err = proxyLength(b)
	if used == 0 || err != nil {
		return netip.AddrPort{}, false, 0, err
	}
	if v2 := proxyproto.SIGV2; bytes.HasPrefix(b, v2) && b[len(v2)] == v2Proxy && b[len(v2)+1] == v2Unspec {
		return peer, false, used, nil // the library refuses it, but receivers must accept it (§2.2)
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b[:used]), used))
	if err != nil {
		return netip.AddrPort{}, false, 0, err
	}
	if h.Command.IsLocal() {
		return peer, false, used, nil
	}
	tcp, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false, 0, errors.New("PROXY header without a TCP address")
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true, used, nil
}

// proxyLength returns the length of the PROXY header that b begins with, 0 if more octets are needed.
func proxyLength(b []byte) (int, error) {
	v1, v2 := proxyproto.SIGV1, proxyproto.SIGV2
	switch {
	case bytes.HasPrefix(b, v1):
		if i := bytes.IndexByte(b[:min(len(b), maxProxyV1)], '\n'); i >= 0 {
			return i + 1, nil
		}
		if len(b) >= maxProxyV1 {
			return 0, proxyproto.ErrVersion1HeaderTooLong
		}
		return 0, nil
	case bytes.HasPrefix(b, v2):
		if len(b) < 16 {
			return 0, nil
		}
		n := 16 + int(binary.BigEndian.Uint16(b[14:]))
		if n > maxProxyV2 {
			return 0, proxyproto.ErrInvalidLength
		}
		if len(b) < n {
			return 0, nil
		}
		return n, nil
	case bytes.HasPrefix(v1, b), bytes.HasPrefix(v2, b):
		return 0, nil
	}
	return 0, errNoProxy
}
