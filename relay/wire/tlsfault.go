package wire

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"

	"postern/internal/errno"
)

// handshakeFault explains a failed handshake.
type handshakeFault struct {
	config *tls.Config          // of the listener
	hello  *tls.ClientHelloInfo // nil if none came
}

// detail says why the handshake failed and what to do about it. said is an alert that came unencrypted.
func (h handshakeFault) detail(err error, said alert) string {
	record, noTLS := errors.AsType[tls.RecordHeaderError](err)
	if !said.seen {
		said = alertOf(err)
	}
	gone := errors.Is(err, io.EOF) || errors.Is(err, errno.Reset)
	switch {
	case errors.Is(err, errALPN):
		return "TLS handshake refused: a web client asked for HTTP on a mail port"
	case noTLS && isSSL2(record.RecordHeader):
		return ssl2Hello
	case noTLS:
		return notTLS
	case h.hello == nil && isTimeout(err):
		return "no TLS handshake in time: " + waitsInClear
	case h.hello == nil:
		return "TLS handshake failed: " + err.Error()
	case said.seen:
		return "TLS handshake failed: " + h.alertDetail(said.number)
	case isTimeout(err):
		return "TLS handshake not finished in time; the client offered " + versionNames(h.hello.SupportedVersions)
	case gone:
		return fmt.Sprintf("the client closed the connection during the TLS handshake; it offered %s; "+
			"it may not trust this certificate or its name%s", versionNames(h.hello.SupportedVersions),
			h.nameDetail())
	}
	return "TLS handshake failed: " + h.offerDetail(err)
}

// offerDetail compares what the client offered with what we have.
func (h handshakeFault) offerDetail(err error) string {
	offer := h.offer()
	if newest := slices.Max(append(known(h.hello.SupportedVersions), 0)); newest < h.minVersion() {
		return h.versionFault(newest)
	}
	if !slices.ContainsFunc(h.hello.CipherSuites, h.accepts) {
		return h.suiteFault()
	}
	leaf := h.certificate()
	switch {
	case wantsSHA1(h.hello) && !h.isLegacy():
		return "the client knows no signature but SHA-1, which broke: " + setLegacy + ". It offers " + offer
	case leaf == nil:
	case isECDSA(leaf) && !knowsECDSA(h.hello):
		return "the client knows RSA certificates only, and this listener presents an ECDSA one: " + setLegacy +
			", or get an RSA certificate for tls.cert_file. It offers " + offer
	case isRSA(leaf) && !knowsRSA(h.hello):
		return "the client knows ECDSA certificates only, and this listener presents an RSA one; " +
			"get an ECDSA certificate for tls.cert_file. It offers " + offer
	}
	return fmt.Sprintf("%s; the client offers %s", err.Error(), offer)
}

// certificate is the one for this client, nil if there is none.
func (h handshakeFault) certificate() *x509.Certificate {
	if h.config.GetCertificate == nil {
		return nil
	}
	cert, err := h.config.GetCertificate(h.hello)
	if err != nil || cert == nil {
		return nil
	}
	return cert.Leaf
}

func isECDSA(c *x509.Certificate) bool { _, ok := c.PublicKey.(*ecdsa.PublicKey); return ok }
func isRSA(c *x509.Certificate) bool   { _, ok := c.PublicKey.(*rsa.PublicKey); return ok }

// knowsECDSA and knowsRSA report whether a client can use a certificate with such a key. TLS 1.3 suites name no key
// type; without signature schemes they leave it open.
func knowsECDSA(h *tls.ClientHelloInfo) bool { return knows(h, "_ECDSA_", "ECDSA") }

func knowsRSA(h *tls.ClientHelloInfo) bool { return knows(h, "_RSA_", "PSS", "PKCS1") }

func knows(h *tls.ClientHelloInfo, suite string, schemes ...string) bool {
	if len(h.SignatureSchemes) > 0 && !slices.ContainsFunc(h.SignatureSchemes, func(s tls.SignatureScheme) bool {
		return slices.ContainsFunc(schemes, func(name string) bool { return strings.Contains(s.String(), name) })
	}) {
		return false
	}
	return slices.ContainsFunc(h.CipherSuites, func(id uint16) bool {
		name := tls.CipherSuiteName(id)
		return strings.Contains(name, suite) || isTLS13(id)
	})
}

func isTLS13(suite uint16) bool { return suite>>8 == 0x13 }

// accepts reports whether the listener accepts a cipher suite.
func (h handshakeFault) accepts(id uint16) bool {
	if h.config.CipherSuites != nil && !isTLS13(id) {
		return slices.Contains(h.config.CipherSuites, id)
	}
	return slices.ContainsFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.ID == id })
}

// shownSuites is how many cipher suites a log line lists.
const shownSuites = 6

func suiteNames(ids []uint16) string {
	var names []string
	for _, id := range ids {
		if id != 0x00ff && id != 0x5600 && id&0x0f0f != 0x0a0a { // no SCSV (RFC 5746, RFC 7507) and no GREASE
			names = append(names, tls.CipherSuiteName(id))
		}
	}
	switch n := len(names); {
	case n == 0:
		return "no cipher suite"
	case n > shownSuites:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownSuites], ", "), n-shownSuites)
	}
	return strings.Join(names, ", ")
}

// alertOf returns the TLS alert with which the client ended a handshake (RFC 8446 §6). Its type, a uint8, is private to
// crypto/tls.
func alertOf(err error) alert {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return alert{}
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return alert{}
	}
	return alert{number: uint8(v.Uint()), seen: true}
}

const notAccepted = "the client does not accept this certificate: it may not know its authority, " +
	"or it connects by another name"

// alerts says what clients mean by an alert.
var alerts = map[uint8]struct{ name, means string }{
	40: {"handshake failure", "the client found nothing in common with this listener"},
	42: {"bad certificate", notAccepted},
	43: {"unsupported certificate", "the client does not know this kind of certificate; one with an RSA key may do"},
	44: {"revoked certificate", "the client was told that this certificate is revoked; get a new one"},
	45: {"expired certificate", "the client takes this certificate for expired; " +
		"look at its dates and at the client's clock"},
	46: {"unknown certificate", notAccepted},
	48: {"unknown certificate authority", "the client does not know the authority of this certificate; " +
		"give it the authority's certificate, or use one from an authority that it knows"},
	70:  {"protocol version", "the client has no TLS version in common with this listener; see min_version"},
	71:  {"insufficient security", "the client wants stronger cipher suites than this listener has"},
	90:  {"user canceled", "a person there said no, perhaps when asked about this certificate"},
	112: {"unrecognized name", "the client did not expect this name"},
}

func (h handshakeFault) alertDetail(number uint8) string {
	a, ok := alerts[number]
	if !ok {
		a.name = fmt.Sprintf("alert %d", number)
		a.means = "the client gave no other reason; it may not trust this certificate or its name"
	}
	return fmt.Sprintf("%s (it sent %q)%s; it offered %s, this listener wants %s or newer",
		a.means, a.name, h.nameDetail(), h.offer(), tls.VersionName(h.minVersion()))
}

// nameDetail says if the client asked for a name that the certificate does not cover.
func (h handshakeFault) nameDetail() string {
	leaf := h.certificate()
	if leaf == nil || h.hello.ServerName == "" || leaf.VerifyHostname(h.hello.ServerName) == nil {
		return ""
	}
	return fmt.Sprintf("; it asked for %s, and the certificate covers %s",
		h.hello.ServerName, strings.Join(leaf.DNSNames, ", "))
}

func (h handshakeFault) minVersion() uint16 {
	if h.config.MinVersion != 0 {
		return h.config.MinVersion
	}
	return tls.VersionTLS12 // Go's default for servers
}

// known omits GREASE values (RFC 8701) and drafts.
func known(versions []uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(versions), func(v uint16) bool { return v < 0x0300 || v > tls.VersionTLS13 })
}

// versionNames names the TLS versions of a ClientHello, newest first, without GREASE values.
func versionNames(versions []uint16) string {
	var names []string
	for _, v := range slices.Backward(slices.Sorted(slices.Values(known(versions)))) {
		if v == 0x0300 {
			names = append(names, "SSL 3.0")
		} else {
			names = append(names, tls.VersionName(v))
		}
	}
	if names == nil {
		return "no TLS version"
	}
	return strings.Join(names, ", ")
}
