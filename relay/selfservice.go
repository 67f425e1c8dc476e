package relay

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/admin"
	"postern/admin/access"
	"postern/admin/selfservice"
	"postern/auth"
	"postern/internal/listen"
	"postern/relay/config"
)

// visitorKeyName is the secret that seals what browsers keep between the steps of a login to the page of app passwords.
const visitorKeyName = "self-service"

// selfService is the page on which people make app passwords, at its own address and beside the console.
type selfService struct {
	page   *selfservice.Server
	oidc   *access.Visitors
	server *Server
	own    net.Listener // nil: not configured
}

// newPages makes what is served to people and mail programs beside the console.
func (s *Server) newPages(ctx context.Context, c *config.Config) (err error) {
	s.mailPrograms = s.newMailPrograms()
	s.selfService, err = s.newSelfService(ctx, c)
	return err
}

func (s *Server) newSelfService(ctx context.Context, c *config.Config) (*selfService, error) {
	key, err := s.store.Secret(ctx, visitorKeyName, 32)
	if err != nil {
		return nil, err
	}
	oidc, err := access.NewVisitors(key, s.store, time.Now)
	if err != nil {
		return nil, err
	}
	p := &selfService{oidc: oidc, server: s}
	p.use(c)
	p.page = selfservice.New(selfservice.Options{Config: s.config, Store: s.store, Operations: s.operations,
		Logins: s.accounts, OIDC: oidc, Logger: s.log})
	return p, nil
}

// use takes over the provider of a configuration.
func (p *selfService) use(c *config.Config) {
	o := c.SelfService.OIDC
	if o == nil {
		p.oidc.Use(nil)
		return
	}
	back := cmp.Or(o.RedirectURL, strings.TrimSuffix(c.SelfService.URL, "/")+config.SelfServiceOIDCPath)
	p.oidc.Use(&access.Provider{Issuer: o.Issuer, ClientID: o.ClientID,
		ClientSecret: auth.Secret(o.ClientSecret.Value()), RedirectURL: back, Scopes: o.Scopes})
}

// bind opens the page's own address.
func (p *selfService) bind(address string) (err error) {
	if address == "" {
		return nil
	}
	if p.own, err = listen.TCP(context.Background(), address); err != nil {
		return fmt.Errorf("self_service.address: %w", err)
	}
	return nil
}

func (p *selfService) close() {
	if p.own != nil {
		p.own.Close()
	}
}

// serve serves the page by HTTPS at its own address, with the certificate of the listeners.
func (p *selfService) serve(ctx context.Context) {
	if p.own == nil {
		return
	}
	s := p.server
	s.log.Info("listening", "for", "app passwords", "address", p.own.Addr().String(), "tls", true)
	o := admin.ServeOptions{Name: "self-service", Idle: 2 * time.Minute,
		TLS: &tls.Config{GetCertificate: s.certs.GetCertificate, MinVersion: tls.VersionTLS12,
			GetConfigForClient: s.acme.Challenge},
		Troubles: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)} // strangers would fill the log
	if err := admin.ServeHandler(ctx, p.own, admin.CheckHost(s.pageNames, p.page.Handler()), o); err != nil {
		s.log.Error("people cannot make app passwords any more", "err", err)
	}
}

// pageNames are the host names that pages may be asked for by.
func (s *Server) pageNames() []string {
	c := s.config()
	names := adminNames(c)
	if u, err := url.Parse(c.SelfService.URL); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	return names
}

// beside puts the page before the console: where the console may take passwords, so may the page.
func (p *selfService) beside(console http.Handler) http.Handler {
	if console == nil {
		return nil
	}
	return p.page.Before(console)
}
