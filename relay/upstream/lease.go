package upstream

import (
	"errors"
	"math"
	"time"

	"postern/mail"
)

// leaseMargin must be left of a lease when the octets go out that complete a message: for them to arrive, for the
// answer, which takes a provider that scans mail up to a minute, and for its commit. Who has the message next cannot
// know of it before.
const leaseMargin = time.Minute

// What is said of a message that was not completed because it may be somebody else's by now.
var (
	ErrLease   = errors.New("the lease of the message ran out")
	ReplyLease = mail.R(451, "4.3.0", "the message was not sent: its lease ran out while this relay was stopped or "+
		"could not reach its store, so that another node may have it")
)

// Spare is for how long the octets that complete the message may still be sent. Where it is not above zero they must
// not: the transport leaves the provider a message without an end, and the attempt ends as a Deferral with ReplyLease
// and ErrLease.
func (t *Transaction) Spare() time.Duration {
	if t.Left == nil {
		return math.MaxInt64
	}
	return t.Left() - leaseMargin
}
