// Package trace records what happened: one Event for everything that concerns a message or a refused session, from the
// first refused connection to the upstream's verbatim reply.
//
// Failure semantics: recording never holds up mail. Events wait in a bounded buffer and are written in batches, also
// while the store cannot be reached; if the buffer is full or the store refuses them, events are dropped, counted and
// logged once. A crash loses the last events, never a message. Refusals have a buffer of their own and a rate limit for
// each login and client network, above which they are only counted: nobody can push out the events of others.
package trace

import (
	"strings"
	"time"

	"postern/mail"
)

// Kind names what happened.
type Kind string

// The kinds of events. Never rename one: people search for them.
const (
	Refused   Kind = "refused"   // a connection or session refused before any message (limit, TLS, PROXY, protocol)
	AuthFail  Kind = "auth-fail" // AUTH answered with anything but 235
	Rejected  Kind = "rejected"  // MAIL, RCPT or the message answered 4yz or 5yz
	Accepted  Kind = "accepted"  // 250 after DATA: handed off or queued
	Attempt   Kind = "attempt"   // an attempt without a result for a recipient (deferred before MAIL, postponed)
	Delivered Kind = "delivered" // the upstream took a recipient
	Deferred  Kind = "deferred"  // a recipient will be retried
	Failed    Kind = "failed"    // a recipient was given up
	Unclear   Kind = "unclear"   // a recipient was given up without knowing whether the upstream has it
	Report    Kind = "report"    // a DSN was made, or withheld and why
	Operator  Kind = "operator"  // what a person did to messages (hold, release, retry, delete, bounce) or accounts
)

// Kinds are all kinds, in the order of a message's life.
var Kinds = []Kind{
	Refused, AuthFail, Rejected, Accepted, Attempt, Delivered, Deferred, Failed, Unclear, Report, Operator,
}

// IsRefusal reports whether events of this kind are refusals, which clients can cause at will.
func (k Kind) IsRefusal() bool { return k == Refused || k == AuthFail || k == Rejected }

// Event is one row of the trace. Only Time and Kind are always set.
type Event struct {
	Time      time.Time     `json:"time"`
	Kind      Kind          `json:"kind"`
	ID        string        `json:"id,omitempty"`      // message
	Session   string        `json:"session,omitempty"` // client connection
	Listener  string        `json:"listener,omitempty"`
	Client    string        `json:"client,omitempty"` // its address
	TLS       string        `json:"tls,omitempty"`    // version that it speaks, of Accepted and AuthFail
	Hello     string        `json:"hello,omitempty"`  // what it calls itself, at listeners for old devices
	Login     string        `json:"login,omitempty"`
	From      string        `json:"from,omitempty"`   // reverse-path
	Author    string        `json:"author,omitempty"` // header author
	To        string        `json:"to,omitempty"`     // forward-path
	MessageID string        `json:"message_id,omitempty"`
	Size      int64         `json:"size,omitempty"` // octets
	Upstream  string        `json:"upstream,omitempty"`
	Identity  string        `json:"identity,omitempty"`
	Class     string        `json:"class,omitempty"`  // mail.Class of an outcome
	Stage     string        `json:"stage,omitempty"`  // mail.Stage of an outcome
	Rule      string        `json:"rule,omitempty"`   // reply rule that decided the class; "none": no rule matched
	Reply     mail.Reply    `json:"reply,omitzero"`   // ours to the client, or the upstream's to us
	Detail    string        `json:"detail,omitempty"` // one plain sentence
	Attempt   int           `json:"attempt,omitempty"`
	Took      time.Duration `json:"took_ns,omitempty"`

	// For metrics and statistics: not stored.
	Age    time.Duration `json:"-"` // of the message
	Octets int64         `json:"-"` // delivered: the message's, once for each upstream that took it in an attempt
	Rcpts  *Rcpts        `json:"-"` // accepted: whom the message is to
}

// Rcpts are the recipients of a message. An Event has a pointer to them, so that it can be compared.
type Rcpts struct {
	Domains []string // of each recipient
}

// Has reports whether the reply, the detail or the Message-ID of an event contains a text.
func (e *Event) Has(text string) bool {
	return strings.Contains(e.Reply.String(), text) ||
		strings.Contains(e.Detail, text) || strings.Contains(e.MessageID, text)
}

// Query selects events. Zero fields select everything.
type Query struct {
	ID, Session, Login, From, To string // exact; From and To also as "*@domain"
	Kinds                        []Kind
	Text                         string // exact, in Reply, Detail or MessageID; scans all events of the period
	Since, Until                 time.Time
	Limit                        int // 0: 200
}
