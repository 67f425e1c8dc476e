package auth

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Lockout is [auth.lockout]. Failures 0 switches it off.
type Lockout struct {
	Failures int           // distinct wrong passwords that fill a counter
	Window   time.Duration // in which they are counted
	Duration time.Duration // how long a full counter locks
}

const (
	maxCounters = 16384
	maxPairs    = 32768
	// recent is how long a login counts as used from an address.
	recent = 7 * 24 * time.Hour
)

// Lock is a counter that has become full.
type Lock struct {
	Login  string       // "" when an address is locked for all logins
	Client netip.Prefix // invalid when a login is locked for all who are not known with it
	Until  time.Time
	// Failures is how many distinct wrong passwords it took.
	Failures int
}

// pair is a login used from an address.
type pair struct {
	login  string
	client netip.Prefix
}

// counter counts distinct wrong credentials.
type counter struct {
	seen  []failure
	until time.Time // locked until then
}

type failure struct {
	credential uint64 // of its HMAC
	at         time.Time
}

// goodPair is a pair that logged in; only a success makes one, so no outsider can fill the map.
type goodPair struct {
	counter
	at time.Time // of the last success
}

// lockout holds the counters. Its methods take now and are safe for concurrent use.
type lockout struct {
	mu sync.Mutex // guards all below
	Lockout
	clients *simplelru.LRU[netip.Prefix, *counter]
	logins  *simplelru.LRU[string, *counter]
	pairs   *simplelru.LRU[pair, *goodPair]
}

func newLockout(l Lockout) *lockout {
	return &lockout{
		Lockout: l,
		clients: newLRU[netip.Prefix, *counter](maxCounters),
		logins:  newLRU[string, *counter](maxCounters),
		pairs:   newLRU[pair, *goodPair](maxPairs),
	}
}

func newLRU[K comparable, V any](size int) *simplelru.LRU[K, V] {
	l, err := simplelru.NewLRU[K, V](size, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return l
}

// prefixOf is the part of a client's address that stands for one place: IPv4 /32, IPv6 /64.
func prefixOf(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := 64
	if client.Is4() {
		bits = 32
	}
	p, _ := client.Prefix(bits) // an invalid address gives the invalid prefix, which is a place too
	return p
}

// set changes the numbers; what was counted stays.
func (l *lockout) set(to Lockout) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Lockout = to
}

// locked returns until when login is locked for client; the zero time when it is not.
func (l *lockout) locked(now time.Time, login string, client netip.Prefix) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Failures <= 0 {
		return time.Time{}
	}
	if g := l.goodLocked(now, login, client); g != nil {
		return g.lockedUntil(now)
	}
	var until time.Time
	if c, ok := l.clients.Get(client); ok {
		until = c.lockedUntil(now)
	}
	if c, ok := l.logins.Get(login); ok {
		until = later(until, c.lockedUntil(now))
	}
	return until
}

// failed counts a wrong credential and returns the locks that it caused.
func (l *lockout) failed(now time.Time, login string, client netip.Prefix, credential uint64) []Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Failures <= 0 {
		return nil
	}
	if g := l.goodLocked(now, login, client); g != nil {
		if g.add(l.Lockout, now, credential) {
			return []Lock{{Login: login, Client: client, Until: g.until, Failures: l.Failures}}
		}
		return nil
	}
	var locks []Lock
	if c := counterOf(l.clients, client); c.add(l.Lockout, now, credential) {
		locks = append(locks, Lock{Client: client, Until: c.until, Failures: l.Failures})
	}
	if c := counterOf(l.logins, login); c.add(l.Lockout, now, credential) {
		locks = append(locks, Lock{Login: login, Until: c.until, Failures: l.Failures})
	}
	return locks
}

// succeeded remembers that login was used from client.
func (l *lockout) succeeded(now time.Time, login string, client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := pair{login, client}
	if g, ok := l.pairs.Get(key); ok {
		g.at = now
		return
	}
	l.pairs.Add(key, &goodPair{at: now})
}

// forget empties the counters of a login, because a person changed it. Addresses stay locked.
func (l *lockout) forget(login string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logins.Remove(login)
	for _, key := range l.pairs.Keys() {
		if g, ok := l.pairs.Peek(key); ok && key.login == login {
			g.counter = counter{}
		}
	}
}

func (l *lockout) goodLocked(now time.Time, login string, client netip.Prefix) *goodPair {
	key := pair{login, client}
	g, ok := l.pairs.Get(key)
	if !ok {
		return nil
	}
	if now.Sub(g.at) > recent {
		l.pairs.Remove(key)
		return nil
	}
	return g
}

func counterOf[K comparable](lru *simplelru.LRU[K, *counter], key K) *counter {
	c, ok := lru.Get(key)
	if !ok {
		c = &counter{}
		lru.Add(key, c)
	}
	return c
}

func (c *counter) lockedUntil(now time.Time) time.Time {
	if c.until.After(now) {
		return c.until
	}
	return time.Time{}
}

// add counts a credential, once however often it comes, and reports whether the counter became full.
// While it is locked nothing is counted: what is refused unseen is no failure.
func (c *counter) add(l Lockout, now time.Time, credential uint64) (full bool) {
	if c.until.After(now) {
		return false
	}
	kept := c.seen[:0]
	for _, f := range c.seen {
		if f.credential != credential && now.Sub(f.at) < l.Window {
			kept = append(kept, f)
		}
	}
	c.seen = append(kept, failure{credential, now})
	if len(c.seen) < l.Failures {
		return false
	}
	c.seen, c.until = nil, now.Add(l.Duration)
	return true
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
