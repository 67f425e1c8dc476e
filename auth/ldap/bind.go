package ldap

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/mail"
)

// subCode is what Active Directory adds to invalidCredentials, in hexadecimal: a code of Windows.
var subCode = regexp.MustCompile(`\bdata ([0-9a-f]{1,8})\b`)

// reasons are the sub-codes that say more than that the password is wrong.
var reasons = map[string]string{
	"530": "it may not log on at this time",
	"531": "it may not log on from here: the account has a list of workstations",
	"532": "its password has expired",
	"533": "the account is disabled",
	"568": "it is in too many groups",
	"701": "the account has expired",
	"773": "its password must be changed first",
	"775": "the account is locked out in the directory",
}

// The errors of the password policy control (draft-behera-ldap-password-policy-10 §6.2).
const (
	policyExpired     = 0
	policyLocked      = 1
	policyChangeFirst = 2
)

// bindUser proves a password. It never binds without one: that would succeed for every name (RFC 4513 §5.1.2).
func (s *Source) bindUser(c *conn, name, password string) error {
	if password == "" || name == "" || strings.Contains(password, "\x00") {
		return auth.ErrWrongPassword
	}
	c.bound = asUser
	result, err := c.simpleBind(name, password, ldap.NewControlBeheraPasswordPolicy())
	policy := policyError(result)
	if err == nil {
		if policy == policyChangeFirst {
			return fmt.Errorf("%w: its password must be changed first", auth.ErrLocked)
		}
		return nil
	}
	switch refused, _ := errors.AsType[*ldap.Error](err); {
	case refused == nil || c.broken(err):
		return err
	case refused.ResultCode == ldap.LDAPResultInvalidCredentials:
		return invalidCredentials(refused, policy)
	case refused.ResultCode == ldap.LDAPResultNoSuchObject, refused.ResultCode == ldap.LDAPResultInvalidDNSyntax:
		return auth.ErrUnknownLogin
	case refused.ResultCode == ldap.LDAPResultConfidentialityRequired:
		return explain(err, name)
	}
	// A referral, or a rule of the server about this entry.
	return fmt.Errorf("%w: %s", auth.ErrUndecided, inWords(err))
}

// invalidCredentials tells why, as far as the server does.
func invalidCredentials(e *ldap.Error, policy int8) error {
	switch policy {
	case policyExpired:
		return fmt.Errorf("%w: its password has expired", auth.ErrLocked)
	case policyLocked:
		return fmt.Errorf("%w: the account is locked in the directory", auth.ErrLocked)
	}
	m := subCode.FindStringSubmatch(mail.Cut(inWords(e), 400))
	if m == nil || m[1] == "52e" {
		return auth.ErrWrongPassword
	}
	if m[1] == "525" {
		return auth.ErrUnknownLogin
	}
	if why, ok := reasons[m[1]]; ok {
		return fmt.Errorf("%w: %s (data %s)", auth.ErrLocked, why, m[1])
	}
	return fmt.Errorf("%w (data %s)", auth.ErrWrongPassword, m[1])
}

// policyError returns -1 where there is none.
func policyError(r *ldap.SimpleBindResult) int8 {
	if r == nil {
		return -1
	}
	c := ldap.FindControl(r.Controls, ldap.ControlTypeBeheraPasswordPolicy)
	if policy, ok := c.(*ldap.ControlBeheraPasswordPolicy); ok {
		return policy.Error
	}
	return -1
}

// verifyByTemplate binds as a name that is made from the login, and reads its entry as itself.
func (s *Source) verifyByTemplate(ctx context.Context, login, password string) (id auth.Identity, err error) {
	name, ok := nameOf(s.BindTemplate, login)
	if !ok { // it could not be a name: do the work all the same
		if down := s.bindInVain(ctx, password); down != nil {
			return auth.Identity{}, down
		}
		return auth.Identity{}, auth.ErrUnknownLogin
	}
	err = s.pool.do(ctx, asUser, func(c *conn) error {
		if err := s.bindUser(c, name, password); err != nil {
			return err
		}
		id, err = s.own(c, name, login)
		return err
	})
	err = auth.OfLogin(spelled(s.BindTemplate, login), err)
	if err != nil {
		return auth.Identity{}, err
	}
	return id, nil
}

// own reads the entry of the login that c is bound as.
func (s *Source) own(c *conn, name, login string) (auth.Identity, error) {
	var entry *ldap.Entry
	var err error
	switch {
	case isDN(s.BindTemplate):
		var entries []*ldap.Entry
		entries, err = c.search(name, ldap.ScopeBaseObject, "(objectClass=*)", 1, s.attributes()...)
		if err == nil && len(entries) == 1 {
			entry = entries[0]
		}
	case s.BaseDN != "":
		entry, err = s.findOn(c, login)
		if errors.Is(err, auth.ErrUnknownLogin) || errors.Is(err, auth.ErrWrongPassword) {
			err = nil // it has proved itself, and nothing is known of it
		}
	}
	if err != nil {
		return auth.Identity{}, explain(err, name)
	}
	if entry == nil {
		return auth.Identity{Login: spelled(s.BindTemplate, login)}, nil
	}
	if err := s.standing(entry); err != nil {
		return auth.Identity{}, err
	}
	return s.identityOn(c, entry, login)
}

// spelled is one spelling for all that the template makes the same name of.
func spelled(template, login string) string {
	if !isDN(template) {
		login = withoutDomain(template, login)
	}
	return folded(login)
}

func withoutDomain(template, login string) string {
	_, domain, _ := strings.Cut(template, placeholder)
	if short, ok := strings.CutSuffix(login, mail.LowerASCII(domain)); ok && short != "" {
		return short
	}
	return login
}

// nameOf fills the template. In a DN the login is escaped; elsewhere (DOMAIN\login, login@domain) there is no escaping,
// and what would end the name is refused. Who types the domain too means the same.
func nameOf(template, login string) (string, bool) {
	if isDN(template) {
		return strings.ReplaceAll(template, placeholder, ldap.EscapeDN(login)), true
	}
	login = withoutDomain(template, login)
	if strings.ContainsAny(login, `\/"[]:;|=,+*?<> `) || template != placeholder && strings.Contains(login, "@") {
		return "", false
	}
	return strings.ReplaceAll(template, placeholder, login), true
}

func isDN(template string) bool { return strings.Contains(template, "=") }
