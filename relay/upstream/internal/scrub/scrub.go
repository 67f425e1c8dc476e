// Package scrub removes our own secrets from what a provider says. Servers repeat what they were sent: a password in a
// 535, a client secret in an OAuth error, a bearer token in a 400, whole or cut, in clear or in the encoding in which
// it was sent.
//
// Failure semantics: in doubt it removes too much. A Scrubber never lets through enough of a secret to be of use; a
// text without secrets costs next to nothing.
package scrub

import (
	"encoding/base64"
	"encoding/hex"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/mail"
)

// Redacted stands where a secret stood.
const Redacted = "[redacted]"

const (
	// minRun is the fewest octets in a row of a secret that are taken for an echo of it.
	minRun = 6
	// maxRun is enough of any secret: fewer come up by chance, and more would let a cut token through.
	maxRun = 12
	// minEncoded is minRun for encodings, whose letters are like any others.
	minEncoded = 8
	// minJoined is minRun where the white space between words is left out.
	minJoined = 8
)

// Scrubber knows the secrets of one connection or request. The zero value and nil know none. It is not safe for
// concurrent use.
type Scrubber struct {
	secrets []string
	needles []needle // made at first use
	short   []string // secrets of fewer than minRun octets
	filter  []uint64 // hashes of what needles begin with at each offset
}

// needle is one form of a secret, folded, and how much of it in a row is an echo.
type needle struct {
	text string
	run  int
}

// New makes a Scrubber. Empty secrets are none.
func New(secrets ...string) *Scrubber {
	s := &Scrubber{}
	s.Add(secrets...)
	return s
}

// Add adds secrets that go out from now on.
func (s *Scrubber) Add(secrets ...string) {
	for _, secret := range secrets {
		if secret != "" && !slices.Contains(s.secrets, secret) {
			s.secrets = append(s.secrets, secret)
			s.needles, s.short, s.filter = nil, nil, nil
		}
	}
}

// Reply is a reply without secrets.
func (s *Scrubber) Reply(r mail.Reply) mail.Reply {
	r.Text = s.Text(r.Text)
	return r
}

// Text is a text without secrets. It must not be cut before: a cut may leave a run too short to be known.
func (s *Scrubber) Text(text string) string {
	if s == nil || len(s.secrets) == 0 || text == "" {
		return text
	}
	if s.filter == nil {
		s.prepare()
	}
	var hit []bool
	for _, v := range views(text, s.hasJoined) {
		s.look(v, func(i, j int) {
			if hit == nil {
				hit = make([]bool, len(text))
			}
			from, to := v.source(i, j)
			for k := from; k < to; k++ {
				hit[k] = true
			}
		})
	}
	if hit == nil {
		return text
	}
	return redact(text, hit)
}

// find calls yield with the place of each echo in a text, in part of which words may have been joined.
func (s *Scrubber) find(folded string, joined bool, yield func(from, to int) bool) {
	for i := 0; i+minRun <= len(folded); i++ {
		if !s.mayBegin(folded[i:]) {
			continue
		}
		for _, n := range s.needles {
			run := n.run
			if joined {
				run = max(run, min(minJoined, len(n.text)))
			}
			if i+run <= len(folded) && strings.Contains(n.text, folded[i:i+run]) && !yield(i, i+run) {
				return
			}
		}
	}
}

func (s *Scrubber) hasJoined(squeezed string) (has bool) {
	s.find(fold(squeezed), true, func(int, int) bool { has = true; return false })
	return has
}

// look marks the echoes in a view.
func (s *Scrubber) look(v *view, mark func(from, to int)) {
	folded := fold(v.text)
	s.find(folded, v.joined, func(from, to int) bool { mark(from, to); return true })
	if v.joined {
		return
	}
	for _, secret := range s.short {
		for at := 0; ; {
			i := strings.Index(folded[at:], secret)
			if i < 0 {
				break
			}
			from, to := at+i, at+i+len(secret)
			if alone(folded, from, to) {
				mark(from, to)
			}
			at = to
		}
	}
}

func redact(text string, hit []bool) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && hit[j] == hit[i] {
			j++
		}
		if hit[i] {
			b.WriteString(Redacted)
		} else {
			b.WriteString(strings.ToValidUTF8(text[i:j], "?"))
		}
		i = j
	}
	return b.String()
}

// alone reports that what stands at from to to is no part of a longer word.
func alone(text string, from, to int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:from])
	after, _ := utf8.DecodeRuneInString(text[to:])
	word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	return (from == 0 || !word(before)) && (to == len(text) || !word(after))
}

// fold makes ASCII letters lower case and both alphabets of base64 (RFC 4648 §4, §5) one. It keeps offsets.
func fold(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case c == '-':
			b[i] = '+'
		case c == '_':
			b[i] = '/'
		}
	}
	return string(b)
}

func (s *Scrubber) prepare() {
	seen := make(map[string]bool)
	add := func(text string, least int) {
		text = fold(text)
		if len(text) < least || seen[text] {
			return
		}
		seen[text] = true
		s.needles = append(s.needles, needle{text, min(max(least, len(text)/2), maxRun)})
	}
	both := func(text string, least int) {
		add(text, least)
		add(strings.Join(strings.Fields(text), ""), max(least, minJoined))
	}
	for _, secret := range s.secrets {
		if len(secret) < minRun {
			s.short = append(s.short, fold(secret))
		}
		for _, form := range forms(secret) {
			both(form, minRun)
			for pad := range 3 {
				add(base64Core(form, pad), minEncoded)
			}
		}
		add(hex.EncodeToString([]byte(secret)), minEncoded)
	}
	total := 0
	for _, n := range s.needles {
		total += len(n.text)
	}
	size := 1
	for size*64 < 16*total {
		size *= 2
	}
	s.filter = make([]uint64, size)
	for _, n := range s.needles {
		for i := 0; i+minRun <= len(n.text); i++ {
			h := s.hash(n.text[i:])
			s.filter[h/64] |= 1 << (h % 64)
		}
	}
}

// forms are the secret as it is, and as URLs, HTML and string literals write it.
func forms(secret string) []string {
	quoted := strconv.Quote(secret)
	return []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret),
		quoted[1 : len(quoted)-1]}
}

// base64Core is what base64 has of a text behind pad other octets, whatever these and those behind it are.
func base64Core(text string, pad int) string {
	encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", pad) + text))
	from := (pad*8 + 5) / 6         // the first digit that is of the text alone
	to := (pad + len(text)) * 8 / 6 // behind the last
	return encoded[min(from, to):to]
}

// hash is that of the first minRun octets.
func (s *Scrubber) hash(t string) uint64 {
	_ = t[minRun-1]
	h := uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 | uint64(t[4])<<32 | uint64(t[5])<<40
	h *= 0x9e3779b97f4a7c15 // Knuth, The Art of Computer Programming 6.4: multiplicative hashing
	return h >> 32 & uint64(len(s.filter)*64-1)
}

func (s *Scrubber) mayBegin(text string) bool {
	h := s.hash(text)
	return s.filter[h/64]&(1<<(h%64)) != 0
}
