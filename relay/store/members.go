package store

import (
	"postern/auth"
	"postern/policy"
)

// Members says who is in which group, for the rules of package policy.
func Members(users []auth.User) []policy.Member {
	all := make([]policy.Member, 0, len(users))
	for _, u := range users {
		if len(u.Groups) > 0 {
			all = append(all, policy.Member{Login: u.Login, Groups: u.Groups, Senders: u.Senders})
		}
	}
	return all
}
