package mail

import (
	"strings"

	"golang.org/x/net/idna"
)

// Bounds of DNS (RFC 1035 §2.3.4), in octets.
const maxLabel = 63

// ALabels returns a domain, in lower case as ParseDomain leaves it, with every label that is not ASCII as an A-label,
// "xn--" and punycode (RFC 5890 §2.3.2.1). It does not normalise to NFC, nor map as UTS 46 does: a domain typed in
// another form is a different one for everybody.
func ALabels(domain string) string {
	if IsASCII(domain) {
		return domain
	}
	labels := strings.Split(domain, ".")
	for i, l := range labels {
		if !IsASCII(l) {
			labels[i], _ = idna.Punycode.ToASCII(l) // ParseDomain has checked it
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
