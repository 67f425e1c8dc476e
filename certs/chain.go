package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"regexp"
	"strings"
)

// Signs of a certificate from a public authority, which never issues from a root: the policies of the CA/Browser Forum
// (domain, organisation, individual and extended validation), and timestamps of certificate logs (RFC 6962 §3.3).
var (
	forumPolicies    = []string{"2.23.140.1.1", "2.23.140.1.2."}
	logTimestamps    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
	namedSubordinate = regexp.MustCompile(`(?i)\b(intermediate|issuing|subordinate|sub[ -]?ca)\b`)
)

// chainWarning says what is missing from the chain of a certificate that is not self-signed, "" if nothing. A
// certificate alone may have been issued by the root of a private authority, which clients have.
func chainWarning(c *tls.Certificate) string {
	leaf := c.Leaf
	if len(c.Certificate) > 1 {
		next, err := x509.ParseCertificate(c.Certificate[1])
		if err != nil || !bytes.Equal(next.RawSubject, leaf.RawIssuer) {
			return "what follows it in the file is not the certificate of its issuer (" + leaf.Issuer.String() +
				"); put that there, or many clients will refuse it"
		}
		return ""
	}
	if public(leaf) || namedSubordinate.MatchString(leaf.Issuer.CommonName) {
		return "it comes without its authority's intermediate certificate; " +
			"use the full chain, or many clients will refuse it"
	}
	return ""
}

func public(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		if e.Id.Equal(logTimestamps) {
			return true
		}
	}
	for _, oid := range leaf.Policies {
		for _, p := range forumPolicies {
			if text := oid.String(); text == p || strings.HasSuffix(p, ".") && strings.HasPrefix(text, p) {
				return true
			}
		}
	}
	return false
}
