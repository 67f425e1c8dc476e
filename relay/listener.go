package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"postern/internal/logline"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/trace"
	"postern/relay/wire"
)

// listener is one [[listener]] that accepts clients.
type listener struct {
	config.Listener
	socket net.Listener
	wire   *wire.Server
}

// bind opens every listener of the configuration and the admin address: all or none.
func (s *Server) bind() error {
	c := s.state.Load().config
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, block := range c.Listeners {
		l, err := s.openListener(c, block)
		if err != nil {
			s.closeSocketsLocked()
			return err
		}
		s.listeners[block.Name] = l
	}
	if c.Admin.Address == "" {
		return nil
	}
	socket, err := net.Listen("tcp", c.Admin.Address)
	if err != nil {
		s.closeSocketsLocked()
		return fmt.Errorf("admin.address: %w", err)
	}
	s.admin = socket
	return nil
}

func (s *Server) closeSocketsLocked() {
	for _, l := range s.listeners {
		l.socket.Close()
	}
}

func (s *Server) closeSockets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeSocketsLocked()
}

func (s *Server) openListener(c *config.Config, block config.Listener) (*listener, error) {
	socket, err := net.Listen("tcp", block.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", block.Name, err)
	}
	l := &listener{Listener: block, socket: socket}
	l.wire = wire.NewServer(s.wireOptions(c, block))
	return l, nil
}

// serve accepts clients on a listener until it is shut down. A listener that fails ends the server.
func (s *Server) serve(l *listener) {
	s.log.Info("listening", "listener", l.Name, "address", l.socket.Addr().String(), "tls", l.TLS, "auth", l.Auth)
	s.clients.Go(func() {
		if err := l.wire.Serve(s.deliveries, l.socket); err != nil && !errors.Is(err, net.ErrClosed) {
			s.fail(fmt.Errorf("listener %s: %w", l.Name, err))
		}
	})
}

func (s *Server) wireOptions(c *config.Config, l config.Listener) *wire.Options {
	o := &wire.Options{
		Name:                l.Name,
		Hostname:            c.Hostname,
		TLSMode:             wire.TLSMode(l.TLS),
		Networks:            l.Networks.Prefixes(),
		Proxies:             l.ProxyProtocol.Prefixes(),
		MaxMessageSize:      int64(l.MaxMessageSize),
		LongLines:           l.LongLines == config.EncodeLines,
		MaxRecipients:       l.MaxRecipients,
		MaxConnections:      l.MaxConnections,
		MaxUnauthenticated:  l.MaxUnauthenticated,
		MaxConnectionsPerIP: l.MaxConnectionsPerIP,
		IdleTimeout:         l.IdleTimeout.Std(),
		AuthTimeout:         l.AuthTimeout.Std(),
		DataTimeout:         l.DataTimeout.Std(),
		MaxSession:          l.MaxSession.Std(),
		MinDataRate:         int64(l.MinDataRate),
		NewSession:          s.newSession(l),
		Refused:             func(r wire.Refusal) { s.refusedSession(l.Name, r) },
		Logger:              s.log,
	}
	if l.Auth == config.AuthRequired {
		o.Mechanisms = c.Auth.Mechanisms
	}
	if l.TLS != config.NoTLS {
		o.TLS = wire.ServerTLS(s.certs.GetCertificate, uint16(l.MinVersion))
	}
	return o
}

// refusedSession traces a connection that was turned away before any message.
func (s *Server) refusedSession(name string, r wire.Refusal) {
	s.metrics.refused.WithLabelValues(name, string(r.Reason)).Inc()
	if r.Reply == replyNoAccount {
		return // the session has told of it
	}
	told := s.trace.Refusal(trace.Event{Kind: trace.Refused, Session: r.Session, Listener: name, Client: r.Client.Addr().String(),
		Reply: r.Reply, Detail: mail.Printable(mail.Cut(string(r.Reason)+": "+r.Detail, 512))})
	if !told {
		return
	}
	s.log.Info("session refused", logline.Pairs("listener", name, "session", r.Session, "client", r.Client.String(),
		"reason", r.Reason, "detail", logline.Beside(r.Reply, r.Detail), "reply", r.Reply.String())...)
}

// shutdownListeners stops accepting, lets transactions end for clientDrain, then closes. The listeners are still there to be
// counted meanwhile: whoever watches the shutdown must not have to wait for it.
func (s *Server) shutdownListeners() {
	s.mu.Lock()
	listeners := slices.Collect(maps.Values(s.listeners))
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, l := range listeners {
		all.Go(func() { s.endListener(l) })
	}
	all.Wait()
}

func (s *Server) endListener(l *listener) {
	ctx, cancel := context.WithTimeout(context.Background(), clientDrain)
	defer cancel()
	if err := l.wire.Shutdown(ctx); err != nil {
		s.log.Warn("clients were cut off", "listener", l.Name, "err", err)
	}
}

// connections counts client connections by listener.
func (s *Server) connections() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]int, len(s.listeners))
	for name, l := range s.listeners {
		counts[name] = l.wire.Stats().Connections
	}
	return counts
}

// Addresses returns where each listener accepts, by name.
func (s *Server) Addresses() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	addresses := make(map[string]string, len(s.listeners))
	for name, l := range s.listeners {
		addresses[name] = l.socket.Addr().String()
	}
	return addresses
}
