package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
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

// Errors of CheckRecord. Others say what is wrong in the record.
var (
	ErrNoRecord      = errors.New("no DKIM record is published under this name")
	ErrRevoked       = errors.New("the published record has an empty p=: the key is revoked")
	ErrOtherKey      = errors.New("the published record holds another key")
	ErrSeveralRecord = errors.New("several DKIM records are published under this name: receivers may take any of them")
)

// CheckRecord compares the TXT records under RecordName, with their strings joined, with the key. If it returns nil,
// receivers can verify signatures now.
func CheckRecord(k Key, published []string) error {
	var records []map[string]string
	for _, text := range published {
		if tags, ok := parseRecord(text); ok {
			records = append(records, tags)
		}
	}
	switch len(records) {
	case 0:
		return ErrNoRecord
	case 1:
		return checkTags(k, records[0])
	}
	return ErrSeveralRecord
}

// parseRecord parses a tag list (RFC 6376 §3.2). Without p=, or with a v= other than DKIM1, it is no DKIM record.
func parseRecord(text string) (map[string]string, bool) {
	tags := make(map[string]string)
	for i, tag := range strings.Split(text, ";") {
		name, value, found := strings.Cut(tag, "=")
		name = strings.TrimSpace(name)
		if !found || name == "v" && i > 0 {
			continue
		}
		if _, twice := tags[name]; !twice {
			tags[name] = strings.Join(strings.Fields(value), "")
		}
	}
	_, hasKey := tags["p"]
	version, hasVersion := tags["v"]
	return tags, hasKey && (!hasVersion || version == "DKIM1")
}

func checkTags(k Key, tags map[string]string) error {
	if tags["p"] == "" {
		return ErrRevoked
	}
	kind := "rsa"
	if _, ok := k.Signer.Public().(ed25519.PublicKey); ok {
		kind = "ed25519"
	}
	if got, ok := tags["k"]; ok && got != kind || !ok && kind != "rsa" {
		return fmt.Errorf("the published record says k=%s, the key is %s", tags["k"], kind)
	}
	if h, ok := tags["h"]; ok && !listHas(h, "sha256") {
		return fmt.Errorf("the published record says h=%s, which excludes sha256", h)
	}
	if s, ok := tags["s"]; ok && !listHas(s, "email") && !listHas(s, "*") {
		return fmt.Errorf("the published record says s=%s, which excludes mail", s)
	}
	public, err := parsePublic(kind, tags["p"])
	if err != nil {
		return fmt.Errorf("the published key cannot be read: %w", err)
	}
	if !samePublic(public, k.Signer.Public()) {
		return ErrOtherKey
	}
	return nil
}

func listHas(list, item string) bool {
	for s := range strings.SplitSeq(list, ":") {
		if s == item {
			return true
		}
	}
	return false
}

func parsePublic(kind, p string) (crypto.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(p)
	if err != nil {
		return nil, err
	}
	if kind == "ed25519" {
		if len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 key has %d octets, this one %d", ed25519.PublicKeySize, len(raw))
		}
		return ed25519.PublicKey(raw), nil
	}
	if public, err := x509.ParsePKIXPublicKey(raw); err == nil {
		return public, nil
	}
	return x509.ParsePKCS1PublicKey(raw) // the form of RFC 6376 §3.6.1; everybody publishes the other
}
