package wire

import (
	"net/netip"
	"slices"
	"sync"
)

// counts counts connections: all, authenticated, and by origin. Its size is bounded by the number of connections.
type counts struct {
	mu     sync.Mutex
	total  int
	inside int // past TLS and login
	origin map[netip.Prefix]int
}

// originOf returns what counts as one client: an IPv4 address, or the /64 of an IPv6 subscriber.
func originOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.WithZone("").Prefix(bits)
	return p
}

// enter counts a connection unless there are total already, or inside authenticated ones.
func (c *counts) enter(total, inside int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= total || c.inside >= inside {
		return false
	}
	c.total++
	return true
}

// enterInside counts an authenticated connection unless there are limit.
func (c *counts) enterInside(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside >= limit {
		return false
	}
	c.inside++
	return true
}

func (c *counts) leave(inside bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if inside {
		c.inside--
	}
}

// enterFrom counts a connection of an origin unless it has limit.
func (c *counts) enterFrom(p netip.Prefix, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.origin[p] >= limit {
		return false
	}
	if c.origin == nil {
		c.origin = make(map[netip.Prefix]int)
	}
	c.origin[p]++
	return true
}

func (c *counts) leaveFrom(p netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.origin[p]--; c.origin[p] <= 0 {
		delete(c.origin, p)
	}
}

func contains(list []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}
