package mail

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// charsets are those allowed in a display name: the ones that mail programs use and all readers decode alike. Charsets
// that encode ASCII differently (cp037, UTF-7, UTF-16) are excluded: they could show one reader what another does not
// see. A nil encoding is UTF-8.
var charsets = map[string]encoding.Encoding{
	"utf-8": nil, "utf8": nil, "us-ascii": nil, "ascii": nil,
	// Web readers decode Latin-1 as its superset Windows-1252; no name has C1 controls.
	"iso-8859-1": charmap.Windows1252, "latin1": charmap.Windows1252, "iso-8859-9": charmap.Windows1254,
	"iso-8859-2": charmap.ISO8859_2, "iso-8859-3": charmap.ISO8859_3, "iso-8859-4": charmap.ISO8859_4,
	"iso-8859-5": charmap.ISO8859_5, "iso-8859-6": charmap.ISO8859_6, "iso-8859-7": charmap.ISO8859_7,
	"iso-8859-8": charmap.ISO8859_8, "iso-8859-8-i": charmap.ISO8859_8I, "iso-8859-10": charmap.ISO8859_10,
	"iso-8859-11": charmap.Windows874, "tis-620": charmap.Windows874, "windows-874": charmap.Windows874,
	"iso-8859-13": charmap.ISO8859_13, "iso-8859-14": charmap.ISO8859_14, "iso-8859-15": charmap.ISO8859_15,
	"iso-8859-16": charmap.ISO8859_16, "koi8-r": charmap.KOI8R, "koi8-u": charmap.KOI8U,
	"windows-1250": charmap.Windows1250, "windows-1251": charmap.Windows1251, "windows-1252": charmap.Windows1252,
	"windows-1253": charmap.Windows1253, "windows-1254": charmap.Windows1254, "windows-1255": charmap.Windows1255,
	"windows-1256": charmap.Windows1256, "windows-1257": charmap.Windows1257, "windows-1258": charmap.Windows1258,
	"cp1250": charmap.Windows1250, "cp1251": charmap.Windows1251, "cp1252": charmap.Windows1252,
	"cp850": charmap.CodePage850, "ibm850": charmap.CodePage850, "cp866": charmap.CodePage866,
	"macintosh": charmap.Macintosh,
	"gb2312":    simplifiedchinese.GB18030, "gbk": simplifiedchinese.GB18030, "cp936": simplifiedchinese.GB18030,
	"gb18030": simplifiedchinese.GB18030, "big5": traditionalchinese.Big5, "big5-hkscs": traditionalchinese.Big5,
	"shift_jis": japanese.ShiftJIS, "shift-jis": japanese.ShiftJIS, "sjis": japanese.ShiftJIS,
	"windows-31j": japanese.ShiftJIS, "cp932": japanese.ShiftJIS,
	"euc-jp": japanese.EUCJP, "iso-2022-jp": japanese.ISO2022JP,
	"euc-kr": korean.EUCKR, "ks_c_5601-1987": korean.EUCKR, "cp949": korean.EUCKR, "windows-949": korean.EUCKR,
}

// findCharset looks up the charset of an encoded word; a language may follow it (RFC 2231 §5).
func findCharset(name string) (encoding.Encoding, bool) {
	name, _, _ = strings.Cut(name, "*")
	e, ok := charsets[strings.ToLower(name)]
	return e, ok
}

// maxEncodedText bounds one encoded word. RFC 2047 §2 says 75 octets; mailers that do not fold exceed it.
const maxEncodedText = 4096

// encodedWord is one encoded word of a text, s[start:end].
type encodedWord struct {
	start, end             int
	charset, encoding, raw string // raw is the text between the last two question marks
}

// nextWord finds the first encoded word from i on. Like the most lenient readers it needs no blanks around it and
// allows blanks in it.
func nextWord(s string, i int) (encodedWord, bool) {
	for {
		n := strings.Index(s[i:], "=?")
		if n < 0 {
			return encodedWord{}, false
		}
		i += n
		if w, ok := wordAt(s[i:]); ok {
			w.start, w.end = i, i+w.end
			return w, true
		}
		i += 2
	}
}

// wordAt parses the encoded word at the beginning of s.
func wordAt(s string) (w encodedWord, ok bool) {
	if !strings.HasPrefix(s, "=?") {
		return w, false
	}
	charset, rest, ok := strings.Cut(s[2:min(len(s), 66)], "?")
	if !ok || charset == "" || strings.ContainsAny(charset, " \t=") || len(rest) < 2 || rest[1] != '?' {
		return w, false
	}
	text := len(charset) + 5
	end := strings.Index(s[text:min(len(s), text+maxEncodedText)], "?=")
	if end < 0 {
		return w, false
	}
	return encodedWord{end: text + end + 2, charset: charset, encoding: rest[:1], raw: s[text : text+end]}, true
}

var noBlanks = strings.NewReplacer(" ", "", "\t", "")

// octets returns what the word encodes.
func (w encodedWord) octets() ([]byte, error) {
	switch w.encoding {
	case "b", "B":
		text := strings.TrimRight(noBlanks.Replace(w.raw), "=")
		return base64.RawStdEncoding.DecodeString(text)
	case "q", "Q":
		return unquotePrintable(w.raw)
	}
	return nil, errListEncoded
}

// unquotePrintable decodes the Q encoding (RFC 2047 §4.2).
func unquotePrintable(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '_':
			b = append(b, ' ')
		case '=':
			if i+3 > len(s) {
				return nil, errListEncoded
			}
			octet, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return nil, err
			}
			b = append(b, octet[0])
			i += 2
		default:
			b = append(b, c)
		}
	}
	return b, nil
}

// decodeWords decodes the encoded words of a text wherever they are. It removes white space between two of them (RFC
// 2047 §6.2) and decodes neighbours of one charset together, since a character may be split across them.
func decodeWords(s string) (string, error) {
	if !strings.Contains(s, "=?") {
		return s, nil
	}
	var b strings.Builder
	var pending []byte
	charset, last := "", 0
	flush := func() (err error) {
		var text string
		if len(pending) > 0 {
			text, err = decodeCharset(charset, pending)
		}
		b.WriteString(text)
		pending = nil
		return err
	}
	for w, ok := nextWord(s, 0); ok; w, ok = nextWord(s, w.end) {
		between := s[last:w.start]
		if last == 0 || strings.Trim(between, " \t") != "" {
			if err := flush(); err != nil {
				return "", err
			}
			b.WriteString(between)
		} else if !strings.EqualFold(charset, w.charset) {
			if err := flush(); err != nil {
				return "", err
			}
		}
		octets, err := w.octets()
		if err != nil {
			return "", errListEncoded
		}
		pending, charset, last = append(pending, octets...), w.charset, w.end
	}
	if err := flush(); err != nil {
		return "", err
	}
	b.WriteString(s[last:])
	return b.String(), nil
}

func decodeCharset(name string, octets []byte) (string, error) {
	e, ok := findCharset(name)
	switch {
	case !ok:
		return "", errListCharset
	case e == nil:
		return decodeRaw(string(octets)), nil
	}
	text, err := e.NewDecoder().Bytes(octets)
	if err != nil {
		return "", errListEncoded
	}
	return string(text), nil
}

// decodeRaw decodes octets without a declared charset: as UTF-8 if valid, else as Windows-1252.
func decodeRaw(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	text, err := charmap.Windows1252.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return text
}

// tidyWord reports whether all readers decode an encoded word alike: it is short, complete without its neighbours, has
// only characters allowed in a phrase (RFC 2047 §5), and its text encodes to the same octets again.
func tidyWord(s string) bool {
	w, ok := wordAt(s)
	if !ok || w.end != len(s) || len(s) > 75 || w.raw == "" || strings.ContainsFunc(w.raw, func(r rune) bool {
		return r != '=' && r != '_' && !isPhraseSafe(r)
	}) {
		return false
	}
	e, ok := findCharset(w.charset)
	if !ok || strings.Contains(w.charset, "*") {
		return false
	}
	octets, err := w.octets()
	if err != nil {
		return false
	}
	if e == nil {
		return utf8.Valid(octets)
	}
	text, err := e.NewDecoder().Bytes(octets)
	if err != nil || strings.ContainsRune(string(text), utf8.RuneError) {
		return false
	}
	again, err := e.NewEncoder().Bytes(text)
	return err == nil && string(again) == string(octets)
}

// isPhraseSafe reports whether r may be unencoded in an encoded word of a phrase (RFC 2047 §5 (3)).
func isPhraseSafe(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!*+-/", r)
}

// encodeWords writes a text as encoded words of at most 75 octets, in Q or B, whichever is shorter.
func encodeWords(text string) []string {
	q := 0
	for i := 0; i < len(text); i++ {
		if q++; !isPhraseSafe(rune(text[i])) && text[i] != ' ' {
			q += 2
		}
	}
	asQ := q <= base64.StdEncoding.EncodedLen(len(text))
	const room = 75 - len("=?utf-8?q?") - len("?=")
	var words []string
	for text != "" {
		n, width := 0, 0
		for _, r := range text {
			size := utf8.RuneLen(r)
			cost := base64.StdEncoding.EncodedLen(n + size)
			if asQ {
				cost = width + 3*size
				if isPhraseSafe(r) || r == ' ' {
					cost = width + 1
				}
			}
			if cost > room {
				break
			}
			n, width = n+size, cost
		}
		words = append(words, encodeWord(text[:n], asQ))
		text = text[n:]
	}
	return words
}

func encodeWord(text string, asQ bool) string {
	if !asQ {
		return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
	}
	var b strings.Builder
	b.WriteString("=?utf-8?q?")
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ' ':
			b.WriteByte('_')
		case isPhraseSafe(rune(c)):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	b.WriteString("?=")
	return b.String()
}
