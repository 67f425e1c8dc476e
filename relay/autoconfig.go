package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"postern/admin"
	"postern/admin/autoconfig"
	"postern/certs"
	"postern/internal/listen"
	"postern/relay/clientsetup"
)

// setupIdle is how long a mail program may keep a connection without asking: it asks once or twice, and strangers who
// stay take the places of others.
const setupIdle = 10 * time.Second

// mailPrograms is where mail programs are told their settings, beside the admin address.
type mailPrograms struct {
	server        *autoconfig.Server
	certs         *certs.Manager
	log           *slog.Logger
	secure, plain net.Listener // nil: not configured
}

func (s *Server) newMailPrograms() *mailPrograms {
	return &mailPrograms{certs: s.certs, log: s.log, server: autoconfig.New(autoconfig.Options{
		Setup:   func() *clientsetup.Setup { return clientsetup.Of(s.state.Load().config) },
		Signer:  s.certs.Signer,
		Proxies: func() []netip.Prefix { return s.state.Load().config.Admin.TrustedProxies.Prefixes() },
		Logger:  s.log,
	})}
}

// bind opens the addresses of [autoconfig]: all or none.
func (m *mailPrograms) bind(address, httpAddress string) (err error) {
	for _, l := range []struct {
		key, address string
		socket       *net.Listener
	}{{"address", address, &m.secure}, {"http_address", httpAddress, &m.plain}} {
		if l.address == "" {
			continue
		}
		if *l.socket, err = listen.TCP(context.Background(), l.address); err != nil {
			m.close()
			return fmt.Errorf("autoconfig.%s: %w", l.key, err)
		}
	}
	return nil
}

func (m *mailPrograms) close() {
	for _, l := range []net.Listener{m.secure, m.plain} {
		if l != nil {
			l.Close()
		}
	}
}

// serveSecure serves by HTTPS, with the certificate of the listeners.
func (m *mailPrograms) serveSecure(ctx context.Context) {
	m.serve(ctx, m.secure, m.server.Handler(), &tls.Config{GetCertificate: m.certs.GetCertificate,
		MinVersion: tls.VersionTLS12})
}

// servePlain leads those who ask by plain HTTP to HTTPS.
func (m *mailPrograms) servePlain(ctx context.Context) {
	m.serve(ctx, m.plain, m.server.Redirect(), nil)
}

func (m *mailPrograms) serve(ctx context.Context, l net.Listener, h http.Handler, config *tls.Config) {
	if l == nil {
		return
	}
	m.log.Info("listening", "for", "settings of mail programs", "address", l.Addr().String(), "tls", config != nil)
	o := admin.ServeOptions{Name: "autoconfig", TLS: config, Idle: setupIdle,
		Troubles: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug)} // strangers would fill the log
	if err := admin.ServeHandler(ctx, l, h, o); err != nil {
		m.log.Error("mail programs are not told their settings any more", "err", err)
	}
}
