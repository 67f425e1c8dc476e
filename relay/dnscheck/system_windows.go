package dnscheck

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"
)

// System returns a Resolver that asks the servers of the network adapters that are up.
func System() (*Resolver, error) {
	first, err := adapters()
	if err != nil {
		return nil, fmt.Errorf("find the system's resolver: %w; name one with --resolver", err)
	}
	r := &Resolver{}
	for a := first; a != nil; a = a.Next {
		if a.OperStatus != windows.IfOperStatusUp {
			continue
		}
		for d := a.FirstDnsServerAddress; d != nil; d = d.Next {
			ip, ok := netip.AddrFromSlice(d.Address.IP())
			server := netip.AddrPortFrom(ip.Unmap(), 53)
			if ok && !siteLocal.Contains(ip) && !ip.IsLinkLocalUnicast() && len(r.Servers) < maxServers &&
				!slices.Contains(r.Servers, server) {
				r.Servers = append(r.Servers, server)
			}
		}
	}
	if len(r.Servers) == 0 {
		return nil, errors.New("no network adapter names a resolver; name one with --resolver")
	}
	return r, nil
}

// siteLocal has the addresses that Windows invents where it was told of no server (fec0:0:0:ffff::1 to 3).
var siteLocal = netip.MustParsePrefix("fec0::/10")

// adapters is the list of network adapters.
func adapters() (*windows.IpAdapterAddresses, error) {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST
	for size := uint32(16 << 10); ; {
		b := make([]byte, size)
		list := (*windows.IpAdapterAddresses)(unsafe.Pointer(&b[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, list, &size)
		if err == nil && size == 0 {
			return nil, nil
		}
		if !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) || size <= uint32(len(b)) {
			return list, err
		}
	}
}
