// Package ldap is the credential source of an LDAP directory: Active Directory, OpenLDAP and their like.
//
// A login is searched for by an account of the relay, and its password is proved by binding as what was found; or its
// name is made from a template and bound at once. The directory also says which groups it is in and which addresses it
// may send from.
//
// # Failure semantics
//
// Passwords travel over TLS that verifies, or not at all: ldaps, or ldap with StartTLS, without exception. What is
// wrong with a credential is one of package auth's errors, with the reason for the log: locked, disabled and expired
// accounts are auth.ErrLocked. Anything else (no server answers, the relay's own account is refused, the base does not
// exist) means that the source is down. Each operation has a deadline and a bound on what is read; a broken connection
// is replaced once, by one to another server if there are several. Referrals are not followed: that would take the
// password to a server that nobody has configured.
//
// # Time
//
// A login that does not exist costs a search and a bind, like one with a wrong password.
package ldap

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

// The kinds of directories.
const (
	Generic         = "generic"
	ActiveDirectory = "active-directory"
)

// How the groups of a login are found.
const (
	GroupsNone     = "none"
	GroupsMemberOf = "memberof" // the attribute memberOf: direct groups, or what the server puts there
	GroupsNested   = "nested"   // searched from group to group: any server
	GroupsInChain  = "in-chain" // by Active Directory's matching rule
)

// Options are a directory. New completes what is empty by Directory.
type Options struct {
	Name string   // of the source
	URLs []string // ldaps://host[:port], or ldap://host[:port] for StartTLS; asked in order
	// RootCAs verify the servers; nil: those of the system.
	RootCAs   *x509.CertPool
	Directory string // Generic or ActiveDirectory

	BindDN       string      // the relay's own account, for searches
	BindPassword auth.Secret //
	BaseDN       string      // where logins are searched for
	UserFilter   string      // {login} is what the client said
	BindTemplate string      // instead of a search: the name to bind as, with {login} in it

	LoginAttribute   string   // the login's one name for limits and logs; "": as the client said it
	SenderAttributes []string // addresses that the login may send from; the first is its own
	Groups           string   // GroupsNone, …
	GroupBase        string   // where groups are searched for; "": BaseDN

	Timeout time.Duration // of one operation with the server; 0: 5 s
	StaleOK time.Duration // see auth.Remote
}

const defaultTimeout = 5 * time.Second

// Source is a directory. It is safe for concurrent use.
type Source struct {
	Options
	pool   *pool
	nobody string // a name that nothing has
	now    func() time.Time
}

// WithDefaults completes Options by the kind of the directory.
func (o Options) WithDefaults() Options {
	o.Directory = cmp.Or(o.Directory, Generic)
	filter, login, groups := "(&(objectClass=person)(|(uid={login})(mail={login})))", "uid", GroupsNested
	senders := []string{"mail"}
	if o.Directory == ActiveDirectory {
		// objectCategory is indexed. Computers are users too, but no persons.
		filter = "(&(objectCategory=person)(objectClass=user)(|(userPrincipalName={login})(sAMAccountName={login})))"
		login, groups, senders = "userPrincipalName", GroupsInChain, []string{"mail", "proxyAddresses"}
	}
	o.UserFilter = cmp.Or(o.UserFilter, filter)
	o.LoginAttribute = cmp.Or(o.LoginAttribute, login)
	o.Groups = cmp.Or(o.Groups, groups)
	o.GroupBase = cmp.Or(o.GroupBase, o.BaseDN)
	if o.SenderAttributes == nil {
		o.SenderAttributes = senders
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	return o
}

// New makes a source, and connects to nothing yet. The error is what Check says.
func New(o Options) (*Source, error) {
	if err := Check(o); err != nil {
		return nil, err
	}
	s := &Source{Options: o.WithDefaults(), now: time.Now}
	servers := make([]*server, len(o.URLs))
	for i, u := range o.URLs {
		var err error
		if servers[i], err = parseURL(u); err != nil {
			return nil, err
		}
	}
	s.pool = newPool(servers, s.RootCAs, s.Timeout)
	s.nobody = "cn=" + rand.Text()
	if s.BaseDN != "" {
		s.nobody += "," + s.BaseDN
	}
	return s, nil
}

// Name implements auth.Source.
func (s *Source) Name() string { return s.Options.Name }

// StaleOK implements auth.Remote.
func (s *Source) StaleOK() time.Duration { return s.Options.StaleOK }

// Close closes the connections, those in use when they are given back.
func (s *Source) Close() error {
	s.pool.close()
	return nil
}

// Verify implements auth.Source.
func (s *Source) Verify(ctx context.Context, login, password string) (auth.Identity, error) {
	if s.BindTemplate != "" {
		return s.verifyByTemplate(ctx, login, password)
	}
	entry, err := s.find(ctx, login)
	if err != nil {
		if !errors.Is(err, auth.ErrUnknownLogin) && !errors.Is(err, auth.ErrWrongPassword) {
			return auth.Identity{}, err
		}
		if down := s.bindInVain(ctx, password); down != nil { // the work of a wrong password
			return auth.Identity{}, down
		}
		return auth.Identity{}, err
	}
	err = s.pool.do(ctx, asUser, func(c *conn) error { return s.bindUser(c, entry.DN, password) })
	if err != nil {
		if errors.Is(err, auth.ErrUnknownLogin) { // it was there a moment ago
			err = auth.ErrWrongPassword
		}
		return auth.Identity{}, auth.OfLogin(ownName(entry, s.LoginAttribute, login), err)
	}
	if err := s.standing(entry); err != nil {
		return auth.Identity{}, auth.OfLogin(ownName(entry, s.LoginAttribute, login), err)
	}
	return s.identity(ctx, entry, login)
}

// bindInVain binds as nobody. An error is trouble of the directory.
func (s *Source) bindInVain(ctx context.Context, password string) error {
	err := s.pool.do(ctx, asUser, func(c *conn) error { return s.bindUser(c, s.nobody, password) })
	if errors.Is(err, auth.ErrUnknownLogin) || errors.Is(err, auth.ErrWrongPassword) ||
		errors.Is(err, auth.ErrLocked) || errors.Is(err, auth.ErrUndecided) {
		return nil
	}
	return err
}

// Lookup says who a login is. It needs an account of the relay's own.
func (s *Source) Lookup(ctx context.Context, login string) (auth.Identity, error) {
	if s.BindDN == "" || s.BaseDN == "" {
		return auth.Identity{}, auth.ErrNoLookup
	}
	entry, err := s.find(ctx, login)
	if err != nil {
		if errors.Is(err, auth.ErrWrongPassword) { // more than one
			err = auth.ErrUnknownLogin
		}
		return auth.Identity{}, err
	}
	if err := s.standing(entry); err != nil {
		return auth.Identity{}, err
	}
	return s.identity(ctx, entry, login)
}

// Probe implements auth.Remote: a server answers, lets the relay's account in, and has the base.
func (s *Source) Probe(ctx context.Context) error {
	if s.BindTemplate != "" && s.BindDN == "" {
		return s.pool.do(ctx, asUser, func(c *conn) error { // whatever it answers, it answers
			_, err := c.search("", ldap.ScopeBaseObject, "(objectClass=*)", 1, "1.1")
			if c.broken(err) {
				return err
			}
			return nil
		})
	}
	return s.asService(ctx, func(c *conn) error {
		_, err := c.search(s.BaseDN, ldap.ScopeBaseObject, "(objectClass=*)", 1, "1.1")
		return explain(err, s.BaseDN)
	})
}

// find searches for the entry of a login: ErrUnknownLogin, or ErrWrongPassword if there are several.
func (s *Source) find(ctx context.Context, login string) (entry *ldap.Entry, err error) {
	err = s.asService(ctx, func(c *conn) error {
		entry, err = s.findOn(c, login)
		return err
	})
	return entry, err
}

func (s *Source) findOn(c *conn, login string) (*ldap.Entry, error) {
	filter := strings.ReplaceAll(s.UserFilter, placeholder, ldap.EscapeFilter(login))
	entries, err := c.search(s.BaseDN, ldap.ScopeWholeSubtree, filter, 2, s.attributes()...)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(entries) > 1:
		return nil, fmt.Errorf("%w: the filter finds more than one entry for it", auth.ErrWrongPassword)
	case err != nil:
		return nil, explain(err, s.BaseDN)
	case len(entries) == 0 || entries[0].DN == "":
		return nil, auth.ErrUnknownLogin
	}
	return entries[0], nil
}

// asService runs f on a connection that is bound as the relay's own account.
func (s *Source) asService(ctx context.Context, f func(*conn) error) error {
	return s.pool.do(ctx, asRelay, func(c *conn) error {
		if c.bound != asRelay {
			if err := c.bind(s.BindDN, string(s.BindPassword)); err != nil {
				return refusedUs(err, s.BindDN)
			}
			c.bound = asRelay
		}
		return f(c)
	})
}
