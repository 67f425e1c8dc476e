package mail

import (
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

// addressFields are the fields of mailboxes that name no author. Names in them are phrases.
var addressFields = []string{"To", "Cc", "Reply-To", "Resent-To", "Resent-Cc", "Resent-Reply-To", "Disposition-Notification-To", "Return-Receipt-To"}

// structured are fields whose text beyond ASCII encoded words cannot stand for (RFC 2047 §5): they stay as they are.
var structured = []string{
	"From", "Sender", "Resent-From", "Resent-Sender", "Received", "Return-Path", "Date", "Resent-Date", "Message-ID", "Resent-Message-ID",
	"References", "In-Reply-To", "MIME-Version", "Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "Content-ID",
	"Content-Location", "Content-Language", "DKIM-Signature", "Authentication-Results", "Autocrypt",
}

// EncodeText writes text beyond ASCII that stands in a header as it is, as devices and many programs send it, as encoded words
// (RFC 2047): readers show the same, and no server on the way needs SMTPUTF8 for it. Octets that are no UTF-8 are taken for
// what the message says that its body is in, else for Windows-1252. What cannot be encoded, such as an address, keeps its
// octets. It returns for the trace what was changed.
func EncodeText(h *Header) (notes []string) {
	for i := range h.Fields {
		f := h.Fields[i]
		if !slices.ContainsFunc(f.Raw, isHigh) || isOneOf(f, structured) {
			continue
		}
		encoded, ok := encodeField(f, h.decode(f.Value()))
		if ok {
			h.Replace(i, encoded)
			notes = append(notes, "the "+Printable(f.Name)+" field has its letters beyond ASCII as encoded words now")
		}
	}
	return notes
}

func isHigh(c byte) bool { return c >= 0x80 }

func isOneOf(f Field, names []string) bool { return slices.ContainsFunc(names, f.Is) }

// decode reads the value of a field that declares no charset.
func (h Header) decode(value string) string {
	if utf8.ValidString(value) {
		return value
	}
	_, params, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if e, ok := findCharset(params["charset"]); ok && e != nil {
		if text, err := e.NewDecoder().String(value); err == nil && !strings.ContainsRune(text, utf8.RuneError) {
			return text
		}
	}
	return decodeRaw(value)
}

// encodeField writes a field, the value of which is text in UTF-8, in ASCII.
func encodeField(f Field, text string) (Field, bool) {
	if isOneOf(f, addressFields) {
		boxes, err := readMailboxes(text)
		if err != nil {
			return f, false
		}
		encoded := authorField(f.Name, boxes)
		return encoded, !slices.ContainsFunc(encoded.Raw, isHigh)
	}
	if decoded, err := decodeWords(text); err == nil {
		text = decoded
	}
	text = strings.Join(strings.Fields(Printable(text)), " ")
	b := []byte(f.Name + ":")
	for i, word := range encodeWords(text) {
		if i > 0 {
			b = append(b, crlf...)
		}
		b = append(append(b, ' '), word...)
	}
	return Field{Name: f.Name, Raw: append(b, crlf...)}, true
}

// shortened writes a field of text, encoded or not, that has no place where it can be folded as several encoded words.
func (h Header) shortened(f Field) (Field, bool) {
	value := h.decode(f.Value())
	text, err := decodeWords(value)
	if err != nil || text == value && isASCII(value) || isOneOf(f, structured) || isOneOf(f, addressFields) {
		return f, false
	}
	short, _ := encodeField(f, text)
	return short, LongLine(short.Raw) == len(short.Raw)
}
