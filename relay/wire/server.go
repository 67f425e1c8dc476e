package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Server accepts and serves the connections of one listener.
type Server struct {
	opt      atomic.Pointer[Options]
	counts   counts
	half     *halfOpen
	closing  atomic.Bool // no new connections; those without a transaction end
	accepted atomic.Uint64
	refused  atomic.Uint64

	tlsHints tlsHints

	hard context.Context // ends when Shutdown has waited long enough
	cut  context.CancelFunc

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	running   sync.WaitGroup // Serve calls and connections
}

// Stats is the state of a server at a glance.
type Stats struct {
	Connections int    // now
	Accepted    uint64 // connections since the start, also those refused later
	Refused     uint64 // Refusals since the start
}

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("server is shut down")

// NewServer returns a server with the options o. It panics where a limit is not set.
func NewServer(o *Options) *Server {
	s := &Server{listeners: make(map[net.Listener]struct{}), conns: make(map[*Conn]struct{}),
		tlsHints: newTLSHints(), half: newHalfOpen()}
	s.hard, s.cut = context.WithCancel(context.Background())
	s.SetOptions(o)
	return s
}

// SetOptions changes the options for new connections; open ones adopt only the limits.
func (s *Server) SetOptions(o *Options) { s.opt.Store(o.complete()) }

// Stats returns the current counts.
func (s *Server) Stats() Stats {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return Stats{Connections: s.counts.total, Accepted: s.accepted.Load(), Refused: s.refused.Load()}
}

// Serve accepts connections until Shutdown, when it returns nil, or until parent ends, which also cuts its connections.
// It closes ln and returns when its last connection has ended. Any other error comes from the listener.
func (s *Server) Serve(parent context.Context, ln net.Listener) error {
	if !s.enlist(ln) {
		ln.Close()
		return ErrClosed
	}
	defer s.running.Done()
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	defer context.AfterFunc(s.hard, cancel)()
	var conns sync.WaitGroup
	defer conns.Wait()
	// Sessions see their context end; closing the sockets ends all waiting for clients.
	defer context.AfterFunc(ctx, func() { ln.Close(); s.closeConns(ln) })()
	defer ln.Close()
	for {
		nc, err := s.accept(ctx, ln)
		switch {
		case err == nil:
			s.start(ctx, ln, nc, &conns)
		case s.closing.Load() || ctx.Err() != nil:
			conns.Wait()
			return parent.Err()
		default:
			s.closeConns(ln)
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
	}
}

func (s *Server) enlist(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[ln] = struct{}{}
	s.running.Add(1)
	return true
}

// accept waits for a connection. It retries after temporary errors, such as a lack of file descriptors.
func (s *Server) accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		nc, err := ln.Accept()
		if err == nil || !isTemporary(err) || s.closing.Load() {
			return nc, err
		}
		s.opt.Load().Logger.Warn("cannot accept connections for now", "listener", s.opt.Load().Name, "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func isTemporary(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && e.Temporary()
}

// start serves an accepted connection, or turns it away if all slots are taken.
func (s *Server) start(ctx context.Context, ln net.Listener, nc net.Conn, conns *sync.WaitGroup) {
	s.accepted.Add(1)
	c := newConn(s, ctx, ln, nc)
	// Twice: evicted connections take a moment to go.
	if !s.counts.enter(c.opt.MaxConnections+2*c.opt.MaxUnauthenticated, c.opt.MaxConnections) {
		c.turnAway(c.allTaken())
		return
	}
	goes, ok := s.half.enter(c, time.Now(), c.opt.MaxUnauthenticated)
	if !ok {
		s.counts.leave(false)
		c.turnAway(c.evictedRefusal())
		return
	}
	if goes != nil {
		goes.evict()
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	if ctx.Err() != nil { // perhaps after closeConns
		nc.Close()
	}
	s.running.Add(1)
	conns.Go(func() {
		defer s.running.Done()
		defer s.leave(c)
		c.serve()
	})
}

func (s *Server) leave(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.half.leave(c.slot)
	s.counts.leave(c.inside)
}

// Shutdown stops accepting and ends the connections: those without an open transaction at once, with 421, the others
// after their transaction. If ctx ends first, it cuts the rest and ends the contexts of their sessions, waits a few
// seconds for them, and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopAccepting()
	s.wake()
	ended := make(chan struct{})
	go func() { s.running.Wait(); close(ended) }()
	select {
	case <-ended:
		s.cut()
		return nil
	case <-ctx.Done():
	}
	s.cut() // Serve closes the connections
	select {
	case <-ended:
	case <-time.After(hardStopTimeout):
		return errors.Join(ctx.Err(), errors.New("sessions do not end"))
	}
	return ctx.Err()
}

const hardStopTimeout = 5 * time.Second

func (s *Server) stopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	for ln := range s.listeners {
		ln.Close()
	}
	clear(s.listeners)
}

// wake makes every wait for input return and notice the shutdown.
func (s *Server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.io.sock.SetReadDeadline(time.Unix(1, 0))
	}
}

// closeConns cuts the connections of a listener.
func (s *Server) closeConns(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.ln == ln {
			c.io.sock.Conn.Close()
		}
	}
}

func remote(nc net.Conn) netip.AddrPort {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
