package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"maps"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// The lockout outlives the process where the caller stores what Unsaved returns and passes it to Restore at the next
// start: from where logins were used, so that guesses after a restart lock out no user, and the locks, so that the
// command line can show and lift them. Processes that share a store share both by Learn; each counts failures alone.

// saveEvery is how precisely the time of the last login from a place is saved: a login used all day costs few writes.
const saveEvery = 6 * time.Hour

// PlaceKeyName and PlaceKeySize are of the install secret that places are hashed with.
const (
	PlaceKeyName = "lockout-places"
	PlaceKeySize = 32
)

// Place says that some login was used from some address, without telling which to whoever reads the store.
type Place struct {
	Digest [16]byte
	At     time.Time // of the last success
}

// memory is the part of the lockout that outlives the process. The mutex of the lockout guards it.
type memory struct {
	key    []byte
	before map[[16]byte]time.Time // pairs of a former life and of other processes, until they are met
	pairs  map[pair]struct{}      // used since they were saved
	// begun or ended since they were saved; without a login an address, without an address a login
	locks map[pair]struct{}
}

func newMemory() memory {
	key := make([]byte, PlaceKeySize)
	rand.Read(key) // never fails
	return memory{key: key, pairs: map[pair]struct{}{}, locks: map[pair]struct{}{}}
}

func (m *memory) digest(p pair) (d [16]byte) {
	mac := hmac.New(sha256.New, m.key)
	mac.Write([]byte(p.client.String() + " " + p.login))
	copy(d[:], mac.Sum(nil))
	return d
}

// recall returns a pair of a former life, or one that another process has met.
func (m *memory) recall(p pair) *goodPair {
	if len(m.before) == 0 {
		return nil
	}
	d := m.digest(p)
	at, ok := m.before[d]
	if !ok {
		return nil
	}
	delete(m.before, d)
	return &goodPair{at: at, saved: at, before: true}
}

// The bounds matter only while nothing can be saved.
func (m *memory) pairChanged(p pair) {
	if len(m.pairs) < maxPairs {
		m.pairs[p] = struct{}{}
	}
}

func (m *memory) lockChanged(p pair) {
	if len(m.locks) < maxPairs {
		m.locks[p] = struct{}{}
	}
}

func (l Lock) key() pair { return pair{l.Login, l.Client} }

// Restore takes over what a former process knew, under the key that it was hashed with. A lock lasts no longer than one
// of now: the clock may have been ahead when it was made.
func (a *Authenticator) Restore(key []byte, places []Place, locks []Lock, now time.Time) {
	l := a.lockout
	l.mu.Lock()
	defer l.mu.Unlock()
	l.memory.key, l.memory.before = key, make(map[[16]byte]time.Time, len(places))
	for _, p := range places {
		l.memory.before[p.Digest] = p.At
	}
	for _, lock := range locks {
		if c := l.counterLocked(lock.key(), true); c != nil {
			c.until, c.failures, c.stored = until(lock.Until, now.Add(l.Duration)), lock.Failures, true
		}
	}
}

// Learn takes over what other processes have saved since: from where logins are used, and locks. What is known here
// stays, and so does what was changed here and is not saved yet.
func (a *Authenticator) Learn(places []Place, locks []Lock) {
	l, now := a.lockout, time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.memory.learn(places, now)
	for _, lock := range locks {
		if _, changed := l.memory.locks[lock.key()]; changed {
			continue
		}
		end := until(lock.Until, now.Add(l.Duration))
		if c := l.counterLocked(lock.key(), end.After(now)); c != nil && end.After(later(c.until, now)) {
			c.seen, c.until, c.failures, c.stored = nil, end, lock.Failures, true
		}
	}
}

// learn adds pairs that others met.
func (m *memory) learn(places []Place, now time.Time) {
	if len(places) == 0 {
		return
	}
	if m.before == nil {
		m.before = make(map[[16]byte]time.Time)
	}
	maps.DeleteFunc(m.before, func(_ [16]byte, at time.Time) bool { return now.Sub(at) > recent })
	for _, p := range places {
		if at, ok := m.before[p.Digest]; ok || len(m.before) < maxPairs {
			m.before[p.Digest] = later(at, p.At)
		}
	}
}

// HasNewLocks reports whether a lock has begun or ended that is not saved yet: other processes wait for it.
func (a *Authenticator) HasNewLocks() bool {
	a.lockout.mu.Lock()
	defer a.lockout.mu.Unlock()
	return len(a.lockout.memory.locks) > 0
}

func until(a, bound time.Time) time.Time {
	if a.After(bound) {
		return bound
	}
	return a
}

// counterLocked finds the counter of a lock; with make, it is there afterwards.
func (l *lockout) counterLocked(k pair, make bool) *counter {
	switch {
	case k.login != "" && k.client.IsValid():
		g, ok := l.pairs.Peek(k)
		if !ok && make {
			if g = l.memory.recall(k); g != nil {
				l.pairs.Add(k, g)
			}
		}
		if g == nil {
			return nil
		}
		return &g.counter
	case k.login != "":
		return peek(l.logins, k.login, make)
	}
	return peek(l.clients, k.client, make)
}

func peek[K comparable](lru *simplelru.LRU[K, *counter], key K, make bool) *counter {
	if make {
		return counterOf(lru, key)
	}
	c, _ := lru.Peek(key)
	return c
}

// Unsaved is what has changed since it was last asked for.
type Unsaved struct {
	Places []Place
	Locks  []Lock // with Until zero where it has ended
	pairs  []pair // of Places
}

// Empty reports that there is nothing to save.
func (u Unsaved) Empty() bool { return len(u.Places)+len(u.Locks) == 0 }

// Unsaved returns what is to be remembered. If that fails, Again has it returned with the next.
func (a *Authenticator) Unsaved() Unsaved { return a.lockout.unsaved(time.Now()) }

func (l *lockout) unsaved(now time.Time) (u Unsaved) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.memory.pairs {
		if g, ok := l.pairs.Peek(k); ok {
			u.Places = append(u.Places, Place{l.memory.digest(k), g.at})
			u.pairs = append(u.pairs, k)
			g.saved = g.at
		}
	}
	for k := range l.memory.locks {
		lock := Lock{Login: k.login, Client: k.client}
		if c := l.counterLocked(k, false); c != nil && c.until.After(now) {
			lock.Until, lock.Failures = c.until, c.failures
		}
		u.Locks = append(u.Locks, lock)
	}
	clear(l.memory.pairs)
	clear(l.memory.locks)
	return u
}

// Saved says that the locks are where others see them: from now on one that is gone there is lifted.
func (a *Authenticator) Saved(u Unsaved) {
	l := a.lockout
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lock := range u.Locks {
		if c := l.counterLocked(lock.key(), false); c != nil && c.until.Equal(lock.Until) {
			c.stored = true
		}
	}
}

// Again takes back what could not be saved.
func (a *Authenticator) Again(u Unsaved) {
	l := a.lockout
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lock := range u.Locks {
		l.memory.lockChanged(lock.key())
	}
	for _, k := range u.pairs {
		l.memory.pairChanged(k)
	}
}

// KeepLocks lifts the locks that were saved and are no longer among those kept, because a person has lifted them, and
// returns them.
func (a *Authenticator) KeepLocks(kept []Lock) (lifted []Lock) {
	l, now := a.lockout, time.Now()
	there := make(map[pair]bool, len(kept))
	for _, lock := range kept {
		there[lock.key()] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lift := func(k pair, c *counter) {
		if c.stored && !there[k] {
			if c.until.After(now) {
				lifted = append(lifted, Lock{Login: k.login, Client: k.client, Until: c.until, Failures: c.failures})
			}
			*c = counter{}
		}
	}
	for _, k := range l.clients.Keys() {
		if c, ok := l.clients.Peek(k); ok {
			lift(pair{client: k}, c)
		}
	}
	for _, k := range l.logins.Keys() {
		if c, ok := l.logins.Peek(k); ok {
			lift(pair{login: k}, c)
		}
	}
	for _, k := range l.pairs.Keys() {
		if g, ok := l.pairs.Peek(k); ok {
			lift(k, &g.counter)
		}
	}
	return lifted
}
