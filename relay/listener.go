package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"

	"postern/auth"
	"postern/certs"
	"postern/internal/errno"
	"postern/internal/listen"
	"postern/internal/textfile"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/submission"
	"postern/relay/wire"
)

// listener is one [[listener]] that accepts clients.
type listener struct {
	config.Listener
	socket net.Listener
	wire   *wire.Server
}

func closeAll(all []*listener) {
	for _, l := range all {
		l.socket.Close()
	}
}

// listeners are those that accept clients now.
type listeners struct {
	submission *submission.Service
	certs      *certs.Manager
	companion  *certs.Companion // of listeners for old devices
	sessions   context.Context  // of all clients
	fail       func(error)      // a listener cannot go on
	withheld   func(mechanism string) bool
	log        *slog.Logger
	clients    sync.WaitGroup

	mu        sync.Mutex // guards what follows
	all       map[string]*listener
	closed    bool      // the node is drained: there are none, whatever the configuration says
	inherited inherited // until bind
}

// bind opens the listeners of a configuration: all or none. None accepts before serveAll. A node that is drained opens
// none.
func (ls *listeners) bind(c *config.Config, drained bool) error {
	ls.mu.Lock()
	ls.closed = drained
	ls.mu.Unlock()
	opened, err := ls.openNew(c)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.inherited.end()
	if err != nil {
		return err
	}
	ls.all = make(map[string]*listener)
	for _, l := range opened {
		ls.all[l.Name] = l
	}
	return nil
}

// openNew binds the listeners that a configuration adds to those there are, or all none. An address that another
// listener of ours gives up in the same reload needs a restart.
func (ls *listeners) openNew(c *config.Config) ([]*listener, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	var opened []*listener
	if ls.closed {
		return nil, nil
	}
	for _, block := range c.Listeners {
		if old := ls.all[block.Name]; old != nil && old.Address == block.Address {
			continue
		}
		socket := ls.inherited.take(block.Address)
		if socket == nil {
			var err error
			if socket, err = listen.TCP(context.Background(), block.Address); err != nil {
				closeAll(opened)
				if errors.Is(err, errno.Forbidden) {
					err = fmt.Errorf("%w: %s", err, check.WhyForbidden)
				}
				return nil, fmt.Errorf("listener %s: %w", block.Name, err)
			}
		}
		opened = append(opened, &listener{Listener: block, socket: socket, wire: wire.NewServer(ls.options(c, block))})
	}
	return opened, nil
}

func (ls *listeners) options(c *config.Config, l config.Listener) *wire.Options {
	o := &wire.Options{
		Name:                l.Name,
		Hostname:            c.Hostname,
		TLSMode:             wire.TLSMode(l.TLS),
		Appliance:           l.IsAppliance(),
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
		NewSession:          ls.submission.NewSession(l),
		Refused:             func(r wire.Refusal) { ls.submission.Refused(l.Name, r) },
		Logger:              ls.log,
	}
	if l.Auth == config.AuthRequired {
		o.Mechanisms, o.Withheld = c.Offered(&l), ls.withheld
	}
	switch {
	case l.TLS == config.NoTLS:
	case o.Appliance:
		o.TLS = wire.LegacyTLS(ls.companion.Beside(ls.certs.GetCertificate), uint16(l.MinVersion))
	default:
		o.TLS = wire.ServerTLS(ls.certs.GetCertificate, uint16(l.MinVersion))
		ls.askCertificates(o, l)
	}
	return o
}

// askCertificates has a listener with EXTERNAL ask clients for a certificate. None is needed, and none refused before
// it is used to log in: a client may send one that it has for somebody else.
func (ls *listeners) askCertificates(o *wire.Options, l config.Listener) {
	if !slices.Contains(o.Mechanisms, auth.External) {
		return
	}
	o.TLS.ClientAuth = tls.RequestClientCert
	if l.ClientCAFile == "" {
		return
	}
	pem, err := textfile.Read(l.ClientCAFile)
	roots := x509.NewCertPool() // not those of the system: they vouch for everybody
	if err == nil && !roots.AppendCertsFromPEM(pem) {
		err = errors.New("no certificate found")
	}
	if err != nil {
		ls.log.Error("client_ca_file is not read: only pinned keys log in with a certificate", "listener", l.Name,
			"file", l.ClientCAFile, "err", err)
		return
	}
	o.TLS.ClientCAs = roots
}

// serveAll accepts clients.
func (ls *listeners) serveAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.all {
		ls.serve(l)
	}
}

// serve accepts clients on a listener until it is shut down. A listener that fails ends the server.
func (ls *listeners) serve(l *listener) {
	ls.log.Info("listening", "listener", l.Name, "address", l.socket.Addr().String(), "tls", l.TLS, "auth", l.Auth)
	ls.clients.Go(func() {
		if err := l.wire.Serve(ls.sessions, l.socket); err != nil && !errors.Is(err, net.ErrClosed) {
			ls.fail(fmt.Errorf("listener %s: %w", l.Name, err))
		}
	})
}

// swap gives listeners that stay their new options, starts those that openNew opened, and returns those that are gone,
// for end. Open sessions keep their address and TLS.
func (ls *listeners) swap(c *config.Config, opened []*listener) (gone []*listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil
	}
	before := ls.all
	ls.all = make(map[string]*listener, len(c.Listeners))
	for _, block := range c.Listeners {
		if old := before[block.Name]; old != nil && old.Address == block.Address {
			old.wire.SetOptions(ls.options(c, block))
			ls.all[block.Name] = &listener{Listener: block, socket: old.socket, wire: old.wire}
			delete(before, block.Name)
		}
	}
	for _, l := range opened {
		ls.all[l.Name] = l
		ls.serve(l)
	}
	for _, l := range before {
		ls.log.Info("listener closed", "listener", l.Name)
		gone = append(gone, l)
	}
	return gone
}

// drained reports whether there are no listeners since the node is drained.
func (ls *listeners) drained() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.closed
}

// drain returns all listeners, for end. There are none until undrain.
func (ls *listeners) drain() []*listener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	gone := slices.Collect(maps.Values(ls.all))
	ls.all, ls.closed = make(map[string]*listener), true
	return gone
}

// undrain opens the listeners of a configuration again, and accepts clients: all or none.
func (ls *listeners) undrain(c *config.Config) error {
	if err := ls.bind(c, false); err != nil {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		ls.closed = true
		return err
	}
	ls.serveAll()
	return nil
}

func (ls *listeners) close() {
	closeAll(ls.now())
}

// shutdown stops accepting, lets transactions end for clientDrain, then closes. Meanwhile the listeners can still be
// counted, for whoever watches the shutdown.
func (ls *listeners) shutdown() {
	var ends sync.WaitGroup
	for _, l := range ls.now() {
		ends.Go(func() { ls.end(l) })
	}
	ends.Wait()
	ls.clients.Wait()
}

func (ls *listeners) end(l *listener) {
	ctx, cancel := context.WithTimeout(context.Background(), clientDrain)
	defer cancel()
	if err := l.wire.Shutdown(ctx); err != nil {
		ls.log.Warn("clients were cut off", "listener", l.Name, "err", err)
	}
}

func (ls *listeners) now() []*listener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return slices.Collect(maps.Values(ls.all))
}

// sockets are those that listen now.
func (ls *listeners) sockets() []net.Listener {
	var all []net.Listener
	for _, l := range ls.now() {
		all = append(all, l.socket)
	}
	return all
}

// connections counts client connections by listener.
func (ls *listeners) connections() map[string]int {
	counts := make(map[string]int)
	for _, l := range ls.now() {
		counts[l.Name] = l.wire.Stats().Connections
	}
	return counts
}

// addresses tells where each listener accepts.
func (ls *listeners) addresses() map[string]string {
	addresses := make(map[string]string)
	for _, l := range ls.now() {
		addresses[l.Name] = l.socket.Addr().String()
	}
	return addresses
}
