package wire

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

var testPeer = netip.MustParseAddrPort("192.0.2.200:1000")

func v2(t testing.TB, h *proxyproto.Header, tlv int) string {
	if tlv > 0 {
		if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, tlv)}}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func v2Header(client string) *proxyproto.Header {
	return proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)),
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 587})
}

func TestProxyHeader(t *testing.T) {
	local := string(proxyproto.SIGV2) + "\x20\x00\x00\x00"
	for _, c := range []struct {
		in     string
		client string // "": refused
	}{
		{"PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\r\n", "192.0.2.7:40000"},
		{"PROXY TCP6 2001:db8::7 2001:db8::1 40000 587\r\n", "[2001:db8::7]:40000"},
		{"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 40000 587\r\n", "192.0.2.7:40000"},
		{"PROXY UNKNOWN\r\n", testPeer.String()},
		{"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", testPeer.String()},
		{v2(t, v2Header("[2001:db8::7]:40000"), 0), "[2001:db8::7]:40000"},
		{v2(t, v2Header("[2001:db8::7]:40000"), 400), "[2001:db8::7]:40000"},
		{local, testPeer.String()},
		// UNSPEC
		{string(proxyproto.SIGV2) + "\x21\x00\x00\x00", testPeer.String()},
		// LOCAL: its addresses are not to be used
		{string(proxyproto.SIGV2) + "\x20\x11\x00\x0c" + "\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x02\x4b",
			testPeer.String()},
		{v2(t, v2Header("[2001:db8::7]:40000"), 600), ""}, // over the bound
		{"PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\n", ""},
		{"PROXY TCP4 192.0.2.700 198.51.100.1 40000 587\r\n", ""},
		{"PROXY TCP4 192.0.2.7 198.51.100.1 40000 99999\r\n", ""},
		{"PROXY " + strings.Repeat("x", 120), ""},
		{string(proxyproto.SIGV2) + "\x21\x12\x00\x0c" + strings.Repeat("x", 12), ""}, // UDP
		{"EHLO client\r\n", ""},
		{"\x16\x03\x01\x02\x00\x01", ""},
	} {
		for n := range len(c.in) { // no part of it is enough, none is taken for something else
			if _, _, used, err := proxyClient([]byte(c.in[:n]), testPeer); used > 0 || err != nil && c.client != "" {
				t.Errorf("%q: %d octets used, %v", c.in[:n], used, err)
			}
		}
		client, named, used, err := proxyClient([]byte(c.in+"EHLO"), testPeer)
		if c.client == "" {
			if err == nil {
				t.Errorf("%q: accepted as %s", c.in, client)
			}
			continue
		}
		if err != nil || client.String() != c.client || used != len(c.in) || named != (client != testPeer) {
			t.Errorf("%q: %s, named %v, %d, %v", c.in, client, named, used, err)
		}
	}
}

// FuzzProxy: nothing panics, nothing over the bound is taken, and more octets behind a header change
// nothing about it.
func FuzzProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(f, v2Header("192.0.2.7:40000"), 10)))
	f.Add([]byte(v2(f, v2Header("[2001:db8::7]:40000"), 0)))
	f.Add(append(bytes.Clone(proxyproto.SIGV2), "\x20\x00\x00\x00"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		client, named, used, err := proxyClient(b, testPeer)
		if used > maxProxyV2 || used > len(b) || used > 0 && err != nil {
			t.Fatalf("%d of %d octets, %v", used, len(b), err)
		}
		if used == 0 {
			return
		}
		again, known, n, err := proxyClient(append(bytes.Clone(b[:used]), "PROXY"...), testPeer)
		if again != client || known != named || !named && client != testPeer || n != used || err != nil ||
			!client.IsValid() || client.Addr().Is4In6() {
			t.Fatalf("%q: %s %d, again %s %d, %v", b, client, used, again, n, err)
		}
	})
}

// TestProxiedTLS: what comes in one piece with the header is the client's, also where its first octet is
// looked at before the rest.
func TestProxiedTLS(t *testing.T) {
	for _, mode := range []TLSMode{Implicit, Auto} {
		t.Run(string(mode), func(t *testing.T) {
			s := startServer(t, func(o *Options, b *backend) {
				o.TLSMode, o.Proxies = mode, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			})
			c := s.dial(t)
			c.conn = &prefixConn{Conn: c.conn, prefix: []byte(v2(t, v2Header("[2001:db8::7]:40000"), 30))}
			c.handshake()
			c.expect("220 ")
			if got := s.backend.conns[0].Client().String(); got != "[2001:db8::7]:40000" {
				t.Errorf("client %s", got)
			}
		})
	}
}

// prefixConn sends a prefix in one piece with its first write.
type prefixConn struct {
	net.Conn
	prefix []byte
}

func (c *prefixConn) Write(p []byte) (int, error) {
	if c.prefix == nil {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(append(c.prefix, p...))
	c.prefix = nil
	return len(p), err
}

// TestProxiedLimits: connections count for the address that the header names.
func TestProxiedLimits(t *testing.T) {
	s := startServer(t, func(o *Options, b *backend) {
		o.MaxConnectionsPerIP, o.Proxies = 1, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	for i, c := range []struct{ from, want string }{{"192.0.2.1", "220 "}, {"192.0.2.2", "220 "},
		{"192.0.2.1", "421 4.7.0 "}} {
		client := s.dial(t)
		client.send("PROXY TCP4 " + c.from + " 198.51.100.1 40000 587\r\n")
		if client.expect(c.want); i == 2 && s.lastRefusal().Client.Addr().String() != c.from {
			t.Errorf("refusal %+v", s.lastRefusal())
		}
	}
}
