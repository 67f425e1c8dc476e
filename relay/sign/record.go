package sign

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// Record returns the text to publish under RecordName (RFC 6376 §3.6.1, RFC 8463 §4).
func (k Key) Record() (string, error) {
	switch public := k.Signer.Public().(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return "", err
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), nil
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public), nil
	default:
		return "", fmt.Errorf("keys of type %T have no DKIM record", public)
	}
}

// maxString is the longest character string of a TXT record in octets (RFC 1035 §3.3.14).
const maxString = 255

// SplitRecord splits a record's text into the strings of one TXT record. Readers join them without blanks (RFC 6376
// §3.6.2.2).
func SplitRecord(text string) []string {
	var parts []string
	for len(text) > maxString {
		parts = append(parts, text[:maxString])
		text = text[maxString:]
	}
	return append(parts, text)
}

// ZoneLine returns the record as a line of a zone file.
func (k Key) ZoneLine() (string, error) {
	text, err := k.Record()
	if err != nil {
		return "", err
	}
	parts := SplitRecord(text)
	for i, p := range parts {
		parts[i] = `"` + p + `"`
	}
	data := strings.Join(parts, " ")
	if len(parts) > 1 {
		data = "( " + data + " )"
	}
	return k.RecordName() + ". IN TXT " + data, nil
}
