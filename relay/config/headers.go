package config

import (
	"slices"
	"strings"

	"postern/mail"
)

// Bounds of add_headers: what providers ask for is a handful of short fields.
const (
	maxAddedFields = 20
	maxFieldLine   = 998 // octets without CRLF (RFC 5322 §2.1.1)
)

// ownedFields are not for add_headers: they are the author's, ours, the signer's, or those of servers on the way.
var ownedFields = []string{
	"From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Received", "Return-Path", "Delivered-To", "Authentication-Results", "Received-SPF",
	"DKIM-Signature", "DomainKey-Signature",
}

// ownedPrefixes begin the names of families of such fields.
var ownedPrefixes = []string{"Content-", "Resent-", "ARC-"}

// addHeaders checks the header fields that an upstream gets with each message.
func (v *validator) addHeaders(key string, u *Upstream) {
	key += ".add_headers"
	if len(u.AddHeaders) > maxAddedFields {
		v.fail(key, "there are %d, more than %d header fields are not added", len(u.AddHeaders), maxAddedFields)
	}
	for i, text := range u.AddHeaders {
		at := element(key, i)
		name, value, colon := strings.Cut(text, ":")
		switch {
		case !colon || !isFieldName(name):
			v.fail(at, `%q is not a header field, write one such as "X-Name: value"`, mail.Cut(text, 100))
		case !isFieldText(value):
			v.fail(at, "the value of %s has a line end, a control or a letter outside ASCII, write printable ASCII "+
				"on one line", name)
		case strings.TrimSpace(value) == "":
			v.fail(at, `%s has no value, write "%s: value"`, name, name)
		case len(text) >= maxFieldLine:
			v.fail(at, "%s is longer than the %d octets of a line", name, maxFieldLine)
		case isOwned(name):
			v.fail(at, "%s is not for add_headers: it belongs to the author, or is made by servers and signers", name)
		}
	}
}

// isFieldName reports a field-name (RFC 5322 §3.6.8), no longer than any line of a header wants it.
func isFieldName(name string) bool {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	return name != "" && len(name) <= 76 && !strings.ContainsFunc(name, odd)
}

func isFieldText(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
}

func isOwned(name string) bool {
	return slices.ContainsFunc(ownedFields, func(owned string) bool { return strings.EqualFold(name, owned) }) ||
		slices.ContainsFunc(ownedPrefixes, func(prefix string) bool {
			return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
		})
}

// AddedFields are the header fields of add_headers, in order. They were checked when the configuration was validated.
func (u *Upstream) AddedFields() []mail.Field {
	var fields []mail.Field
	for _, text := range u.AddHeaders {
		name, value, _ := strings.Cut(text, ":")
		fields = append(fields, mail.NewField(name, strings.TrimSpace(value)))
	}
	return fields
}
