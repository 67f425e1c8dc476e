// Package certtext says in plain words why a certificate cannot be parsed.
package certtext

import (
	"strings"

	"postern/mail"
)

// Unreadable turns Go's error about a certificate into plain words.
func Unreadable(words string) string {
	for _, known := range []struct{ have, say string }{
		{"negative serial number", "its serial number is negative, which RFC 5280 forbids; it has to be issued anew"},
		{"serial number", "its serial number is none that is allowed; it has to be issued anew"},
		{"negative or zero", "its RSA key is invalid"},
		{"invalid IP", "it has an address in subjectAltName that is none"},
		{"SAN", "its subjectAltName is malformed"},
		{"dNSName", "its subjectAltName is malformed"},
		{"invalid version", "it has a version that does not exist"},
		{"duplicate extensions", "it has an extension twice"},
		{"unsupported elliptic curve", "its key is on a curve that is not supported; P-256 is"},
	} {
		if strings.Contains(words, known.have) {
			_, why, _ := strings.Cut(words, "x509: ")
			return known.say + " (" + clean(why) + ")"
		}
	}
	_, why, ok := strings.Cut(words, "x509: ")
	if !ok {
		why = words
	}
	return clean(why)
}

func clean(s string) string { return mail.Printable(mail.Cut(s, 200)) }
