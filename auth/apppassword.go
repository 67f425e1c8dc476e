package auth

import (
	"context"
	"net/netip"
	"time"
)

// Person is who makes app passwords for their own login.
type Person struct {
	Login   string   // normalised, the key
	Name    string   // for people
	Groups  []string // of who logs in by OpenID Connect; a source is asked for those of others
	Senders []string // as Groups
	Source  string   // the name of the source that knows the login
	// Subject is issuer and sub of who logs in by OpenID Connect, who is known by nothing else. "": Source is asked.
	Subject    string
	Seen       time.Time // when they last logged in to the page; zero: never
	Locked     bool      // none of their app passwords is good
	LockReason string
}

// AppPassword is one of several generated passwords of a login.
type AppPassword struct {
	ID       string // names it in lists, and is no secret
	Login    string
	Name     string // of the device or program that it is for
	Hash     Secret // of HashGenerated
	Networks []netip.Prefix
	Created  time.Time
	Expires  time.Time
	LastUsed time.Time // within UsedEvery; zero: never
	LastFrom string    // the client's address, or as much of it as [privacy] keeps
}

// AppStore keeps app passwords.
type AppStore interface {
	// AppPassword returns the app password with this hash and whose it is; ErrUnknownLogin if there is none.
	AppPassword(ctx context.Context, hash Secret) (Person, AppPassword, error)
	// AppPasswordOf is the same by ID.
	AppPasswordOf(ctx context.Context, id string) (Person, AppPassword, error)
}
