package operate

import (
	"context"
	"slices"
	"strings"

	"postern/auth"
	"postern/mail"
	"postern/policy"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/upstream/profile"
)

// Sending is what an account may send as.
type Sending struct {
	Senders []string `json:"senders"`          // patterns; none: all its mail is refused
	Policy  string   `json:"policy,omitempty"` // that says so, such as "policy 2"; "": the account itself
}

// checkSends refuses an account that could send as nobody: all its mail would be refused.
func checkSends(c *config.Config, u auth.User) error {
	if len(c.Listeners) == 0 || len(check.SilentLogins(c, []auth.User{u})) == 0 {
		return nil
	}
	suggest := SuggestedSender(c, u.Login)
	return &Error{Kind: Invalid, Suggest: suggest, Msg: "the login " + u.Login + " could send as nobody: it is no " +
		"address itself, and neither its senders nor a [[policy]] name one; give it a sender, such as " + suggest}
}

// sendsAsItself reports whether an account may send as its login by the rules that are for every listener.
func sendsAsItself(c *config.Config, u auth.User) bool {
	own, err := mail.ParseAddress(u.Login)
	if err != nil {
		return false
	}
	p, err := policy.New(c.Rules())
	if err != nil {
		return false
	}
	e := p.For(policy.Subject{Login: u.Login, Groups: u.Groups})
	return e.MaySend(own)
}

// besideOwn is an edit that adds senders to those of a login that has none of its own, and so sends as itself: without
// its address in the list it could not any more.
func besideOwn(login string, e ListEdit) ListEdit {
	if slices.Contains(e.Remove, login) {
		e.Remove = slices.DeleteFunc(slices.Clone(e.Remove), func(s string) bool { return s == login })
		return e
	}
	e.Add = addOnce([]string{login}, e.Add...)
	return e
}

// SuggestedSender is an address that a login may be given to send from: its name, in the domain that the provider knows
// us by.
func SuggestedSender(c *config.Config, login string) string {
	domain := ""
	for _, u := range c.Upstreams {
		if a, err := mail.ParseAddress(u.Username); err == nil && a.Domain != "" {
			domain = a.Domain
			break
		}
	}
	if _, rest, found := strings.Cut(c.Hostname, "."); domain == "" && found {
		domain = rest
	}
	if domain == "" {
		domain = "example.com"
	}
	return login + "@" + domain
}

// Sending says what an account may send as, whichever listener it uses.
func (a Clients) Sending(ctx context.Context, by Actor, u auth.User) (s Sending, err error) {
	if err := by.May(SeeAccounts); err != nil {
		return s, err
	}
	return SendingOf(a.Config(), u)
}

// SendingOf is Sending by a configuration.
func SendingOf(c *config.Config, u auth.User) (s Sending, err error) {
	p, err := policy.New(c.Rules())
	if err != nil {
		return s, err
	}
	listeners := []string{""}
	for _, l := range c.Listeners {
		listeners = append(listeners, l.Name)
	}
	for _, l := range listeners {
		e := p.For(policy.Subject{Login: u.Login, Groups: u.Groups, Senders: u.Senders, Listener: l})
		list, rule := e.Senders()
		if len(list) > 0 {
			s.Senders, s.Policy = addOnce(s.Senders, list...), rule
		}
	}
	return s, nil
}

// NeedsRight are the accounts at providers that need the right to send as the senders of others (Send As), "" where
// none does: the upstreams' usernames that are not the sender itself.
func (a Clients) NeedsRight(by Actor, senders []string) (accounts []string, err error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	for _, u := range a.Config().Upstreams {
		if u.SenderRule != profile.SenderMustMatch || u.Username == "" {
			continue
		}
		for _, s := range senders {
			if !strings.EqualFold(s, u.Username) {
				accounts = addOnce(accounts, u.Username)
			}
		}
	}
	return accounts, nil
}
