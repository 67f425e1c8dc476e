package testkit

import (
	"bufio"
	"bytes"
	bigendian "encoding/binary"
	"io"
	"net"
	"sync"
)

// What the first message of a connection asks for, instead of a type.
const (
	pgSSLRequest    = 80877103
	pgGSSRequest    = 80877104
	pgCancelRequest = 80877102
)

// gateConn is a connection through a Gate. It is followed message by message, each of a type, a length and the rest;
// only the client's first ones have no type.
type gateConn struct {
	gate           *Gate
	client, server net.Conn
	closed         bool // under gate.mu

	mu         sync.Mutex
	begun      bool              // the client's messages have a type
	asks       bool              // for encryption; the answer is one octet
	opaque     bool              // nothing can be followed any more
	ready      bool              // the server has taken it
	statements map[string]string // what is prepared, by name
	executed   []string          // of the request that is coming
	prepared   []string
	pending    []chan struct{} // of requests without answer, what is to be closed when it is lost; nil: it is not
}

// close closes both sides; while the gate is stalled, later.
func (c *gateConn) close() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.holdLocked(c)
	c.closeLocked()
}

func (c *gateConn) closeLocked() {
	c.closed = true
	c.client.Close()
	c.server.Close()
	c.gate.changed.Broadcast()
}

// carry takes messages from one side to the other until one closes. What is not whole goes, too. take says whether one
// is kept back, and what is to be closed when the connection ends behind it.
func (c *gateConn) carry(from, to net.Conn, toward Toward, take func([]byte) (bool, chan struct{})) {
	defer c.close()
	br := bufio.NewReader(from)
	bw := bufio.NewWriter(gateWriter{c, to, toward})
	for {
		m, err := c.read(br, toward)
		drop, lost := false, chan struct{}(nil)
		if err == nil {
			drop, lost = take(m)
		}
		if !drop {
			if _, err := bw.Write(m); err != nil {
				return
			}
		}
		if err != nil || br.Buffered() == 0 || lost != nil {
			if bw.Flush() != nil {
				return
			}
		}
		if lost != nil {
			c.close()
			close(lost)
			return
		}
		if err != nil {
			return
		}
	}
}

// gateWriter writes what the gate lets through.
type gateWriter struct {
	c      *gateConn
	to     net.Conn
	toward Toward
}

func (w gateWriter) Write(b []byte) (int, error) {
	n, cut, err := w.c.gate.admit(w.c, w.toward, len(b))
	if err != nil {
		return 0, err
	}
	if n, err = w.to.Write(b[:n]); cut != nil {
		w.c.close()
		close(cut)
		return n, errGateCut
	}
	return n, err
}

// read returns a message, or what there is of it with an error; of what cannot be followed, whatever came.
func (c *gateConn) read(br *bufio.Reader, toward Toward) ([]byte, error) {
	if _, err := br.Peek(1); err != nil {
		return nil, err
	}
	head := c.head(br, toward)
	if head == 0 {
		b := make([]byte, br.Buffered())
		n, err := br.Read(b)
		return b[:n], err
	}
	m := make([]byte, head)
	if n, err := io.ReadFull(br, m); err != nil || head == 1 {
		return m[:n], err
	}
	rest := int64(bigendian.BigEndian.Uint32(m[head-4:])) - 4
	if rest < 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.opaque = true
		return m, nil
	}
	body := bytes.NewBuffer(m)
	_, err := io.CopyN(body, br, rest)
	return body.Bytes(), err
}

// head returns how long the fixed part of the next message is: 0 where no messages can be told apart.
func (c *gateConn) head(br *bufio.Reader, toward Toward) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, _ := br.Peek(1)
	switch {
	case c.opaque:
		return 0
	case toward == ToServer && !c.begun:
		return 4
	case toward == ToClient && c.asks && first[0] != 'E':
		return 1
	}
	return 5
}

// fromClient looks at a message of the client. It goes on in any case.
func (c *gateConn) fromClient(m []byte) (bool, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.opaque:
	case !c.begun:
		c.begin(m)
	default:
		c.message(m[0], m[5:])
	}
	return false, nil
}

func (c *gateConn) begin(m []byte) {
	if len(m) < 8 {
		c.opaque = true
		return
	}
	switch bigendian.BigEndian.Uint32(m[4:]) {
	case pgSSLRequest, pgGSSRequest:
		c.asks = true
	case pgCancelRequest:
		c.opaque = true
	default:
		c.begun = true
	}
}

func (c *gateConn) message(kind byte, body []byte) {
	switch kind {
	case 'P': // Parse: a name and SQL
		name, rest := text(body)
		sql, _ := text(rest)
		c.statements[name] = sql
		c.prepared = append(c.prepared, sql)
	case 'B': // Bind: a portal and a statement, which Execute follows
		_, rest := text(body)
		name, _ := text(rest)
		c.executed = append(c.executed, c.statements[name])
	case 'Q': // Query
		sql, _ := text(body)
		c.executed = append(c.executed, sql)
		c.answerable()
	case 'S', 'F': // Sync, FunctionCall
		c.answerable()
	case 'H': // Flush
		c.gate.asked(nil, nil)
	}
}

// text returns what ends with an octet 0, and what follows.
func text(b []byte) (string, []byte) {
	s, rest, _ := bytes.Cut(b, []byte{0})
	return string(s), rest
}

// answerable is a request that a ReadyForQuery answers.
func (c *gateConn) answerable() {
	c.pending = append(c.pending, c.gate.asked(c.executed, c.prepared))
	c.executed, c.prepared = nil, nil
}

// fromServer looks at a message of the server.
func (c *gateConn) fromServer(m []byte) (bool, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.opaque:
		return false, nil
	case len(m) == 1: // to the request for encryption
		c.asks = false
		if c.opaque = m[0] != 'N'; c.opaque {
			c.gate.mu.Lock()
			c.gate.secret = true
			c.gate.mu.Unlock()
		}
		return false, nil
	case !c.ready:
		c.ready = m[0] == 'Z'
		return false, nil
	case len(c.pending) == 0: // a notice
		return false, nil
	}
	lost := c.pending[0]
	if m[0] != 'Z' { // ReadyForQuery
		return lost != nil, nil
	}
	c.pending = c.pending[1:]
	return lost != nil, lost
}
