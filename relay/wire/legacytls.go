package wire

import (
	"crypto/tls"
	"slices"
	"strings"
)

// LegacyTLS is ServerTLS for the old devices of a listener with Options.Appliance: RSA key exchange, CBC and 3DES
// beside what is current, from minVersion, which may be TLS 1.0. Clients that know better still get TLS 1.3.
//
// Everything is written out and nothing left to GODEBUG, whose switches for old TLS (tls10server, tlsrsakex, tls3des,
// tlssha1) Go 1.27 drops. With Go 1.26 that takes: MinVersion itself, which tls10server governs only where it is zero;
// CipherSuites, since Go's defaults have neither RSA key exchange nor 3DES; and for clients of TLS 1.2 that sign with
// SHA-1 alone, or do not say how, suites without ECDHE: Go would choose ECDHE and then refuse the signature, though RSA
// key exchange, which those clients have too, needs none. Go has no DHE, no RC4 here, and no SSL 3.0: see
// docs/devices.md for what such devices need. crypto/tls answers a wrong RSA padding as a right one
// (Bleichenbacher, ROBOT).
func LegacyTLS(getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), minVersion uint16) *tls.Config {
	c := ServerTLS(getCertificate, minVersion)
	c.CipherSuites = legacySuites()
	unsigned := c.Clone()
	unsigned.MaxVersion = tls.VersionTLS12
	unsigned.DynamicRecordSizingDisabled = true // as listenerTLS does
	unsigned.CipherSuites = slices.DeleteFunc(legacySuites(), func(id uint16) bool {
		return strings.Contains(tls.CipherSuiteName(id), "_ECDHE_")
	})
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if wantsSHA1(h) {
			return unsigned, nil
		}
		return nil, nil
	}
	return c
}

// legacySuites are all suites up to TLS 1.2 but those of RC4.
func legacySuites() (ids []uint16) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !strings.Contains(s.Name, "RC4") && !isTLS13(s.ID) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// wantsSHA1 reports whether a client of TLS 1.2 offers SHA-1 signatures alone, or says nothing of signatures, which
// means the same (RFC 5246 §7.4.1.4.1). Older versions have no choice of signatures.
func wantsSHA1(h *tls.ClientHelloInfo) bool {
	newest := slices.Max(append(known(h.SupportedVersions), 0))
	return newest == tls.VersionTLS12 && !slices.ContainsFunc(h.SignatureSchemes, func(s tls.SignatureScheme) bool {
		return !strings.Contains(s.String(), "SHA1") && strings.ContainsAny(s.String(), "PE") // a name, not a number
	})
}

// What a person has to set for a device that cannot be updated.
const (
	setLegacy = `give such devices a [[listener]] of their own with profile = "appliance" and networks = their range`
	setOldest = setLegacy + `, and min_version = "1.0"`
	setNoTLS  = `no listener takes that: update the device, or give it a [[listener]] with tls = "none" and ` +
		`networks = its address`
)

// isLegacy reports whether the listener has the suites of old devices.
func (h handshakeFault) isLegacy() bool { return h.config.CipherSuites != nil }

// versionFault explains a client whose newest version is older than the listener's oldest.
func (h handshakeFault) versionFault(newest uint16) string {
	what := "the client offers only " + h.offer() + "; this listener wants " +
		tls.VersionName(h.minVersion()) + " or newer: "
	switch {
	case newest < tls.VersionTLS10:
		return what + setNoTLS
	case h.isLegacy():
		return what + `set its min_version to "` + strings.TrimPrefix(tls.VersionName(newest), "TLS ") + `"`
	case newest < tls.VersionTLS12:
		return what + setOldest
	}
	return what + "see its min_version"
}

// suiteFault explains a client that has no cipher suite of ours.
func (h handshakeFault) suiteFault() string {
	what := "no cipher suite in common: the client offers " + h.offer() + "; this listener wants " +
		h.wanted() + ": "
	if !h.isLegacy() && slices.ContainsFunc(h.hello.CipherSuites, func(id uint16) bool {
		return slices.Contains(legacySuites(), id)
	}) {
		return what + setLegacy
	}
	return what + setNoTLS
}

// offer is what the client has.
func (h handshakeFault) offer() string {
	return versionNames(h.hello.SupportedVersions) + " with " + suiteNames(h.hello.CipherSuites)
}

// wanted says which key exchanges the listener takes.
func (h handshakeFault) wanted() string {
	if h.isLegacy() {
		return "ECDHE or RSA key exchange with AES or 3DES"
	}
	return "ECDHE key exchange with AES or ChaCha20"
}

// isSSL2 reports a ClientHello in the form of SSL 2.0, which OpenSSL before 1.0 and old embedded libraries send.
func isSSL2(record [5]byte) bool { return record[0]&0x80 != 0 && record[2] == 1 }

const ssl2Hello = "the client began with an SSL 2.0 ClientHello, which nothing current reads: " +
	"switch SSL 2.0 (and 3.0) off in it so that it begins with TLS, " +
	`or give it a [[listener]] with tls = "none" and networks = its address`
