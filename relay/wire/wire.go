// Package wire is the server side of SMTP from accept to close: connection limits, PROXY headers, the
// phase before TLS, TLS itself, one complete and well-formed command at a time, the order of commands,
// SASL exchanges, DATA and BDAT, deadlines, and one write for the replies of a pipelined batch. What a
// command means is decided by a Session, which gets everything parsed, checked and decoded.
//
// Failure semantics:
//   - A command runs only when its whole line has arrived. A partial line at the end of the connection
//     or at a deadline is never run.
//   - A message is complete only at CRLF.CRLF or at the last octet of the last chunk. An end of the
//     connection, a deadline or an RSET before that is ErrCut, never io.EOF; nothing that follows a
//     cut message is run as a command, except where the client itself gave up a chunked one.
//   - A message with bare CR or LF, NUL, an overlong line where they are not taken, or over the size is
//     refused after its real end was read, whatever the Session answers.
//   - A panic in a Session costs its own connection only: 421, and a log line with the stack.
//   - Nothing that a client sent is echoed in a reply of this package, but for the beginning of a line of
//     its message that is refused, made printable.
package wire

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"postern/mail"
)

// TLSMode says when a listener speaks TLS.
type TLSMode string

// The TLS modes. Before TLS only EHLO, HELO, NOOP, RSET, QUIT and STARTTLS are answered.
const (
	STARTTLS TLSMode = "starttls" // required before anything else
	Implicit TLSMode = "implicit" // TLS from the first octet (RFC 8314 §3.3)
	Auto     TLSMode = "auto"     // a client that begins with a ClientHello gets Implicit, others STARTTLS
	None     TLSMode = "none"     // never; AUTH is offered only behind Networks
)

// Options is what one listener needs. It is immutable once it was given to a Server.
type Options struct {
	Name     string // of the listener, for logs and traces
	Hostname string // in the greeting and the EHLO reply; also completes <postmaster>

	TLSMode TLSMode
	TLS     *tls.Config // nil only for None; see ServerTLS
	// TLSWait is how long Auto waits for a ClientHello before it greets in clear; 0: 0.5 s. For an address that has
	// only ever asked for STARTTLS it is 0.15 s at most.
	TLSWait time.Duration
	// HelloWait is how long Implicit waits for a ClientHello before it says in clear what is wrong; 0: 3 s.
	HelloWait time.Duration

	// Networks are the addresses that may connect at all; empty: any. Behind a proxy they are those that the PROXY header
	// names.
	Networks []netip.Prefix
	// Proxies must begin every connection with a PROXY header, of version 1 or 2; one from anybody else
	// ends the connection. The address it names counts for limits, logs and Networks; where it names none, as for health
	// checks, there is a greeting, and neither login nor mail.
	Proxies []netip.Prefix

	Mechanisms []string // SASL mechanisms to offer, in upper case

	MaxMessageSize      int64 // octets as in RFC 1870; 0: 35 MB
	LongLines           bool  // lines of more than 998 octets are taken, and Transfer.LongLines tells
	MaxRecipients       int   // per message; 0: 1000
	MaxConnections      int   // past TLS and login; 0: 2000
	MaxUnauthenticated  int   // before that; 0: 1000
	MaxConnectionsPerIP int   // of both, per IPv4 address or IPv6 /64; 0: 50

	IdleTimeout time.Duration // longest wait for a complete command; 0: 5 min (RFC 5321 §4.5.3.2.7)
	AuthTimeout time.Duration // from accept to successful AUTH, absolute; 0: 5 min
	DataTimeout time.Duration // longest silence inside a transfer; 0: 3 min (RFC 5321 §4.5.3.2.5)
	MaxSession  time.Duration // from accept; then 421, or an hour later inside a transaction; 0: 24 h
	MinDataRate int64         // octets per second, averaged over a transfer after the first DataTimeout; 0: none

	MaxErrors       int // protocol errors before 421 and close; 0: 10
	MaxAuthFailures int // failed AUTH before 421 and close; 0: 3

	// NewSession makes the Session of a connection just before the greeting. A 4yz or 5yz reply
	// replaces the greeting and ends the connection.
	NewSession func(*Conn) (Session, mail.Reply)
	// Refused, if not nil, is called for every connection that was turned away or ended by us for what
	// the client did. It must return quickly.
	Refused func(Refusal)
	Logger  *slog.Logger // nil: discards
}

// Session decides what commands mean. Its methods are called by the goroutine of the connection, one
// at a time. Their context ends when the server stops hard. A reply with code 421 also ends the
// connection.
type Session interface {
	// Auth begins an exchange with one of the offered mechanisms, named in upper case. A reply that
	// is not zero refuses it.
	Auth(ctx context.Context, mechanism string) (Exchange, mail.Reply)
	// Authenticated reports whether MAIL may be answered by anything but 530.
	Authenticated() bool
	// Mail opens a transaction. env has no recipients. A transaction is open after a 2yz reply.
	Mail(ctx context.Context, env mail.Envelope) mail.Reply
	// Rcpt adds a recipient to the open transaction if it answers 2yz.
	Rcpt(ctx context.Context, r mail.Recipient) mail.Reply
	// Data takes the message. Whatever it leaves unread is read and thrown away. A 2yz reply is sent
	// only if the transfer came to its clean end.
	Data(ctx context.Context, t *Transfer) mail.Reply
	// Reset ends an open transaction: after Data, by RSET, EHLO or STARTTLS, or before Close.
	Reset()
	// Close ends the session.
	Close()
}

// Witness is a Session that wants to know which commands wire refused by itself: those that a transaction
// depends on, in wrong order, malformed, or over a limit. Of recipients over the limit only the
// first of a transaction is told.
type Witness interface {
	// Refused gets the command, printable and cut. It must return quickly.
	Refused(command string, reply mail.Reply)
}

// LoginWitness is a Session that wants to know of every login that wire refused by itself, or that the client gave up.
type LoginWitness interface {
	// LoginRefused gets the mechanism, "" if it is none that we know of, what was wrong, and the reply, zero if the client left
	// without one. It must return quickly.
	LoginRefused(mechanism, why string, reply mail.Reply)
}

// Mender is a Session that may know what to take for a reverse-path that is no address, as devices send them: <root>, <scanner 2>.
type Mender interface {
	MendSender(path string) (mail.Address, bool)
}

// Exchange is one SASL exchange (RFC 4954 §4), which wire carries in base64.
type Exchange interface {
	// Next takes the client's response, nil if it sent no initial one, and returns the next
	// challenge, or a reply that ends the exchange: 235 for success.
	Next(ctx context.Context, response []byte) (challenge []byte, reply mail.Reply)
}

// withDefaults returns a copy of o in which no limit is zero.
func (o *Options) withDefaults() *Options {
	c := *o
	set(&c.TLSWait, firstWait)
	set(&c.HelloWait, helloWait)
	set(&c.MaxMessageSize, 35_000_000)
	set(&c.MaxRecipients, 1000)
	set(&c.MaxConnections, 2000)
	set(&c.MaxUnauthenticated, 1000)
	set(&c.MaxConnectionsPerIP, 50)
	set(&c.IdleTimeout, 5*time.Minute)
	set(&c.AuthTimeout, 5*time.Minute)
	set(&c.DataTimeout, 3*time.Minute)
	set(&c.MaxSession, 24*time.Hour)
	set(&c.MaxErrors, 10)
	set(&c.MaxAuthFailures, 3)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Refused == nil {
		c.Refused = func(Refusal) {}
	}
	c.TLS = listenerTLS(o.TLS)
	return &c
}

func set[T int | int64 | time.Duration](value *T, fallback T) {
	if *value <= 0 {
		*value = fallback
	}
}

// writeTimeout bounds one write of replies: a client that does not read is not waited for.
func (o *Options) writeTimeout() time.Duration { return min(o.IdleTimeout, time.Minute) }

// plaintextAuth reports whether AUTH may be offered without TLS: only behind a list of networks.
func (o *Options) plaintextAuth() bool { return o.TLSMode == None && len(o.Networks) > 0 }
