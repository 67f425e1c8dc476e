package mail

import (
	"errors"
	"io"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mailbox is one entry of an originator field.
type mailbox struct {
	address Address
	phrase  string // the display name as it is written, "" without one
	text    string // the display name as a person sees it
}

// The reasons for which parseMailboxes refuses; they complete the sentence "the From field …".
var (
	errListUTF8     = errors.New("is not valid UTF-8")
	errListEmpty    = errors.New("has an empty place where a mailbox belongs")
	errListGroup    = errors.New("uses group syntax; give plain mailboxes")
	errListComment  = errors.New("has a comment in parentheses where readers differ; put the name in quotes before <address>")
	errListAt       = errors.New(`has an unquoted "@" in a display name; put the name in quotes`)
	errListQuote    = errors.New("has a quoted string without end")
	errListSpecial  = errors.New("has a special character in a display name; put the name in quotes")
	errListAngle    = errors.New("has text behind <address>, or angle brackets that do not match")
	errListEncoded  = errors.New("has an encoded word that cannot be read or that hides an address")
	errListControl  = errors.New("has control or direction characters in a display name")
	errListRoute    = errors.New("has a source route in its address")
	errListLength   = errors.New("has an address that is too long")
	errListAddress  = errors.New("has a malformed address; write Name <user@example.com>")
	errListDisagree = errors.New("can be read in more than one way; write Name <user@example.com>")
)

// parseMailboxes reads the unfolded value of an originator field (RFC 5322 §3.4 mailbox-list, without
// its obsolete forms). An empty value is refused.
func parseMailboxes(value string) ([]mailbox, error) {
	if !utf8.ValidString(value) {
		return nil, errListUTF8
	}
	var boxes []mailbox
	for rest, more := value, true; more; {
		var entry string
		var err error
		if entry, rest, more, err = cutEntry(rest); err != nil {
			return nil, err
		}
		box, err := parseMailbox(strings.Trim(entry, " \t"))
		if err != nil {
			return nil, err
		}
		boxes = append(boxes, box)
	}
	if !agrees(value, boxes) {
		return nil, errListDisagree
	}
	return boxes, nil
}

// cutEntry cuts a list at its first comma that is neither quoted nor in angle brackets.
func cutEntry(s string) (entry, rest string, more bool, err error) {
	angle := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			n := quotedLen(s[i:])
			if n == 0 {
				return "", "", false, errListQuote
			}
			i += n - 1
		case '<':
			angle = true
		case '>':
			angle = false
		case ',':
			if !angle {
				return s[:i], s[i+1:], true, nil
			}
		}
	}
	return s, "", false, nil
}

// quotedLen returns the length of the quoted string at the beginning of s, 0 if it has no end.
func quotedLen(s string) int {
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

func parseMailbox(s string) (mailbox, error) {
	if s == "" {
		return mailbox{}, errListEmpty
	}
	open := indexUnquoted(s, '<')
	if open < 0 {
		return parseBare(s)
	}
	if s[len(s)-1] != '>' {
		if strings.HasSuffix(s, ";") {
			return mailbox{}, errListGroup
		}
		return mailbox{}, errListAngle
	}
	box := mailbox{phrase: strings.Trim(s[:open], " \t")}
	var err error
	if box.text, err = phraseText(box.phrase); err != nil {
		return mailbox{}, err
	}
	if box.address, err = parseListAddress(s[open+1 : len(s)-1]); err != nil {
		return mailbox{}, err
	}
	err = box.check()
	return box, err
}

// parseBare reads `addr-spec` and `addr-spec (Name)`, which cron and old mailers write.
func parseBare(s string) (mailbox, error) {
	if indexUnquoted(s, ';') >= 0 {
		return mailbox{}, errListGroup
	}
	var box mailbox
	if strings.HasSuffix(s, ")") {
		open := strings.LastIndexByte(s, '(')
		if open < 0 || strings.ContainsAny(s[open+1:len(s)-1], `()<>[]:;@\,"`) {
			return mailbox{}, errListComment
		}
		if name := strings.Trim(s[open+1:len(s)-1], " \t"); name != "" {
			box.phrase, box.text = `"`+name+`"`, name
			if strings.Contains(name, "=?") { // encoded words stand outside quotes
				box.phrase = name
			}
			s = s[:open]
		}
	}
	var err error
	if box.address, err = parseListAddress(strings.TrimRight(s, " \t")); err != nil {
		return mailbox{}, err
	}
	err = box.check()
	return box, err
}

func parseListAddress(s string) (Address, error) {
	a, err := ParseAddress(s)
	switch {
	case err == nil:
		return a, nil
	case errors.Is(err, ErrAddressRoute):
		return a, errListRoute
	case errors.Is(err, ErrAddressLength):
		return a, errListLength
	case strings.ContainsAny(s, "()"):
		return a, errListComment
	case indexUnquoted(s, ':') >= 0 && !strings.Contains(s, "["):
		return a, errListGroup
	}
	return a, errListAddress
}

func indexUnquoted(s string, c byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return i
		}
		if s[i] == '"' {
			i += max(quotedLen(s[i:])-1, 0)
		}
	}
	return -1
}

// phraseText reads a display name: atoms, dots and quoted strings. Words are joined by one blank.
func phraseText(s string) (string, error) {
	var words []string
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		if s[0] == '"' {
			n := quotedLen(s)
			if n == 0 {
				return "", errListQuote
			}
			words = append(words, unquote(s[1:n-1]))
			s = s[n:]
			continue
		}
		n := 0
		for n < len(s) && (isAtext(s[n]) || s[n] == '.' || s[n] >= utf8.RuneSelf) {
			n++
		}
		if n == 0 {
			return "", phraseError(s[0])
		}
		words = append(words, s[:n])
		s = s[n:]
	}
	return strings.Join(words, " "), nil
}

func phraseError(c byte) error {
	switch c {
	case '@':
		return errListAt
	case ':', ';':
		return errListGroup
	case '(', ')':
		return errListComment
	case '>':
		return errListAngle
	}
	return errListSpecial
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

// check decodes the encoded words of a display name, also those in quotes, where many readers decode
// them against RFC 2047 §5, and refuses what would mislead.
func (m *mailbox) check() error {
	shown := m.text
	if strings.Contains(shown, "=?") {
		decoded, err := wordDecoder.DecodeHeader(shown)
		if err != nil || strings.Contains(decoded, "=?") && strings.Contains(decoded, "?=") {
			return errListEncoded
		}
		// A reader that decodes first and parses then must find the same mailbox.
		if decoded != shown && strings.ContainsAny(decoded, "<>") {
			return errListEncoded
		}
		m.text = decoded
		if decoded != shown && len(m.named()) > 0 {
			return errListEncoded
		}
	}
	for _, r := range m.text {
		if unicode.IsControl(r) && r != '\t' || isDirection(r) {
			return errListControl
		}
	}
	return nil
}

// isDirection reports the characters that turn the order of what follows (Unicode TR 36 §2.3). The
// plain marks U+200E and U+200F stay: Hebrew and Arabic names have them.
func isDirection(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// named returns the addresses that the display name shows, other than the mailbox itself.
func (m mailbox) named() []Address {
	var others []Address
	for _, a := range addressesIn(m.text) {
		if a.Domain != m.address.Domain || !strings.EqualFold(a.Local, m.address.Local) {
			others = append(others, a)
		}
	}
	return others
}

// addressesIn finds what a person would read as an address: an at sign, also in its wide forms, with
// name characters on its left and a domain with a dot on its right.
func addressesIn(text string) []Address {
	if !strings.ContainsAny(text, "@\uff20\ufe6b") {
		return nil
	}
	text = strings.NewReplacer("\uff20", "@", "\ufe6b", "@").Replace(text)
	var found []Address
	for i := 0; i < len(text); i++ {
		if text[i] != '@' {
			continue
		}
		local, domain := text[:i], text[i+1:]
		if end := strings.LastIndexFunc(local, notIn("!#$%&*+-/=?^_{|}~.")); end >= 0 {
			_, n := utf8.DecodeRuneInString(local[end:])
			local = local[end+n:]
		}
		if end := strings.IndexFunc(domain, notIn("-_.")); end >= 0 {
			domain = domain[:end]
		}
		domain = strings.Trim(domain, ".")
		if local != "" && strings.Contains(domain, ".") {
			found = append(found, Address{Local: local, Domain: strings.ToLower(domain)})
		}
	}
	return found
}

// notIn returns a test for what is neither letter nor digit nor one of marks: blanks and quotes of all
// kinds end what a person reads as an address.
func notIn(marks string) func(rune) bool {
	return func(r rune) bool {
		return !(unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || strings.ContainsRune(marks, r))
	}
}

// wordDecoder decodes encoded words of every charset far enough to find an address in them.
var wordDecoder = &mime.WordDecoder{CharsetReader: asciiOf}

// asciiOf reads a charset that package mime does not know as what of it is ASCII: "@", "." and letters
// are the same octets in all that are in use. Charsets of 16 or 32 bits and UTF-7 are refused; nobody
// writes a name in them.
func asciiOf(charset string, r io.Reader) (io.Reader, error) {
	charset = strings.ToLower(charset)
	raw, err := io.ReadAll(r)
	if err != nil || strings.HasPrefix(charset, "utf-") || strings.HasPrefix(charset, "utf7") ||
		strings.HasPrefix(charset, "ucs") || strings.HasPrefix(charset, "iso-10646") {
		return nil, errListEncoded
	}
	if strings.HasPrefix(charset, "iso-2022") {
		raw = dropShifted(raw)
	}
	return strings.NewReader(ascii(raw, doubleByte(charset))), nil
}

// doubleByte reports the charsets whose second octet of a character can be an ASCII one.
func doubleByte(charset string) bool {
	for _, prefix := range []string{"gb", "big5", "shift", "sjis", "ms_kanji", "windows-31j", "windows-9", "cp9", "ks_c", "euc", "johab", "x-"} {
		if strings.HasPrefix(charset, prefix) {
			return true
		}
	}
	return false
}

func ascii(raw []byte, double bool) string {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] < utf8.RuneSelf {
			b.WriteByte(raw[i])
			continue
		}
		b.WriteRune('\u02ac') // a letter that stands for some other
		if double {
			i++
		}
	}
	return b.String()
}

// dropShifted removes the escape sequences of ISO 2022 and blanks out the double-octet text between them
// (RFC 1468).
func dropShifted(raw []byte) []byte {
	var kept []byte
	shifted := false
	for i := 0; i < len(raw); i++ {
		if raw[i] != 0x1b {
			if shifted {
				kept = append(kept, 0xff) // some character beyond ASCII
			} else {
				kept = append(kept, raw[i])
			}
			continue
		}
		if i+1 < len(raw) {
			shifted = raw[i+1] == '$'
		}
		for i+1 < len(raw) && raw[i+1] < 0x30 { // intermediate octets, then one final
			i++
		}
		i++
	}
	return kept
}
