package auth

import (
	"net/netip"
	"slices"
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
	// placesOfLogin is how many networks must send wrong passwords before a login is locked for clients that are not
	// known with it. Each network fills at most that fraction of the counter: nobody locks others out alone.
	placesOfLogin = 3
	// wideFactor times as many wrong passwords fill the counter of an IPv6 /48, which may be all of one person.
	wideFactor = 4
	// restartFactor times as many fill that of a pair that was used before the process began and not since: its right
	// password is not known any more, and would be refused with the wrong ones.
	restartFactor = 10
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
	seen     []failure
	until    time.Time // locked until then
	failures int       // that locked it
	stored   bool      // the memory that outlives us has the lock
}

type failure struct {
	credential uint64 // of its HMAC
	at         time.Time
	from       netip.Prefix // the network; in the counters of logins only
}

// goodPair is a pair that logged in; only a success makes one, so no outsider can fill the map.
type goodPair struct {
	counter
	at     time.Time // of the last success
	saved  time.Time // at, as the memory that outlives us has it
	before bool      // it was used before the process began, and not since
}

// lockout holds the counters. Its methods take now and are safe for concurrent use.
type lockout struct {
	mu sync.Mutex // guards all below
	Lockout
	clients *simplelru.LRU[netip.Prefix, *counter]
	logins  *simplelru.LRU[string, *counter]
	pairs   *simplelru.LRU[pair, *goodPair]
	memory  memory
}

func newLockout(l Lockout) *lockout {
	return &lockout{
		memory:  newMemory(),
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

// networkOf is the part of an address that stands for one network: IPv4 /32, IPv6 /48 (RFC 6177: a site may have that
// much).
func networkOf(place netip.Prefix) netip.Prefix {
	if !place.IsValid() || place.Addr().Is4() {
		return place
	}
	p, _ := place.Addr().Prefix(48)
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
	for _, place := range placesOf(client) {
		if c, ok := l.clients.Get(place); ok {
			until = later(until, c.lockedUntil(now))
		}
	}
	if c, ok := l.logins.Get(login); ok {
		until = later(until, c.lockedUntil(now))
	}
	return until
}

// placesOf are those that a client's failures count for.
func placesOf(client netip.Prefix) []netip.Prefix {
	if wide := networkOf(client); wide != client {
		return []netip.Prefix{client, wide}
	}
	return []netip.Prefix{client}
}

// failed counts a wrong credential and returns the locks that it caused.
func (l *lockout) failed(now time.Time, login string, client netip.Prefix, credential uint64) []Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Failures <= 0 {
		return nil
	}
	f := failure{credential: credential, at: now}
	if g := l.goodLocked(now, login, client); g != nil {
		most := l.Failures
		if g.before {
			most *= restartFactor
		}
		return l.countLocked(&g.counter, f, most, Lock{Login: login, Client: client})
	}
	locks := l.countPlacesLocked(f, client)
	f.from = networkOf(client)
	return append(locks, l.countSpreadLocked(counterOf(l.logins, login), f, Lock{Login: login})...)
}

// failedAt counts a wrong credential that belongs to no login.
func (l *lockout) failedAt(now time.Time, client netip.Prefix, credential uint64) []Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Failures <= 0 {
		return nil
	}
	return l.countPlacesLocked(failure{credential: credential, at: now}, client)
}

func (l *lockout) countPlacesLocked(f failure, client netip.Prefix) (locks []Lock) {
	for _, place := range placesOf(client) {
		most := l.Failures
		if place != client {
			most *= wideFactor
		}
		locks = append(locks, l.countLocked(counterOf(l.clients, place), f, most, Lock{Client: place})...)
	}
	return locks
}

// countLocked counts a failure, once however often its credential comes; so many are too many.
func (l *lockout) countLocked(c *counter, f failure, most int, lock Lock) []Lock {
	if !c.add(l.Window, f) || len(c.seen) < most {
		return nil
	}
	return l.lockLocked(c, f.at, lock)
}

// countSpreadLocked counts a failure of a login that is not known with its client. Of one network only so many count
// that it takes several of them to fill the counter.
func (l *lockout) countSpreadLocked(c *counter, f failure, lock Lock) []Lock {
	if !c.add(l.Window, f) {
		return nil
	}
	each := (l.Failures + placesOfLogin - 1) / placesOfLogin
	from := make(map[netip.Prefix]int, len(c.seen))
	for i := len(c.seen) - 1; i >= 0; i-- { // the oldest of a network give way
		if n := c.seen[i].from; from[n] < each {
			from[n]++
		} else {
			c.seen = slices.Delete(c.seen, i, i+1)
		}
	}
	if len(c.seen) < l.Failures || len(from) < placesOfLogin {
		return nil
	}
	return l.lockLocked(c, f.at, lock)
}

// lockLocked fills a counter.
func (l *lockout) lockLocked(c *counter, now time.Time, lock Lock) []Lock {
	lock.Failures, lock.Until = len(c.seen), now.Add(l.Duration)
	c.seen, c.until, c.stored = nil, lock.Until, false
	c.failures = lock.Failures
	l.memory.lockChanged(lock.key())
	return []Lock{lock}
}

// succeeded remembers that login was used from client.
func (l *lockout) succeeded(now time.Time, login string, client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := pair{login, client}
	g := l.goodLocked(now, login, client)
	if g == nil {
		g = &goodPair{}
		l.pairs.Add(key, g)
	}
	g.at, g.before = now, false
	if now.Sub(g.saved) > saveEvery {
		l.memory.pairChanged(key)
	}
}

// forget empties the counters of a login, because a person changed it. Addresses stay locked.
func (l *lockout) forget(login string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logins.Remove(login)
	l.memory.lockChanged(pair{login: login})
	for _, key := range l.pairs.Keys() {
		if g, ok := l.pairs.Peek(key); ok && key.login == login {
			g.counter = counter{}
			l.memory.lockChanged(key)
		}
	}
}

// isKnown reports whether login was used from client, so that their failures count for the two alone.
func (l *lockout) isKnown(now time.Time, login string, client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.goodLocked(now, login, client) != nil
}

func (l *lockout) goodLocked(now time.Time, login string, client netip.Prefix) *goodPair {
	key := pair{login, client}
	g, ok := l.pairs.Get(key)
	if !ok {
		if g = l.memory.recall(key); g == nil {
			return nil
		}
		l.pairs.Add(key, g)
	}
	if now.Sub(g.at) <= recent {
		return g
	}
	l.pairs.Remove(key)
	if g = l.memory.recall(key); g == nil || now.Sub(g.at) > recent { // used elsewhere since?
		return nil
	}
	l.pairs.Add(key, g)
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

// add counts a credential, once however often it comes, and reports whether it did.
// While it is locked nothing is counted: what is refused unseen is no failure.
func (c *counter) add(window time.Duration, f failure) bool {
	if c.until.After(f.at) {
		return false
	}
	kept := c.seen[:0]
	for _, old := range c.seen {
		if old.credential != f.credential && f.at.Sub(old.at) < window {
			kept = append(kept, old)
		}
	}
	c.seen, c.stored = append(kept, f), false
	return true
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
