package ldap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/mail"
)

// inChain is Active Directory's LDAP_MATCHING_RULE_IN_CHAIN: members of members too.
const inChain = "1.2.840.113556.1.4.1941"

// Bounds of a search from group to group.
const (
	maxDepth   = 10
	perSearch  = 20 // groups asked about at once
	groupName  = "cn"
	maxNameLen = 256 // octets
)

// groups are the names (cn) of the groups that an entry is in, directly or through others, sorted.
func (s *Source) groups(c *conn, e *ldap.Entry) ([]string, error) {
	var names []string
	var err error
	switch s.Groups {
	case GroupsNone:
	case GroupsMemberOf:
		names, err = firstNames(e.GetAttributeValues(attrMemberOf))
	case GroupsInChain:
		names, _, err = s.groupsBy(c, "(member:"+inChain+":="+ldap.EscapeFilter(e.DN)+")")
	default:
		names, err = s.nested(c, e)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// nested goes from group to group, each once: circles are common.
func (s *Source) nested(c *conn, e *ldap.Entry) (names []string, err error) {
	seen := map[string]bool{}
	ask := []string{e.DN}
	by := ""
	if uid := e.GetAttributeValue(s.LoginAttribute); uid != "" { // posixGroup
		by = "(memberUid=" + ldap.EscapeFilter(uid) + ")"
	}
	for depth := 0; len(ask) > 0 && depth < maxDepth; depth++ {
		var next []string
		for part := range slices.Chunk(ask, perSearch) {
			found, dns, err := s.groupsBy(c, "(|"+by+memberFilter(part)+")")
			if err != nil {
				return nil, err
			}
			by = ""
			names = append(names, found...)
			for _, dn := range dns {
				if key := strings.ToLower(dn); !seen[key] {
					seen[key] = true
					next = append(next, dn)
				}
			}
			if len(seen) > maxGroups {
				return nil, tooMany()
			}
		}
		ask = next
	}
	return names, nil
}

func memberFilter(dns []string) string {
	var b strings.Builder
	for _, dn := range dns {
		dn = ldap.EscapeFilter(dn)
		b.WriteString("(member=" + dn + ")(uniqueMember=" + dn + ")")
	}
	return b.String()
}

// groupsBy searches for groups.
func (s *Source) groupsBy(c *conn, filter string) (names, dns []string, err error) {
	entries, err := c.search(s.GroupBase, ldap.ScopeWholeSubtree, filter, maxGroups, groupName)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return nil, nil, tooMany()
	}
	if err != nil {
		return nil, nil, explain(err, s.GroupBase)
	}
	for _, g := range entries {
		dns = append(dns, g.DN)
		if name := g.GetAttributeValue(groupName); isName(name) {
			names = append(names, name)
		}
	}
	return names, dns, nil
}

// firstNames are the first names of DNs.
func firstNames(dns []string) (names []string, err error) {
	if len(dns) > maxGroups {
		return nil, tooMany()
	}
	for _, text := range dns {
		dn, err := ldap.ParseDN(text)
		if err != nil || len(dn.RDNs) == 0 || len(dn.RDNs[0].Attributes) == 0 {
			continue
		}
		if name := dn.RDNs[0].Attributes[0].Value; isName(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func isName(s string) bool {
	return s != "" && len(s) <= maxNameLen && mail.Printable(s) == s
}

// tooMany: to leave some out could lift a limit that a policy sets for a group.
func tooMany() error {
	return fmt.Errorf("%w: it is in more than %d groups; write a narrower group_base", auth.ErrUndecided, maxGroups)
}
