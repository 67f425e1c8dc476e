// Package keyring is the life of the DKIM keys that the store has: new → published → signing → retiring, and then
// removed. Keys of relay.toml sign from their first day to their last; only their records are watched. It
// knows when a key may sign, when it must be looked for in DNS, and what a person has to do next. DNS is edited by
// hand, so that days may lie between two stages.
//
// Failure semantics: a key signs only once the world can see its record, and the keys that it replaces sign until then.
// A look that DNS does not answer changes nothing: silence is not absence. A key that signs goes on signing when its
// record vanishes, since a signature that does not verify counts as none (RFC 6376 §6.1) and the record may come back;
// people are told. Every change of stages is one transaction on what the store then has, so that two processes, a crash
// between two looks or a late answer do no harm.
package keyring

import (
	"log/slog"
	"strings"
	"time"

	"postern/relay/sign"
)

// Stage is where a key is in its life.
type Stage string

// The stages. A removed key is not in the store any more.
const (
	New       Stage = "new"       // its record is to be published
	Published Stage = "published" // the world sees its record; it will sign
	Signing   Stage = "signing"
	Retiring  Stage = "retiring" // signs no more, but its record must stay for mail on its way
)

// Waits reports that a key of the stage has not signed yet.
func (s Stage) Waits() bool { return s == New || s == Published }

// Found is what a look at DNS found.
type Found string

// What looks find.
const (
	Nothing Found = ""        // nobody has looked
	Seen    Found = "seen"    // the record, everywhere
	Absent  Found = "absent"  // no record, at least somewhere
	Differs Found = "differs" // another record, at least somewhere
	Unknown Found = "unknown" // DNS did not answer
)

// Bounds of a key's life.
const (
	// Stable is for how long a record must have been seen before its key replaces another one. A resolver that asked
	// before it was published may say for so long that there is none: it keeps that for the last number of the zone's
	// SOA, usually an hour at most (RFC 2308 §5). A key that replaces none has nothing to lose and does not wait.
	Stable = time.Hour
	// RetireFor is how long a record must stay after the last signature: signatures of ours are valid for seven days
	// (x=, RFC 6376 §3.5), and a day more forgives clocks that differ.
	RetireFor = 8 * 24 * time.Hour
	// RemindAfter is how long a key may wait for its publication before people are reminded.
	RemindAfter = 3 * 24 * time.Hour
)

// State is a key's stage and what is known of its record.
type State struct {
	Stage      Stage
	Since      time.Time // of the stage
	Looked     time.Time // last look; zero: none
	Silent     bool      // DNS did not answer it
	Found      Found     // by the last look that DNS answered
	FoundSince time.Time // first of the unbroken row of looks that found this
	FoundLast  time.Time // last of them
	Detail     string    // what was found in words, "" for Seen; printable
}

// Key is a DKIM key as it is stored. (Domain, Selector) is what names it.
type Key struct {
	Domain, Selector string
	Algorithm        string    // sign.RSA2048 or sign.Ed25519
	PEM              string    `json:"-"` // the private key: never shown or logged
	Record           string    // of a key of relay.toml, which nobody made here: what is to be published; else ""
	Created          time.Time // zero for a key of relay.toml
	State
}

// String names the key by where its public half is published.
func (k Key) String() string { return k.Selector + "._domainkey." + k.Domain }

// LogValue keeps the private key out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// KeepUntil is until when the record of a retiring key must stay.
func (k *Key) KeepUntil() time.Time { return k.Since.Add(RetireFor) }

// stable reports that the world has seen the record for long enough to replace another key.
func (k *Key) stable() bool {
	return k.Stage == Published && k.Found == Seen && k.FoundLast.Sub(k.FoundSince) >= Stable
}

// same reports that two are one key: a selector may be used again, and another file stand under it.
func (k *Key) same(o *Key) bool {
	return k.Domain == o.Domain && k.Selector == o.Selector && k.Created.Equal(o.Created) && k.Record == o.Record
}

// rivals reports that of two keys only one can sign: a domain signs with one key of each algorithm.
func (k *Key) rivals(o *Key) bool {
	return k.Domain == o.Domain && !k.same(o) && isEd25519(k.Algorithm) == isEd25519(o.Algorithm)
}

// newer reports that k was made after o.
func (k *Key) newer(o *Key) bool {
	if c := k.Created.Compare(o.Created); c != 0 {
		return c > 0
	}
	return strings.Compare(k.Selector, o.Selector) > 0
}

func isEd25519(algorithm string) bool { return algorithm == sign.Ed25519 }
