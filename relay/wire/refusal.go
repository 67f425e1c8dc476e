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
	ReasonProxy    Reason = "proxy"    // PROXY header missing, malformed or unexpected
	ReasonTLS      Reason = "tls"      // handshake failed or missing
	ReasonProtocol Reason = "protocol" // early input, HTTP, input after STARTTLS, too many errors
	ReasonAuth     Reason = "auth"     // too many failed logins
	ReasonTimeout  Reason = "timeout"  // no login in time, or a transfer too slow
	ReasonSession  Reason = "session"  // refused by NewSession
)

// Refusal describes a connection that was turned away, or ended because of what the client did.
type Refusal struct {
	Time     time.Time
	Session  string // Conn.ID
	Listener string
	Client   netip.AddrPort
	Hello    string // Conn.Helo
	Reason   Reason
	Detail   string     // one plain sentence that says what to change, printable
	Reply    mail.Reply // what the client was told; zero if nothing could be said
	Err      error      // the cause, or nil
}

// refusal ends a connection. reply, unless zero, is sent first.
type refusal struct {
	reason Reason
	reply  mail.Reply
	alert  bool // send a TLS alert instead of a reply
	detail string
	err    error
}

func (r *refusal) Error() string { return r.detail }
func (r *refusal) Unwrap() error { return r.err }

func refuse(reason Reason, reply mail.Reply, format string, args ...any) *refusal {
	return &refusal{reason: reason, reply: reply, detail: fmt.Sprintf(format, args...)}
}

// silent removes the reply, which cannot be sent in the middle of a handshake.
func (r *refusal) silent() *refusal {
	r.reply = mail.Reply{}
	return r
}

func (r *refusal) because(err error) *refusal {
	r.err = err
	return r
}
