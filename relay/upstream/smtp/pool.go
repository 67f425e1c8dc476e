package smtp

import (
	"context"
	"slices"
	"sync"
	"time"

	"postern/internal/logline"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

// pool is the connections of one identity that nobody uses. It is guarded by the table of accounts.
type pool struct {
	u       *Upstream
	idle    []*conn // the newest last
	closing int     // connections that are saying QUIT
}

// Connections implements account.Held.
func (p *pool) Connections() (idle, closing int) { return len(p.idle), p.closing }

// Blank implements account.Held.
func (p *pool) Blank() bool { return true }

// Shed implements account.Held: the oldest go.
func (p *pool) Shed(n int) {
	for _, c := range p.idle[:n] {
		p.u.retire(p, c)
	}
	p.idle = slices.Delete(p.idle, 0, n)
}

// pop takes the newest idle connection, nil: there is none.
func (p *pool) pop() *conn {
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return c
}

// slot is one reserved at an upstream, and its connection.
type slot struct {
	*account.Slot[*pool]
	u    *Upstream
	conn *conn // nil: to be dialled
	used bool  // Send was called

	// A connection that waits here, while the store is asked whether the message may be sent, is closed when another
	// node may have its slot.
	stop func() bool    // it is used now; false: it is being closed. nil: nobody else can have it
	left sync.WaitGroup // done when it is
}

// Reserve implements upstream.Transport.
func (u *Upstream) Reserve(now time.Time, identity string) (upstream.Slot, time.Time) {
	s := &slot{u: u}
	var until time.Time
	s.Slot, until = u.Table.Reserve(now, identity, func(p *pool) { s.conn = p.pop() })
	if s.Slot == nil {
		return nil, until
	}
	if s.conn != nil {
		s.waits(s.Over)
	}
	return s, time.Time{}
}

// waits has the connection closed when the slot is over, unless hold is called first.
func (s *slot) waits(over func(func()) (stop func() bool)) {
	s.left.Add(1)
	s.stop = over(func() {
		defer s.left.Done()
		s.drop()
	})
	if s.stop == nil {
		s.left.Done()
	}
}

// hold keeps the connection from being closed behind the back of who uses the slot now.
func (s *slot) hold() {
	switch {
	case s.stop == nil:
	case s.stop():
		s.left.Done()
	default:
		s.left.Wait()
	}
	s.stop = nil
}

// Release implements upstream.Slot.
func (s *slot) Release() {
	s.hold()
	s.used = true
	s.Slot.Release(func(keep bool) {
		c := s.conn
		s.conn = nil
		switch now := time.Now(); {
		case c == nil:
		case c.broken:
			c.close()
			s.u.forget(c)
		case !keep || c.spent(now):
			s.u.retire(s.Held(), c)
		default:
			c.idleSince = now
			s.Held().idle = append(s.Held().idle, c)
			s.u.armReaper(s.u.cfg.IdleClose)
		}
	})
}

// record tells the account what came of the slot.
func (s *slot) record(n account.News) {
	if s.Record(n) {
		s.u.Update(func() { s.u.retireAll(s.Held()) })
	}
}

// connect returns the slot's connection, or a fresh one where there is none that lives or it has carried its share.
func (s *slot) connect(ctx context.Context) (*conn, *fault) {
	if c := s.conn; c != nil {
		switch {
		case c.broken || c.dead():
			c.broken = true
			s.drop()
		case c.spent(time.Now()):
			s.drop()
		default:
			return c, nil
		}
	}
	c, f := s.u.open(ctx, s.Identity(), nil)
	if f != nil {
		s.u.log.Warn("upstream connection failed", logline.Pairs("identity", s.Identity(), "stage", string(f.stage),
			"reply", f.reply.String(), "err", logline.Error(f.reply, f.err))...)
		return nil, f
	}
	s.conn = c
	return c, nil
}

// drop closes the slot's connection before another takes its place.
func (s *slot) drop() {
	s.u.end(s.conn)
	s.conn = nil
}

// end closes a connection, with QUIT where that is worth it.
func (u *Upstream) end(c *conn) {
	if c.broken {
		c.close()
	} else {
		c.quit()
	}
	u.forget(c)
}

func (u *Upstream) forget(c *conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, c)
}

// retire closes a connection with QUIT, within an Update. Its slot stays taken until the upstream has let go of it,
// because providers count connections on their side.
func (u *Upstream) retire(p *pool, c *conn) {
	p.closing++
	go func() { // waited for by Close: the slot is taken until its end
		c.quit()
		u.forget(c)
		u.Update(func() { p.closing-- })
		u.Changed()
	}()
}

// retireAll retires what is idle.
func (u *Upstream) retireAll(p *pool) {
	for c := p.pop(); c != nil; c = p.pop() {
		u.retire(p, c)
	}
}

func (u *Upstream) armReaper(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reaper == nil && !u.closed {
		u.reaper = time.AfterFunc(d, u.reap)
	}
}

// reap closes what has been idle for too long or is too old, and sets the alarm for the next.
func (u *Upstream) reap() {
	now, next := time.Now(), time.Duration(-1)
	u.mu.Lock()
	u.reaper = nil
	u.mu.Unlock()
	u.Each(func(p *pool) {
		p.idle = slices.DeleteFunc(p.idle, func(c *conn) bool {
			left := min(c.idleSince.Add(u.cfg.IdleClose).Sub(now), c.born.Add(u.cfg.MaxAge).Sub(now))
			if left <= 0 {
				u.retire(p, c)
				return true
			}
			if next < 0 || left < next {
				next = left
			}
			return false
		})
	})
	if next > 0 {
		u.armReaper(next)
	}
}
