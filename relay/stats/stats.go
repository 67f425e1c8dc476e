// Package stats counts what becomes of mail: by login, listener, upstream, sender domain and recipient domain, by the
// hour and by the day. Each of these is a dimension of its own; there is no cube of them. Days are those of UTC.
//
// Failure semantics: counting never holds up mail and never fails. Sums are kept in memory and added to the store each
// FlushEvery; a process that is killed loses those since the last time, nothing else does. What the store refuses is
// kept and tried again. Whatever an outsider can name is bounded: of each dimension an hour has MaxKeys keys, and what
// has none is counted under Other, so that totals stay right.
package stats

import (
	"fmt"
	"strings"

	"postern/mail"
)

// Dimension is by what is counted. The numbers stand in the store.
type Dimension uint8

// The dimensions. All is for queries: the sums of a dimension that knows everything.
const (
	All Dimension = iota
	Login
	Listener
	Upstream
	SenderDomain
	RecipientDomain
)

// Dimensions are those that are counted.
var Dimensions = []Dimension{Login, Listener, Upstream, SenderDomain, RecipientDomain}

var dimensionNames = []string{"all", "login", "listener", "upstream", "sender-domain", "recipient-domain"}

// String returns the name of a dimension, as ParseDimension reads it.
func (d Dimension) String() string {
	if int(d) < len(dimensionNames) {
		return dimensionNames[d]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (d Dimension) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// DimensionNames are what ParseDimension reads.
func DimensionNames() []string { return dimensionNames }

// ParseDimension reads the name of a dimension.
func ParseDimension(s string) (Dimension, error) {
	for i, name := range dimensionNames {
		if s == name {
			return Dimension(i), nil
		}
	}
	return All, fmt.Errorf("%q is nothing to count by; there are %s", s, strings.Join(dimensionNames, ", "))
}

// Keys that are no name of anything.
const (
	Other   = "*" // everything that had no room for a key of its own
	Nothing = ""  // no login (our own reports, clients that have not logged in), null reverse-path, no recipient yet
)

// Bounds of what is counted.
const (
	MaxKeys = 2000 // of a dimension in an hour, and in a day, beside Other
	maxKey  = 100  // octets of a key; a longer one is cut
)

// refusalKeys is how many keys there may be for a refusal to get a new one: who is refused cannot crowd out who sends.
const refusalKeys = MaxKeys / 2

// Key makes a key of what may be hostile text.
func Key(s string) string {
	s = mail.Printable(s)
	if len(s) > maxKey {
		s = mail.Cut(s, maxKey-len("..."))
	}
	return s
}

// DomainKey is the key of an address: its domain, in lower case.
func DomainKey(address string) string {
	domain := address[strings.LastIndexByte(address, '@')+1:]
	return Key(strings.ToLower(domain))
}

// Cell is what a sum is of.
type Cell struct {
	Hour int64 // since 1970, UTC
	By   Dimension
	Key  string
}

// Sum is what was counted for a cell.
type Sum struct {
	Cell
	Counts
}

// Counts is what is counted. A recipient of a message counts once for each thing that happens to it.
type Counts struct {
	// Messages were answered 250. By recipient domain, a message counts once for each of its domains.
	Messages int64 `json:"messages"`
	// Recipients are those of Messages.
	Recipients int64 `json:"recipients"`
	// Octets are those of Messages; by upstream, of messages delivered, once for each message that it took.
	Octets int64 `json:"octets"`
	// Refused are MAIL, RCPT and messages that we answered 4yz or 5yz.
	Refused int64 `json:"refused"`
	// LoginsRefused are those of clients, under the login that they claim.
	LoginsRefused int64 `json:"logins_refused"`
	// SessionsRefused are connections turned away before any message.
	SessionsRefused int64 `json:"sessions_refused"`
	// Delivered are recipients that an upstream took.
	Delivered int64 `json:"delivered"`
	// Deferrals are attempts for a recipient that will be repeated, by whose fault it was: nobody's lasting one, the
	// account's at the upstream, or none because the upstream is slow or cannot be reached.
	Deferrals     int64 `json:"deferrals"`
	AccountFaults int64 `json:"account_faults"`
	BackPressure  int64 `json:"back_pressure"`
	// RecipientFaults and MessageFaults are recipients given up because the upstream refuses them, or the message.
	RecipientFaults int64 `json:"recipient_faults"`
	MessageFaults   int64 `json:"message_faults"`
	// GivenUp are recipients whose time was over, or that a person gave up.
	GivenUp int64 `json:"given_up"`
	// Unclear are recipients given up without knowing whether the upstream has them.
	Unclear int64 `json:"unclear"`
	// Times are those from accept to delivery, one for each recipient.
	Times Histogram `json:"-"`
}

// fields are the numbers, in the order in which they are stored: new ones come last.
func (c *Counts) fields() [14]*int64 {
	return [...]*int64{
		&c.Messages, &c.Recipients, &c.Octets, &c.Refused, &c.LoginsRefused, &c.SessionsRefused, &c.Delivered,
		&c.Deferrals, &c.AccountFaults, &c.BackPressure, &c.RecipientFaults, &c.MessageFaults, &c.GivenUp, &c.Unclear,
	}
}

// Add adds others.
func (c *Counts) Add(o *Counts) {
	mine, theirs := c.fields(), o.fields()
	for i := range mine {
		*mine[i] += *theirs[i]
	}
	c.Times.Add(&o.Times)
}

// Deferred returns how many attempts for a recipient will be repeated.
func (c *Counts) Deferred() int64 { return c.Deferrals + c.AccountFaults + c.BackPressure }

// Failed returns how many recipients were given up, but for unclear ones.
func (c *Counts) Failed() int64 { return c.RecipientFaults + c.MessageFaults + c.GivenUp }

// BounceRate returns which part of the recipients that are done with failed; ok is false if none is.
func (c *Counts) BounceRate() (rate float64, ok bool) {
	done := c.Delivered + c.Failed()
	if done == 0 {
		return 0, false
	}
	return float64(c.Failed()) / float64(done), true
}

// Volume is how much happened, to sort by.
func (c *Counts) Volume() int64 {
	return c.Messages + c.Recipients + c.Delivered + c.Deferred() + c.Failed() + c.Unclear + c.refusals()
}

func (c *Counts) refusals() int64 { return c.Refused + c.LoginsRefused + c.SessionsRefused }

// KeysFor is how many keys of its hour or day there may be at most for these counts to get a new one.
func (c *Counts) KeysFor() int {
	if c.Volume() == c.refusals() {
		return refusalKeys
	}
	return MaxKeys
}

// Equal reports whether everything counted is the same.
func (c *Counts) Equal(o *Counts) bool {
	mine, theirs := c.fields(), o.fields()
	for i := range mine {
		if *mine[i] != *theirs[i] {
			return false
		}
	}
	return c.Times.Equal(&o.Times)
}
