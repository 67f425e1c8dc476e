package wire

import (
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// On a listener with Auto a client that waits for the greeting has to wait until it is clear that it sends no ClientHello. A
// device that begins with TLS sends it right behind the acknowledgement that makes the connection, so the network's round
// trip is no part of the wait: only the device's own slowness is, and a segment that was lost. Clients on a computer need 0.1 to
// 32 ms (openssl, curl, msmtp, Python, swaks); embedded processors are an order of magnitude slower.
const (
	firstWait = 500 * time.Millisecond // while nobody knows how this address begins, or it has begun with TLS
	helloWait = 3 * time.Second        // where all begin with TLS: longer than a lost segment takes to come again
	knownWait = 150 * time.Millisecond // for an address that has only ever asked for STARTTLS
	// maxBeginnings bounds the addresses that a listener remembers, to about half a megabyte.
	maxBeginnings = 4096
)

// beginnings remembers how the clients of an address begin. Several may share one: whoever begins with TLS decides, since a
// greeting in clear breaks its connection and a longer wait breaks nothing.
type beginnings struct {
	withTLS *lru.Cache[netip.Prefix, bool]
}

func newBeginnings() beginnings {
	c, err := lru.New[netip.Prefix, bool](maxBeginnings)
	if err != nil {
		panic(err) // for a size below one only
	}
	return beginnings{c}
}

// wait is how long to wait for a ClientHello from an address, at most longest.
func (b beginnings) wait(origin netip.Prefix, longest time.Duration) time.Duration {
	if withTLS, known := b.withTLS.Get(origin); known && !withTLS {
		return min(longest, knownWait)
	}
	return longest
}

// sawTLS notes a client that began with a ClientHello, in time or too late.
func (b beginnings) sawTLS(origin netip.Prefix) { b.withTLS.Add(origin, true) }

// sawStartTLS notes a client that waited for the greeting and went over to TLS.
func (b beginnings) sawStartTLS(origin netip.Prefix) { b.withTLS.ContainsOrAdd(origin, false) }
