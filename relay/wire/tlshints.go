package wire

import (
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// With Auto the greeting waits until it is clear that no ClientHello will come. A client sends its ClientHello right
// after the ACK that completes the TCP handshake, so the round trip does not count: only the client's own slowness
// does, and lost segments. Clients on a computer need 0.1 to 32 ms (openssl, curl, msmtp, Python, swaks); embedded
// processors need ten times as long.
const (
	firstWait = 500 * time.Millisecond // for a new address, or one that has begun with TLS
	helloWait = 3 * time.Second        // for Implicit: longer than the retransmission of a lost segment
	knownWait = 150 * time.Millisecond // for an address that has only ever used STARTTLS
	// maxTLSHints bounds the addresses that a listener remembers, to about half a megabyte.
	maxTLSHints = 4096
)

// tlsHints remembers whether the clients at an address begin with TLS. If some do, they decide for all: a plaintext
// greeting would break their connections, and a longer wait breaks nothing.
type tlsHints struct {
	withTLS *lru.Cache[netip.Prefix, bool]
}

func newTLSHints() tlsHints {
	c, err := lru.New[netip.Prefix, bool](maxTLSHints)
	if err != nil {
		panic(err) // only for a size below one
	}
	return tlsHints{c}
}

// wait is how long to wait for a ClientHello from an address; never more than longest.
func (b tlsHints) wait(origin netip.Prefix, longest time.Duration) time.Duration {
	if withTLS, known := b.withTLS.Get(origin); known && !withTLS {
		return min(longest, knownWait)
	}
	return longest
}

// sawTLS notes a client that began with TLS, in time or too late.
func (b tlsHints) sawTLS(origin netip.Prefix) { b.withTLS.Add(origin, true) }

// sawStartTLS notes a client that waited for the greeting and then used STARTTLS.
func (b tlsHints) sawStartTLS(origin netip.Prefix) { b.withTLS.ContainsOrAdd(origin, false) }
