// Package mail holds the vocabulary that all of Postern shares: addresses, envelopes, headers, replies, results and
// errors. It imports only the standard library, golang.org/x/text and x/net/idna, and does no I/O of its own.
//
// Four identities stay apart everywhere: the login (who authenticated), the reverse-path, the header author, and the
// upstream identity (our account at the provider). This package has types for the middle two; the others are plain
// strings owned by auth and upstream.
package mail

import "time"

// Body is the BODY parameter of MAIL (RFC 6152 §3).
type Body string

// The bodies a client may declare. An empty Body means 7BIT.
const (
	Body7Bit Body = "7BIT"
	Body8Bit Body = "8BITMIME"
)

// Notify is the set of conditions under which the sender wants a report about a recipient (RFC 3461 §4.1). Zero means
// that the parameter was absent: report failure, and delay at our discretion.
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

// Recipient is one forward-path with the reports that the sender wants about it.
type Recipient struct {
	To     Address
	Notify Notify
	// ORcpt is the original recipient, "type;address" with the address decoded (RFC 3461 §4.2),
	// empty if absent.
	ORcpt string
}

// Class says whose fault the outcome of an attempt is. It decides what happens to the mail, so that nobody pays for a
// fault that is not theirs: only RecipientFault and MessageFault become bounces.
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
	// Deferral: temporary, nobody's lasting fault (4yz for a recipient or a message, greylisting, connection lost), or
	// an unknown outcome after the final dot.
	Deferral
	// AccountFault: the upstream refuses us, not the message (wrong password, expired secret, quota, TLS verification
	// failed). It pauses the upstream identity; the mail stays queued.
	AccountFault
	// BackPressure: the upstream asks us to slow down, or cannot be reached. The mail stays queued.
	BackPressure
)

var classNames = [...]string{
	"unknown", "delivered", "recipient-fault", "message-fault", "deferral", "account-fault", "back-pressure",
}

// String returns the name of the class in logs, traces and metrics.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[Unknown]
}

// Permanent reports whether a retry cannot help, so that the sender must be told.
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

// InTransaction reports a stage at which a sender or a recipient is refused.
func (s Stage) InTransaction() bool {
	return s == StageMail || s == StageRcpt || s == StageData || s == StageDot
}

// Result is the outcome of one attempt for one recipient. The queue's journal stores its JSON.
type Result struct {
	Recipient int   `json:"rcpt"` // index into the recipients of the attempt
	Class     Class `json:"class"`
	Stage     Stage `json:"stage,omitempty"`
	// Reply is the upstream's reply, verbatim but printable. If there was none (time-out, refused connection), it is
	// our own description.
	Reply Reply `json:"reply"`
	// Verbatim says that Reply is Host's own, from SMTP. Otherwise the words are ours.
	Verbatim bool `json:"verbatim,omitempty"`
	// Upstream is the configured name, Identity the account we were logged in as, Host the peer.
	Upstream string `json:"upstream,omitempty"`
	Identity string `json:"identity,omitempty"`
	Host     string `json:"host,omitempty"`
	// Uncertain says that the connection was lost after the final dot: the upstream may have the message.
	Uncertain bool `json:"uncertain,omitempty"`
	// RelayedDSN says that the upstream offered DSN and got the recipient's parameters: success and delay reports are
	// its duty (RFC 3461 §5.2.2).
	RelayedDSN bool `json:"relayed,omitempty"`
	// RetryAfter is the delay that the upstream or a rule asked for; 0: the retry table decides.
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	// Rule is the reply rule that decided the class, RuleNone if none matched, "" if there was no reply.
	Rule string `json:"rule,omitempty"`
	// OfSender says that an account fault concerns the sender's address alone.
	OfSender bool `json:"-"`
	// Note is one plain sentence that the trace adds to the reply, or "".
	Note string `json:"note,omitempty"`
	// Err is the cause for the log, nil if the reply says everything.
	Err error `json:"-"`
}

// SaidBy returns the host that Reply comes from, "" if the words are ours.
func (r Result) SaidBy() string {
	if r.Verbatim {
		return r.Host
	}
	return ""
}

// RuleNone is Result.Rule for a permanent refusal that no rule matched. It counts as the message's fault; readers of
// the trace may want to write a rule.
const RuleNone = "none"
