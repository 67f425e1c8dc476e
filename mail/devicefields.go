package mail

import (
	"mime"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"
)

// mendFields rewrites fields of recipients, parameters and encodings that devices write so that readers differ in them,
// or take them for nothing.
func (h *Header) mendFields() {
	for i := 0; i < len(h.Fields); i++ {
		f := h.Fields[i]
		mended, ok := f, false
		switch {
		case f.Value() == "": // Complete removes it
		case f.Is("To"), f.Is("Cc"), f.Is("Reply-To"):
			mended, ok = mendAddresses(f)
		case isOneOf(f, parametric):
			mended, ok = mendParameters(f.Name, h.decode(f.Value()))
		case f.Is("Content-Transfer-Encoding"):
			mended, ok = mendEncoding(f)
		}
		switch {
		case !ok:
		case mended.Raw == nil:
			h.RemoveAt(i)
			i--
			h.Mended = append(h.Mended, "the "+f.Name+" field is removed: nothing in it is of use ("+
				quoted(f.Value())+")")
		default:
			h.Replace(i, mended)
			h.Mended = append(h.Mended, "the "+f.Name+" field is written anew: it was "+quoted(f.Value()))
		}
	}
}

// mendAddresses reports whether a list of addresses was no list, and returns it as one, without Raw if it has none.
func mendAddresses(f Field) (Field, bool) {
	value := f.Value()
	if isAddressList(value) {
		return f, false
	}
	boxes, err := readMailboxes(value)
	switch {
	case err == nil && !IsASCII(value): // EncodeText has its turn
		return f, false
	case err != nil && strings.HasSuffix(value, ":;"): // an empty group, which has a meaning
		return f, false
	case err != nil:
		boxes = nil
		for _, piece := range splitOutside(value, ",;") {
			boxes = append(boxes, anyMailbox(piece)...)
		}
	}
	if len(boxes) == 0 {
		return Field{Name: f.Name}, true
	}
	return authorField(f.Name, boxes), true
}

// isAddressList reports whether every reader takes a list as the same addresses.
func isAddressList(value string) bool {
	list, err := netmail.ParseAddressList(value)
	empty := func(piece string) bool { return strings.TrimSpace(piece) == "" }
	if err != nil || !IsASCII(value) || slices.ContainsFunc(splitOutside(value, ","), empty) {
		return false
	}
	return !slices.ContainsFunc(list, func(a *netmail.Address) bool {
		_, err := ParseAddress(a.Address)
		return err != nil
	})
}

// looksLikeAddress finds the address in what is no mailbox: mailto:a@b, <<a@b>>, 'a@b'.
var looksLikeAddress = regexp.MustCompile(`[^][\s<>():;,"'@\\]+@[^][\s<>():;,"'@\\]+`)

// anyMailbox returns what a piece of a list means, nothing if it has no address.
func anyMailbox(piece string) []mailbox {
	if boxes, err := readMailboxes(piece); err == nil {
		return boxes
	}
	a, err := parseHeaderAddress(looksLikeAddress.FindString(piece))
	if err != nil {
		return nil
	}
	return []mailbox{{address: a}}
}

// splitOutside splits s at each of separators that is not within quotes. One without an end quotes nothing.
func splitOutside(s, separators string) (parts []string) {
	from, open := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"' && !open:
			n := QuotedLen(s[i:])
			open = n == 0
			i += max(n-1, 0)
		case strings.IndexByte(separators, s[i]) >= 0:
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:])
}

// maxParameters bounds what is mended; ten are many.
const maxParameters = 100

// mendParameters reports whether parameters were not written as RFC 2045 §5.1 has them, and returns them so: in quotes
// where they need some, encoded where they are not ASCII (RFC 2231), each once. text is the value in UTF-8.
func mendParameters(name, text string) (Field, bool) {
	if _, _, err := mime.ParseMediaType(text); err == nil {
		return Field{}, false
	}
	parts := splitOutside(text, ";")
	value := strings.ToLower(strings.TrimSpace(parts[0]))
	if mime.FormatMediaType(value, nil) == "" || len(parts) > maxParameters {
		return Field{}, false
	}
	var seen []string
	for _, part := range parts[1:] {
		key, is, found := strings.Cut(part, "=")
		key, is = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(is)
		if n := len(is); n > 1 && is[0] == '"' && QuotedLen(is) == n {
			is = unquote(is[1 : n-1])
		}
		if key == "boundary" && !IsASCII(is) { // the body has it octet for octet
			return Field{}, false
		}
		written := mime.FormatMediaType("x", map[string]string{key: is})
		if !found || written == "" || slices.Contains(seen, key) {
			continue
		}
		seen = append(seen, key)
		value += strings.TrimPrefix(written, "x")
	}
	f := NewField(name, value)
	if LongLine(f.Raw) != len(f.Raw) {
		return f, false
	}
	return f, true
}

// encodings are those of RFC 2045 §6.
var encodings = []string{"7bit", "8bit", "binary", "base64", "quoted-printable"}

// mendEncoding writes one of encodings that was misspelled. What is none is removed, but for those of one's own (x-):
// readers show nothing of a part whose encoding they do not know.
func mendEncoding(f Field) (Field, bool) {
	value := strings.ToLower(f.Value())
	if slices.Contains(encodings, value) || strings.HasPrefix(value, "x-") || strings.Contains(value, "(") {
		return f, false
	}
	letters := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, s)
	}
	for _, e := range encodings {
		if letters(value) == letters(e) {
			return NewField(f.Name, e), true
		}
	}
	return Field{Name: f.Name}, true
}
