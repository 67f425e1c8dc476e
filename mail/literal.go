package mail

import (
	"net/netip"
	"strings"
)

// parseLiteral parses an address literal, [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 §4.1.3), and returns it in
// canonical form. It refuses other tags: none is registered.
func parseLiteral(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", ErrAddressSyntax
	}
	if tag, six, found := strings.Cut(inner, ":"); found && strings.EqualFold(tag, "IPv6") {
		ip, err := netip.ParseAddr(six)
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", ErrAddressSyntax
		}
		return "[IPv6:" + ip.String() + "]", nil
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || !ip.Is4() {
		return "", ErrAddressSyntax
	}
	return "[" + ip.String() + "]", nil
}
