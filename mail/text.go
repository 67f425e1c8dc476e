package mail

import (
	"bytes"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

// addressFields are the fields of mailboxes other than authors. Names in them are phrases.
var addressFields = []string{
	"To", "Cc", "Reply-To", "Resent-To", "Resent-Cc", "Resent-Reply-To",
	"Disposition-Notification-To", "Return-Receipt-To",
}

// structured are fields in which encoded words are not allowed (RFC 2047 §5): their non-ASCII text stays as it is.
var structured = []string{
	"From", "Sender", "Resent-From", "Resent-Sender", "Received", "Return-Path", "Date", "Resent-Date",
	"Message-ID", "Resent-Message-ID", "References", "In-Reply-To", "MIME-Version", "Content-Transfer-Encoding",
	"Content-ID",
	"Content-Location", "Content-Language", "DKIM-Signature", "Authentication-Results", "Autocrypt",
}

// EncodeText turns raw non-ASCII text in a header, which devices and many programs send, into encoded words (RFC 2047):
// readers show the same, and no server on the way needs SMTPUTF8. Octets that are not UTF-8 are decoded in the charset
// of the body, else as Windows-1252. What cannot be encoded, such as an address, keeps its octets. Encoded words with
// line ends are rewritten. It returns, for the trace, what was changed.
func EncodeText(h *Header) (notes []string) {
	for i := range h.Fields {
		f := h.Fields[i]
		name := Printable(Cut(f.Name, 40))
		if slices.ContainsFunc(f.Raw, isHigh) && !isOneOf(f, structured) {
			if encoded, ok := encodeField(f, h.decode(f.Value())); ok {
				h.Replace(i, encoded)
				notes = append(notes, "the "+name+" field is rewritten: its non-ASCII text is now encoded words")
				continue
			}
		}
		if tame, ok := withoutLineEnds(f); ok {
			h.Replace(i, tame)
			notes = append(notes, "the "+name+" field is rewritten: its encoded words had line ends")
		}
	}
	return notes
}

// withoutLineEnds rewrites a field with encoded words that decode to CR, LF or NUL: a reader that decodes a header
// before it looks for fields would see another field after them. Author fields are canonical and have none.
func withoutLineEnds(f Field) (Field, bool) {
	if !bytes.Contains(f.Raw, []byte("=?")) {
		return f, false
	}
	value := f.Value()
	var b strings.Builder
	last := 0
	for w, ok := nextWord(value, 0); ok; w, ok = nextWord(value, w.end) {
		octets, err := w.octets()
		if err != nil || !saysLineEnd(w, octets) {
			continue
		}
		text, err := decodeCharset(w.charset, octets)
		if err != nil {
			text = "?"
		}
		text = lineEnds.Replace(text)
		b.WriteString(value[last:w.start])
		b.WriteString(strings.Join(encodeWords(text), " "))
		last = w.end
	}
	if last == 0 {
		return f, false
	}
	return foldField(f.Name, b.String()+value[last:]), true
}

var lineEnds = strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ")

// oddCharsets encode ASCII differently, so that octets do not show a line end.
var oddCharsets = []string{
	"utf-7", "utf7", "ebcdic", "cp037", "ibm037", "cp500", "ibm500", "cp1026", "cp1140", "cp273", "cp424", "cp875",
}

// saysLineEnd reports whether an encoded word has CR, LF or NUL, or is in a charset that hides them.
func saysLineEnd(w encodedWord, octets []byte) bool {
	if bytes.ContainsAny(octets, "\r\n\x00") {
		return true
	}
	charset, _, _ := strings.Cut(strings.ToLower(w.charset), "*")
	return slices.ContainsFunc(oddCharsets, func(name string) bool { return strings.Contains(charset, name) })
}

// parametric are fields whose non-ASCII text is in parameters, such as a file name.
var parametric = []string{"Content-Type", "Content-Disposition"}

// encodeParameters writes a field with its parameters encoded as in RFC 2231.
func encodeParameters(name, text string) (f Field, ok bool) {
	value, parameters, err := mime.ParseMediaType(text)
	if err != nil || !IsASCII(parameters["boundary"]) { // the body has the boundary octet for octet
		return f, false
	}
	encoded := mime.FormatMediaType(value, parameters)
	f = NewField(name, encoded)
	return f, encoded != "" && IsASCII(encoded) && LongLine(f.Raw) == len(f.Raw)
}

func isHigh(c byte) bool { return c >= 0x80 }

func isOneOf(f Field, names []string) bool { return slices.ContainsFunc(names, f.Is) }

// decode decodes a field's value, which has no declared charset.
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

// encodeField writes a field in ASCII. text is its value in UTF-8.
func encodeField(f Field, text string) (Field, bool) {
	if isOneOf(f, addressFields) {
		boxes, err := readMailboxes(text)
		if err != nil {
			return f, false
		}
		encoded := authorField(f.Name, boxes)
		return encoded, !slices.ContainsFunc(encoded.Raw, isHigh)
	}
	if isOneOf(f, parametric) {
		return encodeParameters(f.Name, text)
	}
	if decoded, err := decodeWords(text); err == nil {
		text = decoded
	}
	text = strings.Join(strings.Fields(Printable(text)), " ")
	b := []byte(f.Name + ":")
	for i, word := range encodeWords(text) {
		if i > 0 || len(b)+len(word) >= MaxLine {
			b = append(b, crlf...)
		}
		b = append(append(b, ' '), word...)
	}
	return Field{Name: f.Name, Raw: append(b, crlf...)}, true
}

// shortened writes a text field that cannot be folded as several encoded words.
func (h Header) shortened(f Field) (Field, bool) {
	value := h.decode(f.Value())
	text, err := decodeWords(value)
	if err != nil || text == value && IsASCII(value) ||
		isOneOf(f, structured) || isOneOf(f, addressFields) || isOneOf(f, parametric) {
		return f, false
	}
	short, _ := encodeField(f, text)
	return short, LongLine(short.Raw) == len(short.Raw)
}
