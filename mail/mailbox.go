package mail

import (
	"cmp"
	"errors"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// mailbox is one entry of an originator field.
type mailbox struct {
	address Address
	name    string // the display name as a person sees it, "" without one
}

// The errors of readMailboxes; they complete the sentence "the From field …".
var (
	errListUTF8    = errors.New("has an address that is not valid UTF-8")
	errListEmpty   = errors.New("has an empty entry where a mailbox belongs")
	errListGroup   = errors.New(`uses group syntax; give plain mailboxes, a name with ":" or ";" in quotes`)
	errListNobody  = errors.New("has a name without an address; write Name <user@example.com>")
	errListComment = errors.New("has a comment without end or inside an address; " +
		"put the name in quotes before <address>")
	errListQuote   = errors.New("has a quoted string without end")
	errListAngle   = errors.New("has text after <address>, or angle brackets that do not match")
	errListEncoded = errors.New("has an encoded word that cannot be read")
	errListCharset = errors.New("has an encoded word in a charset that names are not written in; use UTF-8")
	errListControl = errors.New("has control or direction characters in a display name")
	errListRoute   = errors.New("has a source route in its address")
	errListLength  = errors.New("has an address that is too long")
	errListName    = errors.New("has a display name that is too long")
	errListLocal   = errors.New("has a quoted part before the @ that readers take for something else; " +
		"use letters, digits and dots")
	errListAddress = errors.New("has a malformed address; write Name <user@example.com>")
)

// readMailboxes parses the unfolded value of an originator field: a mailbox-list (RFC 5322 §3.4) without groups and
// routes. It also accepts what programs write that has only one meaning: comments around names and after addresses;
// unquoted dots, brackets, colons, commas and at signs in names; commas that separate nothing (RFC 5322 §4.4); 8-bit
// text. Other readers may read the same octets differently, but never get to see them: CanonicalAuthors rewrites the
// field. With errListNobody it returns a lone name without an address as a mailbox.
func readMailboxes(value string) ([]mailbox, error) {
	text := decodeRaw(value)
	var boxes []mailbox
	e := &entry{}
	for s := text; ; {
		rest, err := e.token(s)
		switch {
		case err != nil:
			return nil, err
		case rest != "" && rest[0] != ',':
			s = rest
			continue
		case rest != "" && e.isName(): // a comma in a name: Last, First <address>
			e.word(",", ",")
			s = rest[1:]
			continue
		}
		if !e.isEmpty() {
			box, err := e.mailbox()
			switch {
			case err == errListNobody && boxes == nil && rest == "":
				return []mailbox{box}, err
			case err != nil:
				return nil, err
			case text != value && box.address.NeedsUTF8():
				return nil, errListUTF8
			}
			boxes = append(boxes, box)
		}
		switch {
		case rest == "" && boxes == nil:
			return nil, errListEmpty
		case rest == "":
			return boxes, nil
		}
		s, e = rest[1:], &entry{}
	}
}

// maxEntry bounds a mailbox with its name, in octets, since isName looks at a name again for each comma in it.
const maxEntry = 8 << 10

// entry is the part of one mailbox that has been parsed so far.
type entry struct {
	name    strings.Builder // the words as a person sees them
	bare    strings.Builder // the words as written
	blank   bool            // white space since the last word
	words   int
	colon   bool   // there is a colon or semicolon among them
	comment string // the first one
	angle   bool   // there was an address in angle brackets
	address string // the text in them
}

// token parses what s begins with: white space, a comment, a quoted string, an angle address or a word. It leaves a
// comma to the caller.
func (e *entry) token(s string) (rest string, err error) {
	if s == "" || s[0] == ',' {
		return s, nil
	}
	n := 0
	switch s[0] {
	case ' ', '\t':
		rest = strings.TrimLeft(s, " \t")
		e.blank = true
		e.bare.WriteByte(' ')
		return rest, nil
	case '(':
		if n = CommentLen(s); n == 0 {
			return "", errListComment
		}
		e.remark(unquote(s[1 : n-1]))
		return s[n:], nil
	case '<':
		if n = angleLen(s); n == 0 || e.angle {
			return "", errListAngle
		}
		e.angle, e.address = true, s[1:n-1]
		return s[n:], nil
	case '>':
		return "", errListAngle
	case ')':
		return "", errListComment
	case ':', ';': // part of a name: HP LaserJet: 3rd floor <address>. A group has a list and a semicolon.
		if e.angle || s[0] == ';' && strings.Contains(e.bare.String(), ":") {
			return "", errListGroup
		}
		e.colon = true
		return s[1:], e.word(s[:1], s[:1])
	case '"':
		if n = QuotedLen(s); n == 0 {
			return "", errListQuote
		}
		return s[n:], e.word(s[:n], unquote(s[1:n-1]))
	}
	n = wordLen(s)
	return s[n:], e.word(s[:n], s[:n])
}

// wordLen returns the length of the word at the beginning of s. An encoded word counts whole; an address literal may
// have colons.
func wordLen(s string) int {
	if w, ok := wordAt(s); ok && !strings.ContainsAny(w.raw, `<>"`) {
		return w.end // specials in it belong to it
	}
	n := strings.IndexAny(s, " \t(),<>:;\"")
	if n < 0 {
		return len(s)
	}
	at := strings.LastIndex(s[:n], "@[")
	if at < 0 || s[n] != ':' {
		return n
	}
	end := strings.IndexAny(s[at:], "] \t(),<>;\"")
	if end < 0 || s[at+end] != ']' {
		return n
	}
	return at + end + 1
}

func (e *entry) word(written, shown string) error {
	if e.angle {
		return errListAngle
	}
	if e.blank && e.words > 0 && written != "," {
		e.name.WriteByte(' ')
	}
	if e.bare.Len()+len(written) > maxEntry {
		return errListName
	}
	e.name.WriteString(shown)
	e.bare.WriteString(written)
	e.words++
	e.blank = false
	return nil
}

// remark adds a comment. After the words of a name it is part of what a person sees; without words it is the name:
// user@example.com (Name).
func (e *entry) remark(text string) {
	e.comment = cmp.Or(e.comment, text)
	if e.words > 0 && !e.angle {
		e.name.WriteString(" (" + text + ")")
	}
	e.bare.WriteByte('(') // which no address has: the parts around it do not form one
	e.blank = true
}

// isEmpty reports whether there is nothing between two commas.
func (e *entry) isEmpty() bool { return e.words == 0 && !e.angle && e.comment == "" }

// isName reports whether the entry before a comma is the beginning of a name rather than a mailbox.
func (e *entry) isName() bool {
	name := e.name.String()
	return !e.angle && e.comment == "" && name != "" && !strings.Contains(name, "@") && !strings.HasSuffix(name, ",")
}

// mailbox returns a complete entry as a mailbox.
func (e *entry) mailbox() (m mailbox, err error) {
	name, address := e.name.String(), withoutComment(strings.Trim(e.address, " \t"))
	if !e.angle {
		name, address = e.comment, strings.Trim(e.bare.String(), " (")
	} else if e.words == 0 {
		name = e.comment
	}
	switch {
	case e.colon && (!e.angle || strings.Contains(name, "@")):
		return m, errListGroup
	case !e.angle && address == "":
		return m, errListEmpty
	}
	if m.name, err = shownName(name); err != nil {
		return m, err
	}
	if address == "" {
		return m, errListNobody
	}
	m.address, err = parseHeaderAddress(address)
	return m, err
}

// withoutComment removes a comment after an address inside angle brackets, which is legal (RFC 5322 §3.4.1) and means
// nothing: <root@example.com (fcron)>.
func withoutComment(address string) string {
	if !strings.HasSuffix(address, ")") || strings.IndexByte(address, '"') >= 0 {
		return address
	}
	open := strings.IndexByte(address, '(')
	if open < 1 || CommentLen(address[open:]) != len(address)-open {
		return address
	}
	return strings.Trim(address[:open], " \t")
}

// shownName decodes a display name and collapses white space. It also decodes encoded words in quotes, as many readers
// do despite RFC 2047 §5.
func shownName(s string) (string, error) {
	text, err := decodeWords(s)
	if err != nil {
		return "", err
	}
	if again, _ := decodeWords(text); again != text {
		return "", errListEncoded // an encoded word of an encoded word
	}
	for _, r := range text {
		if unicode.IsControl(r) && r != '\t' || isDirection(r) {
			return "", errListControl
		}
	}
	text = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
	for strings.Contains(text, "  ") {
		text = strings.ReplaceAll(text, "  ", " ")
	}
	return strings.Trim(text, " "), nil
}

// isDirection reports whether r changes the direction of the text after it (Unicode TR 36 §2.3). The plain marks U+200E
// and U+200F are allowed: Hebrew and Arabic names have them.
func isDirection(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// named returns the addresses other than the mailbox's own that the display name shows, as received and as written.
func (m mailbox) named() []Address {
	var others []Address
	shown := addressesIn(m.name)
	if written := m.written(); written != m.name {
		shown = append(shown, addressesIn(written)...)
	}
	for _, a := range shown {
		if a.Domain != m.address.Domain || !strings.EqualFold(a.Local, m.address.Local) {
			others = append(others, a)
		}
	}
	return others
}

// parseHeaderAddress parses an address of an author field. Its local part, quoted or not, may have only atom characters
// and dots: some readers find addresses in quoted at signs and blanks, and decode whatever looks like an encoded word.
func parseHeaderAddress(s string) (Address, error) {
	a, err := ParseAddress(s)
	if at := strings.LastIndexByte(s, '@'); err != nil && at > 0 && isDotted(s[:at]) {
		quoted, dottedErr := ParseAddress(`"` + s[:at] + `"` + s[at:])
		if dottedErr == nil {
			a, err = quoted, nil
		}
	}
	switch {
	case err == nil && !isDotted(a.Local):
		return Address{}, errListLocal
	case err == nil:
		return a, nil
	case errors.Is(err, ErrAddressRoute):
		return a, errListRoute
	case errors.Is(err, ErrAddressLength):
		return a, errListLength
	case strings.ContainsAny(s, "()"):
		return a, errListComment
	}
	return a, errListAddress
}

// isDotted reports whether a local part has only atom characters and dots, even after decoding and after folding
// compatibility characters.
func isDotted(local string) bool {
	if strings.Contains(local, "=?") {
		return false
	}
	if !IsASCII(local) {
		local = norm.NFKC.String(local)
	}
	return local != "" && !strings.ContainsFunc(local, func(r rune) bool {
		return r < 0x80 && r != '.' && !isAtext(byte(r)) || r >= 0x80 && !unicode.In(r, unicode.L, unicode.M, unicode.N)
	})
}

// QuotedLen returns the length of the quoted string at the beginning of s, 0 if it has no end.
func QuotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// angleLen returns the length of the address in angle brackets at the beginning of s, 0 if it has no end.
func angleLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			n := QuotedLen(s[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '<':
			return 0
		case '>':
			return i + 1
		}
	}
	return 0
}

// CommentLen returns the length of the comment at the beginning of s, 0 if it has no end. Comments nest (RFC 5322
// §3.2.2).
func CommentLen(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

func unquote(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
