package autoconfig

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Bounds of what one client may ask: a whole office behind one address opens its mail programs in the morning, and each
// of them asks four times.
const (
	burst      = 120
	perSecond  = 2
	maxClients = 4096
)

// clients counts requests by address. The one that has been silent longest is forgotten first.
type clients struct {
	mu  sync.Mutex // guards all
	all *simplelru.LRU[netip.Prefix, *rate.Limiter]
}

func newClients() *clients {
	all, err := simplelru.NewLRU[netip.Prefix, *rate.Limiter](maxClients, nil)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &clients{all: all}
}

// allow reports whether a client may ask once more.
func (c *clients) allow(remote string, now time.Time) bool {
	key := clientOf(remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	limiter, ok := c.all.Get(key)
	if !ok {
		limiter = rate.NewLimiter(perSecond, burst)
		c.all.Add(key, limiter)
	}
	return limiter.AllowN(now, 1)
}

// clientOf is the address of a client, of IPv6 its /64. What is no address shares one count.
func clientOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // it is not longer than the address
	return prefix
}
