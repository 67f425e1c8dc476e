package ldap

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"postern/mail"
)

// placeholder stands for the login in filters and templates.
const placeholder = "{login}"

// attributeName is RFC 4512 §1.4: a keystring, or an OID, with options.
var attributeName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+)(;[A-Za-z0-9-]+)*$`)

// Check says what is wrong with Options, as a *mail.KeyError with the key of relay.toml.
func Check(o Options) error {
	if len(o.URLs) == 0 {
		return mail.BadKey("urls", `is empty, write the addresses of the servers, such as ["ldaps://dc1.example.com"]`)
	}
	for _, u := range o.URLs {
		if _, err := parseURL(u); err != nil {
			return mail.BadKey("urls", "%s", err)
		}
	}
	switch o.Directory {
	case "", Generic, ActiveDirectory:
	default:
		return mail.BadKey("directory", `unknown directory %q, write "generic" or "active-directory"`, o.Directory)
	}
	switch o.Groups {
	case "", GroupsNone, GroupsMemberOf, GroupsNested, GroupsInChain:
	default:
		return mail.BadKey("groups", `unknown value %q, write "nested", "in-chain", "memberof" or "none"`, o.Groups)
	}
	for _, a := range o.SenderAttributes {
		if !attributeName.MatchString(a) {
			return mail.BadKey("sender_attributes", `%q is no name of an attribute, write one such as "mail"`, a)
		}
	}
	if o.LoginAttribute != "" && !attributeName.MatchString(o.LoginAttribute) {
		return mail.BadKey("login_attribute", `%q is no name of an attribute, write one such as "uid"`,
			o.LoginAttribute)
	}
	if err := checkNames(o); err != nil {
		return err
	}
	return checkFilter(o)
}

func checkNames(o Options) error {
	switch {
	case o.BindTemplate != "" && strings.Count(o.BindTemplate, placeholder) != 1:
		return mail.BadKey("bind_template", "has no {login} in it, or several, write one such as "+
			`"uid={login},ou=people,dc=example,dc=com"`)
	case o.BindTemplate == "" && o.BaseDN == "":
		return mail.BadKey("base_dn", `is missing, write where the accounts are, such as "dc=example,dc=com", or a `+
			"bind_template")
	case o.BindTemplate == "" && o.BindDN == "":
		return mail.BadKey("bind_dn", "is missing, write the account that may search, or a bind_template")
	case o.BindDN != "" && o.BindPassword == "": // it would count as a bind by nobody (RFC 4513 §5.1.2)
		return mail.BadKey("bind_password", `is missing, write "env:NAME" or "file:PATH"`)
	case o.BindDN == "" && o.BindPassword != "":
		return mail.BadKey("bind_password", "has no bind_dn beside it, write both or neither")
	}
	for _, n := range []struct{ key, dn string }{{"base_dn", o.BaseDN}, {"group_base", o.GroupBase}} {
		if _, err := ldap.ParseDN(n.dn); err != nil {
			return mail.BadKey(n.key, `%q is no name in a directory, write one such as "dc=example,dc=com"`, n.dn)
		}
	}
	if isDN(o.BindTemplate) {
		if _, err := ldap.ParseDN(strings.ReplaceAll(o.BindTemplate, placeholder, "x")); err != nil {
			return mail.BadKey("bind_template", `%q is no name in a directory, write one such as `+
				`"uid={login},ou=people,dc=example,dc=com"`, o.BindTemplate)
		}
	}
	return nil
}

func checkFilter(o Options) error {
	if o.UserFilter == "" {
		return nil
	}
	if !strings.Contains(o.UserFilter, placeholder) {
		return mail.BadKey("user_filter", "has no {login} in it, and would find the same account for everybody")
	}
	if _, err := ldap.CompileFilter(strings.ReplaceAll(o.UserFilter, placeholder, "x")); err != nil {
		return mail.BadKey("user_filter", "%q is no filter: %s; write one such as (uid={login})", o.UserFilter,
			inWords(err))
	}
	return nil
}

// refusedUs explains why the relay's own account could not bind.
func refusedUs(err error, bindDN string) error {
	if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		why := ""
		if m := subCode.FindStringSubmatch(inWords(err)); m != nil {
			why = reasons[m[1]]
		}
		if why != "" {
			why = " (" + why + ")"
		}
		return &said{"the directory does not accept bind_dn with bind_password" + why, err}
	}
	return explain(err, bindDN)
}

// explain puts into words what a server refuses.
func explain(err error, name string) error {
	e, ok := errors.AsType[*ldap.Error](err)
	if !ok {
		return err
	}
	what := ""
	switch e.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		what = fmt.Sprintf("there is no %q, or bind_dn may not see it", name)
	case ldap.LDAPResultInsufficientAccessRights:
		what = fmt.Sprintf("bind_dn may not read %q", name)
	case ldap.LDAPResultReferral:
		what = fmt.Sprintf("it refers to another server for %q, which is not followed; write that one into urls", name)
	case ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultStrongAuthRequired:
		what = "it wants more protection than TLS with a simple bind"
	case ldap.LDAPResultOperationsError:
		what = "it wants a bind before a search; write bind_dn and bind_password"
	default:
		return fmt.Errorf("the directory: %w", &said{inWords(err), err})
	}
	return &said{"the directory: " + what, err}
}

// said is an error in our words.
type said struct {
	text string
	err  error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.err }
