package config

import (
	"crypto/tls"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time such as "5s", "1m30s", "2d" or "1w", never negative. A day is 24 hours.
type Duration time.Duration

// maxDuration keeps sums with the current time from overflowing.
const maxDuration = 100 * 365 * 24 * time.Hour

// ParseDuration reads a Duration. Whole weeks and days stand before what time.ParseDuration reads.
func ParseDuration(s string) (Duration, error) {
	rest, total := s, time.Duration(0)
	for _, unit := range []struct {
		suffix byte
		length time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}} {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) || rest[digits] != unit.suffix {
			continue
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || n > int64(maxDuration/unit.length) {
			return 0, fmt.Errorf("%q is too long, write at most 100 years", s)
		}
		total += time.Duration(n) * unit.length
		rest = rest[digits+1:]
	}
	if rest != "" || s == "" {
		d, err := time.ParseDuration(rest)
		if err != nil || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
			return 0, fmt.Errorf(`%q is not a duration, write a number with a unit, such as "30s", "5m", "4h", "2d" `+
				`or "1w"`, s)
		}
		if total > maxDuration || d > maxDuration-total {
			return 0, fmt.Errorf("%q is too long, write at most 100 years", s)
		}
		total += d
	}
	if total > maxDuration {
		return 0, fmt.Errorf("%q is too long, write at most 100 years", s)
	}
	return Duration(total), nil
}

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// Std returns the duration for package time.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the shortest spelling that ParseDuration reads back: "2d", "1h30m".
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	const day = Duration(24 * time.Hour)
	var b strings.Builder
	if days := d / day; days > 0 {
		fmt.Fprintf(&b, "%dd", int64(days))
		d %= day
	}
	if d == 0 {
		return b.String()
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return b.String() + s
}

// Size is a number of octets such as "35MB". KB, MB, GB and TB are powers of 1000, as disks and
// providers count; KiB, MiB, GiB and TiB are powers of 1024. A number alone counts octets.
type Size int64

var sizeUnits = []struct {
	suffix string
	octets int64
}{ // longest suffix first
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a Size. Fractions such as "1.5GB" are allowed where they make whole octets.
func ParseSize(s string) (Size, error) {
	number, unit := s, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			number, unit = n, u.octets
			break
		}
	}
	n, ok := parseScaled(number, unit)
	if !ok {
		return 0, fmt.Errorf(`%q is not a size, write a number with a unit, such as "500KB", "35MB" or "2GiB"`, s)
	}
	return Size(n), nil
}

// parseScaled returns number*unit for an unsigned decimal number that makes a whole.
func parseScaled(number string, unit int64) (int64, bool) {
	whole, fraction, point := strings.Cut(number, ".")
	if !allDigits(whole) || point && !allDigits(fraction) || len(number) > 40 {
		return 0, false
	}
	n, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, false
	}
	n.Mul(n, new(big.Rat).SetInt64(unit))
	return n.Num().Int64(), n.IsInt() && n.Num().IsInt64()
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// UnmarshalText reads what ParseSize reads.
func (z *Size) UnmarshalText(text []byte) (err error) {
	*z, err = ParseSize(string(text))
	return err
}

// String returns the size in the largest unit that keeps it whole: "35MB", "1MiB", "1023B".
func (z Size) String() string {
	best, unit := int64(z), "B"
	for _, u := range sizeUnits {
		if z != 0 && int64(z)%u.octets == 0 && int64(z)/u.octets < best {
			best, unit = int64(z)/u.octets, u.suffix
		}
	}
	return strconv.FormatInt(best, 10) + unit
}

// Rate is a number of octets a second such as "1KB/s", with the units of Size.
type Rate int64

// ParseRate reads a Rate.
func ParseRate(s string) (Rate, error) {
	size, ok := strings.CutSuffix(s, "/s")
	n, err := ParseSize(size)
	if !ok || err != nil {
		return 0, fmt.Errorf(`%q is not a rate, write a size for each second, such as "1KB/s"`, s)
	}
	return Rate(n), nil
}

// UnmarshalText reads what ParseRate reads.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}

// String returns the rate as ParseRate reads it.
func (r Rate) String() string { return Size(r).String() + "/s" }

// Network is a range of addresses in CIDR notation. A plain address is the range of itself; an
// IPv4-mapped IPv6 range is the IPv4 range that it means.
type Network struct{ netip.Prefix }

// ParseNetwork reads a Network and refuses one whose address lies inside the range: it is a slip.
func ParseNetwork(s string) (Network, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return Network{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return Network{}, fmt.Errorf(`%q is not an address range, write one such as "192.0.2.0/24", "2001:db8::/32" `+
			`or "192.0.2.7"`, s)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return Network{}, fmt.Errorf("%q mixes IPv4 and IPv6, write the IPv4 range", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return Network{}, fmt.Errorf("%q has an address inside its own range, write %q or the plain address", s,
			p.Masked())
	}
	return Network{p}, nil
}

// UnmarshalText reads what ParseNetwork reads.
func (n *Network) UnmarshalText(text []byte) (err error) {
	*n, err = ParseNetwork(string(text))
	return err
}

// Networks is a list of ranges.
type Networks []Network

// Contains reports whether addr lies in one of the ranges.
func (ns Networks) Contains(addr netip.Addr) bool {
	return slices.ContainsFunc(ns, func(n Network) bool { return n.Prefix.Contains(addr) })
}

// Prefixes returns the ranges for the packages that do not know this one.
func (ns Networks) Prefixes() []netip.Prefix {
	prefixes := make([]netip.Prefix, len(ns))
	for i, n := range ns {
		prefixes[i] = n.Prefix
	}
	return prefixes
}

// TLSVersion is a protocol version as crypto/tls numbers it, written "1.2" or "1.3". Zero: not set. "1.0" and "1.1",
// which RFC 8996 and RFC 8314 §4.1 have retired, are for listeners with profile Appliance.
type TLSVersion uint16

// UnmarshalText reads a version.
func (v *TLSVersion) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "1.2":
		*v = tls.VersionTLS12
	case "1.3":
		*v = tls.VersionTLS13
	case "1.1":
		*v = tls.VersionTLS11
	case "1.0":
		*v = tls.VersionTLS10
	default:
		return fmt.Errorf(`%q is not a TLS version, write "1.2" or "1.3"`, s)
	}
	return nil
}

// String returns such as "1.2", "" when not set.
func (v TLSVersion) String() string {
	switch v {
	case tls.VersionTLS10:
		return "1.0"
	case tls.VersionTLS11:
		return "1.1"
	case tls.VersionTLS12:
		return "1.2"
	case tls.VersionTLS13:
		return "1.3"
	}
	return ""
}
