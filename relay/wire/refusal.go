package wire

import (
	"fmt"
	"net/netip"
	"time"

	"postern/mail"
)

// Reason is the kind of a refusal, stable for metrics.
type Reason string

// The reasons for which a connection is turned away or ended.
const (
	ReasonLimit    Reason = "limit"    // too many connections
	ReasonNetwork  Reason = "network"  // not in the listener's networks
	ReasonProxy    Reason = "proxy"    // PROXY header missing, malformed or not asked for
	ReasonTLS      Reason = "tls"      // no handshake
	ReasonProtocol Reason = "protocol" // early input, HTTP, octets behind STARTTLS, too many errors
	ReasonAuth     Reason = "auth"     // too many failures
	ReasonTimeout  Reason = "timeout"  // no login in time, a transfer too slow
	ReasonSession  Reason = "session"  // NewSession did not want it
)

// Refusal tells of one connection that was turned away or ended for what the client did.
type Refusal struct {
	Time     time.Time
	Session  string // Conn.ID
	Listener string
	Client   netip.AddrPort
	Reason   Reason
	Detail   string     // one plain sentence with what to change, printable
	Reply    mail.Reply // what the client was told; zero if nothing could be said
	Err      error      // the cause, where there is one
}

// refusal ends a connection: reply, if not zero, is sent before the close.
type refusal struct {
	reason Reason
	reply  mail.Reply
	alert  bool // instead of a reply, for a client that speaks TLS
	detail string
	err    error
}

func (r *refusal) Error() string { return r.detail }
func (r *refusal) Unwrap() error { return r.err }

func refuse(reason Reason, reply mail.Reply, format string, args ...any) *refusal {
	return &refusal{reason: reason, reply: reply, detail: fmt.Sprintf(format, args...)}
}

// silent leaves the reply out: in the middle of a handshake it would be no part of TLS.
func (r *refusal) silent() *refusal {
	r.reply = mail.Reply{}
	return r
}

func (r *refusal) because(err error) *refusal {
	r.err = err
	return r
}
