package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"postern/mail"
)

// The values of unlisted_sender and over_limit. Refuse is a value of both.
const (
	Refuse  = "refuse"
	Rewrite = "rewrite" // From becomes the first sender
	Defer   = "defer"   // 452 with the time to retry
	Hold    = "hold"    // accept, but hold until released
	Lock    = "lock"    // refuse, lock the login and alert
)

// Rule is one [[policy]] block. Nil or empty settings are not set by it, except that empty non-nil Limits mean "no
// limits".
type Rule struct {
	Name string // its name in replies, "policy 2"

	Logins    []string // a star matches any text
	Groups    []string
	Listeners []string
	Networks  []netip.Prefix // of the client

	Senders        []string // see CheckSenderPattern
	UnlistedSender string   // Refuse | Rewrite
	Recipients     []string // see CheckRecipientPattern
	Limits         []Limit
	OverLimit      string // Defer | Refuse | Hold | Lock
	MaxHeld        int    // messages of a login that Hold keeps; 0: not set
}

// Subject is who wants to send.
type Subject struct {
	Login    string
	Groups   []string
	Senders  []string // of `postern user add --sender`; if any, they replace those of the rules
	Client   netip.Addr
	Listener string
}

// Policy is a compiled list of rules. It is safe for concurrent use.
type Policy struct {
	rules  []rule
	groups *atomic.Pointer[map[string][]pattern] // shared with the policies that it succeeds
	// own caches the compiled senders of users by their text.
	own *lru.Cache[string, pattern]
}

// maxOwn bounds that cache to about a megabyte.
const maxOwn = 4096

type rule struct {
	Rule
	match      Matcher
	senders    []pattern
	recipients *recipients
}

// New compiles rules, of which the last must match everybody and set everything but limits. An error about one setting
// names the rule and wraps a *mail.KeyError.
func New(rules []Rule) (*Policy, error) {
	own, err := lru.New[string, pattern](maxOwn)
	if err != nil {
		return nil, err
	}
	p := &Policy{own: own, groups: new(atomic.Pointer[map[string][]pattern])}
	for i, r := range rules {
		r.Name = cmp.Or(r.Name, "policy "+strconv.Itoa(i+1))
		c, err := compile(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		p.rules = append(p.rules, c)
	}
	if n := len(rules); n == 0 || !rules[n-1].isComplete() {
		return nil, errors.New("the last rule does not match everybody and set everything")
	}
	return p, nil
}

// Check reports what is wrong with one rule: a *mail.KeyError.
func Check(r Rule) error {
	_, err := compile(r)
	return err
}

func (r *Rule) isComplete() bool {
	return len(r.Logins)+len(r.Groups)+len(r.Listeners)+len(r.Networks) == 0 && r.Senders != nil &&
		r.Recipients != nil &&
		r.UnlistedSender != "" && r.OverLimit != "" && r.MaxHeld > 0
}

func compile(r Rule) (c rule, err error) {
	c.Rule = r
	match := Match{Logins: r.Logins, Groups: r.Groups, Listeners: r.Listeners, Networks: r.Networks}
	if c.match, err = NewMatcher(match); err != nil {
		return c, err
	}
	if r.Senders != nil && len(r.Senders) == 0 {
		return c, mail.BadKey("senders", `the list is empty; write what may be used, or remove the line for {login}`)
	}
	for _, s := range r.Senders {
		sender, err := parseSender(s)
		if err != nil {
			return c, mail.BadKey("senders", "%s", err)
		}
		c.senders = append(c.senders, sender)
	}
	if r.Recipients != nil {
		if c.recipients, err = parseRecipients(r.Recipients); err != nil {
			return c, mail.BadKey("recipients", "%s", err)
		}
	}
	if !slices.Contains([]string{"", Refuse, Rewrite}, r.UnlistedSender) {
		return c, mail.BadKey("unlisted_sender", "%q is neither refuse nor rewrite", r.UnlistedSender)
	}
	if !slices.Contains([]string{"", Defer, Refuse, Hold, Lock}, r.OverLimit) {
		return c, mail.BadKey("over_limit", "%q is none of defer, refuse, hold, lock", r.OverLimit)
	}
	if r.MaxHeld < 0 {
		return c, mail.BadKey("max_held", "%d is not a number of messages", r.MaxHeld)
	}
	return c, checkLimits(r.Limits)
}

func checkLimits(limits []Limit) error {
	for i, l := range limits {
		if l.Count < 1 || l.Window < 1 || l.Unit < Messages || l.Unit > Bytes {
			return mail.BadKey("limits", "%v is not a limit", l)
		}
		if slices.Contains(limits[:i], l) {
			return mail.BadKey("limits", "%q is listed twice", l)
		}
	}
	return nil
}

// For returns the settings for a subject.
func (p *Policy) For(s Subject) Effective {
	e := Effective{Login: s.Login, policy: p}
	login := mail.LowerASCII(s.Login)
	limited := false
	for i := range p.rules {
		r := &p.rules[i]
		if !r.match.matchesClient(login, s.Groups, s.Listener, s.Client) {
			continue
		}
		if e.senders == nil && r.senders != nil {
			e.senders, e.sendersRule = r.senders, r.Name
		}
		if e.recipients == nil && r.recipients != nil {
			e.recipients, e.recipientsRule = r.recipients, r.Name
		}
		if !limited && r.Limits != nil {
			limited, e.Limits, e.limitsRule = true, r.Limits, r.Name
		}
		e.UnlistedSender = cmp.Or(e.UnlistedSender, r.UnlistedSender)
		e.OverLimit = cmp.Or(e.OverLimit, r.OverLimit)
		e.MaxHeld = cmp.Or(e.MaxHeld, r.MaxHeld)
	}
	if len(s.Senders) > 0 {
		e.senders, e.sendersRule = p.parseOwn(s.Senders), ""
	}
	return e
}

// parseOwn compiles the senders of a user. A malformed one, which `postern user add` would refuse, allows nothing.
func (p *Policy) parseOwn(own []string) []pattern {
	list := make([]pattern, 0, len(own))
	for _, s := range own {
		c, known := p.own.Get(s)
		if !known {
			var err error
			if c, err = parseSender(s); err != nil {
				continue
			}
			p.own.Add(s, c)
		}
		list = append(list, c)
	}
	return list
}

// Member is a user as far as groups of senders go.
type Member struct {
	Login   string
	Groups  []string
	Senders []string
}

// SetGroups sets the members of groups. "@group" among senders stands for the members' own senders, or their logins if
// they have none. It may be called at any time.
func (p *Policy) SetGroups(members []Member) {
	groups := make(map[string][]pattern)
	for _, m := range members {
		own := p.memberPatterns(m)
		for _, g := range m.Groups {
			g = mail.LowerASCII(g)
			groups[g] = append(groups[g], own...)
		}
	}
	p.groups.Store(&groups)
}

// Succeed makes p share its groups with the policy that it replaces, so that sessions under either see the same
// members. It must be called before p is used.
func (p *Policy) Succeed(before *Policy) { p.groups = before.groups }

// memberPatterns returns the senders of a member, with {login} resolved and without groups.
func (p *Policy) memberPatterns(m Member) (own []pattern) {
	patterns := p.parseOwn(m.Senders)
	if len(m.Senders) == 0 {
		patterns = []pattern{{text: loginPattern, login: true}}
	}
	for _, c := range patterns {
		if c.login {
			a, ok := c.address(m.Login)
			if !ok {
				continue
			}
			a = folded(a)
			c = pattern{text: a.String(), local: a.Local, domain: a.Domain}
		}
		if c.group == "" {
			own = append(own, c)
		}
	}
	return own
}

// Effective is the settings for one subject. It is immutable.
type Effective struct {
	Login          string
	Limits         []Limit
	OverLimit      string // Defer | Refuse | Hold | Lock
	MaxHeld        int    // messages that Hold keeps
	UnlistedSender string // Refuse | Rewrite

	policy                                  *Policy
	senders                                 []pattern
	recipients                              *recipients
	sendersRule, recipientsRule, limitsRule string // sendersRule "": the user's own
}

// MaySend reports whether the subject may use a as reverse-path or header author, which is never true for the null
// address.
func (e *Effective) MaySend(a mail.Address) bool {
	if a.IsNull() {
		return false
	}
	a = folded(a)
	for i := range e.senders {
		if p := &e.senders[i]; p.matches(a, e.Login) || p.group != "" && e.inGroup(p.group, a) {
			return true
		}
	}
	return false
}

func (e *Effective) inGroup(group string, a mail.Address) bool {
	groups := e.policy.groups.Load()
	return groups != nil && find((*groups)[group], a, "") != nil
}

// RecipientAllowed reports whether the subject may write to a.
func (e *Effective) RecipientAllowed(a mail.Address) bool {
	ok, _ := e.recipients.allows(folded(a), e.Login)
	return ok && !a.IsNull()
}

// MaySendAnything reports whether there is any address that the subject may use.
func (e *Effective) MaySendAnything() bool {
	for i := range e.senders {
		p := &e.senders[i]
		if p.group != "" {
			if groups := e.policy.groups.Load(); groups != nil && len((*groups)[p.group]) > 0 {
				return true
			}
			continue
		}
		if _, isAddress := p.address(e.Login); isAddress || !p.login {
			return true
		}
	}
	return false
}

// FirstSender returns the first sender that is a single address, the null address if there is none. Rewriting turns
// unlisted senders into it.
func (e *Effective) FirstSender() mail.Address {
	for i := range e.senders {
		if a, ok := e.senders[i].address(e.Login); ok {
			return a
		}
	}
	return mail.Address{}
}

// Rewrites reports whether unlisted senders become the first sender. Without a first sender they do not: a null
// reverse-path would suppress every report.
func (e *Effective) Rewrites() bool {
	return e.UnlistedSender == Rewrite && !e.FirstSender().IsNull()
}
