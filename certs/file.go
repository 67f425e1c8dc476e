package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"strings"

	"postern/internal/certtext"
	"postern/internal/textfile"
)

// Fault is one thing that is wrong with a pair of files.
type Fault struct {
	InKey bool // about key_file, else about cert_file or both
	Text  string
}

// Error implements error.
func (f Fault) Error() string { return f.Text }

// Faults are all that is wrong with a pair, so that a person can fix it in one go.
type Faults []Fault

// Error implements error.
func (f Faults) Error() string {
	texts := make([]string, len(f))
	for i := range f {
		texts[i] = f[i].Text
	}
	return strings.Join(texts, "; ")
}

// content is the content of a file.
type content struct {
	certificates [][]byte // DER
	keys         int
	sealed       bool // has a key with a passphrase
	other        kind // what the file is instead, "" if unknown
}

// kind is a form of certificates and keys that we do not read.
type kind string

const (
	isRequest   kind = "request"
	isTrusted   kind = "trusted"
	isSSH       kind = "ssh"
	isPublic    kind = "public"
	isPKCS7     kind = "pkcs7"
	isPKCS12    kind = "pkcs12"
	isJKS       kind = "jks"
	isDERCert   kind = "certificate in DER form"
	isDERKey    kind = "private key in DER form"
	isDERReqest kind = "request in DER form"
)

func contentOf(data []byte) (c content) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE":
			c.certificates = append(c.certificates, block.Bytes)
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			c.sealed = true
		case block.Type == "OPENSSH PRIVATE KEY":
			c.other = isSSH
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			c.keys++
		case strings.HasSuffix(block.Type, "CERTIFICATE REQUEST"):
			c.other = isRequest
		case block.Type == "TRUSTED CERTIFICATE":
			c.other = isTrusted
		case block.Type == "PKCS7":
			c.other = isPKCS7
		case strings.HasSuffix(block.Type, "PUBLIC KEY"):
			c.other = isPublic
		}
	}
	if len(c.certificates) == 0 && c.keys == 0 && !c.sealed && c.other == "" {
		c.other = binaryKind(data)
	}
	return c
}

// binaryKind recognises binary forms.
func binaryKind(data []byte) kind {
	if bytes.HasPrefix(data, []byte("\xfe\xed\xfe\xed")) {
		return isJKS
	}
	if len(data) == 0 || data[0] != 0x30 { // a SEQUENCE
		return ""
	}
	if isKeyDER(data) {
		return isDERKey
	}
	if _, err := x509.ParseCertificateRequest(data); err == nil {
		return isDERReqest
	}
	var first struct {
		Version int
		Content struct{ Type asn1.ObjectIdentifier }
	}
	var sequence asn1.RawValue
	if _, err := asn1.Unmarshal(data, &sequence); err == nil {
		rest, err := asn1.Unmarshal(sequence.Bytes, &first.Version)
		if err == nil && first.Version == 3 && len(rest) > 0 && rest[0] == 0x30 { // PFX: RFC 7292 §4
			return isPKCS12
		}
		if _, err := asn1.Unmarshal(sequence.Bytes, &first.Content.Type); err == nil { // ContentInfo: RFC 2315 §7
			return isPKCS7
		}
		return isDERCert
	}
	return ""
}

func isKeyDER(data []byte) bool {
	if _, err := x509.ParsePKCS8PrivateKey(data); err == nil {
		return true
	}
	if _, err := x509.ParsePKCS1PrivateKey(data); err == nil {
		return true
	}
	_, err := x509.ParseECPrivateKey(data)
	return err == nil
}

// instead says what a file is and what to do with it; "" if unknown.
func (k kind) instead(path string) string {
	switch k {
	case isRequest, isDERReqest:
		return "a certificate request, of which an authority makes a certificate: write the file that it sent back"
	case isTrusted:
		return "a certificate in OpenSSL's own form, convert it: openssl x509 -in " + path + " -out FILE"
	case isSSH:
		return "a key for SSH: write the one that the certificate was asked for with"
	case isPublic:
		return "a public key: write the certificate, or the private key"
	case isPKCS7:
		return "certificates in PKCS#7 form, convert it: openssl pkcs7 -print_certs -in " + path +
			" -out FILE (with -inform der if it is binary)"
	case isPKCS12:
		return "certificate and key in PKCS#12 form (.p12, .pfx), convert it: openssl pkcs12 -nodes -in " + path +
			" -out FILE, and write FILE as cert_file and key_file"
	case isJKS:
		return "a Java keystore, convert it: keytool -importkeystore -srckeystore " + path +
			" -destkeystore FILE.p12 -deststoretype pkcs12, then: openssl pkcs12 -nodes -in FILE.p12 -out FILE"
	case isDERCert:
		return "a " + string(k) + ", convert it: openssl x509 -inform der -in " + path + " -out FILE"
	case isDERKey:
		return "a " + string(k) + ", convert it: openssl pkey -inform der -in " + path + " -out FILE"
	}
	return ""
}

// certificateFaults checks the file of a certificate.
func certificateFaults(path string, c content) (all Faults) {
	add := func(format string, args ...any) { all = append(all, Fault{Text: fmt.Sprintf(format, args...)}) }
	for i, der := range c.certificates {
		if _, err := x509.ParseCertificate(der); err != nil {
			which := "the certificate"
			if i > 0 {
				which = fmt.Sprintf("certificate %d of the chain", i+1)
			}
			add("%s in %s cannot be read: %s", which, path, certtext.Unreadable(err.Error()))
		}
	}
	what := c.other.instead(path)
	switch {
	case len(c.certificates) > 0:
	case what != "":
		add("%s has no certificate in PEM form, but %s", path, what)
	case c.keys > 0 || c.sealed:
		add("%s has a private key and no certificate: write the certificate as cert_file", path)
	default:
		add("%s has no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path)
	}
	return all
}

// keyFaults checks the file of a key.
func keyFaults(path string, c content) (all Faults) {
	add := func(format string, args ...any) {
		all = append(all, Fault{InKey: true, Text: fmt.Sprintf(format, args...)})
	}
	what := c.other.instead(path)
	switch {
	case c.sealed:
		add("the key in %s is protected by a passphrase, store it without: openssl pkey -in %s -out FILE", path, path)
	case c.keys > 0:
	case what != "":
		add("%s has no private key in PEM form, but %s", path, what)
	case len(c.certificates) > 0:
		add("%s has no private key in PEM form, but a certificate: write the file with its key as key_file", path)
	default:
		add("%s has no private key in PEM form (-----BEGIN PRIVATE KEY-----)", path)
	}
	return all
}

// swapped reports whether each file is where the other belongs.
func swapped(cert, key content) bool {
	onlyKey := len(cert.certificates) == 0 && (cert.keys > 0 || cert.sealed)
	return onlyKey && len(key.certificates) > 0 && key.keys == 0 && !key.sealed
}

// readPair reads a certificate with its chain, and its key. Both may be in one file. Its error is Faults.
func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	certPEM, certErr := textfile.Bounded(certFile, maxFile)
	keyPEM, keyErr := readPrivate(keyFile)
	cert, key := contentOf(certPEM), contentOf(keyPEM)
	if certErr == nil && keyPEM != nil && swapped(cert, key) {
		return nil, Faults{{Text: fmt.Sprintf(
			"cert_file (%s) has the key and key_file (%s) the certificate: swap them", certFile, keyFile)}}
	}
	var all Faults
	if certErr != nil {
		all = append(all, Fault{Text: certErr.Error()})
	} else {
		all = append(all, certificateFaults(certFile, cert)...)
	}
	if keyErr != nil && (certFile != keyFile || certErr == nil) {
		all = append(all, Fault{InKey: true, Text: keyErr.Error()})
	}
	if keyPEM != nil {
		all = append(all, keyFaults(keyFile, key)...)
	}
	if len(all) > 0 {
		return nil, all
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, Faults{{Text: pairError(certFile, keyFile, certPEM, keyPEM, err).Error()}}
	}
	return &c, nil
}

// CheckPair checks a certificate and its key, but not their dates. Its error is Faults.
func CheckPair(certFile, keyFile string) error {
	_, err := readPair(certFile, keyFile)
	return err
}
