package forwarded

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8:1::/48"),
	netip.MustParsePrefix("127.0.0.0/8")}

// forwardedCases are what stands in X-Forwarded-For, and whom it makes of the proxy at 10.0.0.1.
var forwardedCases = []struct {
	what, peer string
	fields     []string
	want       string
}{
	{"none", "10.0.0.1", nil, "10.0.0.1"},
	{"empty", "10.0.0.1", []string{""}, "10.0.0.1"},
	{"a client", "10.0.0.1", []string{"192.0.2.7"}, "192.0.2.7"},
	{"from a stranger", "192.0.2.9", []string{"198.51.100.1"}, "192.0.2.9"},
	{"forged on the left", "10.0.0.1", []string{"127.0.0.1, 198.51.100.1, 192.0.2.7"}, "192.0.2.7"},
	{"two proxies", "10.0.0.1", []string{"192.0.2.7, 10.0.0.2"}, "192.0.2.7"},
	{"two fields", "10.0.0.1", []string{"203.0.113.5", "192.0.2.7,10.0.0.2"}, "192.0.2.7"},
	{"only proxies", "10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.1"},
	{"malformed on the right", "10.0.0.1", []string{"192.0.2.7, unknown"}, "10.0.0.1"},
	{"malformed further left", "10.0.0.1", []string{"<script>, 192.0.2.7"}, "192.0.2.7"},
	{"an empty element", "10.0.0.1", []string{"192.0.2.7,"}, "10.0.0.1"},
	{"a network", "10.0.0.1", []string{"192.0.2.0/24"}, "10.0.0.1"},
	{"a zone", "10.0.0.1", []string{"fe80::1%eth0"}, "10.0.0.1"},
	{"any address", "10.0.0.1", []string{"0.0.0.0"}, "10.0.0.1"},
	{"leading zeros", "10.0.0.1", []string{"192.000.002.007"}, "10.0.0.1"},
	{"with a port", "10.0.0.1", []string{"192.0.2.7:50123"}, "192.0.2.7"},
	{"IPv6", "2001:db8:1::1", []string{"2001:db8:2::7"}, "2001:db8:2::7"},
	{"IPv6 with a port", "10.0.0.1", []string{"[2001:db8:2::7]:50123"}, "2001:db8:2::7"},
	{"IPv4 in IPv6", "10.0.0.1", []string{"::ffff:192.0.2.7, ::ffff:10.0.0.2"}, "192.0.2.7"},
	{"quoted", "10.0.0.1", []string{`"192.0.2.7"`}, "10.0.0.1"},
	{"line ends", "10.0.0.1", []string{"192.0.2.7\r\nX: y"}, "10.0.0.1"},
	{"very long", "10.0.0.1", []string{strings.Repeat("192.0.2.7, ", 1000) + "192.0.2.7"}, "10.0.0.1"},
	{"other blanks", "10.0.0.1", []string{"\u00a0192.0.2.7"}, "10.0.0.1"},
}

func TestLocate(t *testing.T) {
	for _, c := range forwardedCases {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(c.peer), 4711).String()
		q.Header["X-Forwarded-For"] = c.fields
		q.Header.Set("Forwarded", "for=203.0.113.99")
		q.Header.Set("X-Real-Ip", "203.0.113.98")
		got := netip.MustParseAddrPort(Locate(q, proxies).RemoteAddr).Addr().String()
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// FuzzBehind: whatever stands in the field, the answer is an address that is the proxy's or none of a proxy.
func FuzzBehind(f *testing.F) {
	for _, c := range forwardedCases {
		f.Add(strings.Join(c.fields, ","))
	}
	proxy := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, text string) {
		got := behind(proxies, proxy, []string{text})
		if !got.IsValid() || got.Zone() != "" || got != proxy && isTrusted(proxies, got) {
			t.Errorf("%q gives %v", text, got)
		}
	})
}
