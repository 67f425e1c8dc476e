// Package upstream has the types that all transports to a provider share. Package smtp is the smart host client,
// package graph sends through Microsoft Graph; both implement Transport. Package account decides whether an identity
// (our account at the provider) may send now, whatever the protocol; package replies classifies the provider's replies.
//
// Failure semantics of every Transport:
//   - A result is Delivered only when the provider has taken the message, after its last octet.
//   - Trouble with the account, the network or the provider is AccountFault or BackPressure: the identity waits, and no
//     mail fails.
//   - If it is unknown whether the provider has the message, the result defers and is Uncertain.
//   - What the provider says is hostile until parsed: replies are bounded and made printable.
package upstream

import (
	"context"
	"time"

	"postern/mail"
)

// Transport is one configured way to a provider. Its methods are safe for concurrent use.
type Transport interface {
	// Reserve takes a slot for one message now, without waiting; identity "" is the configured username. Without a
	// Slot, until says when to ask again; zero: when OnChange tells that one got free.
	Reserve(now time.Time, identity string) (slot Slot, until time.Time)
	// States lists the identities that have been used, in order of name; before the first use, the configured one.
	States() []State
	// Denied lists senders that the provider does not let us use, and whose mail is not offered now.
	Denied(now time.Time) []Denied
	// OnChange sets the function that is called, never under a lock, when a slot gets free and when an identity starts
	// or ends to wait. It must not block.
	OnChange(func())
	// TryAgain ends the pause of identities that were not let in: somebody may have mended what they log in with.
	TryAgain()
	// HandOver returns what is known of rates and quotas, which is saved no more. Inherit takes it over, for a
	// configuration that has changed: the provider goes on counting.
	HandOver() []Quota
	Inherit([]Quota)
	// TestSenders goes the way of a delivery for each sender and sends nothing. It returns what happened up to the
	// first failure.
	TestSenders(context.Context, Trial) []Step
	// Close ends the Transport: nothing can be reserved any more, sends that run are waited for. When ctx ends first,
	// what is left is cut off and ctx's error is returned.
	Close(ctx context.Context) error
}

// Slot is the right to send one message now. It is used by at most one Send and given back by Release.
type Slot interface {
	// Send makes one attempt and returns one result for each recipient, in order. When ctx ends before the last octet
	// of a message is written, the attempt stops there and then; behind it, the reply is still waited for, for a
	// bounded time.
	Send(context.Context, Transaction) []mail.Result
	// Release gives the slot back, used or not. Whoever has used it may keep it until what the upstream said is on
	// record. A second call does nothing.
	Release()
}

// Transaction is one message for one or many recipients.
type Transaction struct {
	ID         string // for the log
	From       mail.Address
	Recipients []mail.Recipient
	// Envelope is the recipients of the message as it was submitted, those included that this attempt is not for
	// because they have their mail already or go another way. It makes no difference to whom this is sent. By a
	// protocol without envelopes it tells a header that names strangers, which is refused for good, from one whose
	// recipients we have parted ourselves.
	Envelope []mail.Address
	Content  mail.Content
	// EightBit: the content may have octets above 0x7f, and is looked at. What the message needs of SMTPUTF8 (RFC 6531)
	// and 8BITMIME (RFC 6152) is found here, whatever its client declared.
	EightBit bool
	Ret      mail.Ret
	EnvID    string
	// Prefix is called once, when a connection is ready, before anything is sent. It returns header fields that go
	// before the content, each ended by CRLF. Its error defers. nil: there is nothing to add.
	Prefix func(ctx context.Context) ([]byte, error)
	// Doubts is how many earlier attempts may have delivered it, and Last tells that there is no other after this one
	// if this one brings no answer either.
	Doubts int
	Last   bool
	// Received is when it was submitted: what has its Message-ID and is older is another message. Zero: not known.
	Received time.Time
	// AllOrNone: the message goes to all recipients by one reply, or to nobody. Where the provider would take it for
	// some alone, it defers for all others.
	AllOrNone bool
	// Left is how long the message is still ours to send; see Spare. nil: for good.
	Left func() time.Duration
	// Taken is called between two transactions of one message, with the results so far of the recipients that it was
	// taken for. nil: nobody wants to know.
	Taken func([]mail.Result)
	// Review is called once with all results, before anybody is told what they say of the identity. It may change them,
	// and tells whose matter a refusal is that it does not believe. nil: all are believed.
	Review func([]mail.Result) Doubt
}

// TokenError is what an error of a token source may say about itself. Without it, a missing token is back-pressure: it
// passes.
type TokenError interface {
	error                      // for people; no secret in it
	Unwrap() error             // for the log
	Class() mail.Class         // AccountFault or BackPressure
	Reply() mail.Reply         // for results and people; no secret in it
	RetryAfter() time.Duration // how long to wait at least
}
