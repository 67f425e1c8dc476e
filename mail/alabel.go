package mail

import (
	"strings"
	"unicode/utf8"
)

// Bounds of DNS (RFC 1035 §2.3.4), in octets.
const maxLabel = 63

// ALabels returns a domain, in lower case as ParseDomain leaves it, with every label that is not ASCII as an A-label,
// "xn--" and punycode (RFC 5890 §2.3.2.1). It does not normalise to NFC: a domain typed in another form is a
// different one for everybody.
func ALabels(domain string) string {
	if IsASCII(domain) {
		return domain
	}
	labels := strings.Split(domain, ".")
	for i, l := range labels {
		if !IsASCII(l) {
			labels[i] = "xn--" + punycode(l)
		}
	}
	return strings.Join(labels, ".")
}

// ASCII returns the address with its domain in A-labels, as every server takes it. false: it needs SMTPUTF8 (RFC
// 6531), since the local part has no such form, or the domain becomes longer than one may be.
func (a Address) ASCII() (Address, bool) {
	if !IsASCII(a.Local) {
		return a, false
	}
	if IsASCII(a.Domain) {
		return a, true
	}
	domain := ALabels(a.Domain)
	if len(domain) > maxDomain {
		return a, false
	}
	for l := range strings.SplitSeq(domain, ".") {
		if len(l) > maxLabel {
			return a, false
		}
	}
	return Address{Local: a.Local, Domain: domain}, true
}

// Parameters of punycode (RFC 3492 §5).
const (
	pBase, pTMin, pTMax, pSkew, pDamp = 36, 1, 26, 38, 700
	pBias, pInitial                   = 72, 128
)

// punycode encodes a label (RFC 3492 §6.3). Labels are at most 255 octets, so nothing overflows.
func punycode(label string) string {
	var out []byte
	for _, r := range label {
		if r < utf8.RuneSelf {
			out = append(out, byte(r))
		}
	}
	basic, total := len(out), utf8.RuneCountInString(label)
	if basic > 0 {
		out = append(out, '-')
	}
	n, delta, bias := rune(pInitial), 0, pBias
	for done := basic; done < total; n++ {
		next := rune(utf8.MaxRune)
		for _, r := range label {
			if r >= n && r < next {
				next = r
			}
		}
		delta += int(next-n) * (done + 1)
		n = next
		for _, r := range label {
			if r < n {
				delta++
			}
			if r == n {
				out = appendDelta(out, delta, bias)
				bias = adapt(delta, done+1, done == basic)
				delta = 0
				done++
			}
		}
		delta++
	}
	return string(out)
}

// appendDelta writes a generalised variable-length integer.
func appendDelta(out []byte, delta, bias int) []byte {
	for k := pBase; ; k += pBase {
		t := min(max(k-bias, pTMin), pTMax)
		if delta < t {
			return append(out, digit(delta))
		}
		out = append(out, digit(t+(delta-t)%(pBase-t)))
		delta = (delta - t) / (pBase - t)
	}
}

func digit(d int) byte { return "abcdefghijklmnopqrstuvwxyz0123456789"[d] }

func adapt(delta, points int, first bool) int {
	if first {
		delta /= pDamp
	} else {
		delta /= 2
	}
	delta += delta / points
	k := 0
	for ; delta > (pBase-pTMin)*pTMax/2; k += pBase {
		delta /= pBase - pTMin
	}
	return k + (pBase-pTMin+1)*delta/(delta+pSkew)
}
