package storm

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"postern/mail"
)

const (
	maxText  = 1024 // octets of a reply that are looked at
	maxWords = 48
	alike    = 0.8 // share of words that two forms of one text have in common
)

// kind is what a text says of itself. No list is ever complete, so a kind never decides alone: it only says how much
// has to be seen before the text is doubted.
type kind uint8

const (
	unnamed       kind = iota // names nobody's fault: the account's may be meant
	ofTheContent              // names the message: virus, size, form
	ofTheReceiver             // names the recipient: unknown, full, invalid
)

var (
	receiverStatus = regexp.MustCompile(`^5\.(1\.(1|2|3|6|10)|2\.[12])$`)
	receiverText   = regexp.MustCompile(`(?i)\b(user|recipient|mailbox|rcpt) (is )?unknown|unknown (local |virtual ` +
		`)?(user|recipient|mailbox|address)` +
		`|no such (user|recipient|mailbox|address|person|account)|no (mailbox|user) (here|by that name)` +
		`|(user|recipient|mailbox|inbox|address)( \S+){0,4} (not found|does(n't| not) exist|do not exist|not exist|` +
		`unavailable|inactive|disabled|full|over quota|no longer)` +
		`|recipient (address )?(is )?(rejected|refused|invalid|unknown)|invalid (recipient|mailbox)|not a valid ` +
		`(recipient|mailbox|user)|mailbox (is )?(full|unavailable)` +
		`|(tried|trying) to reach|unrout(e)?able|not our customer`)
	contentStatus = regexp.MustCompile(`^5\.(2\.3|3\.4|6\.\d+|7\.26)$`)
	contentText   = regexp.MustCompile(`(?i)\b(virus|malware|trojan|ransomware|phishing|attachments?)\b|\b(message|` +
		`mail|content) (is |was |has been |looks like |appears to be )?` +
		`(likely |classified as |identified as |considered |detected as )?(spam|unsolicited|junk|suspicious|too ` +
		`(big|large)|malformed)` +
		`|contains? (spam|a |an |bad |forbidden |illegal )|(message|mail) size|duplicate header|\bdmarc\b`)
	// ofUs is what a text says that means the account, whatever else it names.
	ofUs = regexp.MustCompile(`(?i)\byour (\w+ )?(account|mailbox|user|ip|domain|host|server|organi[sz]ation|tenant|` +
		`address)\b` +
		`|\b(sender|relay(ing)?|authenticat\w+|log ?in|client host|helo|tenant|suspended|rate|banned|outgoing|` +
		`outbound)\b`)
)

// kindOf reads a reply. Whether a recipient exists is told at RCPT; only its own status code is believed elsewhere.
func kindOf(stage mail.Stage, r mail.Reply) kind {
	atRcpt := stage == mail.StageRcpt
	switch {
	case stage != mail.StageMail && receiverStatus.MatchString(r.Enhanced) &&
		(atRcpt || strings.HasPrefix(r.Enhanced, "5.1.")):
		return ofTheReceiver
	case contentStatus.MatchString(r.Enhanced):
		return ofTheContent
	case ofUs.MatchString(r.Text):
		return unnamed
	case atRcpt && receiverText.MatchString(r.Text):
		return ofTheReceiver
	case contentText.MatchString(r.Text):
		return ofTheContent
	}
	return unnamed
}

// Words are the words of a reply that do not change from message to message, in order: without addresses, names of
// hosts, numbers, ids, dates, links, quotations, and without what is given in personal (parts of the addresses of this
// message).
func Words(r mail.Reply, personal ...string) []string {
	text := quoted.ReplaceAllString(mail.Cut(r.Text, maxText), " ")
	var words []string
	for _, token := range strings.Fields(text) {
		token = strings.Trim(token, `.,;:!?()[]{}<>"'*-#=`)
		if token == "" || changing(token) || slices.ContainsFunc(personal,
			func(p string) bool { return len(p) > 1 && strings.EqualFold(p, token) }) {
			continue
		}
		if words = append(words, strings.ToLower(token)); len(words) == maxWords {
			break
		}
	}
	return words
}

var (
	quoted = regexp.MustCompile(`"[^"\n]*"|<[^>\n]*@[^>\n]*>`)
	named  = regexp.MustCompile(`(?i)^((mon|tue|wed|thu|fri|sat|sun)([a-z]*day)?|tues|thur|thurs|jan(uary)?|` +
		`feb(ruary)?|mar(ch)?|apr(il)?|june?|july?|aug(ust)?|` +
		`sept?(ember)?|oct(ober)?|nov(ember)?|dec(ember)?|gmt|utc|[ap]\.?m)$`)
)

// changing reports a token that is likely to be another one in the next reply.
func changing(token string) bool {
	if len(token) > 40 || strings.ContainsAny(token, `@/\=_.~|%&+`) || strings.ContainsFunc(token, unicode.IsDigit) ||
		named.MatchString(token) {
		return true
	}
	return len(token) > 4 && isASCII(token) && (!strings.ContainsAny(token, "aeiouyAEIOUY") || jumbled(token) ||
		isHex(token))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

func isHex(s string) bool {
	return len(s) >= 8 && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefABCDEF",
			r)
	})
}

// jumbled reports capitals in the middle that begin no words: ids, not names such as MapiExceptionQuotaExceeded.
func jumbled(s string) bool {
	run, short := 0, 0
	for i, r := range s {
		if i > 0 && unicode.IsUpper(r) && !unicode.IsUpper(rune(s[i-1])) {
			if run < 3 {
				short++
			}
			run = 0
		}
		run++
	}
	return short > 1
}

// Same reports that two replies are forms of one text.
func Same(a, b mail.Reply, personal ...string) bool {
	return a.Code == b.Code && a.Enhanced == b.Enhanced &&
		(a.Text == b.Text || resembles(Words(a, personal...), Words(b, personal...)))
}

// resembles reports that two lists of words are forms of one text.
func resembles(a, b []string) bool {
	if slices.Equal(a, b) {
		return true
	}
	if len(a) < 4 || len(b) < 4 {
		return false
	}
	left, same := slices.Clone(b), 0
	for _, w := range a {
		if i := slices.Index(left, w); i >= 0 {
			left[i] = left[len(left)-1]
			left, same = left[:len(left)-1], same+1
		}
	}
	return float64(same) >= alike*float64(max(len(a), len(b)))
}
