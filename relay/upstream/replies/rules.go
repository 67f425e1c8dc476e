package replies

import (
	"bufio"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// Rule says whose matter a reply is. Rules are data: those of the configuration come first, then the provider's, then
// the generic ones; the first that matches decides. Empty fields match everything.
type Rule struct {
	Name     string
	Stages   []mail.Stage
	Code     string // three places, a letter stands for any digit: "421", "45z", "5yz"
	Enhanced string // three numbers, * stands for any: "5.7.1", "*.5.3"; "-" for none at all
	// Text is RE2, case ignored, searched in the text without codes, as it came and with the lines joined. A group
	// named seconds, minutes or hours catches how long the upstream wants us to wait; without one, a wait in plain
	// words is read.
	Text string

	Class      mail.Class
	RetryAfter time.Duration // at least, 0: the retry table or the back-off decides
	// Rest: the recipient was not considered. The rest of the envelope goes into another transaction at once, if this
	// one had a recipient accepted.
	Rest bool
	// Scope of an account fault; empty is ScopeIdentity.
	Scope Scope
	// Slow: too much at a time. The identity gets fewer slots at once, and waits only when one is too many as well.
	Slow bool
	// Quota: so much in so long a time is used up. The identity waits until what it sent leaves this window, RetryAfter
	// at least, and remembers it over restarts.
	Quota time.Duration
	// windowed reads Quota from the text: "per hour", "24-hour limit", "daily". Without such words it stays 0.
	windowed bool
	// Verbatim: Text is searched in the reply with the addresses that it repeats, for rules that an administrator
	// writes. A sender or recipient can choose an address that says what a provider's rule looks for.
	Verbatim bool
	// Login: the connection has lost its login. Where it was good before, another one logs in, once for an attempt.
	Login bool

	// Example is a reply seen in the field that this rule is for. A test holds every rule to it.
	Example string
}

// Scope says whom an account fault concerns.
type Scope string

// The scopes of account faults.
const (
	ScopeIdentity Scope = "identity" // everything sent under this identity: it pauses
	ScopeSender   Scope = "sender"   // mail of this reverse-path only: others go on
)

// maxWait bounds what a reply may make us wait.
const maxWait = 24 * time.Hour

// matcher is a Rule made ready to match.
type matcher struct {
	Rule
	generic bool
	text    *regexp.Regexp
	hints   []string      // see hintsOf; of generic rules
	wait    int           // number of the group that says how long to wait, 0: none
	unit    time.Duration // of that group
}

// Rules classify replies: those given to Compile, behind them the generic ones. They are safe for concurrent use.
type Rules struct {
	own     []matcher
	generic []matcher
}

// Compile checks rules and makes them ready.
func Compile(own []Rule) (*Rules, error) {
	ms, err := compileAll(own, false)
	if err != nil {
		return nil, err
	}
	return &Rules{own: ms, generic: compiledGeneric()}, nil
}

var compiledGeneric = sync.OnceValue(func() []matcher {
	ms, err := compileAll(genericRules, true)
	if err != nil {
		panic("upstream: " + err.Error()) // a test compiles them
	}
	return ms
})

func compileAll(rules []Rule, generic bool) ([]matcher, error) {
	ms := make([]matcher, len(rules))
	for i, r := range rules {
		m, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		if m.generic = generic; generic {
			m.hints = hintsOf(r.Text)
		}
		ms[i] = m
	}
	return ms, nil
}

func (r Rule) compile() (matcher, error) {
	m := matcher{Rule: r}
	if err := r.check(); err != nil {
		return m, err
	}
	if r.Text == "" {
		return m, nil
	}
	re, err := regexp.Compile("(?is)" + r.Text)
	if err != nil {
		return m, err
	}
	m.text = re
	for i, name := range re.SubexpNames() {
		unit, known := waitUnits[name]
		if name != "" && !known {
			return m, fmt.Errorf("group %q is none of seconds, minutes, hours", name)
		}
		if known {
			m.wait, m.unit = i, unit
		}
	}
	return m, nil
}

// waitUnits are the groups of Rule.Text.
var waitUnits = map[string]time.Duration{"seconds": time.Second, "minutes": time.Minute, "hours": time.Hour}

func (r *Rule) check() error {
	switch {
	case r.Code != "" && len(r.Code) != 3:
		return fmt.Errorf("code %q has not three places", r.Code)
	case r.Enhanced != "" && r.Enhanced != "-" && strings.Count(r.Enhanced, ".") != 2:
		return fmt.Errorf("enhanced code %q has not three numbers", r.Enhanced)
	case r.Class <= mail.Delivered || r.Class > mail.BackPressure:
		return fmt.Errorf("class %s cannot be given to a refusal", r.Class)
	case slices.ContainsFunc(r.Stages, func(s mail.Stage) bool {
		return !slices.Contains(beforeMail, s) &&
			!slices.Contains(fromMail, s)
	}):
		return fmt.Errorf("there is a stage without replies in %v", r.Stages)
	case r.Class.Permanent() && !r.afterMail():
		return fmt.Errorf("before MAIL nothing is a message's fault: class %s needs stages from MAIL on", r.Class)
	case r.Scope != "" && r.Scope != ScopeIdentity && r.Scope != ScopeSender:
		return fmt.Errorf("scope %q is neither identity nor sender", r.Scope)
	case r.Scope == ScopeSender && (r.Class != mail.AccountFault || !r.afterMail()):
		return fmt.Errorf("scope sender is for account faults from MAIL on")
	case (r.Slow || r.Quota != 0) && r.Class != mail.BackPressure:
		return fmt.Errorf("slow and quota are for back-pressure, not for %s", r.Class)
	case r.Quota < 0 || r.Quota > upstream.MaxQuota || r.RetryAfter < 0 || r.RetryAfter > maxWait:
		return fmt.Errorf("a time is out of range")
	}
	return nil
}

// afterMail reports whether the rule holds from MAIL on only.
func (r *Rule) afterMail() bool {
	return len(r.Stages) > 0 && !slices.ContainsFunc(r.Stages,
		func(s mail.Stage) bool { return slices.Contains(beforeMail, s) })
}

func (m *matcher) matches(stage mail.Stage, s *Sample) bool {
	return (len(m.Stages) == 0 || slices.Contains(m.Stages, stage)) &&
		MatchCode(m.Code, s.code) &&
		matchEnhanced(m.Enhanced, s.enhanced) &&
		(m.text == nil || m.searched(s) != "")
}

// searched returns the form of the text in which the rule's pattern was found, "" for none. Generic rules search the
// words alone, those of a provider all that it said itself.
func (m *matcher) searched(s *Sample) string {
	if m.generic {
		if hinted(m.hints, s.lower) && m.text.MatchString(s.words) {
			return s.words
		}
		return ""
	}
	raw, flat := s.said, s.line
	if m.Verbatim {
		raw, flat = s.raw, s.flat
	}
	switch {
	case m.text.MatchString(raw):
		return raw
	case flat != raw && m.text.MatchString(flat):
		return flat
	}
	return ""
}

// decide returns the rule with the times that the reply names.
func (m *matcher) decide(s *Sample, now time.Time) Rule {
	r := m.Rule
	if r.windowed {
		if r.Quota = readWindow(s.line); r.Quota > 0 {
			r.RetryAfter = min(max(r.Quota/12, time.Minute), time.Hour)
		}
	}
	if !r.Class.Permanent() {
		r.RetryAfter = m.retryAfter(s, r.RetryAfter, now)
	}
	return r
}

// retryAfter is how long the reply asks to wait, else def. What a provider's own rule says is the least.
func (m *matcher) retryAfter(s *Sample, def time.Duration, now time.Time) time.Duration {
	if m.wait > 0 {
		groups := m.text.FindStringSubmatch(m.searched(s))
		if len(groups) <= m.wait {
			return def
		}
		n, err := strconv.ParseInt(groups[m.wait], 10, 32)
		if err != nil || n < 0 {
			return def
		}
		return min(time.Duration(n)*m.unit, maxWait)
	}
	switch wait := readWait(s.line, now); {
	case wait == 0:
		return def
	case m.generic:
		return min(wait, maxWait)
	default:
		return min(max(wait, def), maxWait)
	}
}

// MatchCode compares place by place: a letter stands for any digit, "" for any code.
func MatchCode(pattern string, code int) bool {
	if pattern == "" {
		return true
	}
	s := strconv.Itoa(code)
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

// matchEnhanced compares number by number. The pattern "-" wants none at all.
func matchEnhanced(pattern, code string) bool {
	switch pattern {
	case "":
		return true
	case "-":
		return code == ""
	}
	p, c := strings.Split(pattern, "."), strings.Split(code, ".")
	return slices.EqualFunc(p, c, func(p, c string) bool { return p == "*" || p == c })
}

// find returns the rule for a refusal. The generic rules leave nothing out from the greeting on; the last return is for
// stages that have no reply.
func (rs *Rules) find(stage mail.Stage, s *Sample) (m *matcher, number int) {
	for i := range rs.own {
		if m := &rs.own[i]; m.matches(stage, s) {
			return m, i
		}
	}
	for i := range rs.generic {
		if m := &rs.generic[i]; m.matches(stage, s) {
			return m, -1
		}
	}
	return &matcher{Rule: Rule{Name: mail.RuleNone, Class: mail.Deferral}, generic: true}, -1
}

// Classify says which rule decides about a reply at a stage, with the times that the reply names. number is the rule's
// place among those of Compile, -1 for a generic one. about is the addresses that the reply may repeat.
func (rs *Rules) Classify(stage mail.Stage, r mail.Reply, now time.Time, about ...mail.Address) (rule Rule,
	number int) {
	s := NewSample(r, about...)
	m, number := rs.find(stage, s)
	return m.decide(s, now), number
}

// Own reports whether one of the rules given to Compile has this name.
func (rs *Rules) Own(name string) bool {
	return slices.ContainsFunc(rs.own, func(m matcher) bool { return m.Name == name })
}

// Name is the name of the rule that decides about a reply at a stage.
func (rs *Rules) Name(stage mail.Stage, s *Sample) string {
	m, _ := rs.find(stage, s)
	return m.Name
}

// Matcher is a single rule, without others before or behind it.
type Matcher struct{ m matcher }

// NewMatcher checks the rule and makes it ready.
func NewMatcher(r Rule) (*Matcher, error) {
	m, err := r.compile()
	if err != nil {
		return nil, fmt.Errorf("rule %q: %w", r.Name, err)
	}
	return &Matcher{m}, nil
}

// Matches reports whether the rule is for a reply at a stage.
func (m *Matcher) Matches(stage mail.Stage, s *Sample) bool {
	return m.m.matches(stage, s)
}

// Parse reads a reply as it comes over the wire, lines ended by CRLF or LF.
func Parse(text string) (mail.Reply, error) {
	return Read(bufio.NewReaderSize(strings.NewReader(text+"\r\n"), BufferSize), true)
}
