package wire

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"postern/mail"
)

const (
	fairShare   = 4               // connections before login from one address; a mail program opens two or three
	originShare = 4               // the share of all slots, one in so many, above which earlier logins do not protect
	staleAge    = 3 * time.Second // after which a connection may be evicted for another from the same address
	maxTrusted  = 4096            // addresses remembered because of a login, about half a megabyte
)

// halfOpen holds the connections that are not yet past TLS and login. They have slots of their own, so that a flood of
// them does not shut out authenticated clients. When all slots are taken, an older connection is evicted for each new
// one; otherwise those that came first could keep everybody out until auth_timeout. docs/decisions/0015-half-open.md
// says which one.
type halfOpen struct {
	mu        sync.Mutex
	order     list.List // of *slot, oldest first
	perOrigin map[netip.Prefix]int
	trusted   *lru.Cache[netip.Prefix, struct{}] // where logins came from
}

// slot is a connection before its login. halfOpen.mu guards its fields.
type slot struct {
	conn    *Conn
	origin  netip.Prefix
	since   time.Time
	secured bool          // past the TLS handshake
	busy    bool          // its credentials are being checked
	trusted bool          // somebody logged in from its address before
	at      *list.Element // nil once it has left
}

func newHalfOpen() *halfOpen {
	c, err := lru.New[netip.Prefix, struct{}](maxTrusted)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &halfOpen{perOrigin: make(map[netip.Prefix]int), trusted: c}
}

// enter takes a slot for a new connection. It returns the connection to evict for it, nil while there is room, and
// false if c itself must go.
func (h *halfOpen) enter(c *Conn, now time.Time, limit int) (goes *Conn, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := c.slot
	s.since = now
	h.placeLocked(s, originOf(c.client.Addr()))
	if h.order.Len() > limit {
		worst := h.worstLocked(limit, s)
		if worst == nil {
			h.removeLocked(s)
			return nil, false
		}
		h.removeLocked(worst)
		goes = worst.conn
	}
	return goes, true
}

// worstLocked returns the connection to evict for s, nil if s itself must go. Among the addresses without an earlier
// login or above their share it takes the one with most connections; there those without TLS first, then the oldest.
func (h *halfOpen) worstLocked(limit int, s *slot) *slot {
	var worst *slot
	most := -1
	for e := h.order.Front(); e != nil; e = e.Next() {
		o := e.Value.(*slot)
		if o == s || o.busy {
			continue
		}
		if weight := h.weightLocked(o, limit); weight > most {
			worst, most = o, weight
		}
	}
	const tls = 1 // ignored: s had no time for TLS yet
	if worst == nil || h.weightLocked(s, limit)&^tls > most&^tls {
		return nil
	}
	return worst
}

// weightLocked ranks connections: the heaviest is evicted first.
func (h *halfOpen) weightLocked(s *slot, limit int) int {
	weight, perOrigin := 0, h.perOrigin[s.origin]
	if !s.trusted || perOrigin > max(limit/originShare, fairShare) {
		weight |= 1 << 30
	}
	if perOrigin > fairShare {
		weight |= min(perOrigin, 1<<20) << 1
	}
	if !s.secured {
		weight |= 1
	}
	return weight
}

// placeLocked appends a connection to the order and counts it for its address.
func (h *halfOpen) placeLocked(s *slot, origin netip.Prefix) {
	s.origin, s.trusted = origin, h.trusted.Contains(origin)
	h.perOrigin[origin]++
	s.at = h.order.PushBack(s)
}

func (h *halfOpen) removeLocked(s *slot) bool {
	if s.at == nil {
		return false
	}
	h.order.Remove(s.at)
	s.at = nil
	if h.perOrigin[s.origin]--; h.perOrigin[s.origin] == 0 {
		delete(h.perOrigin, s.origin)
	}
	return true
}

// rename moves a connection to the address that a PROXY header gave.
func (h *halfOpen) rename(s *slot, origin netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if origin != s.origin && h.removeLocked(s) {
		h.placeLocked(s, origin)
	}
}

// stale removes and returns the oldest connection of an address that had staleAge to log in; nil if there is none.
func (h *halfOpen) stale(origin netip.Prefix, now time.Time) *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	for e := h.order.Front(); e != nil; e = e.Next() {
		s := e.Value.(*slot)
		if now.Sub(s.since) < staleAge {
			return nil
		}
		if s.origin == origin && !s.busy {
			h.removeLocked(s)
			return s.conn
		}
	}
	return nil
}

func (h *halfOpen) secured(s *slot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.secured = true
}

func (h *halfOpen) busy(s *slot, busy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.busy = busy
}

// admit removes a connection that has logged in, and remembers its address. It reports false if it was evicted
// meanwhile.
func (h *halfOpen) admit(s *slot) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trusted.Add(s.origin, struct{}{})
	return h.removeLocked(s)
}

func (h *halfOpen) leave(s *slot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(s)
}

// evict evicts a connection before its login. Any goroutine may call it: whatever the connection waits for returns.
func (c *Conn) evict() {
	c.evicted.Store(true)
	c.io.sock.SetReadDeadline(time.Unix(1, 0))
}

// evictedRefusal says that another connection needed the slot. The client can read it both before and after TLS.
func (c *Conn) evictedRefusal() *refusal {
	return refuse(ReasonLimit, mail.R(421, "4.7.0", "too many connections are waiting to log in; connect again"),
		"other connections needed the slot of this one, which had not logged in; "+
			"see max_unauthenticated and max_connections_per_ip")
}

// enterInside moves a connection that is past TLS and login to a slot for authenticated ones, once.
func (c *Conn) enterInside() error {
	if c.inside || !c.admitted() {
		return nil
	}
	if !c.srv.half.admit(c.slot) {
		return c.evictedRefusal()
	}
	if !c.srv.counts.enterInside(c.opt.MaxConnections) {
		return c.allTaken()
	}
	c.inside = true
	return nil
}

func (c *Conn) allTaken() *refusal {
	return refuse(ReasonLimit, mail.R(421, "4.7.0", "too many connections, try again later"),
		"all %d connections of listener %s are taken; see max_connections", c.opt.MaxConnections, c.opt.Name)
}
