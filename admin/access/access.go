// Package access decides who may into the console and the API: invitations, logins with a password and a second factor
// or a passkey, logins by OpenID Connect, sessions, and tokens of programs. It has no pages: handlers call it and show
// what it returns; Authenticate is the middleware before them.
//
// # Failure semantics
//
// Whatever keeps a person out is a *Refusal, whose Reason is what a page shows. What is wrong with a credential
// (unknown name, wrong password, wrong code) is one reason, and takes the time of one argon2id; its cause is for the
// log. Trouble of ours, such as a store that fails, is another error: nobody is let in, and it is held against nobody.
// A provider of OpenID Connect that is down keeps out those who log in by it, and nobody else.
//
// # What is kept
//
// Of links, sessions and tokens the store has SHA-256 hashes: they are 256 random bits. TOTP secrets are sealed. What
// lies between two steps of a login is in a sealed cookie, so that outsiders fill no memory of ours.
package access

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/hashicorp/golang-lru/v2/expirable"

	"postern/auth"
	"postern/operate"
	"postern/relay/store"
)

// Options configure an Access. Store and URL are needed.
type Options struct {
	Store   *store.Store
	Lockout auth.Lockout // as for logins by SMTP
	// URL is where browsers find the console: scheme, host and port. Its host is what passkeys are bound to.
	URL *url.URL
	// TrustedProxies are believed whom they ask for, by X-Forwarded-For.
	TrustedProxies []netip.Prefix
	OIDC           *OIDC            // nil: nobody logs in by OpenID Connect
	Logger         *slog.Logger     // nil: none
	Now            func() time.Time // nil: time.Now
}

// Access is who may in, by its parts. It is safe for concurrent use and starts no goroutine.
type Access struct {
	Users       Users       // who may into the console
	Invitations Invitations // links by which they come
	Logins      Logins      // password and code, and the sessions
	Passkeys    Passkeys
	OIDC        SSO // logins by OpenID Connect
	Tokens      Tokens
	Own         Own // what people change of their own account

	*core
	known atomic.Pointer[map[string]int64] // generations of users
	rate  *Limiter
}

// core is what the parts share.
type core struct {
	*flows
	store  *store.Store
	auth   *auth.Authenticator
	log    *slog.Logger
	now    func() time.Time
	key    []byte
	inUse  atomic.Pointer[settings]
	ledger *operate.Ledger
	failed *expirable.LRU[string, struct{}] // whose failed logins the audit has lately
}

// factors are passwords, authenticators and passkeys: chosen and checked.
type factors struct{ *core }

// settings are what a reload changes.
type settings struct {
	url      *url.URL
	proxies  []netip.Prefix     // that say for whom they ask
	webauthn *webauthn.WebAuthn // nil: passkeys need a host name, and this is an address
	oidc     *console           // nil: none
}

const (
	keyName   = "console"
	keySize   = 32
	maxSeen   = 4096
	maxFailed = 1024
)

// New makes an Access.
func New(ctx context.Context, o Options) (*Access, error) {
	key, err := o.Store.Secret(ctx, keyName, keySize)
	if err != nil {
		return nil, err
	}
	c := &core{
		store: o.Store, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), now: o.Now, key: key,
		failed: expirable.NewLRU[string, struct{}](maxFailed, nil, time.Hour),
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.ledger = operate.NewLedger(o.Store, c.now)
	if c.flows, err = newFlows(c.derive("flow"), "postern console flow", o.Store, c.now); err != nil {
		return nil, err
	}
	c.auth = auth.New(auth.Options{
		Sources: []auth.Source{auth.NewStoreSource(passwords{o.Store}, nil)}, Lockout: o.Lockout, OnLock: c.lockedOut,
	})
	if err := o.Store.ConsoleLockout().Restore(ctx, c.auth, c.derive("places"), time.Now()); err != nil {
		return nil, err
	}
	a := &Access{Users: Users{c}, Invitations: Invitations{factors{c}}, Logins: Logins{factors{c}},
		Passkeys: Passkeys{c}, OIDC: SSO{c}, Tokens: Tokens{c}, Own: Own{factors{c}}, core: c, rate: NewLimiter()}
	a.known.Store(&map[string]int64{})
	return a, a.Use(o)
}

// Use takes over URL, proxies, OIDC and Lockout from new options, as after a reload. On an error nothing changes.
func (a *Access) Use(o Options) error {
	s := &settings{url: o.URL, proxies: o.TrustedProxies}
	host := o.URL.Hostname()
	if _, err := netip.ParseAddr(host); err != nil { // a passkey is bound to a domain (WebAuthn §5.1.3)
		w, err := newWebAuthn(host, o.URL)
		if err != nil {
			return fmt.Errorf("passkeys for %s: %w", o.URL, err)
		}
		s.webauthn = w
	}
	if o.OIDC != nil {
		var last *console
		if before := a.inUse.Load(); before != nil {
			last = before.oidc
		}
		s.oidc = newConsole(*o.OIDC, o.URL, a.now, last)
	}
	a.auth.SetLockout(o.Lockout)
	a.inUse.Store(s)
	return nil
}

// SaveLockout writes down who is locked out and from where people log in, so that a restart forgets neither. It is to
// be called every second or so, and at the end; what fails is written the next time. Package auth counts in real time.
func (a *Access) SaveLockout(ctx context.Context) error {
	return a.store.ConsoleLockout().Keep(ctx, a.auth, time.Now())
}

// HasNewLocks reports whether SaveLockout has something that other processes wait for.
func (a *Access) HasNewLocks() bool { return a.auth.HasNewLocks() }

// Lifted is to be called when the store says that lockouts have begun or were lifted by a person, in another process
// too.
func (a *Access) Lifted(ctx context.Context) error {
	lifted, err := a.store.ConsoleLockout().Adopt(ctx, a.auth, time.Now())
	for _, l := range lifted {
		a.log.Info("console: lockout lifted by a person", "name", l.Login, "client", l.Client)
	}
	return err
}

// URL is where browsers find the console.
func (a *core) URL() *url.URL { u := *a.inUse.Load().url; return &u }

// HasPasskeys reports whether passkeys can be used: not where the console is found at an address.
func (a *core) HasPasskeys() bool { return a.inUse.Load().webauthn != nil }

// HasOIDC reports whether people may log in by OpenID Connect.
func (a *core) HasOIDC() bool { return a.inUse.Load().oidc != nil }

// Changed is to be called when the store says that who may in was changed, by another process too. It ends the
// lockouts of those that were changed.
func (a *Access) Changed(ctx context.Context) error {
	users, err := a.store.ConsoleUsers(ctx)
	if err != nil {
		return err
	}
	before, now := *a.known.Load(), make(map[string]int64, len(users))
	for _, u := range users {
		now[u.Name] = u.Generation
		if old, ok := before[u.Name]; ok && old != u.Generation {
			a.auth.Forget(u.Name)
		}
	}
	a.known.Store(&now)
	a.auth.Forget() // passwords that were right
	return nil
}

// passwords shows the users of the console to package auth.
type passwords struct{ store *store.Store }

// User implements auth.UserStore. Who has no password here is unknown.
func (p passwords) User(ctx context.Context, name string) (auth.User, error) {
	u, err := p.store.ConsoleUser(ctx, name)
	if errors.Is(err, store.ErrNoConsoleUser) || err == nil && u.Hash == "" {
		return auth.User{}, auth.ErrUnknownLogin
	}
	return auth.User{Login: u.Name, Hash: u.Hash, Locked: u.Disabled}, err
}

func (a *core) lockedOut(l auth.Lock) {
	a.log.Warn("console: locked out", "name", l.Login, "client", l.Client, "distinct_wrong_proofs", l.Failures,
		"until", l.Until.UTC().Format(time.RFC3339))
}

// derive makes a secret for one purpose of the installation's.
func (a *core) derive(purpose string) []byte {
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// random is 256 random bits as text.
func random() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// roleOf is a user's role; what nobody can read is none.
func roleOf(u store.ConsoleUser) operate.Role {
	role, err := operate.ParseRole(u.Role)
	if err != nil {
		return operate.Nobody
	}
	return role
}

// recorded returns a context whose first change has with it in the audit that it is done.
func (a *core) recorded(ctx context.Context, who operate.Actor, op, subject, detail string) context.Context {
	e := a.entry(who, op, subject, detail, store.AuditDone)
	return store.Recorded(ctx, &store.Record{Entry: func() store.AuditEntry { return e }})
}

// record writes an entry about what changes nothing.
func (a *core) record(ctx context.Context, who operate.Actor, op, subject, detail, outcome string) error {
	return a.store.AppendAudit(context.WithoutCancel(ctx), a.entry(who, op, subject, detail, outcome))
}

func (a *core) entry(who operate.Actor, op, subject, detail, outcome string) store.AuditEntry {
	return store.AuditEntry{Time: a.now(), Actor: who.Name, Channel: string(who.Channel), Client: who.Client,
		Operation: op, Subject: subject, Detail: detail, Outcome: outcome}
}
