// Package wire is the server side of SMTP from accept to close: connection limits, PROXY headers, the phase before TLS,
// TLS, complete and well-formed commands in the right order, SASL exchanges, DATA and BDAT, deadlines, and one write
// for the replies to a pipelined batch. A Session decides what a command means; it gets everything parsed, checked and
// decoded.
//
// Failure semantics:
//   - A command runs only when its whole line has arrived, not if the connection ends or a deadline passes inside it.
//   - A message is complete only at CRLF.CRLF or at the last octet of the last chunk. If the connection ends, a
//     deadline passes or RSET comes before that, the result is ErrCut, never io.EOF. Nothing that follows a cut message
//     runs as a command, unless the client itself abandoned a chunked one.
//   - A message that is too big, or has a bare CR or LF (if Options do not repair it), a NUL, or (if Options refuse it)
//     an overlong line, is refused after reading to its real end, whatever the Session answers.
//   - A panic in a Session costs only its own connection: 421, and a log line with the stack.
//   - Of a message, replies of this package echo only the beginning of a refused line, and what they quote is
//     printable.
package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"postern/mail"
)

// TLSMode says when a listener begins TLS.
type TLSMode string

// The TLS modes. Before TLS only EHLO, HELO, NOOP, RSET, QUIT and STARTTLS are answered.
const (
	STARTTLS TLSMode = "starttls" // required before anything else
	Implicit TLSMode = "implicit" // TLS from the first octet (RFC 8314 §3.3)
	Auto     TLSMode = "auto"     // a client that begins with a ClientHello gets Implicit, others STARTTLS
	None     TLSMode = "none"     // never; AUTH is offered only with Networks
)

// Options configures one listener. It must not change once a Server has it.
type Options struct {
	Name     string // of the listener, for logs and traces
	Hostname string // in the greeting and the EHLO reply; also completes <postmaster>

	TLSMode TLSMode
	TLS     *tls.Config // nil only for None; see ServerTLS

	// Networks are the client addresses that may connect; empty: all. Behind a proxy the PROXY header gives the
	// address.
	Networks []netip.Prefix
	// Proxies must begin every connection with a PROXY header, version 1 or 2; from anybody else it ends the
	// connection. Limits, logs and Networks use the address in the header. If it has none, as for health checks, the
	// client gets a greeting but can neither log in nor send.
	Proxies []netip.Prefix

	Mechanisms []string // SASL mechanisms to offer, in upper case
	// Withheld, unless nil, says that one of Mechanisms can serve nobody now, and is not offered.
	Withheld func(mechanism string) bool

	// Appliance takes what old devices send: bare CR and LF inside a message, which become CRLF, CR before the CRLF
	// of a command, unknown parameters, and a path with a name in front of it. Whatever it takes, CRLF.CRLF ends a
	// message, and CRLF a command.
	Appliance bool

	// Limits and times must be set, but for the rate.
	MaxMessageSize      int64 // octets as in RFC 1870
	LongLines           bool  // accept lines over 998 octets; Transfer.LongLines reports them
	MaxRecipients       int   // per message
	MaxConnections      int   // past TLS and login
	MaxUnauthenticated  int   // before TLS or login
	MaxConnectionsPerIP int   // of both kinds, per IPv4 address or IPv6 /64

	IdleTimeout time.Duration // longest wait for a complete command (RFC 5321 §4.5.3.2.7)
	AuthTimeout time.Duration // from accept to successful AUTH, absolute
	DataTimeout time.Duration // longest silence inside a transfer (RFC 5321 §4.5.3.2.5)
	MaxSession  time.Duration // from accept to 421, an hour more inside a transaction
	MinDataRate int64         // octets per second, average after the first DataTimeout; 0: none

	MaxErrors int // protocol errors before 421 and close; 0: 10

	// NewSession makes the Session of a connection just before the greeting. A 4yz or 5yz reply replaces the greeting
	// and ends the connection.
	NewSession func(*Conn) (Session, mail.Reply)
	// Refused, unless nil, is called for every connection that we turn away or end because of what the client did. It
	// must return quickly.
	Refused func(Refusal)
	Logger  *slog.Logger // nil: discards
}

// Session decides what commands mean. The connection's goroutine calls its methods, one at a time. Their context ends
// when the server stops hard. A reply with code 421 also ends the connection.
type Session interface {
	// Auth begins an exchange with one of the offered mechanisms, named in upper case. A non-zero reply refuses it.
	Auth(ctx context.Context, mechanism string) (Exchange, mail.Reply)
	// Authenticated reports whether MAIL may be answered by anything but 530.
	Authenticated() bool
	// Mail opens a transaction if it answers 2yz. env has no recipients.
	Mail(ctx context.Context, env mail.Envelope) mail.Reply
	// Rcpt adds a recipient to the open transaction if it answers 2yz.
	Rcpt(ctx context.Context, r mail.Recipient) mail.Reply
	// Data receives the message. What it leaves unread is discarded. A 2yz reply is sent only if the transfer came to
	// its clean end.
	Data(ctx context.Context, t *Transfer) mail.Reply
	// Reset ends an open transaction: after Data, by RSET, EHLO or STARTTLS, or before Close.
	Reset()
	// Close ends the session.
	Close()
}

// RefusalObserver is a Session that is told which commands of a transaction wire itself refused: out of order,
// malformed, or over a limit. Of the recipients over the limit it is told only the first.
type RefusalObserver interface {
	// Refused gets the command, printable and cut. It must return quickly.
	Refused(command string, reply mail.Reply)
}

// LoginRefusalObserver is a Session that is told of every login that wire itself refused or the client abandoned.
type LoginRefusalObserver interface {
	// LoginRefused gets the mechanism, "" if unknown, what was wrong, and the reply, zero if the client left without
	// one. It must return quickly.
	LoginRefused(mechanism, why string, reply mail.Reply)
}

// SenderReplacer is a Session that may replace a malformed reverse-path, such as <root> or <scanner 2> from devices.
type SenderReplacer interface {
	ReplaceSender(path string) (mail.Address, bool)
}

// RepairObserver is a Session that is told what wire repaired in a MAIL or RCPT that was then accepted, in one plain
// and printable sentence. Only listeners with Options.Appliance repair.
type RepairObserver interface {
	Repaired(what string)
}

// Exchange is one SASL exchange (RFC 4954 §4), which wire carries in base64.
type Exchange interface {
	// Next takes the client's response, nil if there is no initial one. It returns the next challenge, or a reply that
	// ends the exchange: 235 for success.
	Next(ctx context.Context, response []byte) (challenge []byte, reply mail.Reply)
}

// complete returns a copy of o that is ready for use. Limits that nobody has set are a mistake of the caller.
func (o *Options) complete() *Options {
	c := *o
	least := min(c.MaxMessageSize,
		int64(min(c.MaxRecipients, c.MaxConnections, c.MaxUnauthenticated, c.MaxConnectionsPerIP)))
	if least <= 0 || min(c.IdleTimeout, c.AuthTimeout, c.DataTimeout, c.MaxSession) <= 0 {
		panic("wire: a limit or a time of the options is not set")
	}
	c.MaxErrors = cmp.Or(c.MaxErrors, 10)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Refused == nil {
		c.Refused = func(Refusal) {}
	}
	c.TLS = listenerTLS(o.TLS)
	return &c
}

// plaintextAuth reports whether AUTH may be offered without TLS: only behind a list of networks.
func (o *Options) plaintextAuth() bool { return o.TLSMode == None && len(o.Networks) > 0 }
