package encode

import (
	"bytes"
	"fmt"
	"strings"

	"postern/mail"
)

// kind is how the body of an entity is parsed.
type kind uint8

const (
	leaf kind = iota
	multipart
	message // another header follows
)

// encoding is a Content-Transfer-Encoding (RFC 2045 §6).
type encoding uint8

const (
	identity encoding = iota // 7bit, 8bit, binary, none
	quotedPrintable
	base64
)

// entity is a message or a part of one (RFC 2045 §2.4).
type entity struct {
	number   int   // in the order of the parts; the message is 0
	line     int64 // number of its first line
	depth    int
	raw      []byte      // header as received, with the blank line if any
	header   mail.Header // if well-formed
	formed   bool
	kind     kind
	encoding encoding
	boundary string // multipart
	digest   bool
	parts    int    // of a multipart, so far
	locked   string // why its body must not change, "" if it may
}

// maxDepth bounds the nesting of parts.
const maxDepth = 20

// read fills in an entity whose header is known. inDigest says that it is a part of multipart/digest (RFC 2046 §5.1.5).
func (e *entity) read(inDigest bool) {
	if !e.formed {
		e.locked = "the header of its part is malformed or too large"
		return
	}
	mediaType, why := e.mediaType(inDigest)
	encoding, word := e.transferEncoding()
	e.encoding = encoding
	switch {
	case why != "":
		e.locked = why
	case word != "":
		e.locked = word
	case e.depth > maxDepth:
		e.locked = fmt.Sprintf("its part is more than %d levels deep", maxDepth)
	default:
		e.classify(mediaType)
	}
}

func (e *entity) classify(mediaType string) {
	major, minor, _ := strings.Cut(mediaType, "/")
	switch {
	case mediaType == "multipart/signed", mediaType == "multipart/encrypted":
		e.locked = "it is inside " + mediaType + ", which must keep its octets"
	case major == "multipart" && e.encoding != identity:
		e.locked = "its multipart has a Content-Transfer-Encoding, which RFC 2045 §6.4 forbids"
	case major == "multipart":
		e.kind, e.digest = multipart, minor == "digest"
		e.boundary, e.locked = boundaryOf(e.header.Get("Content-Type"))
		if e.locked != "" {
			e.kind = leaf
		}
	case e.encoding != identity: // wrapping or folding encoded text does not change the content
	case mediaType == "message/rfc822", mediaType == "message/global":
		e.kind = message
	case major == "message":
		e.locked = mediaType + " must not be encoded (RFC 2046 §5.2)"
	case sealed[mediaType]:
		e.locked = mediaType + " must keep its octets"
	}
}

// sealed are types that readers verify or decrypt.
var sealed = map[string]bool{
	"application/pkcs7-mime": true, "application/x-pkcs7-mime": true, "application/pkcs7-signature": true,
	"application/x-pkcs7-signature": true, "application/pgp-signature": true, "application/pgp-encrypted": true,
}

// mediaType returns the type of an entity in lower case, or why it is unknown.
func (e *entity) mediaType(inDigest bool) (mediaType, why string) {
	switch e.header.Count("Content-Type") {
	case 0:
		if inDigest {
			return "message/rfc822", ""
		}
		return "text/plain", "" // RFC 2045 §5.2
	case 1:
	default:
		return "", "its part has two Content-Type fields, and readers differ in which they take"
	}
	word := firstWord(e.header.Get("Content-Type"))
	major, minor, _ := strings.Cut(word, "/")
	if major != "" && minor != "" {
		return word, ""
	}
	if strings.HasPrefix(word, "multipart") || strings.HasPrefix(word, "message") {
		return "", "the Content-Type of its part cannot be read"
	}
	return "text/plain", ""
}

// transferEncoding returns the encoding of an entity, or why it is unknown.
func (e *entity) transferEncoding() (enc encoding, why string) {
	const field = "Content-Transfer-Encoding"
	if e.header.Count(field) > 1 {
		return identity, "its part has two Content-Transfer-Encoding fields, and readers differ in which they take"
	}
	switch word := firstWord(e.header.Get(field)); word {
	case "", "7bit", "8bit", "binary":
		return identity, ""
	case "7bits", "8bits", "7-bit", "8-bit", "7", "8", "none", "plain", "text", "ascii", "us-ascii", "utf-8", "utf8",
		"iso-8859-1", "text/plain", "text/html": // not encodings: readers show the body as it is
		return identity, ""
	case "quoted-printable":
		return quotedPrintable, ""
	case "base64":
		return base64, ""
	default:
		word = mail.Printable(mail.Cut(word, 40))
		return identity, fmt.Sprintf("the Content-Transfer-Encoding %q of its part is not known", word)
	}
}

// firstWord is the value before parameters and comments, in lower case.
func firstWord(value string) string {
	if i := strings.IndexAny(value, "; \t("); i >= 0 {
		value = value[:i]
	}
	return strings.ToLower(value)
}

// maxBoundary is above the 70 characters of RFC 2046 §5.1.1, which some exceed.
const maxBoundary = 200

// boundaryOf returns the boundary of a Content-Type, or why it is unknown. It does not guess if readers may differ.
func boundaryOf(value string) (boundary, why string) {
	const unclear = "the boundary of its multipart is not clear"
	found := 0
	mediaType, rest, _ := strings.Cut(value, ";")
	if strings.Contains(mediaType, "(") {
		return "", unclear
	}
	for rest != "" {
		var p parameter
		var ok bool
		if p, rest, ok = nextParameter(rest); !ok {
			return "", unclear
		}
		switch {
		case p.name == "boundary" && !p.quoted && strings.ContainsAny(p.value, " \t<>@,:/[]?="): // some readers cut it
			return "", unclear
		case p.name == "boundary":
			boundary = p.value
			found++
		case strings.HasPrefix(p.name, "boundary*"): // RFC 2231, which few readers support here
			return "", unclear
		}
	}
	if found != 1 || boundary == "" || len(boundary) > maxBoundary || strings.HasSuffix(boundary, " ") ||
		strings.ContainsFunc(boundary, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", unclear
	}
	return boundary, ""
}

// parameter is one of a Content-Type, with its name in lower case.
type parameter struct {
	name, value string
	quoted      bool
}

// nextParameter parses `name=value` or `name="value"` at the beginning of a list.
func nextParameter(list string) (p parameter, rest string, ok bool) {
	list = strings.TrimLeft(list, " \t;")
	end := strings.IndexAny(list, "=;")
	if end < 0 || list[end] == ';' { // a name alone, or nothing
		name, rest, _ := strings.Cut(list, ";")
		return parameter{}, rest, !strings.ContainsAny(name, `"\(`)
	}
	p.name = strings.ToLower(strings.Trim(list[:end], " \t"))
	after := strings.TrimLeft(list[end+1:], " \t")
	if strings.ContainsAny(p.name, "\"\\( \t") {
		return p, "", false
	}
	if after, p.quoted = strings.CutPrefix(after, `"`); !p.quoted {
		p.value, rest, _ = strings.Cut(after, ";")
		p.value = strings.Trim(p.value, " \t")
		return p, rest, !strings.ContainsAny(p.value, `"\(`)
	}
	var b strings.Builder
	for i := 0; i < len(after); i++ {
		switch c := after[i]; {
		case c == '\\' && i+1 < len(after):
			i++
			b.WriteByte(after[i])
		case c == '"':
			p.value, rest = b.String(), strings.TrimLeft(after[i+1:], " \t")
			return p, rest, rest == "" || rest[0] == ';'
		default:
			b.WriteByte(c)
		}
	}
	return p, "", false
}

// delimiter is how a line relates to a boundary (RFC 2046 §5.1.1).
type delimiter uint8

const (
	none   delimiter = iota
	opens            // begins a part
	closes           // ends the last part
	like             // begins with the boundary but goes on: readers differ
)

func delimits(line []byte, boundary string) delimiter {
	n := len("--") + len(boundary)
	if len(line) < n || line[0] != '-' || line[1] != '-' || string(line[2:n]) != boundary {
		return none
	}
	rest := line[n:]
	rest = bytes.TrimSuffix(bytes.TrimSuffix(rest, []byte{'\n'}), []byte{'\r'})
	final := bytes.HasPrefix(rest, []byte("--"))
	if final {
		rest = rest[2:]
	}
	switch {
	case len(bytes.Trim(rest, " \t")) > 0:
		return like
	case final:
		return closes
	}
	return opens
}

// setQuoted declares a body to be quoted-printable.
func setQuoted(h *mail.Header) {
	f := mail.NewField("Content-Transfer-Encoding", "quoted-printable")
	if i := h.Index(f.Name); i >= 0 {
		h.Replace(i, f)
		return
	}
	h.Append(f)
}
