// Package sources makes the credential sources that [[auth.source]] names.
//
// Failure semantics: either all can be made or none. Making one connects to nothing: only password files are read. Each
// error is a *mail.KeyError with the key of relay.toml, such as auth.source[2].path.
package sources

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"postern/auth"
	"postern/auth/dovecot"
	"postern/auth/httpauth"
	"postern/auth/ldap"
	"postern/auth/oidc"
	"postern/auth/passwdfile"
	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/upstream"
)

// New makes the sources of a configuration. The store needs users and the pepper that they are hashed with. A password
// file among before is taken over, so that it is known what has changed in it.
func New(c *config.Config, users auth.UserStore, pepper []byte, before []auth.Source) (list []auth.Source, err error) {
	defer func() {
		if err != nil {
			Close(list, before)
		}
	}()
	for i := range c.Auth.Sources {
		block := &c.Auth.Sources[i]
		var s auth.Source
		if block.Type == config.SourceStore {
			s = auth.NewStoreSource(users, pepper)
		} else {
			s, err = One(block, before)
		}
		if err != nil {
			key := fmt.Sprintf("auth.source[%d]", i+1)
			if bad, ok := errors.AsType[*mail.KeyError](err); ok {
				return list, mail.BadKey(key+"."+bad.Key, "%s", bad.Msg)
			}
			return list, mail.BadKey(key, "%s", err)
		}
		list = append(list, s)
	}
	return list, nil
}

// One makes a source that is not the store.
func One(block *config.AuthSource, before []auth.Source) (auth.Source, error) {
	switch block.Type {
	case config.SourceFile:
		return file(block, before)
	case config.SourceLDAP:
		o := block.LDAP()
		var err error
		if o.RootCAs, err = roots(block.CAFile); err != nil {
			return nil, err
		}
		return orError(ldap.New(o))
	case config.SourceDovecot:
		return orError(dovecot.New(dovecot.Options{Name: block.Name, Socket: block.Socket, Timeout: block.Timeout.Std(),
			StaleOK: block.StaleOK.Std()}))
	case config.SourceOIDC:
		o := block.OIDC()
		var err error
		if o.RootCAs, err = roots(block.CAFile); err != nil {
			return nil, err
		}
		return orError(oidc.New(o))
	case config.SourceHTTP:
		pool, err := roots(block.CAFile)
		if err != nil {
			return nil, err
		}
		return orError(httpauth.New(httpauth.Options{Name: block.Name, URL: block.URL, RootCAs: pool,
			Token: auth.Secret(block.Token.Value()), Timeout: block.Timeout.Std(), StaleOK: block.StaleOK.Std()}))
	}
	return nil, mail.BadKey("type", "unknown source %q", block.Type)
}

// orError keeps a nil pointer from becoming a source.
func orError[S auth.Source](s S, err error) (auth.Source, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func file(block *config.AuthSource, before []auth.Source) (auth.Source, error) {
	for _, b := range before {
		if f, ok := b.(*passwdfile.Source); ok && f.Name() == block.Name && f.Path() == block.Path {
			return f, nil
		}
	}
	f, err := passwdfile.New(block.Name, block.Path)
	if err != nil {
		return nil, mail.BadKey("path", "%s", err)
	}
	return f, nil
}

func roots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := textfile.Read(path)
	if err != nil {
		return nil, mail.BadKey("ca_file", "%s", err)
	}
	pool, err := upstream.Roots(pem)
	if err != nil {
		return nil, mail.BadKey("ca_file", "%s: %s", path, err)
	}
	return pool, nil
}

// Close closes sources that hold something open, but not those that are kept.
func Close(list, kept []auth.Source) {
	for _, s := range list {
		if c, can := s.(io.Closer); can && !slices.Contains(kept, s) {
			c.Close()
		}
	}
}

// Same reports that the sources of two configurations are made of the same.
func Same(a, b *config.Config) bool {
	hasCA := slices.ContainsFunc(b.Auth.Sources, func(s config.AuthSource) bool { return s.CAFile != "" })
	return !hasCA && reflect.DeepEqual(a.Auth.Sources, b.Auth.Sources)
}

// Files returns the password files among sources.
func Files(list []auth.Source) (files []*passwdfile.Source) {
	for _, s := range list {
		if f, ok := s.(*passwdfile.Source); ok {
			files = append(files, f)
		}
	}
	return files
}
