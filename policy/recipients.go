package policy

import (
	"errors"
	"fmt"
	"strings"

	"postern/mail"
)

// recipients is a list of allowed forward-paths. As in ssh_config a denial wins wherever it is, so that
// ["*", "!*@example.net"] works as expected. A list of only denials allows everybody else.
type recipients struct {
	allow, deny []pattern
}

// parseRecipient parses one entry: "*" or a pattern, either after an optional "!".
func parseRecipient(s string) (p pattern, deny bool, err error) {
	rest, deny := strings.CutPrefix(s, "!")
	switch {
	case rest == "*":
		return pattern{text: s, everybody: true}, deny, nil
	case strings.HasPrefix(rest, "@"):
		return pattern{}, false,
			fmt.Errorf("%q: for all addresses of a domain write %q", s, s[:len(s)-len(rest)]+"*"+rest)
	}
	p, err = parsePattern(rest)
	p.text = s
	return p, deny, err
}

// CheckRecipientPattern checks an entry of recipients: "*", address, *@domain, *@*.domain or {login}, each after an
// optional "!".
func CheckRecipientPattern(s string) error {
	_, _, err := parseRecipient(s)
	return err
}

func parseRecipients(list []string) (*recipients, error) {
	if len(list) == 0 {
		return nil, errors.New(`the list is empty; write ["*"] for everybody or ["!*"] for nobody`)
	}
	var r recipients
	for _, s := range list {
		p, deny, err := parseRecipient(s)
		if err != nil {
			return nil, err
		}
		if deny {
			r.deny = append(r.deny, p)
		} else {
			r.allow = append(r.allow, p)
		}
	}
	return &r, r.checkHidden()
}

// checkHidden refuses a list that both allows and denies an address.
func (r *recipients) checkHidden() error {
	for _, p := range r.allow {
		a, ok := p.address("")
		if !ok || p.login {
			continue
		}
		if d := find(r.deny, folded(a), ""); d != nil {
			return fmt.Errorf("%q can never be reached, because %q denies it wherever it stands", p.text, d.text)
		}
	}
	return nil
}

// allows reports whether a folded address is allowed. denied is the entry that denies it, nil if it is merely not
// listed.
func (r *recipients) allows(a mail.Address, login string) (ok bool, denied *pattern) {
	if d := find(r.deny, a, login); d != nil {
		return false, d
	}
	return len(r.allow) == 0 || find(r.allow, a, login) != nil, nil
}

func find(list []pattern, a mail.Address, login string) *pattern {
	for i := range list {
		if list[i].matches(a, login) {
			return &list[i]
		}
	}
	return nil
}
