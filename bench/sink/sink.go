// Package sink is an upstream that takes mail and keeps count of it: fast enough not to disturb a
// measurement on the same machine, and able to fail at any point of a session on demand.
//
// Failure semantics: a message is counted only when all of it arrived (CRLF.CRLF, or the last octet of
// the last chunk) and before its 250 leaves, as an upstream does that takes responsibility. A cut
// transfer counts as cut and leaves nothing else. Memory is bounded: contents are only kept where
// Options.Keep asks for some, the ledger and every table have limits.
package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/bench/ledger"
)

// TLSMode says how connections are protected.
type TLSMode string

// The modes. With StartTLS everything but EHLO, NOOP, RSET, QUIT and STARTTLS is refused before it.
const (
	StartTLS TLSMode = "starttls"
	Implicit TLSMode = "implicit"
	None     TLSMode = "none"
)

const (
	defaultConnections = 4096
	defaultSize        = 256 << 20
	idleTimeout        = 10 * time.Minute
	maxRecipients      = 10000 // in a transaction
)

// Options say what Start serves. The zero value but for TLS is a good upstream without AUTH.
type Options struct {
	Addr               string      // "": 127.0.0.1:0
	Mode               TLSMode     // "": starttls with TLS, else none
	TLS                *tls.Config // certificate
	Username, Password string      // AUTH PLAIN and LOGIN required where set
	Mechanisms         []string    // offered; nil: PLAIN and LOGIN
	Hostname           string      // "": sink.example.com
	Size               int64       // largest message, announced by SIZE; 0: 256 MiB; negative: SIZE is not announced
	Without            []string    // extensions not to offer: PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8, DSN, STARTTLS …
	MaxConnections     int         // over it 421; 0: 4096
	MaxRecipients      int         // over it 452; 0: 10 000

	// Delay holds back each flight of replies: all that is there is read and carried out, then the
	// replies to it leave together after this time, as they would arrive from far away.
	Delay time.Duration
	// Greylist refuses the first attempt for a pair of reverse-path and forward-path and all further ones until
	// this time has passed.
	Greylist time.Duration
	Faults   []Fault
	Seed     uint64 // of the dice for Fault.Probability
	Keep     int    // newest messages whose content is kept, for tests
}

// Message is a kept message.
type Message struct {
	From, MailParams string   // reverse-path and the rest of the MAIL line
	Recipients       []string // forward-paths
	RcptParams       []string // the rest of each RCPT line
	Data             []byte   // unstuffed
	Chunked          bool     // came by BDAT
	Login            string
}

// Stats counts since the start.
type Stats struct {
	Connections    int64 `json:"connections"`
	Open           int64 `json:"open"`
	Peak           int64 `json:"peak"` // most open at once
	Handshakes     int64 `json:"handshakes"`
	Logins         int64 `json:"logins"`
	AuthFailures   int64 `json:"auth_failures"`
	Messages       int64 `json:"messages"` // answered 2yz or taken without a reply
	Deliveries     int64 `json:"deliveries"`
	Octets         int64 `json:"octets"`
	Flights        int64 `json:"flights"` // writes of replies
	Cut            int64 `json:"cut"`     // transfers that ended early
	Resets         int64 `json:"resets"`  // RSET commands
	BareLineBreaks int64 `json:"bare_line_breaks"`
	Unnumbered     int64 `json:"unnumbered"` // messages without a stamp, not in the ledger
	Faults         int64 `json:"faults"`     // made on demand
}

// Sink is a running upstream.
type Sink struct {
	opts     Options
	listener net.Listener
	ledger   *ledger.Ledger
	faults   faultTable
	delay    atomic.Int64 // nanoseconds
	keepMax  atomic.Int64 // of kept
	hold     atomic.Pointer[Hold]
	closed   chan struct{}
	once     sync.Once
	wg       sync.WaitGroup

	connections, open, peak, handshakes, logins, authFailures          atomic.Int64
	messages, deliveries, octets, flights, cut, resets, bare, unnumber atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	kept  []Message
}

// Start listens and serves until ctx is done or Close is called.
func Start(ctx context.Context, o Options) (*Sink, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &Sink{opts: o, listener: l, ledger: ledger.New(), closed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	s.delay.Store(int64(o.Delay))
	s.SetKeep(o.Keep)
	s.faults.init(o.Seed, o.Greylist)
	if err := s.SetFaults(o.Faults); err != nil {
		l.Close()
		return nil, err
	}
	s.wg.Go(s.accept)
	stop := context.AfterFunc(ctx, s.shut)
	s.wg.Go(func() {
		<-s.closed
		stop()
	})
	return s, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Mode == "" {
		o.Mode = None
		if o.TLS != nil {
			o.Mode = StartTLS
		}
	}
	if o.Mode != None && o.TLS == nil {
		return o, errors.New("TLS needs a certificate")
	}
	if o.Hostname == "" {
		o.Hostname = "sink.example.com"
	}
	if o.Mechanisms == nil {
		o.Mechanisms = []string{"PLAIN", "LOGIN"}
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = defaultConnections
	}
	if o.MaxRecipients <= 0 || o.MaxRecipients > maxRecipients {
		o.MaxRecipients = maxRecipients
	}
	return o, nil
}

func (s *Sink) accept() {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			return // only Close ends it: the listener is on loopback and connections are bounded
		}
		s.connections.Add(1)
		open := s.open.Add(1)
		for peak := s.peak.Load(); open > peak && !s.peak.CompareAndSwap(peak, open); peak = s.peak.Load() {
		}
		s.wg.Go(func() {
			defer s.open.Add(-1)
			s.serve(raw, open)
		})
	}
}

func (s *Sink) serve(raw net.Conn, open int64) {
	defer raw.Close()
	if !s.enter(raw) {
		return
	}
	defer s.leave(raw)
	if open > int64(s.opts.MaxConnections) {
		raw.Write([]byte("421 4.7.0 Too many connections\r\n"))
		return
	}
	newConn(s, raw).run()
}

func (s *Sink) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Sink) leave(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Addr is the address clients connect to.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Ledger is the count of numbered messages.
func (s *Sink) Ledger() *ledger.Ledger { return s.ledger }

// SetDelay changes Options.Delay for all connections.
func (s *Sink) SetDelay(d time.Duration) { s.delay.Store(int64(d)) }

// Hold keeps the sink from answering messages that it has taken.
type Hold struct {
	sink     *Sink
	held     atomic.Int64
	released chan struct{}
	once     sync.Once
}

// Hold makes the sink keep its answer to each final dot from now on, until Release. There is one Hold at a time.
func (s *Sink) Hold() *Hold {
	h := &Hold{sink: s, released: make(chan struct{})}
	s.hold.Store(h)
	return h
}

// Held is how many messages have been taken and not answered since.
func (h *Hold) Held() int { return int(h.held.Load()) }

// Release lets all answers go. A second call does nothing.
func (h *Hold) Release() {
	h.once.Do(func() {
		h.sink.hold.CompareAndSwap(h, nil)
		close(h.released)
	})
}

func (h *Hold) wait() {
	if h == nil {
		return
	}
	h.held.Add(1)
	select {
	case <-h.released:
	case <-h.sink.closed:
	}
}

// SetKeep changes Options.Keep from the next message on.
func (s *Sink) SetKeep(n int) { s.keepMax.Store(int64(n)) }

// SetFaults replaces the faults. Counts begin anew.
func (s *Sink) SetFaults(faults []Fault) error { return s.faults.set(faults) }

// Stats returns the counters.
func (s *Sink) Stats() Stats {
	return Stats{
		Connections: s.connections.Load(), Open: s.open.Load(), Peak: s.peak.Load(), Handshakes: s.handshakes.Load(),
		Logins: s.logins.Load(), AuthFailures: s.authFailures.Load(), Messages: s.messages.Load(), Deliveries: s.deliveries.Load(),
		Octets: s.octets.Load(), Flights: s.flights.Load(), Cut: s.cut.Load(), Resets: s.resets.Load(),
		BareLineBreaks: s.bare.Load(), Unnumbered: s.unnumber.Load(), Faults: s.faults.made.Load(),
	}
}

// Messages returns the kept messages, oldest first.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

func (s *Sink) keep(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, m)
	if over := len(s.kept) - int(s.keepMax.Load()); over > 0 {
		s.kept = slices.Delete(s.kept, 0, over)
	}
}

// DropConnections closes every open connection, as a crash or a firewall would.
func (s *Sink) DropConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Close ends all connections and returns when nothing of the sink runs any more. The ledger stays.
func (s *Sink) Close() error {
	s.shut()
	s.wg.Wait()
	return nil
}

func (s *Sink) shut() {
	s.once.Do(func() {
		close(s.closed)
		s.listener.Close()
		s.DropConnections()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.Close() // entered since
		}
		s.conns = nil
	})
}
