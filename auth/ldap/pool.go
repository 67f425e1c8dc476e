package ldap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxConns bounds the connections of a source: a directory serves many others.
const maxConns = 8

const (
	// idleLife is how long a connection is kept unused: firewalls forget them, and Active Directory closes after 15
	// min.
	idleLife = 2 * time.Minute
	// avoid is how long a server that failed is asked last.
	avoid = 30 * time.Second
)

// role is what a connection is bound as.
type role int

const (
	asUser  role = iota // anybody, or nobody: whoever uses it binds first
	asRelay             // the relay's own account
)

// pool keeps connections to the servers of one directory. It is safe for concurrent use.
type pool struct {
	dialer  *dialer
	free    chan struct{} // one for each connection that may be in use
	servers []*server

	mu     sync.Mutex // guards all below, and failed of the servers
	idle   []*conn    // the last used at the end
	closed bool
}

func newPool(servers []*server, roots *x509.CertPool, timeout time.Duration) *pool {
	return &pool{dialer: &dialer{roots: roots, timeout: timeout}, servers: servers, free: make(chan struct{}, maxConns)}
}

// do runs f on a connection, one of that role if there is. If the connection breaks it runs f once more, on a fresh
// one.
func (p *pool) do(ctx context.Context, want role, f func(*conn) error) error {
	select {
	case p.free <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("all %d connections are in use: %w", maxConns, ctx.Err())
	}
	defer func() { <-p.free }()
	if c := p.take(want); c != nil {
		err := p.run(ctx, c, f)
		if !c.dead || ctx.Err() != nil {
			return err
		}
	} else {
		c, err := p.dial(ctx)
		if err != nil {
			return err
		}
		if err := p.run(ctx, c, f); !c.dead || ctx.Err() != nil {
			return err
		}
	}
	c, err := p.dial(ctx)
	if err != nil {
		return err
	}
	return p.run(ctx, c, f)
}

// run uses a connection and gives it back, or closes it if it broke.
func (p *pool) run(ctx context.Context, c *conn, f func(*conn) error) error {
	c.ctx = ctx
	began, fresh := time.Now(), c.used.IsZero()
	stop := context.AfterFunc(ctx, c.abort)
	err := f(c)
	if !stop() {
		c.dead = true
	}
	if c.broken(err) {
		c.dead = true
	}
	// A connection that was closed while nobody used it says nothing about its server, which may have restarted.
	if c.dead && ctx.Err() == nil && (fresh || time.Since(began) >= c.timeout) {
		p.failed(c.server)
	}
	p.give(c)
	return err
}

// take returns an idle connection, nil if it is better to dial.
func (p *pool) take(want role) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.idle = slices.DeleteFunc(p.idle, func(c *conn) bool {
		if old := c.IsClosing() || now.Sub(c.used) > idleLife; old {
			c.Close()
			return true
		}
		return false
	})
	i := -1
	for j, c := range p.idle {
		if c.bound == want {
			i = j
		}
	}
	if i < 0 && len(p.idle)+len(p.free) > maxConns { // one of the other role makes room
		i = 0
	}
	if i < 0 {
		return nil
	}
	c := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	return c
}

func (p *pool) give(c *conn) {
	c.disarm()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.dead || p.closed || c.IsClosing() {
		c.Close()
		return
	}
	c.used = time.Now()
	p.idle = append(p.idle, c)
}

// dial connects to the first server that answers, those that failed a moment ago last.
func (p *pool) dial(ctx context.Context) (*conn, error) {
	var errs []error
	for _, s := range p.order() {
		c, err := p.dialer.dial(ctx, s)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		p.failed(s)
	}
	return nil, errors.Join(errs...)
}

func (p *pool) order() []*server {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	late := func(s *server) int {
		if !s.failed.IsZero() && now.Sub(s.failed) < avoid {
			return 1
		}
		return 0
	}
	list := slices.Clone(p.servers)
	slices.SortStableFunc(list, func(a, b *server) int { return late(a) - late(b) })
	return list
}

func (p *pool) failed(s *server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.failed = time.Now()
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}

// size is how many connections are idle; for tests.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}
