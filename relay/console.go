package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"postern/admin/access"
	"postern/admin/api"
	"postern/admin/console"
	"postern/admin/door"
	"postern/auth"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// NewAccess returns who may into the console and the API, nil if the configuration has neither.
func NewAccess(ctx context.Context, c *config.Config, s *relaystore.Store, log *slog.Logger) (*access.Access, error) {
	if !c.Admin.Console {
		return nil, nil
	}
	o, err := consoleOptions(c, s, log)
	if err != nil {
		return nil, err
	}
	return access.New(ctx, o)
}

func consoleOptions(c *config.Config, s *relaystore.Store, log *slog.Logger) (access.Options, error) {
	base, err := url.Parse(c.Admin.URL)
	if err != nil {
		return access.Options{}, fmt.Errorf("admin.url: %w", err)
	}
	o := access.Options{Store: s, Lockout: lockout(c), URL: base, Logger: log,
		TrustedProxies: c.Admin.TrustedProxies.Prefixes()}
	block := c.Admin.OIDC
	if block == nil {
		return o, nil
	}
	roles := map[string]operate.Role{}
	for group, name := range block.RolesOfGroups() {
		if roles[group], err = operate.ParseRole(name); err != nil {
			return o, fmt.Errorf("admin.oidc.roles: %w", err)
		}
	}
	o.OIDC = &access.OIDC{
		Provider: access.Provider{Issuer: block.Issuer, ClientID: block.ClientID,
			ClientSecret: auth.Secret(block.ClientSecret.Value()), RedirectURL: block.RedirectURL,
			Scopes: block.Scopes},
		NameClaim: block.NameClaim, GroupsClaim: block.GroupsClaim, Roles: roles,
	}
	return o, nil
}

// consoleChanged adopts what another process changed about who may into the console.
func (s *Server) consoleChanged(ctx context.Context) bool {
	if s.access == nil {
		return true
	}
	err := s.access.Changed(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Error("the users of the console were not read again", "err", err)
	}
	return err == nil
}

// consoleLifted adopts lockouts of the console that a person has lifted, or that another node has begun.
func (s *Server) consoleLifted(ctx context.Context) bool {
	if s.access == nil {
		return true
	}
	err := s.access.Lifted(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Error("lockouts of the console that a person has lifted are not lifted here", "err", err)
	}
	return err == nil
}

// saveLockouts writes down who is locked out, of the logins and of the console, and when app passwords were used.
func (s *Server) saveLockouts(ctx context.Context) error {
	err := errors.Join(s.accounts.saveLockout(ctx), s.accounts.apps.save(ctx))
	if s.access != nil {
		err = errors.Join(err, s.access.SaveLockout(ctx))
	}
	return err
}

// hasNewLocks reports whether somebody was locked out, or is no more, that other nodes do not know of yet.
func (s *Server) hasNewLocks() bool {
	return s.accounts.HasNewLocks() || s.access != nil && s.access.HasNewLocks()
}

// adminNames are the host names that the admin address may be asked for by.
func adminNames(c *config.Config) []string {
	names := append([]string{c.Hostname}, c.Admin.Names...)
	if u, err := url.Parse(c.Admin.URL); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	return names
}

// adminTLS is what the admin address speaks, nil for plain HTTP.
func (s *Server) adminTLS() *tls.Config {
	c := s.state.Load().config
	if !c.Admin.TLS {
		return nil
	}
	return &tls.Config{GetCertificate: s.certs.GetCertificate, MinVersion: tls.VersionTLS12,
		GetConfigForClient: s.acme.Challenge}
}

// newOperations are what people may do while the daemon runs.
func (s *Server) newOperations() *operate.Operations {
	o := operate.Options{Config: s.config, Store: s.store, Lookup: s.accounts.Lookup, Version: s.options.Version,
		Status: func(ctx context.Context) (*status.Report, error) { return s.status(ctx), nil }}
	if !s.store.Shared() { // else the store has counted them
		o.Counted = s.limiter.States
	}
	return operate.New(o)
}

// consoleOf is the console and the API, with who may in before them; nil where the configuration has neither.
func consoleOf(s *Server) http.Handler {
	if s.access == nil {
		return nil
	}
	pages := console.Options{Operations: s.operations, Logger: s.log,
		Site: func() string { return s.config().Hostname }}
	if s.store.Shared() {
		pages.Keepsakes = s.store
	}
	return door.Handler(door.Options{Access: s.access, Logger: s.log,
		API:     api.Handler(api.Options{Operations: s.operations, Access: s.access, Answers: s.store, Logger: s.log}),
		Console: pages})
}
