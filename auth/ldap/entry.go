package ldap

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/mail"
)

// Attributes that say how an account stands.
const (
	attrControl     = "userAccountControl" // Active Directory: flags
	attrExpires     = "accountExpires"     // Active Directory: 100 ns since 1601
	attrLockedTime  = "pwdAccountLockedTime"
	attrAccountLock = "nsAccountLock" // 389 Directory Server, FreeIPA
	attrMemberOf    = "memberOf"
)

const (
	flagDisabled  = 0x2
	lockedForGood = "000001010000Z"
)

const (
	maxSenders = 200
	maxGroups  = 1000
)

// attributes are those that are read of the entry of a login.
func (s *Source) attributes() []string {
	list := slices.Clone(s.SenderAttributes)
	if s.LoginAttribute != "" {
		list = append(list, s.LoginAttribute)
	}
	if s.Directory == ActiveDirectory {
		list = append(list, attrControl, attrExpires)
	} else {
		list = append(list, attrLockedTime, attrAccountLock)
	}
	if s.Groups == GroupsMemberOf {
		list = append(list, attrMemberOf)
	}
	return list
}

// standing says why an account may not be used, whatever its password. A lockout after wrong passwords is none: the
// directory tells of it when somebody binds, and it must not end the sessions of who is logged in.
func (s *Source) standing(e *ldap.Entry) error {
	if s.Directory != ActiveDirectory {
		if e.GetAttributeValue(attrLockedTime) == lockedForGood ||
			strings.EqualFold(e.GetAttributeValue(attrAccountLock), "true") {
			return fmt.Errorf("%w: the account is locked in the directory", auth.ErrLocked)
		}
		return nil
	}
	if flags, err := strconv.ParseInt(e.GetAttributeValue(attrControl), 10, 64); err == nil && flags&flagDisabled != 0 {
		return fmt.Errorf("%w: the account is disabled", auth.ErrLocked)
	}
	if end, ok := windowsTime(e.GetAttributeValue(attrExpires)); ok && !s.now().Before(end) {
		return fmt.Errorf("%w: the account has expired on %s", auth.ErrLocked, end.Format(time.DateOnly))
	}
	return nil
}

// windowsTime reads a count of 100 ns since 1601; 0 and the largest mean never.
func windowsTime(s string) (time.Time, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	const toUnix = 11644473600 // seconds from 1601 to 1970
	if err != nil || n <= 0 || n/1e7-toUnix > 253402300799 {
		return time.Time{}, false
	}
	return time.Unix(n/1e7-toUnix, 0).UTC(), true
}

// identity makes an identity of an entry, and asks for its groups.
func (s *Source) identity(ctx context.Context, e *ldap.Entry, login string) (id auth.Identity, err error) {
	if s.Groups == GroupsNone || s.Groups == GroupsMemberOf {
		return s.identityOn(nil, e, login)
	}
	err = s.asService(ctx, func(c *conn) error {
		id, err = s.identityOn(c, e, login)
		return err
	})
	return id, err
}

func (s *Source) identityOn(c *conn, e *ldap.Entry, login string) (auth.Identity, error) {
	id := auth.Identity{Login: ownName(e, s.LoginAttribute, login), Senders: sendersIn(e, s.SenderAttributes)}
	var err error
	id.Groups, err = s.groups(c, e)
	if err != nil {
		return auth.Identity{}, err
	}
	return id, nil
}

// ownName is what the directory calls a login, however the client spelled it.
func ownName(e *ldap.Entry, attribute, login string) string {
	if attribute != "" {
		if own, ok := auth.NormalizeLogin(e.GetAttributeValue(attribute)); ok {
			return own
		}
	}
	return folded(login)
}

// sendersIn are the addresses of an entry, its own first. Only plain addresses count: an attribute that a person may
// edit must not make a pattern such as *@example.com.
func sendersIn(e *ldap.Entry, attributes []string) (list []string) {
	var first []string
	for _, attribute := range attributes {
		for _, v := range e.GetAttributeValues(attribute) {
			address, primary, ok := senderOf(v)
			switch {
			case !ok || len(list)+len(first) >= maxSenders:
			case primary:
				first = append(first, address)
			default:
				list = append(list, address)
			}
		}
	}
	list = append(first, list...)
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(a string) bool {
		key := mail.LowerASCII(a)
		twice := seen[key]
		seen[key] = true
		return twice
	})
}

// senderOf reads a value of mail, or of proxyAddresses: SMTP: stands before the primary address, smtp: before others,
// and other words before what is no address of mail.
func senderOf(v string) (address string, primary, ok bool) {
	if word, rest, found := strings.Cut(v, ":"); found {
		if !strings.EqualFold(word, "smtp") {
			return "", false, false
		}
		v, primary = rest, word == "SMTP"
	}
	a, err := mail.ParseAddress(v)
	if err != nil || strings.ContainsAny(v, `*?{}!"\ `) || !strings.Contains(v, "@") || strings.HasPrefix(v, "@") {
		return "", false, false
	}
	return a.String(), primary, true
}
