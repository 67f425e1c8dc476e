package wire

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"postern/mail"
)

// An address with no more than fairShare connections before login is no crowd: a mail program opens two or three. One
// with more than a part of all places is, whoever has logged in from there. For newcomers of the same address one
// makes room that has not logged in for staleAge.
const (
	fairShare  = 4
	crowdPart  = 4
	staleAge   = 3 * time.Second
	maxInsider = 4096 // addresses remembered because of a login, about half a megabyte
)

// halfOpen has the connections that have not got past TLS and login. They have places of their own, so that no flood
// of them shuts out who has. When all are taken one makes room for the next, and not the newest: otherwise who came
// first would keep everybody else out until auth_timeout. See docs/decisions/0015-half-open.md for which.
type halfOpen struct {
	mu       sync.Mutex
	order    list.List // of *stranger, the oldest first
	crowd    map[netip.Prefix]int
	insiders *lru.Cache[netip.Prefix, struct{}] // where logins came from
}

// stranger is a connection before its login. Its fields belong to halfOpen.mu.
type stranger struct {
	conn    *Conn
	origin  netip.Prefix
	since   time.Time
	secured bool // past the TLS handshake
	busy    bool // its credentials are being looked at
	insider bool
	at      *list.Element // nil once it has left
}

func newHalfOpen() *halfOpen {
	c, err := lru.New[netip.Prefix, struct{}](maxInsider)
	if err != nil {
		panic(err) // for a size below one only
	}
	return &halfOpen{crowd: make(map[netip.Prefix]int), insiders: c}
}

// enter takes a place for a connection that was accepted. It returns the connection that has to go for it, nil while
// there is room, and false where this one has to.
func (h *halfOpen) enter(c *Conn, now time.Time, limit int) (goes *Conn, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := c.stranger
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

// worstLocked returns who goes first when s has come, nil if s does: of the addresses that nobody logged in from, or
// that have more than their part, one of the address with the most; without TLS before with it; the oldest.
func (h *halfOpen) worstLocked(limit int, s *stranger) *stranger {
	var worst *stranger
	most := -1
	for e := h.order.Front(); e != nil; e = e.Next() {
		o := e.Value.(*stranger)
		if o == s || o.busy {
			continue
		}
		if weight := h.weightLocked(o, limit); weight > most {
			worst, most = o, weight
		}
	}
	const tls = 1 // s has had no time for it
	if worst == nil || h.weightLocked(s, limit)&^tls > most&^tls {
		return nil
	}
	return worst
}

// weightLocked orders strangers: the heavier goes first.
func (h *halfOpen) weightLocked(s *stranger, limit int) int {
	weight, crowd := 0, h.crowd[s.origin]
	if !s.insider || crowd > max(limit/crowdPart, fairShare) {
		weight |= 1 << 30
	}
	if crowd > fairShare {
		weight |= min(crowd, 1<<20) << 1
	}
	if !s.secured {
		weight |= 1
	}
	return weight
}

// placeLocked puts a stranger at the end of the line, as one of an address.
func (h *halfOpen) placeLocked(s *stranger, origin netip.Prefix) {
	s.origin, s.insider = origin, h.insiders.Contains(origin)
	h.crowd[origin]++
	s.at = h.order.PushBack(s)
}

func (h *halfOpen) removeLocked(s *stranger) bool {
	if s.at == nil {
		return false
	}
	h.order.Remove(s.at)
	s.at = nil
	if h.crowd[s.origin]--; h.crowd[s.origin] == 0 {
		delete(h.crowd, s.origin)
	}
	return true
}

// rename counts a stranger for the address that a PROXY header named.
func (h *halfOpen) rename(s *stranger, origin netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if origin != s.origin && h.removeLocked(s) {
		h.placeLocked(s, origin)
	}
}

// stale takes the oldest of an address out that had its time, nil if there is none.
func (h *halfOpen) stale(origin netip.Prefix, now time.Time) *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	for e := h.order.Front(); e != nil; e = e.Next() {
		s := e.Value.(*stranger)
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

func (h *halfOpen) secured(s *stranger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.secured = true
}

func (h *halfOpen) busy(s *stranger, busy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.busy = busy
}

// admit takes a stranger out who is one no more, and remembers its address. False: it had to go meanwhile.
func (h *halfOpen) admit(s *stranger) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.insiders.Add(s.origin, struct{}{})
	return h.removeLocked(s)
}

func (h *halfOpen) leave(s *stranger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(s)
}

// makeRoom ends a connection before its login, from outside: whatever it waits for returns.
func (c *Conn) makeRoom() {
	c.ousted.Store(true)
	c.sock.SetReadDeadline(time.Unix(1, 0))
}

// oustedRefusal says that another connection needed the place. In clear before TLS, and in TLS, the client reads it.
func (c *Conn) oustedRefusal() *refusal {
	return refuse(ReasonLimit, mail.R(421, "4.7.0", "too many connections are waiting to log in; connect again"),
		"other connections needed the place of this one, which had not logged in; see max_unauthenticated and max_connections_per_ip")
}

// enterInside gives a connection that is past TLS and login a place among those that are, once.
func (c *Conn) enterInside() error {
	if c.inside || !c.admitted() {
		return nil
	}
	if !c.srv.half.admit(c.stranger) {
		return c.oustedRefusal()
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
