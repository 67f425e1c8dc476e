package replies

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/mail"
)

// Sample is a reply made ready to be compared with many rules. Providers break the same words into lines at other
// places, so they are looked for in the joined text too.
type Sample struct {
	code     int
	enhanced string
	raw      string // as it came, at most MaxText of it: what a person sees is what was classified
	flat     string // on one line, one space between words
	said     string // raw without addresses
	line     string // the same on one line
	words    string // line without what else others choose: domains, URLs; dots end sentences only
	lower    string // words in lower case
}

// NewSample prepares a reply. about is the addresses that it may repeat.
func NewSample(r mail.Reply, about ...mail.Address) *Sample {
	s := &Sample{code: r.Code, enhanced: r.Enhanced, raw: mail.Cut(r.Text, MaxText)}
	s.flat = oneLine(s.raw)
	s.said = withoutAddresses(s.raw, about)
	s.line = oneLine(s.said)
	s.words = wordsOf(s.line, about)
	s.lower = strings.ToLower(s.words)
	return s
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Names that a stranger chooses must not decide: <quota-exceeded@example.com> is no quota.
var (
	bracketed  = regexp.MustCompile(`<(?:"(?:[^"\\]|\\.)*"|[^<>"])*@[^<>]*>`)
	quotedAddr = regexp.MustCompile(`"(?:[^"\\]|\\.)*"@[^ <>()\[\],;"'\r\n]+`)
	plainAddr  = regexp.MustCompile(`[^ <>()\[\],;"'\r\n]+@[^ <>()\[\],;"'\r\n]+`)
	link       = regexp.MustCompile(`(?i)\b(?:https?://|www\.)[^ ]*`)
	innerDot   = regexp.MustCompile(`\.(\w)`)
)

// withoutAddresses has an at sign where text has an address: one of those that the reply is about, however it writes
// them, or what looks like one.
func withoutAddresses(text string, about []mail.Address) string {
	for _, a := range about {
		text = replaceFold(text, a.String(), "@")
		text = replaceFold(text, a.Local+"@"+a.Domain, "@")
		if strings.ContainsAny(a.Local, " <>,;:()") {
			text = replaceFold(text, a.Local, "@")
		}
	}
	if !strings.Contains(text, "@") {
		return text
	}
	text = bracketed.ReplaceAllString(text, "<@>")
	text = quotedAddr.ReplaceAllString(text, "@")
	return plainAddr.ReplaceAllString(text, "@")
}

// wordsOf is a line without names that others choose.
func wordsOf(line string, about []mail.Address) string {
	for _, a := range about {
		if strings.Contains(a.Domain, ".") {
			line = replaceFold(line, a.Domain, "example.net")
		}
	}
	return innerDot.ReplaceAllString(link.ReplaceAllString(line, ""), "_$1")
}

// replaceFold replaces old, in any case of ASCII letters.
func replaceFold(s, old, new string) string {
	if old == "" || len(old) > len(s) {
		return s
	}
	var b strings.Builder
	at := 0
	for i := 0; i+len(old) <= len(s); {
		if (s[i]|0x20) == (old[0]|0x20) && strings.EqualFold(s[i:i+len(old)], old) {
			b.WriteString(s[at:i])
			b.WriteString(new)
			i += len(old)
			at = i
			continue
		}
		i++
	}
	if at == 0 {
		return s
	}
	return b.String() + s[at:]
}

// Windows lists what the rules may say of quotas, so that what was sent within them is counted.
func (rs *Rules) Windows() []time.Duration {
	var list []time.Duration
	add := func(d time.Duration) {
		if d > 0 && !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	for _, m := range rs.own {
		add(m.Quota)
	}
	add(time.Hour) // the generic rules read it from the reply; others than these two are rare and only waited for
	add(24 * time.Hour)
	return list
}

// Lapsed reports that a reply to MAIL says that the connection has lost its login.
func (rs *Rules) Lapsed(r mail.Reply, from mail.Address) bool {
	m, _ := rs.find(mail.StageMail, NewSample(r, from))
	return m.Login
}
