package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// credential names a login and its password without being either: an HMAC with a key that lives and
// dies with the process.
type credential [sha256.Size]byte

// short is what counters keep of a credential.
func (c credential) short() uint64 { return binary.LittleEndian.Uint64(c[:8]) }

// outside names a right credential that is used where it may not: that is remembered like a wrong one.
func (c credential) outside() credential {
	c[len(c)-1] ^= 0xff
	return c
}

// cache remembers which credentials were right and which were wrong. A right one can be used until it
// runs out; after that the entry still says that the credential was right once, which lets it past a
// lock to be verified again. A flood of wrong ones, each of which costs its sender a hash, displaces
// only other wrong ones.
type cache struct {
	macs          sync.Pool // of hash.Hash, HMAC-SHA-256 with the process's key
	ttl, wrongTTL time.Duration

	mu         sync.Mutex // guards all below
	generation uint64     // raised by forget
	right      *simplelru.LRU[credential, *verified]
	wrong      *simplelru.LRU[credential, *rejected]
	people     *simplelru.LRU[person, *verified] // who logins were when they were met; see outage.go
}

// verified is a credential that was right until expires; zero: only once.
type verified struct {
	login    string
	identity Identity
	expires  time.Time
	at       time.Time // of the verification; zero: no source would say so any more
}

type rejected struct {
	login   string
	reason  error
	expires time.Time
}

func newCache(size int, ttl, wrongTTL time.Duration) *cache {
	c := &cache{
		ttl: ttl, wrongTTL: wrongTTL,
		right: newLRU[credential, *verified](size),
		wrong: newLRU[credential, *rejected](size),

		people: newLRU[person, *verified](size),
	}
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	c.macs.New = func() any { return hmac.New(sha256.New, key) }
	return c
}

// credential computes the name; the length keeps login and password apart. Both have at most MaxLength
// octets.
func (c *cache) credential(login, password string) (sum credential) {
	mac := c.macs.Get().(hash.Hash)
	defer c.macs.Put(mac)
	mac.Reset()
	var buf [4 + 2*MaxLength]byte
	binary.LittleEndian.PutUint32(buf[:], uint32(len(login)))
	n := 4 + copy(buf[4:], login)
	n += copy(buf[n:], password)
	mac.Write(buf[:n])
	clear(buf[:n])
	mac.Sum(sum[:0])
	mac.Reset() // keeps nothing of the password
	return sum
}

// answer is what the cache knows of a credential.
type answer struct {
	identity   Identity
	right      bool   // verified: no need to ask anybody
	once       bool   // was right, must be verified again
	wrong      error  // why it was refused a moment ago
	generation uint64 // for remember
}

func (c *cache) look(now time.Time, cred credential) answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := answer{generation: c.generation}
	if v, ok := c.right.Get(cred); ok {
		a.identity = v.identity
		a.right = now.Before(v.expires)
		a.once = !a.right
	}
	if a.right {
		return a
	}
	if r, ok := c.wrong.Get(cred); ok {
		if now.Before(r.expires) {
			a.wrong = r.reason
		} else {
			c.wrong.Remove(cred)
		}
	}
	return a
}

// remember keeps the outcome of a verification that began at generation. If users changed meanwhile,
// the outcome may be of yesterday's password and is thrown away.
func (c *cache) remember(now time.Time, cred credential, generation uint64, login string, id Identity, reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.generation {
		return
	}
	if reason != nil {
		if errors.Is(reason, ErrWrongPassword) {
			c.right.Remove(cred) // it is an old password, and worth no more than any other
		} else if v, ok := c.right.Peek(cred); ok {
			v.at = time.Time{} // locked or gone
		}
		c.wrong.Add(cred, &rejected{login, reason, now.Add(c.wrongTTL)})
		return
	}
	c.wrong.Remove(cred)
	expires := now.Add(c.ttl)
	if !id.Expires.IsZero() {
		expires = until(expires, id.Expires)
	}
	c.right.Add(cred, &verified{login, id, expires, now})
}

// stale returns the identity of a credential that source, or an app password of one of its people, proved less than
// most ago; app is the ID of that app password, "" if there is none.
func (c *cache) stale(now time.Time, cred credential, source, app string, most time.Duration) (Identity, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.right.Get(cred)
	if !ok || v.identity.App != app || v.at.IsZero() || now.Sub(v.at) >= most {
		return Identity{}, false
	}
	if app == "" && v.identity.Source != source || app != "" && v.identity.behind != source {
		return Identity{}, false
	}
	return v.identity, true
}

// forget makes nothing usable any more of the logins named, whatever they called themselves, of all if none is. That a
// credential was right once is kept: it opens nothing.
func (c *cache) forget(logins []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	concerned := func(login string) bool { return len(logins) == 0 || slices.Contains(logins, login) }
	for _, v := range c.right.Values() {
		if concerned(v.login) || concerned(v.identity.Login) {
			v.expires = time.Time{}
		}
	}
	if len(logins) > 0 {
		c.doubtLocked(func(v *verified) bool { return concerned(v.login) || concerned(v.identity.Login) })
	}
	for _, cred := range c.wrong.Keys() {
		if r, ok := c.wrong.Peek(cred); ok && concerned(r.login) {
			c.wrong.Remove(cred)
		}
	}
}

// forgetSource makes what a source verified, or said of the owner of an app password, useless while one of its name is
// down.
func (c *cache) forgetSource(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubtLocked(func(v *verified) bool { return v.identity.Source == name || v.identity.behind == name })
}

// size returns how many right credentials are held.
func (c *cache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.right.Len()
}
