//go:build unix

package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// pooler is what PgBouncer is in transaction mode: each transaction has the next of two connections to the server,
// prepared statements are not known to the other, and the client is told a process and key of the pooler's own.
type pooler struct {
	s    *testServer
	addr string

	mu      sync.Mutex
	free    map[string]chan *pgconn.PgConn
	clients map[uint32]*pgconn.PgConn // what runs for each
	last    uint32
}

func newPooler(t *testing.T, s *testServer) *pooler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pooler{s: s, addr: l.Addr().String(), free: map[string]chan *pgconn.PgConn{},
		clients: map[uint32]*pgconn.PgConn{}, last: 1 << 30}
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			conns = append(conns, conn)
			p.mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				p.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
		for _, free := range p.free {
			for range 2 {
				server := <-free
				// what belongs to transactions has left nothing
				for _, name := range []string{"statement_timeout", "lock_timeout",
					"idle_in_transaction_session_timeout"} {
					r := server.ExecParams(context.Background(), "SHOW "+name, nil, nil, nil, nil).Read()
					if r.Err != nil || string(r.Rows[0][0]) != "0" {
						t.Errorf("%s is left: %s %v", name, r.Rows, r.Err)
					}
				}
				server.Close(context.Background())
			}
		}
	})
	return p
}

func (p *pooler) url() string { return p.as("postgres") }

func (p *pooler) as(user string) string {
	return fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", user, p.addr)
}

func (p *pooler) connect(user string) (*pgconn.PgConn, error) {
	return pgconn.Connect(context.Background(), fmt.Sprintf(
		"postgres://%s@127.0.0.1:%d/postgres?sslmode=disable&standard_conforming_strings=on", user, p.s.port))
}

// servers are the two connections of a user.
func (p *pooler) servers(user string) (chan *pgconn.PgConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if free := p.free[user]; free != nil {
		return free, nil
	}
	free := make(chan *pgconn.PgConn, 2)
	for range 2 {
		c, err := p.connect(user)
		if err != nil {
			return nil, err
		}
		free <- c
	}
	p.free[user] = free
	return free, nil
}

func (p *pooler) serve(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	first, err := b.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if m, ok := first.(*pgproto3.CancelRequest); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		if c := p.clients[m.ProcessID]; c != nil {
			_ = c.CancelRequest(context.Background())
		}
		return
	}
	start, ok := first.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	user := start.Parameters["user"]
	if _, err := p.servers(user); err != nil {
		return
	}
	p.mu.Lock()
	p.last++
	me := p.last
	p.mu.Unlock()
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{ProcessID: me, SecretKey: []byte{1, 2, 3, 4}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: idle})
	if b.Flush() != nil {
		return
	}
	in := make(chan message)
	go func() {
		defer close(in)
		for {
			m, err := readMessage(conn)
			if err != nil || m.kind == 'X' {
				return
			}
			in <- m
		}
	}()
	var next *message
	for alive := true; alive; {
		if next == nil {
			m, ok := <-in
			if !ok {
				break
			}
			next = &m
		}
		next, alive = p.transaction(conn, in, *next, user, me)
	}
	conn.Close()
	for range in {
	}
}

// transaction carries messages, from the first on, until the server is idle and owes nothing. It returns the first of
// the next transaction, if it has come; false: the client is gone.
func (p *pooler) transaction(conn net.Conn, in <-chan message, m message, user string, me uint32) (*message, bool) {
	free, _ := p.servers(user)
	server := <-free
	p.mu.Lock()
	p.clients[me] = server
	p.mu.Unlock()
	defer func() {
		p.mu.Lock() // a request to cancel that is under way is waited for
		delete(p.clients, me)
		p.mu.Unlock()
		free <- server
	}()
	var mu sync.Mutex
	asked, over := 0, false
	done := make(chan struct{})
	go func() { // answers
		defer close(done)
		for {
			a, err := readMessage(server.Conn())
			if err != nil {
				conn.Close()
				return
			}
			mu.Lock()
			if a.kind == 'Z' {
				asked--
				over = asked == 0 && a.body[4] == idle
			}
			end := over
			mu.Unlock()
			_, _ = conn.Write(a.octets())
			if end {
				return
			}
		}
	}()
	for ok := true; ok; {
		mu.Lock()
		if over {
			mu.Unlock()
			<-done
			return &m, true
		}
		if m.kind == 'S' || m.kind == 'Q' {
			asked++
		}
		mu.Unlock()
		if _, err := server.Conn().Write(m.octets()); err != nil {
			break
		}
		select {
		case m, ok = <-in:
		case <-done:
			return nil, over
		}
	}
	// in the midst of a transaction
	server.Conn().Close()
	<-done
	next, err := p.connect(user)
	if err == nil {
		server = next
	}
	return nil, false
}

type message struct {
	kind byte
	body []byte // with its length
}

func (m message) octets() []byte { return append([]byte{m.kind}, m.body...) }

func readMessage(r io.Reader) (m message, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, err
	}
	m.kind, m.body = head[0], make([]byte, binary.BigEndian.Uint32(head[1:]))
	copy(m.body, head[1:])
	_, err = io.ReadFull(r, m.body[4:])
	return m, err
}
