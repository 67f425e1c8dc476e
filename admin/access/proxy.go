package access

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// forwardedFor is the field in which proxies say for whom they ask. Others than trusted ones are not believed, nor is
// RFC 7239's Forwarded, which a proxy that knows only this one passes on as its client wrote it.
const forwardedFor = "X-Forwarded-For"

// maxForwarded bounds how much of the field is read, in octets: more is malformed.
const maxForwarded = 2048

// Locate is Locate for the proxies that the console trusts.
func (a *Access) Locate(next http.Handler) http.Handler {
	return Locate(func() []netip.Prefix { return a.inUse.Load().proxies }, next)
}

// Locate puts the address of the client into RemoteAddr where a trusted proxy asks for it: it belongs before everything
// that counts, judges or records addresses.
func Locate(proxies func() []netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if trusted := proxies(); len(trusted) > 0 {
			if peer := AddrOf(r); isTrusted(trusted, peer) {
				client := behind(trusted, peer, r.Header.Values(forwardedFor))
				located := *r // RemoteAddr alone differs
				located.RemoteAddr = netip.AddrPortFrom(client, 0).String()
				r = &located
			}
		}
		next.ServeHTTP(w, r)
	})
}

// behind is the address that a trusted proxy asks for: the rightmost one of the field that is no trusted proxy's, since
// each proxy adds the address that it sees and whatever stands further left may be the client's own words. If there is
// none, or one on the way to it is malformed, it is the proxy's own.
func behind(trusted []netip.Prefix, proxy netip.Addr, fields []string) netip.Addr {
	text := strings.Join(fields, ",") // in order (RFC 9110 §5.3)
	if len(text) > maxForwarded {
		return proxy
	}
	for _, element := range slices.Backward(strings.Split(text, ",")) {
		addr, ok := forwarded(strings.Trim(element, " \t"))
		if !ok {
			return proxy
		}
		if !isTrusted(trusted, addr) {
			return addr
		}
	}
	return proxy
}

// forwarded reads an address as proxies write it; some add a port.
func forwarded(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		withPort, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	addr = addr.Unmap()
	return addr, addr.Zone() == "" && !addr.IsUnspecified() && !addr.IsMulticast()
}

func isTrusted(trusted []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}
