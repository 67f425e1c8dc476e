package postgres

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// guard knows what runs, for interrupts from other goroutines.
type guard struct {
	mu         sync.Mutex
	depth      int           // guarded by mu; calls that run, one within the loop of another
	protected  bool          // guarded by mu; a commit is not interrupted
	stopped    bool          // guarded by mu; by an interrupt
	until      time.Time     // guarded by mu; when what was stopped is given up
	cancelling chan struct{} // guarded by mu; closed when the server has taken the request
}

// enter begins a call, which Interrupt may end.
func (g *guard) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.depth++
}

// leave ends a call. It waits until a request to cancel has arrived, which would hit the next statement otherwise.
func (g *guard) leave() {
	g.mu.Lock()
	g.depth--
	pending := g.cancelling
	if g.depth > 0 {
		pending = nil
	}
	g.mu.Unlock()
	if pending == nil {
		return
	}
	<-pending
	g.mu.Lock()
	g.cancelling, g.stopped = nil, false
	g.mu.Unlock()
}

// calls is how many run, one within another.
func (g *guard) calls() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.depth
}

// protect keeps a commit from being interrupted: it would be done, but not wait for the standby.
func (g *guard) protect(on bool) {
	g.mu.Lock()
	g.protected = on
	g.mu.Unlock()
}

func (g *guard) isStopped() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stopped
}

// bound sets when an answer is given up: no later than an interrupt has said.
func (g *guard) bound(conn net.Conn, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped && (until.IsZero() || g.until.Before(until)) {
		until = g.until
	}
	_ = conn.SetDeadline(until)
}

// cancelFor is how long a server may take to cancel what runs, the request and the answer together. A connection on
// which it takes longer is given up.
const cancelFor = 2 * time.Second

// interrupt asks the server to cancel what runs, if anything does. The request is a connection of its own, which a
// server that is silent takes and never answers.
func (g *guard) interrupt(pg *pgconn.PgConn, l *link) {
	g.mu.Lock()
	if g.depth == 0 || g.protected || g.cancelling != nil {
		g.mu.Unlock()
		return
	}
	done := make(chan struct{})
	g.stopped, g.cancelling, g.until = true, done, time.Now().Add(min(cancelFor, l.grace))
	_ = l.net.SetDeadline(g.until)
	ctx, cancel := context.WithDeadline(context.Background(), g.until)
	g.mu.Unlock()
	defer close(done)
	defer cancel()
	if err := pg.CancelRequest(ctx); err != nil || ctx.Err() != nil { // then the connection has to go
		g.giveUp(l.net)
	}
}

// giveUp ends the wait for an answer.
func (g *guard) giveUp(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Now()
	_ = conn.SetDeadline(g.until)
}
