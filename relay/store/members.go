package store

import (
	"postern/auth"
	"postern/policy"
)

// Members says who is in which group, for the rules of package policy: accounts, and people of
// ProvidedPersons, as they last logged in. A source of others can be asked about a login, but not who is in a group.
func Members(users []auth.User, people []auth.Person) []policy.Member {
	all := make([]policy.Member, 0, len(users)+len(people))
	for _, p := range people {
		if len(p.Groups) > 0 {
			all = append(all, policy.Member{Login: p.Login, Groups: p.Groups, Senders: p.Senders})
		}
	}
	for _, u := range users {
		if len(u.Groups) > 0 {
			all = append(all, policy.Member{Login: u.Login, Groups: u.Groups, Senders: u.Senders})
		}
	}
	return all
}
