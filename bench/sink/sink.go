// Package sink is an upstream that takes mail and keeps count of it: fast enough not to disturb a
// measurement on the same machine, and able to fail on demand at any point of a session.
//
// Failure semantics: a message is counted once all of it has arrived (CRLF.CRLF, or the last octet of the last chunk)
// and before its 250 leaves, as a real upstream takes responsibility. A cut transfer is only counted as cut. Memory is
// bounded: contents are stored only if Options.Keep asks for some; the ledger and every table have limits.
package sink

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"postern/bench/ledger"
	"postern/internal/fakesmtp"
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
	defaultSize   = 256 << 20
	idleTimeout   = 10 * time.Minute
	maxRecipients = 10000 // in a transaction
)

// Options say what Start serves. The zero value but for TLS is a good upstream without AUTH.
type Options struct {
	Addr               string      // "": 127.0.0.1:0
	Mode               TLSMode     // "": starttls with TLS, else none
	TLS                *tls.Config // certificate
	Username, Password string      // AUTH PLAIN and LOGIN required where set
	Hostname           string      // "": sink.example.com
	Size               int64       // largest message, announced by SIZE; 0: 256 MiB; negative: SIZE is not announced
	Without            []string    // extensions not to offer: PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8, DSN …

	// Delay holds back each flight of replies: all that is there is read and carried out, then the
	// replies to it leave together after this time, as they would arrive from far away.
	Delay  time.Duration
	Faults []Fault
	Seed   uint64 // of the dice for Fault.Probability
	Keep   int    // newest messages whose content is kept, for tests
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
	Connections    int   `json:"connections"`
	Open           int   `json:"open"`
	Peak           int   `json:"peak"` // most open at once
	Handshakes     int   `json:"handshakes"`
	Logins         int   `json:"logins"`
	AuthFailures   int   `json:"auth_failures"`
	Messages       int64 `json:"messages"` // answered 2yz or taken without a reply
	Deliveries     int64 `json:"deliveries"`
	Octets         int64 `json:"octets"`
	Flights        int   `json:"flights"` // how often a client began to send after it had been answered
	Cut            int   `json:"cut"`     // transfers that ended early
	Resets         int   `json:"resets"`  // RSET commands
	BareLineBreaks int64 `json:"bare_line_breaks"`
	Unnumbered     int64 `json:"unnumbered"` // messages without a stamp, not in the ledger
	Faults         int64 `json:"faults"`     // made on demand
}

// Sink is a running upstream.
type Sink struct {
	opts    Options
	server  *fakesmtp.Server
	stop    func() bool // detaches from the context of Start
	ledger  *ledger.Ledger
	faults  faultTable
	delay   atomic.Int64 // nanoseconds
	keepMax atomic.Int64 // of kept
	hold    atomic.Pointer[Hold]

	messages, deliveries, octets, bare, unnumbered atomic.Int64

	mu   sync.Mutex
	kept []Message
}

// Start listens and serves until ctx is done or Close is called.
func Start(ctx context.Context, o Options) (*Sink, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &Sink{opts: o, ledger: ledger.New()}
	s.server = fakesmtp.New(s.config())
	s.delay.Store(int64(o.Delay))
	s.SetKeep(o.Keep)
	s.faults.init(o.Seed)
	if err := s.SetFaults(o.Faults); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s.server.ServeListener(l)
	s.stop = context.AfterFunc(ctx, s.server.Close)
	return s, nil
}

func (s *Sink) config() fakesmtp.Config {
	o := &s.opts
	c := fakesmtp.Config{
		Hostname: o.Hostname, TLS: o.TLS, Implicit: o.Mode == Implicit, Require: true,
		Size: s.limit(), MaxRecipients: maxRecipients, Idle: idleTimeout,
		Delay: func() time.Duration { return time.Duration(s.delay.Load()) }, Gather: true,
		NoBDAT: slices.Contains(o.Without, "CHUNKING"), Body: s.newTransfer, Take: s.take,
	}
	for _, name := range []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "CHUNKING"} {
		if !slices.Contains(o.Without, name) {
			c.Extensions = append(c.Extensions, name)
		}
	}
	if o.Size >= 0 {
		c.Extensions = append(c.Extensions, "SIZE "+strconv.FormatInt(s.limit(), 10))
	}
	if o.Mode == None {
		c.TLS = nil
	}
	if o.Username != "" {
		c.Mechanisms, c.Users = []string{"PLAIN", "LOGIN"}, map[string]string{o.Username: o.Password}
	}
	return c
}

func (s *Sink) limit() int64 {
	if s.opts.Size > 0 {
		return s.opts.Size
	}
	return defaultSize
}

func (o Options) withDefaults() (Options, error) {
	o.Addr = cmp.Or(o.Addr, "127.0.0.1:0")
	if o.Mode == "" {
		o.Mode = None
		if o.TLS != nil {
			o.Mode = StartTLS
		}
	}
	if o.Mode != None && o.TLS == nil {
		return o, errors.New("TLS needs a certificate")
	}
	o.Hostname = cmp.Or(o.Hostname, "sink.example.com")
	return o, nil
}

// Addr is the address clients connect to.
func (s *Sink) Addr() string { return s.server.Addr() }

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
	case <-h.sink.server.Done():
	}
}

// SetKeep changes Options.Keep from the next message on.
func (s *Sink) SetKeep(n int) { s.keepMax.Store(int64(n)) }

// SetFaults replaces the faults. Counts begin anew.
func (s *Sink) SetFaults(faults []Fault) error {
	if err := s.faults.set(faults); err != nil {
		return err
	}
	s.server.SetHook(nil)
	if len(faults) > 0 { // what goes well is not asked about
		s.server.SetHook(s.hook)
	}
	return nil
}

// Stats returns the counters.
func (s *Sink) Stats() Stats {
	c := s.server.Counts()
	return Stats{
		Connections: c.Connections, Open: c.Open, Peak: c.MostOpen, Handshakes: c.Handshakes,
		Logins: c.Logins, AuthFailures: c.Refused, Messages: s.messages.Load(), Deliveries: s.deliveries.Load(),
		Octets: s.octets.Load(), Flights: c.Flights, Cut: c.Cut, Resets: c.Resets,
		BareLineBreaks: s.bare.Load(), Unnumbered: s.unnumbered.Load(), Faults: s.faults.made.Load(),
	}
}

// Messages returns the kept messages, oldest first.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

// DropConnections closes every open connection, as a crash or a firewall would.
func (s *Sink) DropConnections() { s.server.DropAll() }

// Close ends all connections and returns when nothing of the sink runs any more. The ledger stays.
func (s *Sink) Close() {
	s.stop()
	s.server.Close()
}
