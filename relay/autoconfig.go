package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"postern/admin"
	"postern/admin/autoconfig"
	"postern/relay/clientsetup"
)

// mailPrograms is where mail programs are told their settings, beside the admin address.
type mailPrograms struct {
	server        *autoconfig.Server
	secure, plain net.Listener // nil: not configured
}

func (s *Server) newMailPrograms() *mailPrograms {
	return &mailPrograms{server: autoconfig.New(autoconfig.Options{
		Setup:  func() *clientsetup.Setup { return clientsetup.Of(s.state.Load().config) },
		Signer: s.certs.Signer,
		Logger: s.log,
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
		if *l.socket, err = net.Listen("tcp", l.address); err != nil {
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
func (s *Server) serveSecure(ctx context.Context) {
	config := &tls.Config{GetCertificate: s.certs.GetCertificate, MinVersion: tls.VersionTLS12}
	s.serveMailPrograms(ctx, s.mailPrograms.secure, s.mailPrograms.server.Handler(), config)
}

// servePlain leads those who ask by plain HTTP to HTTPS.
func (s *Server) servePlain(ctx context.Context) {
	s.serveMailPrograms(ctx, s.mailPrograms.plain, s.mailPrograms.server.Redirect(), nil)
}

func (s *Server) serveMailPrograms(ctx context.Context, l net.Listener, h http.Handler, config *tls.Config) {
	if l == nil {
		return
	}
	s.log.Info("listening", "for", "settings of mail programs", "address", l.Addr().String(), "tls", config != nil)
	// Strangers who do not finish a handshake would fill the log.
	troubles := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	if err := admin.ServeHandler(ctx, l, "autoconfig", h, config, troubles); err != nil {
		s.log.Error("mail programs are not told their settings any more", "err", err)
	}
}
