// Package whytls says in plain words why a TLS handshake with a server failed, and what an administrator can do: Go's
// own errors are for programmers, and often name the wrong cause.
//
// It is pure. Text from a server's certificate is bounded and made printable.
package whytls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/certtext"
	"postern/mail"
)

// offered is what our configurations offer: Go's defaults from TLS 1.2 on.
const offered = "we offer TLS 1.2 and 1.3 with ECDHE and AES-GCM, AES-CBC or ChaCha20"

// Certificate explains a certificate that was not verified for a host.
func Certificate(e *tls.CertificateVerificationError, host string, now time.Time) string {
	var (
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		unknown  x509.UnknownAuthorityError
		noRoots  x509.SystemRootsError
		critical x509.UnhandledCriticalExtension
	)
	sent := e.UnverifiedCertificates
	switch {
	case errors.As(e.Err, &name):
		return wrongName(name.Certificate, host)
	case errors.As(e.Err, &invalid):
		return invalidCertificate(&invalid, sent, host, now)
	case errors.As(e.Err, &noRoots):
		return "this machine has no authorities that it trusts: install ca-certificates, or write ca_file"
	case errors.As(e.Err, &critical):
		return "the certificate has a critical extension that is not known here, so it cannot be verified: the " +
			"server needs another"
	case errors.As(e.Err, &unknown):
		return unknownAuthority(sent, now)
	}
	return "the certificate is refused: " + clean(e.Err.Error())
}

// wrongName explains a certificate that is for others.
func wrongName(cert *x509.Certificate, host string) string {
	names := Names(cert)
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case len(names) == 0 && cert.Subject.CommonName != "":
		return "the certificate names no host in subjectAltName; its common name " + clean(cert.Subject.CommonName) +
			" alone does not count: the server needs a certificate with subjectAltName"
	case len(names) == 0:
		return "the certificate names no host in subjectAltName: the server needs a certificate with subjectAltName"
	case err == nil && len(cert.DNSNames) > 0:
		return "the certificate is not for " + address.String() + " but for " + strings.Join(names, ", ") +
			"; write such a name as host instead of the address"
	}
	text := "the certificate is not for " + host + " but for " + strings.Join(names, ", ")
	for _, n := range cert.DNSNames {
		if suffix, ok := strings.CutPrefix(n, "*"); ok && strings.HasSuffix(strings.ToLower(host),
			strings.ToLower(suffix)) {
			return text + "; * stands for one label alone"
		}
	}
	return text + "; correct host, or the server needs another certificate"
}

func invalidCertificate(e *x509.CertificateInvalidError, sent []*x509.Certificate, host string, now time.Time) string {
	which := "the certificate"
	if len(sent) > 0 && !e.Cert.Equal(sent[0]) {
		which = "the certificate of the authority " + subject(e.Cert) + ", by which the server's is issued,"
	}
	switch e.Reason {
	case x509.Expired:
		return outOfTime(which, e.Cert, now)
	case x509.NotAuthorizedToSign:
		return which + " was issued by one that may issue none (it is no authority): the server needs another"
	case x509.CANotAuthorizedForThisName, x509.TooManyConstraints, x509.UnconstrainedName,
		x509.NameConstraintsWithoutSANs:
		return "the authority " + subject(e.Cert) + " may not issue certificates for " + host +
			" (name constraints): the server needs one from another authority"
	case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
		return "the certificate is not meant for servers (no TLS server authentication): the server needs another"
	case x509.TooManyIntermediates:
		return "there are more authorities between the certificate and the root than that allows: the server needs " +
			"another"
	case x509.NoValidChains:
		return "no chain from the certificate to an authority that we trust is valid: " + clean(e.Detail)
	}
	return "the certificate is refused: " + clean(e.Error())
}

// outOfTime explains dates. A certificate that is not valid yet is a clock that is wrong more often than not.
func outOfTime(which string, cert *x509.Certificate, now time.Time) string {
	text := which + " is valid from " + day(cert.NotBefore) + " to " + day(cert.NotAfter) + " only"
	if now.Before(cert.NotBefore) {
		return text + ", and this machine's clock says " + now.UTC().Format(time.RFC3339) + ": set the clock, or wait"
	}
	return text + ": its owner has to renew it"
}

// unknownAuthority looks at the chain that was sent for why no authority was found.
func unknownAuthority(sent []*x509.Certificate, now time.Time) string {
	const begin = "the certificate is not issued by an authority that we trust"
	if len(sent) == 0 {
		return begin
	}
	leaf := sent[0]
	own := slices.Equal(leaf.RawIssuer, leaf.RawSubject)
	for i, c := range sent {
		if old := oldHash(c); old != "" && (!slices.Equal(c.RawIssuer, c.RawSubject) || i == 0) {
			return begin + ": that of " + subject(c) + " is signed with " + old +
				", which can be forged and is not taken any more; the server needs another"
		}
	}
	for _, c := range sent[1:] {
		if now.After(c.NotAfter) {
			return begin + ": " + outOfTime("the certificate of "+subject(c)+", on its chain,", c, now)
		}
	}
	for _, c := range sent[1:] {
		if slices.Equal(c.RawSubject, leaf.RawIssuer) && !c.IsCA {
			return begin + ": it was issued with that of " + subject(c) +
				", which may issue none (it is no authority); the server needs another"
		}
	}
	switch {
	case own:
		return begin + ": it is self-signed by " + subject(leaf) + "; if that is right, write its file as ca_file"
	case len(sent) == 1:
		return begin + ": it is issued by " + issuer(leaf) +
			", and the server sends no intermediate certificate; it has to send its chain, or write the certificate " +
			"of its authority as ca_file"
	}
	return begin + ": the chain ends at " + issuer(sent[len(sent)-1]) +
		"; if that is an authority of its own, write its certificate as ca_file"
}

// oldHash names the hash of a signature that Go refuses; "": none such.
func oldHash(c *x509.Certificate) string {
	switch c.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return "SHA-1"
	case x509.MD5WithRSA, x509.MD2WithRSA:
		return "MD5"
	}
	return ""
}

// Handshake explains what ends a handshake beside a certificate that does not verify. own: we show a certificate of
// ours. ok is false for everything that is the network's.
func Handshake(err error, own bool) (text string, ok bool) {
	words := err.Error()
	op, remote := errors.AsType[*net.OpError](err)
	remote = remote && op.Op == "remote error"
	if !remote && !strings.Contains(words, "tls: ") {
		return "", false
	}
	// crypto/tls has no types for these; the words are those of its source, and its tests.
	switch {
	case strings.Contains(words, "protocol version"), strings.Contains(words, "unsupported versions"):
		return "offers no TLS of version 1.2 or later (" + offered + "): it has to be brought up to date", true
	case strings.Contains(words, "failed to parse certificate from server"):
		return "shows a certificate that cannot be read: " + certtext.Unreadable(words), true
	case strings.Contains(words, "no cipher suite supported by both"), remote && has(op, "handshake failure"),
		remote && has(op, "insufficient security level"):
		return "has no cipher suite or key type in common with us (" + offered + ")", true
	case strings.Contains(words, "cipher suite"), strings.Contains(words, "unsupported curve"),
		strings.Contains(words, "unsupported signature algorithm"):
		return "chooses what we did not offer (" + offered + "): " + clean(strings.TrimPrefix(words, "tls: ")), true
	case !remote:
		return "", false
	}
	said := "refuses TLS with us: " + clean(strings.TrimPrefix(op.Err.Error(), "tls: "))
	switch {
	case has(op, "certificate required"), has(op, "bad certificate") && !own:
		return said + "; it knows its clients by certificate: write cert_file and key_file", true
	case own && (has(op, "certificate") || has(op, "unknown certificate authority")):
		return said + "; it does not take our cert_file, or has not been told of it", true
	case has(op, "unrecognized name"):
		return said + "; it does not know the name in host", true
	}
	return said, true
}

func has(op *net.OpError, words string) bool { return strings.Contains(op.Err.Error(), words) }

// Names are the host names and addresses that a certificate is for, ten at most.
func Names(cert *x509.Certificate) []string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for i, n := range names {
		names[i] = clean(n)
	}
	return names[:min(len(names), 10)]
}

func subject(c *x509.Certificate) string {
	return named(c.Subject.CommonName, c.Subject.Organization, c.Subject.String())
}
func issuer(c *x509.Certificate) string {
	return named(c.Issuer.CommonName, c.Issuer.Organization, c.Issuer.String())
}

func named(common string, organization []string, all string) string {
	switch {
	case common != "":
		return `"` + clean(common) + `"`
	case len(organization) > 0:
		return `"` + clean(organization[0]) + `"`
	case all != "":
		return `"` + clean(all) + `"`
	}
	return "a name that is empty"
}

func clean(s string) string { return mail.Printable(mail.Cut(s, 200)) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
