package config

import (
	"errors"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/auth/httpauth"
	"postern/auth/ldap"
	"postern/mail"
)

// The types of sources.
const (
	SourceStore   = "store"
	SourceFile    = "file"
	SourceLDAP    = "ldap"
	SourceDovecot = "dovecot"
	SourceHTTP    = "http"
)

// sourceTypes have these keys beside type and name.
var sourceTypes = map[string][]string{
	SourceStore: {},
	SourceFile:  {"path"},
	SourceLDAP: {"urls", "ca_file", "directory", "bind_dn", "bind_password", "base_dn", "user_filter", "bind_template",
		"login_attribute", "sender_attributes", "groups", "group_base", "timeout", "stale_ok"},
	SourceDovecot: {"socket", "timeout", "stale_ok"},
	SourceHTTP:    {"url", "token", "ca_file", "timeout", "stale_ok"},
	SourceOIDC:    oidcKeys,
}

// AuthSource is one place that knows passwords.
type AuthSource struct {
	Type string `toml:"type" default:"store"` // SourceStore, …
	// Name is what logs and alerts call it. Default: the type.
	Name string `toml:"name"`

	Path string `toml:"path"` // file: of htpasswd, or a Dovecot passwd-file

	URLs             []string `toml:"urls"`      // ldap: ldaps://host, or ldap://host for StartTLS; asked in order
	Directory        string   `toml:"directory"` // ldap: generic or active-directory
	BindDN           string   `toml:"bind_dn"`   // ldap: the relay's own account
	BindPassword     Secret   `toml:"bind_password"`
	BaseDN           string   `toml:"base_dn"`           // ldap: where logins are searched for
	UserFilter       string   `toml:"user_filter"`       // ldap; {login} is what the client said. Default by Directory
	BindTemplate     string   `toml:"bind_template"`     // ldap: the name to bind as, instead of a search
	LoginAttribute   string   `toml:"login_attribute"`   // ldap: a login's one name. Default by Directory
	SenderAttributes []string `toml:"sender_attributes"` // ldap: its addresses. Default by Directory
	Groups           string   `toml:"groups"`            // ldap: nested, in-chain, memberof or none. Default by Directory
	GroupBase        string   `toml:"group_base"`        // ldap: where groups are searched for. Default: BaseDN

	Socket string `toml:"socket"` // dovecot: its auth-client socket

	URL   string `toml:"url"`   // http: https://…, or http:// on this machine
	Token Secret `toml:"token"` // http: sent as Authorization: Bearer

	Issuer            string   `toml:"issuer"`             // oidc: as its tokens name it
	Audience          []string `toml:"audience"`           // oidc: tokens must be for one of these
	AuthorizedParties []string `toml:"authorized_parties"` // oidc: azp or client_id of its clients; empty: any
	Scope             string   `toml:"scope"`              // oidc: tokens must have it, and clients are told
	LoginClaim        string   `toml:"login_claim"`        // oidc. Default: email
	GroupsClaim       string   `toml:"groups_claim"`       // oidc; empty: tokens give no groups
	SendersClaim      string   `toml:"senders_claim"`      // oidc; empty: tokens give no addresses
	ClientID          string   `toml:"client_id"`          // oidc: ask about opaque tokens with it (RFC 7662)
	ClientSecret      Secret   `toml:"client_secret"`
	// ClockSkew is how far the clocks of the issuer and of this machine may differ.
	ClockSkew Duration `toml:"clock_skew" default:"1m"`

	CAFile string `toml:"ca_file"` // ldap, http, oidc: PEM trust anchors beside the system's
	// Timeout bounds one operation. Default: 5s, for dovecot 10s.
	Timeout Duration `toml:"timeout"`
	// StaleOK is how long after it was verified a credential may be used while the source is down.
	StaleOK Duration `toml:"stale_ok" default:"1h"`
}

// Remote reports that the source is another program, which may be down.
func (s *AuthSource) Remote() bool { return s.Type != SourceStore && s.Type != SourceFile }

// AnswersForAll reports that the source cannot tell a login that it does not know from a wrong password.
func (s *AuthSource) AnswersForAll() bool {
	return s.Type == SourceDovecot || s.Type == SourceLDAP && s.BindTemplate != ""
}

// LDAP returns the options of a directory, without trust anchors.
func (s *AuthSource) LDAP() ldap.Options {
	return ldap.Options{
		Name: s.Name, URLs: s.URLs, Directory: s.Directory, BindDN: s.BindDN,
		BindPassword: auth.Secret(s.BindPassword.Value()), BaseDN: s.BaseDN, UserFilter: s.UserFilter,
		BindTemplate: s.BindTemplate, LoginAttribute: s.LoginAttribute, SenderAttributes: s.SenderAttributes,
		Groups: s.Groups, GroupBase: s.GroupBase, Timeout: s.Timeout.Std(), StaleOK: s.StaleOK.Std(),
	}
}

// deriveSources fills in names, and what the kind of a directory says.
func deriveSources(c *Config) {
	for i := range c.Auth.Sources {
		s, key := &c.Auth.Sources[i], element("auth.source", i)
		setDefault(&s.Name, c.doc.has(key+".name"), s.Type)
		if !s.Remote() {
			continue
		}
		limit := 5 * time.Second
		if s.Type == SourceOIDC && s.LoginClaim == "" {
			s.LoginClaim = "email"
		}
		if s.Type == SourceDovecot {
			limit = 10 * time.Second
		}
		setDefault(&s.Timeout, c.doc.has(key+".timeout"), Duration(limit))
		if s.Type == SourceLDAP {
			o := s.LDAP().WithDefaults()
			s.Directory, s.UserFilter, s.LoginAttribute = o.Directory, o.UserFilter, o.LoginAttribute
			s.SenderAttributes, s.Groups, s.GroupBase = o.SenderAttributes, o.Groups, o.GroupBase
		}
	}
}

// sources checks [[auth.source]].
func (v *validator) sources() {
	if len(v.Auth.Sources) == 0 {
		v.fail("auth.source", `is empty, remove it or write [[auth.source]] and type = "store"`)
	}
	names := map[string]int{}
	for i := range v.Auth.Sources {
		key, s := element("auth.source", i), &v.Auth.Sources[i]
		if !v.sourceType(key, i, s) {
			continue
		}
		v.sourceName(key, s, names, i)
		for _, k := range v.foreignKeys(key, s.Type) {
			v.fail(key+"."+k, "is no key of a source of type %q, remove it", s.Type)
		}
		if s.Remote() {
			v.atLeast(key+".timeout", s.Timeout, time.Second)
			v.atMost(key+".timeout", s.Timeout, 15*time.Second, "clients wait no longer for an answer to their login")
			v.atMost(key+".stale_ok", s.StaleOK, 24*time.Hour, "who was locked since could log in so long")
		}
		v.sourceKeys(key, s)
		if s.AnswersForAll() && i < len(v.Auth.Sources)-1 {
			v.fail(element("auth.source", i+1), "is never asked: the source %q before it answers for every login, "+
				"put it last", s.Name)
		}
		if s.Type == SourceStore && i > 0 && v.Auth.Sources[i-1].Remote() && v.Auth.Sources[i-1].Type != SourceOIDC {
			v.warn(key, "stands behind a source that may be down, and then the logins of `postern user` and `postern "+
				"device` get 454 too; put it first")
		}
	}
}

// sourceType reports whether the type is known.
func (v *validator) sourceType(key string, i int, s *AuthSource) bool {
	_, known := sourceTypes[s.Type]
	switch {
	case !known:
		v.fail(key+".type", `unknown source %q, write "store", "file", "ldap", "dovecot", "http" or "oidc"`, s.Type)
	case s.Type == SourceStore && slices.ContainsFunc(v.Auth.Sources[:i], func(b AuthSource) bool {
		return b.Type == SourceStore
	}):
		v.fail(key+".type", "the store is asked already, remove this [[auth.source]]")
	default:
		return true
	}
	return false
}

func (v *validator) sourceName(key string, s *AuthSource, names map[string]int, i int) {
	first, twice := names[s.Name]
	switch {
	case s.Name == "" || len(s.Name) > 64 || mail.Printable(s.Name) != s.Name || strings.ContainsAny(s.Name, " \t"):
		v.fail(key+".name", "%q is no name, write a short one without blanks, such as office", s.Name)
	case (s.Name == SourceStore) != (s.Type == SourceStore):
		v.fail(key+".name", "the name store is that of the source of type store, and no other")
	case twice:
		v.fail(key+".name", "%q is the name of auth.source[%d] too, write another", s.Name, first+1)
	default:
		names[s.Name] = i
	}
}

// foreignKeys are keys that were written and belong to other types.
func (v *validator) foreignKeys(key, kind string) (foreign []string) {
	for _, keys := range sourceTypes {
		for _, k := range keys {
			if !slices.Contains(sourceTypes[kind], k) && v.doc.has(key+"."+k) && !slices.Contains(foreign, k) {
				foreign = append(foreign, k)
			}
		}
	}
	slices.Sort(foreign)
	return foreign
}

func (v *validator) sourceKeys(key string, s *AuthSource) {
	if s.CAFile != "" {
		if _, err := readCertificates(s.CAFile); err != nil {
			v.fail(key+".ca_file", "%s", err)
		}
	}
	switch s.Type {
	case SourceFile:
		v.sourceFile(key+".path", s.Path)
	case SourceLDAP:
		v.secret(key+".bind_password", s.BindPassword, "password of bind_dn")
		if bad, ok := errors.AsType[*mail.KeyError](ldap.Check(s.LDAP())); ok && !v.problems.within(key+"."+bad.Key) {
			v.fail(key+"."+bad.Key, "%s", bad.Msg)
		}
	case SourceDovecot:
		if !strings.HasPrefix(s.Socket, "/") {
			v.fail(key+".socket", `is missing, write the path of Dovecot's socket, such as "/run/dovecot/auth-client"`)
		}
	case SourceOIDC:
		v.sourceOIDC(key, s)
	case SourceHTTP:
		v.secret(key+".token", s.Token, "token")
		if err := httpauth.CheckURL(s.URL); err != nil {
			v.fail(key+".url", "%s", err)
		}
	}
}

// sourceFile checks that there is a file; package passwdfile checks what is in it.
func (v *validator) sourceFile(key, path string) {
	if path == "" {
		v.fail(key, `is missing, write the path of the password file`)
		return
	}
	if err := checkPrivate(path); err != nil {
		v.fail(key, "%s", err)
	}
}
