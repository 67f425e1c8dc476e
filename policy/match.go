package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postern/mail"
)

// Match is the conditions of a route or rule. Each one that is set must match by one of its values; without conditions
// it matches everything.
type Match struct {
	Logins     []string // a star matches any text
	Groups     []string
	Listeners  []string
	Networks   []netip.Prefix // of the client
	Senders    []string       // patterns of the reverse-path; "<>" for the null one
	Recipients []string       // as in [[policy]]; "!" denies
}

// Facts is what a Match is compared with. Zero fields match no condition.
type Facts struct {
	Login     string
	Groups    []string
	Listener  string
	Client    netip.Addr
	Sender    mail.Address
	Recipient mail.Address
}

// Matcher is a compiled Match. It is immutable.
type Matcher struct {
	logins, groups, listeners []string
	networks                  []netip.Prefix
	senders                   []pattern
	recipients                *recipients
}

// NewMatcher compiles m.
func NewMatcher(m Match) (Matcher, error) {
	c := Matcher{groups: lowerAll(m.Groups), listeners: m.Listeners}
	var err error
	if c.logins, err = parseLogins(m.Logins); err != nil {
		return Matcher{}, err
	}
	for _, n := range m.Networks {
		if !n.IsValid() {
			return Matcher{}, mail.BadKey("networks", "a network is not valid")
		}
		c.networks = append(c.networks, n.Masked())
	}
	for _, s := range m.Senders {
		p, err := parseRouteSender(s)
		if err != nil {
			return Matcher{}, mail.BadKey("senders", "%s", err)
		}
		c.senders = append(c.senders, p)
	}
	if len(m.Recipients) > 0 {
		if c.recipients, err = parseRecipients(m.Recipients); err != nil {
			return Matcher{}, mail.BadKey("recipients", "%s", err)
		}
	}
	return c, nil
}

func parseLogins(list []string) ([]string, error) {
	for _, s := range list {
		switch {
		case strings.TrimSpace(s) == "":
			return nil, mail.BadKey("logins", `an entry is empty; write a login, or "*" for all`)
		case strings.HasPrefix(s, "!"):
			return nil, mail.BadKey("logins",
				"%q: a login cannot be excluded here; write a block for it before this one", s)
		}
	}
	return lowerAll(list), nil
}

// CheckRouteSender reports what is wrong with an entry of a route's senders.
func CheckRouteSender(s string) error {
	_, err := parseRouteSender(s)
	return err
}

// parseRouteSender parses a sender of a route. Since it grants nothing, it may be everybody or the null reverse-path,
// but not a group.
func parseRouteSender(s string) (pattern, error) {
	switch {
	case s == "*":
		return pattern{text: s, everybody: true}, nil
	case s == "<>":
		return pattern{text: s, null: true}, nil
	case strings.HasPrefix(s, "@"):
		return pattern{}, fmt.Errorf(
			"%q: for all addresses of a domain write \"*%s\"; for a group write groups = [...]", s, s)
	}
	return parsePattern(s)
}

// Matches reports whether all conditions are met.
func (m *Matcher) Matches(f Facts) bool {
	if !m.matchesClient(mail.LowerASCII(f.Login), f.Groups, f.Listener, f.Client) {
		return false
	}
	if m.senders != nil && find(m.senders, folded(f.Sender), f.Login) == nil {
		return false
	}
	if m.recipients == nil {
		return true
	}
	ok, _ := m.recipients.allows(folded(f.Recipient), f.Login)
	return ok && !f.Recipient.IsNull()
}

// matchesLogin reports whether the conditions on who it is are met.
func (m *Matcher) matchesLogin(login string, groups []string) bool {
	if m.logins != nil && !slices.ContainsFunc(m.logins, func(p string) bool { return glob(p, login) }) {
		return false
	}
	inGroup := func(g string) bool { return slices.Contains(m.groups, mail.LowerASCII(g)) }
	return m.groups == nil || slices.ContainsFunc(groups, inGroup)
}

func (m *Matcher) matchesClient(login string, groups []string, listener string, client netip.Addr) bool {
	if !m.matchesLogin(login, groups) {
		return false
	}
	if m.listeners != nil && !slices.Contains(m.listeners, listener) {
		return false
	}
	if m.networks == nil {
		return true
	}
	client = client.Unmap().WithZone("")
	return slices.ContainsFunc(m.networks, func(n netip.Prefix) bool { return n.Contains(client) })
}

func lowerAll(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	lower := make([]string, len(list))
	for i, s := range list {
		lower[i] = mail.LowerASCII(s)
	}
	return lower
}
