package upstream

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/mail"
)

// sample is a reply made ready for rules. Providers break the same words into lines at other places, so they are
// looked for in the joined text too.
type sample struct {
	code     int
	enhanced string
	raw      string // as it came, at most maxReplyText of it: what a person sees is what was judged
	flat     string // on one line, one space between words
	words    string // flat without what others choose: addresses, URLs; dots end sentences only
	lower    string // words in lower case
}

func newSample(r mail.Reply) *sample {
	s := &sample{code: r.Code, enhanced: r.Enhanced, raw: mail.Cut(r.Text, maxReplyText)}
	s.flat = strings.Join(strings.Fields(s.raw), " ")
	s.words = wordsOf(s.flat)
	s.lower = strings.ToLower(s.words)
	return s
}

// Names that a stranger chooses must not decide: <quota-exceeded@example.com> is no quota.
var (
	bracketed = regexp.MustCompile(`<[^<>]*@[^<>]*>`)
	plainAddr = regexp.MustCompile(`[^ <>()\[\],;"']+@[^ <>()\[\],;"']+`)
	link      = regexp.MustCompile(`(?i)\b(?:https?://|www\.)[^ ]*`)
	innerDot  = regexp.MustCompile(`\.(\w)`)
)

func wordsOf(flat string) string {
	w := flat
	if strings.Contains(w, "@") {
		w = bracketed.ReplaceAllString(w, "<@>")
		w = plainAddr.ReplaceAllString(w, "@")
	}
	w = link.ReplaceAllString(w, "")
	return innerDot.ReplaceAllString(w, "_$1")
}

// windows lists what the rules may say of quotas, so that what was sent within them is counted.
func (rs *Rules) windows() []time.Duration {
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

// Judge says which rule of this upstream decides about a reply at a stage.
func (u *Upstream) Judge(stage mail.Stage, r mail.Reply) Rule {
	rule, _ := u.rules.Judge(stage, r, time.Now())
	return rule
}

// lapsed reports that a reply to MAIL says that the connection has lost its login.
func (u *Upstream) lapsed(r mail.Reply) bool {
	m, _ := u.rules.find(mail.StageMail, newSample(r))
	return m.Login
}
