package graph

import (
	"regexp"
	"slices"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/upstream/replies"
)

// Rule says whose matter an answer of Graph is. Rules are data: the first that matches decides. Empty fields match
// everything.
type Rule struct {
	Name   string
	Status string // three places, a letter stands for any digit: "429", "4xx"
	// error.code, case ignored; "-" stands for an answer that is no error of Graph's, "<" for a web page
	Codes []string
	Like  string // RE2, case ignored, searched in each error.code
	Text  string // RE2, case ignored, searched in error.message

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

// unknownRule is the name of the rule for what no other knows. It defers the message: nothing is said of the mailbox,
// and nothing for certain of the message.
const unknownRule = "unknown"

// matcher is a Rule made ready to match.
type matcher struct {
	Rule
	like, text *regexp.Regexp // nil: anything
}

// compiledRules are the built-in ones.
var compiledRules = sync.OnceValue(func() []matcher {
	ms := make([]matcher, len(builtinRules))
	for i, r := range builtinRules {
		ms[i] = matcher{Rule: r, like: pattern(r.Like), text: pattern(r.Text)}
	}
	return ms
})

func pattern(text string) *regexp.Regexp {
	if text == "" {
		return nil
	}
	return regexp.MustCompile("(?i)" + text) // a test compiles them
}

func (m *matcher) matches(a *answer) bool {
	return replies.MatchCode(m.Status, a.status) &&
		(len(m.Codes) == 0 || slices.ContainsFunc(m.Codes, a.hasCode)) &&
		(m.like == nil || slices.ContainsFunc(a.codes, m.like.MatchString)) &&
		(m.text == nil || m.text.MatchString(a.message))
}

// classify finds the rule for an answer other than 202. The last rule matches everything.
func classify(a *answer) *Rule {
	rules := compiledRules()
	i := slices.IndexFunc(rules[:len(rules)-1], func(m matcher) bool { return m.matches(a) })
	if i < 0 {
		i = len(rules) - 1
	}
	return &rules[i].Rule
}

// byPerson tells in a reply that rights are a person's consent: package advice knows it by that.
const byPerson = "; a person has logged in"

// refused makes a fault of an answer other than 202.
func (u *Upstream) refused(a *answer) *fault {
	rule := classify(a)
	f := &fault{
		stage: mail.StageDot, class: rule.Class, reply: mail.R(rule.Code, rule.Enhanced, "%s", a.words()),
		retryAfter: max(rule.RetryAfter, a.retryAfter), uncertain: rule.Uncertain, author: rule.Author, rule: rule,
		answered: true,
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
