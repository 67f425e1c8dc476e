package operate

import (
	"net/netip"
	"time"

	"postern/auth"
)

// Account is an account as JSON has it: without anything of its password.
type Account struct {
	Login      string         `json:"login"`
	Kind       string         `json:"kind"`
	Password   string         `json:"password"`
	Locked     bool           `json:"locked"`
	LockReason string         `json:"lock_reason,omitempty"`
	Senders    []string       `json:"senders,omitempty"`
	Groups     []string       `json:"groups,omitempty"`
	Networks   []netip.Prefix `json:"networks,omitempty"`
	Note       string         `json:"note,omitempty"`
	Created    time.Time      `json:"created,omitzero"` // unknown, as Changed may be, of one that is elsewhere
	Changed    time.Time      `json:"changed,omitzero"`
}

// ShownAccount returns an account as JSON has it.
func ShownAccount(u auth.User) Account {
	return Account{u.Login, KindOfAccount(u), PasswordKind(u), u.Locked, u.LockReason, u.Senders, u.Groups, u.Networks,
		u.Note, u.Created, LastChange(u)}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// LastChange is when anything of an account was changed.
func LastChange(u auth.User) time.Time {
	return later(u.Changed, u.Edited)
}

// KindOfAccount is "device" or "user".
func KindOfAccount(u auth.User) string {
	if u.Device {
		return "device"
	}
	return "user"
}

// PasswordKind is "generated" or "chosen".
func PasswordKind(u auth.User) string {
	if u.Generated {
		return "generated"
	}
	return "chosen"
}

// Lockout is somebody who is locked out for a while, as JSON has it in a list of accounts. Without a login it is an
// address, without an address a login, from wherever it was not used before.
type Lockout struct {
	Kind     string    `json:"kind"` // "lockout"
	Login    string    `json:"login"`
	Address  string    `json:"address,omitempty"`
	Locked   bool      `json:"locked"`
	Reason   string    `json:"lock_reason"`
	Until    time.Time `json:"until"`
	Failures int       `json:"failures"`
}

// ShownLockouts returns lockouts as JSON has them: a list that is never null.
func ShownLockouts(locks []auth.Lock) []Lockout {
	views := make([]Lockout, len(locks))
	for i, l := range locks {
		views[i] = Lockout{"lockout", l.Login, LockedAddress(l), true, "too many different wrong passwords",
			l.Until, l.Failures}
	}
	return views
}

// ShownAccounts returns accounts and lockouts as one list.
func ShownAccounts(users []auth.User, locks []auth.Lock) []any {
	list := []any{}
	for _, u := range users {
		list = append(list, ShownAccount(u))
	}
	for _, l := range ShownLockouts(locks) {
		list = append(list, l)
	}
	return list
}
