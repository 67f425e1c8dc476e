package auth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Identity is who a client is once its password is verified.
type Identity struct {
	Login    string         // normalised, see NormalizeLogin
	Groups   []string       // names that [[policy]] blocks and routes may select
	Senders  []string       // sender patterns of this user; empty: the policy's senders apply
	Networks []netip.Prefix // where it may log in from; empty: anywhere

	// Source is the name of the source that vouches for it.
	Source string
	// Recheck is how long a session goes on before the source is asked about it again; 0: the source tells of changes.
	Recheck time.Duration
	asked   string // the login that its source was asked about, which may have another name for it
	behind  string // of AppSource: the source of the person
	// Created and Changed (of its password or lock) end sessions that are older, as far as the source knows them.
	Created, Changed time.Time
	// App and AppName are the ID and name of the app password that proved it; "": something else did.
	App, AppName string
	// Expires is when its proof ends, and sessions with it; zero: it does not.
	Expires time.Time
}

// Allows reports whether the identity may be used from client.
func (i Identity) Allows(client netip.Addr) bool {
	if len(i.Networks) == 0 {
		return true
	}
	client = client.Unmap().WithZone("")
	return slices.ContainsFunc(i.Networks, func(n netip.Prefix) bool { return n.Contains(client) })
}

// User is a login as the store keeps it, managed by `postern user` and `postern device`.
type User struct {
	Login      string         // normalised, the key
	Hash       Secret         // of HashChosen or HashGenerated; stored as string(u.Hash), never shown
	Generated  bool           // the password is one of ours: GeneratePassword, GenerateDevicePassword
	Device     bool           // made by `postern device add`
	Locked     bool           // by a person, or by over_limit = "lock"; LockReason says why
	LockReason string         // one plain sentence
	Senders    []string       // sender patterns; empty: the policy's senders apply
	Groups     []string       //
	Networks   []netip.Prefix // where it may log in from; empty: anywhere
	Created    time.Time
	Changed    time.Time // of the last change of its password or lock, which ends open sessions and lockouts
	Edited     time.Time // of the last change of anything else, which open sessions take over; zero: never
	Note       string    // free text of the administrator
}

// Identity returns who the user is, without the credential.
func (u User) Identity() Identity {
	return Identity{Login: u.Login, Groups: u.Groups, Senders: u.Senders, Networks: u.Networks, Created: u.Created,
		Changed: u.Changed}
}

// MayCram reports whether the user may log in by CRAM-MD5: a device with a password that nobody can guess.
func (u User) MayCram() bool { return u.Device && u.Generated }

// The reasons for which a Source does not vouch for a login. Any other error means that the source
// could not answer: temporary, never held against the client.
var (
	ErrUnknownLogin  = errors.New("unknown login")
	ErrWrongPassword = errors.New("wrong password")
	ErrLocked        = errors.New("login is locked")
	// ErrUndecided is trouble of a source with one login alone: temporary for that login, and no sign that the source
	// is down.
	ErrUndecided = errors.New("the source cannot decide about this login")
)

// UserStore is what the store source needs of a store.
type UserStore interface {
	// User returns the user with exactly this (normalised) login, or ErrUnknownLogin.
	User(ctx context.Context, login string) (User, error)
}

// ProofStore is a UserStore that keeps other proofs than passwords.
type ProofStore interface {
	// ScramUser returns a user with the keys of its password; zero keys if there are none of the one that it has now.
	// ErrUnknownLogin as User.
	ScramUser(ctx context.Context, login string) (User, ScramKeys, error)
	// CramUser is ScramUser for the keys of CRAM-MD5.
	CramUser(ctx context.Context, login string) (User, CramKeys, error)
	// LoginOfKey returns who has a key pinned; ErrUnknownLogin if nobody.
	LoginOfKey(ctx context.Context, d KeyDigest) (string, error)
}

// Source verifies passwords. The Authenticator gives it normalised logins and passwords of at most MaxLength octets.
// What else a source can do, it says by further methods: those of Remote; VerifyFast, Lookup and Dummy, as fastSource,
// lookupSource and dummySource have them; Close, which ends what it holds open. Proofs that are no passwords, such as
// tokens, get interfaces of their own beside this one.
type Source interface {
	// Name is what logs call the source.
	Name() string
	// Verify returns the identity, or ErrUnknownLogin at once, so that the next source is asked.
	// For a login that it knows it takes the time of one full verification whatever the outcome:
	// ErrWrongPassword, or ErrLocked however good the password is: locked, disabled, expired. Both may be wrapped, with
	// the reason for the log. A source that cannot tell an unknown login from a wrong password says ErrWrongPassword.
	// One that takes more than one spelling for a login adds its name of it by OfLogin.
	Verify(ctx context.Context, login, password string) (Identity, error)
}
