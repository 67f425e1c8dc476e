package upstream

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// Rule says whose matter a reply is. Rules are data: a provider's come first, then the generic ones; the first that matches
// decides. Empty fields match everything.
type Rule struct {
	Name     string
	Stages   []mail.Stage
	Code     string // three places, a letter stands for any digit: "421", "45z", "5yz"
	Enhanced string // three numbers, * stands for any: "5.7.1", "*.5.3"
	Text     string // RE2, case ignored, searched in the text without codes

	Class      mail.Class
	RetryAfter time.Duration // at least, 0: the retry table or the back-off decides
	// Rest: the recipient was not judged. What is left of the envelope goes into another transaction at once, if this one
	// had a recipient accepted.
	Rest bool

	// Example is a reply seen in the field that this rule is for. A test holds every rule to it.
	Example string
}

var (
	beforeMail = []mail.Stage{mail.StageGreeting, mail.StageEHLO, mail.StageTLS, mail.StageAuth}
	fromMail   = []mail.Stage{mail.StageMail, mail.StageRcpt, mail.StageData, mail.StageDot}
)

// genericRules hold for every upstream. They are complete: any 4yz or 5yz at any stage matches one.
var genericRules = []Rule{
	// RFC 5321 §3.8: 421 means that the service closes the channel, whatever the command was.
	{Name: "closing", Code: "421", Class: mail.BackPressure,
		Example: "421 4.7.0 Try again later, closing connection."},

	// Everything before MAIL is about us, never about a message.
	{Name: "password-transition", Stages: []mail.Stage{mail.StageAuth}, Code: "432", Class: mail.AccountFault,
		Example: "432 4.7.12 A password transition is needed"}, // RFC 4954 §6
	{Name: "not-now", Stages: beforeMail, Code: "4yz", Class: mail.BackPressure,
		Example: "454 4.7.0 Temporary authentication failure"},
	{Name: "not-you", Stages: beforeMail, Code: "5yz", Class: mail.AccountFault,
		Example: "535 5.7.8 Username and Password not accepted"},

	// The session's own trouble, seen late.
	{Name: "login-required", Stages: fromMail, Code: "530", Class: mail.AccountFault,
		Example: "530 5.7.0 Authentication required"}, // RFC 4954 §6
	{Name: "login-refused", Stages: fromMail, Code: "535", Class: mail.AccountFault,
		Example: "535 5.7.8 Authentication credentials invalid"},
	{Name: "encryption-required", Stages: fromMail, Code: "538", Class: mail.AccountFault,
		Example: "538 5.7.11 Encryption required for requested authentication mechanism"},
	// These answer a command that we should not have given, or that the peer does not know: no message is to blame.
	{Name: "protocol", Stages: fromMail, Code: "500", Class: mail.Deferral,
		Example: "500 5.5.1 Command unrecognized: \"BDAT\""},
	{Name: "protocol", Stages: fromMail, Code: "502", Class: mail.Deferral,
		Example: "502 5.5.1 Command not implemented"},
	{Name: "protocol", Stages: fromMail, Code: "503", Class: mail.Deferral,
		Example: "503 5.5.1 Bad sequence of commands"},

	// Too many recipients is no verdict on any of them. RFC 5321 §4.5.3.1.10 has 452, and 552 from of old.
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Code: "4yz", Enhanced: "4.5.3", Class: mail.Deferral, Rest: true,
		Example: "452 4.5.3 Error: too many recipients"},
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Code: "5yz", Enhanced: "5.5.3", Class: mail.Deferral, Rest: true,
		Example: "550 5.5.3 Too many recipients"},
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Text: `too many (recipients|rcpts)|recipient limit`, Class: mail.Deferral, Rest: true,
		Example: "552 too many recipients"},
	{Name: "too-many-recipients", Stages: []mail.Stage{mail.StageRcpt}, Code: "452", Enhanced: "-", Class: mail.Deferral, Rest: true,
		Example: "452 Requested action not taken"},

	// The whole service asks for patience.
	{Name: "slow-down", Stages: fromMail, Code: "432", Class: mail.BackPressure,
		Example: "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"},
	{Name: "system-busy", Stages: []mail.Stage{mail.StageMail}, Code: "4yz", Enhanced: "4.3.2", Class: mail.BackPressure,
		Example: "451 4.3.2 System not accepting network messages"},
	{Name: "system-full", Stages: []mail.Stage{mail.StageMail}, Code: "452", Enhanced: "4.3.1", Class: mail.BackPressure,
		Example: "452 4.3.1 Insufficient system storage"},
	{Name: "congested", Stages: []mail.Stage{mail.StageMail}, Code: "4yz", Enhanced: "4.4.5", Class: mail.BackPressure,
		Example: "451 4.4.5 System congestion, try again later"},

	{Name: "later", Stages: fromMail, Code: "4yz", Class: mail.Deferral,
		Example: "450 4.2.0 Greylisted, see http://postgrey.example.org/"},
	{Name: "recipient", Stages: []mail.Stage{mail.StageRcpt}, Code: "5yz", Class: mail.RecipientFault,
		Example: "550 5.1.1 User unknown"},
	{Name: "message", Stages: fromMail, Code: "5yz", Class: mail.MessageFault,
		Example: "554 5.7.1 Message contains spam"},
}

// matcher is a Rule made ready to match.
type matcher struct {
	Rule
	text *regexp.Regexp
}

func compileRules(own []Rule) ([]matcher, error) {
	all := slices.Concat(own, genericRules)
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
	if r.Code != "" && len(r.Code) != 3 {
		return m, fmt.Errorf("code %q has not three places", r.Code)
	}
	if r.Enhanced != "" && r.Enhanced != "-" && strings.Count(r.Enhanced, ".") != 2 {
		return m, fmt.Errorf("enhanced code %q has not three numbers", r.Enhanced)
	}
	if r.Class <= mail.Delivered || r.Class > mail.BackPressure {
		return m, fmt.Errorf("class %s cannot be given to a refusal", r.Class)
	}
	if r.Text != "" {
		re, err := regexp.Compile("(?i)" + r.Text)
		if err != nil {
			return m, err
		}
		m.text = re
	}
	return m, nil
}

func (m *matcher) matches(stage mail.Stage, r mail.Reply) bool {
	return (len(m.Stages) == 0 || slices.Contains(m.Stages, stage)) &&
		matchCode(m.Code, r.Code) &&
		matchEnhanced(m.Enhanced, r.Enhanced) &&
		(m.text == nil || m.text.MatchString(r.Text))
}

func matchCode(pattern string, code int) bool {
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

// classify finds the rule for a refusal. The generic rules leave nothing out from the greeting on; the last return is for
// stages that have no reply.
func (u *Upstream) classify(stage mail.Stage, r mail.Reply) *Rule {
	for i := range u.rules {
		if m := &u.rules[i]; m.matches(stage, r) {
			return &m.Rule
		}
	}
	return &Rule{Name: "none", Class: mail.Deferral}
}
