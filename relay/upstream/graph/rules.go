package graph

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// Rule says whose matter an answer of Graph is. Rules are data: the configured ones come first, then the built-in ones; the
// first that matches decides. Empty fields match everything.
type Rule struct {
	Name   string
	Status string   // three places, a letter stands for any digit: "429", "4xx"
	Codes  []string // error.code, case ignored; "-" stands for an answer that is no error of Graph's, "<" for a web page
	Like   string   // RE2, case ignored, searched in each error.code
	Text   string   // RE2, case ignored, searched in error.message

	Class mail.Class
	// Code and Enhanced are what the answer would be in SMTP.
	Code       int
	Enhanced   string
	RetryAfter time.Duration // at least; 0: Retry-After, the retry table or the back-off decides
	DropToken  bool          // the token may be what is wrong: the next attempt gets another
	Again      bool          // with another token, once, at once
	Repeat     bool          // Graph is known to err: the same once more, after repeatAfter
	Login      bool          // we are not let in, or not as this mailbox
	Author     bool          // it is about this header author; the mailbox may send for others
	Uncertain  bool          // Graph may have sent the message
	Quota      bool          // what the mailbox may send is used up: a restart must not forget it
	Way        bool          // somebody between us and Graph speaks
	Right      bool          // a permission is missing, which large mail may need and small mail not

	Fix string // for people: what to do
	// Example is an answer seen in the field or printed in Microsoft's documentation: status, code, message.
	Example string
}

const day = 24 * time.Hour

// unknownRule is the name of the rule for what no other knows. It defers the message: nothing is said of the mailbox, and nothing
// for certain of the message.
const unknownRule = "unknown"

// matcher is a Rule made ready to match.
type matcher struct {
	Rule
	like, text *regexp.Regexp // nil: anything
}

func compileRules(own []Rule) ([]matcher, error) {
	all := slices.Concat(own, builtinRules)
	ms := make([]matcher, len(all))
	for i, r := range all {
		m, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		ms[i] = m
	}
	return ms, nil
}

func (r Rule) compile() (matcher, error) {
	m := matcher{Rule: r}
	if r.Status != "" && len(r.Status) != 3 {
		return m, fmt.Errorf("status %q has not three places", r.Status)
	}
	if r.Class <= mail.Delivered || r.Class > mail.BackPressure {
		return m, fmt.Errorf("class %s cannot be given to a refusal", r.Class)
	}
	want := 4
	if r.Class.Permanent() {
		want = 5
	}
	if r.Code/100 != want || !strings.HasPrefix(r.Enhanced, strconv.Itoa(want)+".") {
		return m, fmt.Errorf("%d %s does not fit the class %s", r.Code, r.Enhanced, r.Class)
	}
	var err error
	if m.like, err = compilePattern(r.Like); err != nil {
		return m, err
	}
	m.text, err = compilePattern(r.Text)
	return m, err
}

func compilePattern(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	return regexp.Compile("(?i)" + pattern)
}

func (m *matcher) matches(a *answer) bool {
	return matchStatus(m.Status, a.status) &&
		(len(m.Codes) == 0 || slices.ContainsFunc(m.Codes, a.hasCode)) &&
		(m.like == nil || slices.ContainsFunc(a.codes, m.like.MatchString)) &&
		(m.text == nil || m.text.MatchString(a.message))
}

func matchStatus(pattern string, status int) bool {
	if pattern == "" {
		return true
	}
	s := strconv.Itoa(status)
	if len(s) != len(pattern) {
		return false
	}
	for i := range len(s) {
		if c := pattern[i]; c >= '0' && c <= '9' && c != s[i] {
			return false
		}
	}
	return true
}

// classify finds the rule for an answer other than 202. The last rule matches everything.
func (u *Upstream) classify(a *answer) *Rule {
	for i := range u.rules {
		if m := &u.rules[i]; m.matches(a) {
			return &m.Rule
		}
	}
	return &u.rules[len(u.rules)-1].Rule
}

// byPerson tells in a reply that rights are a person's consent: package advice knows it by that.
const byPerson = "; a person has logged in"

// refused makes a fault of an answer other than 202.
func (u *Upstream) refused(a *answer) *fault {
	rule := u.classify(a)
	f := &fault{
		stage: mail.StageDot, class: rule.Class, reply: mail.R(rule.Code, rule.Enhanced, "%s", a.words()),
		retryAfter: max(rule.RetryAfter, a.retryAfter), uncertain: rule.Uncertain, author: rule.Author, rule: rule, answered: true,
	}
	if rule.Way {
		f.reply.Text = u.host + " is not reached: " + f.reply.Text
	}
	if rule.Right && u.o.Delegated {
		f.reply.Text += byPerson
	}
	switch {
	case rule.Login:
		f.stage = mail.StageAuth
	case rule.Name == unknownRule:
		f.note = "no rule knows this answer; the message is tried again, and other mail of the mailbox goes on"
	case rule.Author:
		f.note = "only mail with this address in From is kept back; the mailbox sends other mail"
	}
	if rule.Class.Permanent() {
		f.retryAfter = 0
	}
	return f
}
