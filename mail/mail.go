// Package mail holds the words that every part of Postern shares: addresses, envelopes, replies,
// results and errors. It imports the standard library, golang.org/x/text and x/net/idna only, and does no input or
// output.
//
// Four identities stay apart everywhere: the login (who authenticated), the reverse-path, the header
// author, and the upstream identity (who we are to the provider). This package has types for the
// middle two; the others are plain strings owned by auth and upstream.
package mail

import "time"

// Body is the BODY parameter of MAIL (RFC 6152 §3).
type Body string

// The bodies a client may declare. An empty Body means 7BIT.
const (
	Body7Bit Body = "7BIT"
	Body8Bit Body = "8BITMIME"
)

// Notify is the set of conditions under which a recipient's sender wants a report (RFC 3461 §4.1).
// Zero means that the parameter was absent: failure, and delay at our discretion.
type Notify uint8

// The conditions of NOTIFY. NotifyNever excludes the others.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Ret says how much of the message a report returns (RFC 3461 §4.3). Empty: the parameter was absent.
type Ret string

// The values of RET.
const (
	RetFull    Ret = "FULL"
	RetHeaders Ret = "HDRS"
)

// Envelope is what MAIL and RCPT said, checked and decoded.
type Envelope struct {
	From       Address // null for the null reverse-path
	Recipients []Recipient
	Body       Body
	UTF8       bool   // SMTPUTF8 was given (RFC 6531)
	Size       int64  // octets declared by SIZE, 0 if absent
	Ret        Ret    // DSN
	EnvID      string // DSN, decoded xtext, printable
}

// Recipient is one forward-path with what the sender wants to hear about it.
type Recipient struct {
	To     Address
	Notify Notify
	// ORcpt is the original recipient, "type;address" with the address decoded (RFC 3461 §4.2),
	// empty if absent.
	ORcpt string
}

// Class says whose matter the outcome of an attempt is. It decides what happens to the mail, so that
// nobody pays for a fault that is not theirs: only RecipientFault and MessageFault become bounces.
type Class uint8

// The classes of an outcome.
const (
	// Unknown is the zero value and never an outcome.
	Unknown Class = iota
	// Delivered: the upstream answered 2yz after the final dot and thereby took responsibility.
	Delivered
	// RecipientFault: permanent, this recipient only.
	RecipientFault
	// MessageFault: permanent, the message as such (too big, refused content, cannot be downgraded).
	MessageFault
	// Deferral: temporary, nobody's lasting fault (4yz for a recipient or a message, greylisting,
	// connection lost). Also an unknown outcome after the final dot.
	Deferral
	// AccountFault: the upstream refuses us, not the message (wrong password, expired secret, quota,
	// TLS verification failed). Pauses the upstream identity, keeps the mail.
	AccountFault
	// BackPressure: the upstream asks us to slow down, or cannot be reached. Keeps the mail.
	BackPressure
)

var classNames = [...]string{"unknown", "delivered", "recipient-fault", "message-fault", "deferral", "account-fault", "back-pressure"}

// String returns the class as logs, traces and metrics name it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[Unknown]
}

// Permanent reports whether trying again cannot help and the sender must be told.
func (c Class) Permanent() bool { return c == RecipientFault || c == MessageFault }

// Stage is the point of an SMTP client session at which something happened.
type Stage string

// The stages of an attempt, in order.
const (
	StageSign     Stage = "sign"
	StageResolve  Stage = "resolve"
	StageConnect  Stage = "connect"
	StageGreeting Stage = "greeting"
	StageEHLO     Stage = "ehlo"
	StageTLS      Stage = "tls"
	StageAuth     Stage = "auth"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data" // from DATA or BDAT to the final dot
	StageDot      Stage = "dot"  // after the final dot or the last chunk
)

// Result is the outcome of one attempt for one recipient. Its JSON is what the journal of the queue keeps on disk.
type Result struct {
	Recipient int   `json:"rcpt"` // index into the recipients of the attempt
	Class     Class `json:"class"`
	Stage     Stage `json:"stage,omitempty"`
	// Reply is the upstream's verbatim reply, made printable; for trouble without a reply (time-out,
	// refused connection) it is one of ours that describes it.
	Reply Reply `json:"reply"`
	// Verbatim: Reply is what Host said over SMTP, word for word. Else the words are ours.
	Verbatim bool `json:"verbatim,omitempty"`
	// Upstream is the configured name, Identity the account we were logged in as, Host the peer.
	Upstream string `json:"upstream,omitempty"`
	Identity string `json:"identity,omitempty"`
	Host     string `json:"host,omitempty"`
	// Uncertain: the connection was lost after the final dot, so the upstream may have the message.
	Uncertain bool `json:"uncertain,omitempty"`
	// RelayedDSN: the upstream offered DSN and got the recipient's parameters, so that success and
	// delay reports are its duty (RFC 3461 §5.2.2).
	RelayedDSN bool `json:"relayed,omitempty"`
	// RetryAfter is what the upstream or a rule asked for; 0: the retry table decides.
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	// Rule is the name of the upstream's reply rule that decided the class, RuleNone where none knew the
	// reply; empty where there was no reply to judge.
	Rule string `json:"rule,omitempty"`
	// Note is what the trace must say beside the reply, one plain sentence; "" for nothing.
	Note string `json:"note,omitempty"`
	// Err is the cause for the log, nil where the reply says all.
	Err error `json:"-"`
}

// SaidBy returns the host whose own words Reply is, "" where they are ours.
func (r Result) SaidBy() string {
	if r.Verbatim {
		return r.Host
	}
	return ""
}

// RuleNone is Result.Rule for a permanent refusal that no rule knew: it counts as the message's fault, and
// whoever reads the trace may want to write a rule.
const RuleNone = "none"
