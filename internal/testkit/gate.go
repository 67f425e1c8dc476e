package testkit

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Toward is a direction through a Gate.
type Toward int

// The directions.
const (
	ToServer Toward = iota
	ToClient
)

// keepRequests of a Gate's requests can be asked for.
const keepRequests = 1000

// Gate is a network of a test's own between clients and a PostgreSQL server, which follows their protocol: it counts
// round trips, not by time but by what asks for an answer, and can be cut in the middle of a message.
type Gate struct {
	t       testing.TB
	address string
	server  string
	wg      sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond // the next three, or a connection that was closed
	listener net.Listener
	stalled  bool
	conns    map[*gateConn]struct{}

	cuts     [2]*gateCut // by direction
	lose     *gateLoss
	accepted int
	trips    int
	requests []string
	secret   bool // a connection was encrypted
}

type gateCut struct {
	left int
	done chan struct{}
}

type gateLoss struct {
	sql  string
	done chan struct{}
}

var (
	errGateCut    = errors.New("cut")
	errGateClosed = errors.New("closed")
)

// NewGate opens one to a server's address. It has an address of its own that it keeps.
func NewGate(t testing.TB, server string) *Gate {
	t.Helper()
	g := &Gate{t: t, address: fmt.Sprint(pgHost, ":", FreePort(t)), server: server,
		conns: make(map[*gateConn]struct{})}
	g.changed = sync.NewCond(&g.mu)
	g.Pass()
	t.Cleanup(func() {
		g.Cut()
		g.wg.Wait()
	})
	return g
}

// Address returns host and port.
func (g *Gate) Address() string { return g.address }

// URL returns the address of a database of its server through it.
func (g *Gate) URL(database string) string {
	g.t.Helper()
	return Through(g.t, database, g.address)
}

// Pass lets everything through, as in the beginning. What was held goes on.
func (g *Gate) Pass() {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stalled = false
	g.cuts, g.lose = [2]*gateCut{}, nil
	g.changed.Broadcast()
	if g.listener != nil {
		return
	}
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.listener = l
	g.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.serve(l, nc) })
		}
	})
}

// Stall holds whatever comes from now on, both ways, and closes nothing: not even if one of the two does.
func (g *Gate) Stall() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stalled = true
}

// Cut closes all connections and refuses new ones. What was held is lost.
func (g *Gate) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		g.listener.Close()
		g.listener = nil
	}
	for c := range g.conns {
		c.closeLocked()
	}
}

// CutAfter closes the connection that carries the n-th octet from now in this direction, behind that octet. What is
// returned is closed then. All other connections, and new ones, go on.
func (g *Gate) CutAfter(toward Toward, n int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cuts[toward] = &gateCut{left: n, done: make(chan struct{})}
	return g.cuts[toward].done
}

// LoseAnswer lets the next request whose SQL has this in it through, drops the answer, and closes the connection when
// all of that has come: the server has done it, and the client does not know. What is returned is closed then. All
// other connections, and new ones, go on.
func (g *Gate) LoseAnswer(sql string) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lose = &gateLoss{sql: sql, done: make(chan struct{})}
	return g.lose.done
}

// RoundTrips returns how often clients have asked for an answer: with Query, Sync, Flush or FunctionCall. Those of the
// beginning of a connection do not count; see Connections.
func (g *Gate) RoundTrips() int {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.secret {
		g.t.Fatalf("no round trips can be counted: a connection was encrypted (sslmode=disable)")
	}
	return g.trips
}

// Requests returns the SQL of the last round trips, of each joined by "; ". What was only prepared begins with PREPARE.
func (g *Gate) Requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.requests)
}

// Connections returns how many connections there were.
func (g *Gate) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accepted
}

// serve carries a connection until either side closes it.
func (g *Gate) serve(l net.Listener, client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", g.server)
	if err != nil {
		return
	}
	defer server.Close()
	c := &gateConn{gate: g, client: client, server: server, statements: map[string]string{}}
	if !g.enter(l, c) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(c.client, c.server, ToServer, c.fromClient) })
	both.Go(func() { c.carry(c.server, c.client, ToClient, c.fromServer) })
	both.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

func (g *Gate) enter(l net.Listener, c *gateConn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != l { // cut meanwhile
		return false
	}
	g.accepted++
	g.conns[c] = struct{}{}
	return true
}

func (g *Gate) holdLocked(c *gateConn) {
	for g.stalled && !c.closed {
		g.changed.Wait()
	}
}

// admit waits while the gate is stalled and says how many of n octets may go, and what is to be closed behind them.
func (g *Gate) admit(c *gateConn, toward Toward, n int) (int, chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holdLocked(c); c.closed {
		return 0, nil, errGateClosed
	}
	cut := g.cuts[toward]
	switch {
	case cut == nil:
		return n, nil, nil
	case cut.left > n:
		cut.left -= n
		return n, nil, nil
	}
	g.cuts[toward] = nil
	return cut.left, cut.done, nil
}

// asked counts a round trip and says whether its answer is to be lost.
func (g *Gate) asked(executed, prepared []string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trips++
	if len(g.requests) == keepRequests {
		g.requests = slices.Delete(g.requests, 0, keepRequests/2)
	}
	sql := strings.Join(executed, "; ")
	if len(executed) == 0 && len(prepared) > 0 {
		g.requests = append(g.requests, "PREPARE "+strings.Join(prepared, "; PREPARE "))
		return nil
	}
	g.requests = append(g.requests, sql)
	if g.lose == nil || !strings.Contains(sql, g.lose.sql) {
		return nil
	}
	done := g.lose.done
	g.lose = nil
	return done
}
