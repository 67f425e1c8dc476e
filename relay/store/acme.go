package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"postern/internal/periodic"
	"postern/relay/store/internal/db"
)

var (
	_ certmagic.Storage   = (*ACME)(nil)
	_ certmagic.TryLocker = (*ACME)(nil)
)

// TopicACME is changed when a person asks for a certificate, and when one was obtained.
const TopicACME = "acme"

// schemaACME keeps what belongs to certificates by ACME, under the keys of certmagic: accounts, private keys,
// certificates, the state of each. Values are sealed. A lock is held until a time, so that it outlives no crash.
const schemaACME = `
CREATE TABLE acme_item (
	key TEXT PRIMARY KEY, sealed BLOB NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE acme_lock (name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`

// Bounds of what is kept for ACME. A certificate with its chain takes 5 KB, and each name has three items.
const (
	maxACMEKey   = 512     // octets
	maxACMEValue = 1 << 20 // octets
	maxACMEItems = 2000
)

// How locks are kept. One that nobody prolongs is free after lockFor: its process died. So is one
// that runs for longer than 2 lockFor: it was taken while the clock was ahead. Times are by the clock of the database:
// a node whose clock is wrong takes no lock of one that lives.
const (
	lockFor   = time.Minute
	lockRenew = 20 * time.Second
	lockPoll  = 500 * time.Millisecond
)

// ACME is the part of the store that keeps accounts and certificates of ACME, for all processes that use the store. It
// implements certmagic.Storage. Get it from Store.ACME.
type ACME struct {
	s *Store

	mu   sync.Mutex // guards held
	held map[string]*acmeLock
}

// acmeLock is a lock that this process holds and prolongs.
type acmeLock struct {
	owner string
	stop  context.CancelFunc
	done  chan struct{}
}

// ACME returns the store's part for ACME. Locks taken by one returned value are given back by the same.
func (s *Store) ACME() *ACME { return &ACME{s: s, held: make(map[string]*acmeLock)} }

// Shared is Store.Shared: the CA may ask another node instead of this one.
func (a *ACME) Shared() bool { return a.s.Shared() }

func acmeLabel(key string) string { return "postern acme\x00" + key }

// errACMEBound is a value or key that is too large, or one too many.
var errACMEBound = errors.New("too much for the store of certificates")

var putACMEItem = upsert("acme_item", 1, "key", "sealed", "size", "modified")

// Store implements certmagic.Storage: it is durable when it returns nil.
func (a *ACME) Store(ctx context.Context, key string, value []byte) error {
	if key == "" || len(key) > maxACMEKey || len(value) > maxACMEValue {
		return fmt.Errorf("%w: key of %d octets, value of %d", errACMEBound, len(key), len(value))
	}
	sealed := a.s.sealer.Seal(acmeLabel(key), value)
	err := a.s.write(ctx, func(t *tx) error {
		n, _, err := t.Int("SELECT count(*) FROM acme_item WHERE key <> ?", key)
		if err != nil {
			return err
		}
		if n >= maxACMEItems {
			return refuse(fmt.Errorf("%w: %d items", errACMEBound, n))
		}
		return t.Run(putACMEItem, key, sealed, len(value),
			t.clock.nano(time.Now()))
	})
	return wrap(err, "keep %q", key)
}

// Agree implements certs.Shared: of several nodes that come with something of their own, one keeps it for all.
func (a *ACME) Agree(ctx context.Context, key string, good func([]byte) bool, ours []byte) (agreed []byte, err error) {
	if len(key) > maxACMEKey || len(ours) > maxACMEValue {
		return nil, fmt.Errorf("%w: key of %d octets, value of %d", errACMEBound, len(key), len(ours))
	}
	sealed := a.s.sealer.Seal(acmeLabel(key), ours)
	err = a.s.write(ctx, func(t *tx) error {
		agreed = ours
		kept, err := list(t.Conn, func(row db.Row) ([]byte, error) { return row.Blob(0), nil },
			"SELECT sealed FROM acme_item WHERE key = ?", key)
		if err != nil {
			return err
		}
		if len(kept) > 0 {
			value, err := a.s.sealer.Open(acmeLabel(key), kept[0])
			if err != nil {
				return refuse(a.s.explainSeal(err))
			}
			if good(value) {
				agreed = bytes.Clone(value)
				return nil
			}
		}
		return t.Run(putACMEItem, key, sealed, len(ours), t.clock.nano(time.Now()))
	})
	if err != nil {
		return nil, wrap(err, "agree on %q", key)
	}
	return agreed, nil
}

// Load implements certmagic.Storage.
func (a *ACME) Load(ctx context.Context, key string) ([]byte, error) {
	found, err := readAll(ctx, a.s.readers, func(row db.Row) ([]byte, error) {
		value, err := a.s.sealer.Open(acmeLabel(key), row.Blob(0))
		return append([]byte{}, value...), a.s.explainSeal(err)
	}, "SELECT sealed FROM acme_item WHERE key = ?", key)
	if err == nil && len(found) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", key, err)
	}
	return found[0], nil
}

// below is the range of keys under a directory; those of "" are all.
func below(dir string) (from, to string) {
	if dir = strings.Trim(dir, "/"); dir == "" {
		return "", "\U0010ffff"
	}
	return dir + "/", dir + "0" // the character after the slash
}

// Delete implements certmagic.Storage.
func (a *ACME) Delete(ctx context.Context, key string) error {
	if strings.Trim(key, "/") == "" {
		return errors.New("delete in the store of certificates: no key")
	}
	from, to := below(key)
	err := a.s.write(ctx, func(t *tx) error {
		return t.Run("DELETE FROM acme_item WHERE key = ? OR key >= ? AND key < ?", key, from, to)
	})
	return wrap(err, "delete %q", key)
}

// Exists implements certmagic.Storage.
func (a *ACME) Exists(ctx context.Context, key string) bool {
	_, err := a.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (a *ACME) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	from, to := below(dir)
	keys, err := readAll(ctx, a.s.readers, func(row db.Row) (string, error) { return row.Text(0), nil },
		"SELECT key FROM acme_item WHERE key >= ? AND key < ? ORDER BY key", from, to)
	if err == nil && len(keys) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", dir, err)
	}
	seen := make(map[string]bool)
	for _, key := range keys {
		rest := key[len(from):]
		for i, c := range rest {
			if c == '/' {
				seen[from+rest[:i]] = true
				if !recursive {
					break
				}
			}
		}
		if recursive || !strings.Contains(rest, "/") {
			seen[key] = true
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// Stat implements certmagic.Storage.
func (a *ACME) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	from, to := below(key)
	found, err := readAll(ctx, a.s.readers, func(row db.Row) (certmagic.KeyInfo, error) {
		if row.Text(0) != key {
			return certmagic.KeyInfo{Key: key}, nil // a directory
		}
		return certmagic.KeyInfo{Key: key, Size: row.Int(1), Modified: a.s.clock.time(row.Int(2)),
			IsTerminal: true}, nil
	}, "SELECT key, size, modified FROM acme_item WHERE key = ? OR key >= ? AND key < ? ORDER BY key LIMIT 1", key,
		from, to)
	if err == nil && len(found) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return certmagic.KeyInfo{}, fmt.Errorf("look for %q: %w", key, err)
	}
	return found[0], nil
}

// Announce tells every process that uses the store that something about certificates changed.
func (a *ACME) Announce(ctx context.Context) error {
	return wrap(a.s.write(ctx, func(t *tx) error { return bump(t.Conn, TopicACME) }), "announce a certificate")
}

// Lock implements certmagic.Locker. It waits until it has the lock, or ctx ends.
func (a *ACME) Lock(ctx context.Context, name string) error {
	for {
		if got, err := a.TryLock(ctx, name); got || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %q: %w", name, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// TryLock implements certmagic.TryLocker. Who has the lock in this process has it until Unlock, also where it ran out
// in the store while the machine slept: Unlock does not say whose it gives back.
func (a *ACME) TryLock(ctx context.Context, name string) (got bool, err error) {
	if len(name) > maxACMEKey {
		return false, fmt.Errorf("lock: %w", errACMEBound)
	}
	owner := rand.Text()
	held, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &acmeLock{owner: owner, stop: stop, done: make(chan struct{})}
	if !a.reserve(name, l) {
		stop()
		return false, nil
	}
	err = a.s.write(ctx, func(t *tx) error {
		now := t.clock.nano(time.Now())
		_, got, err = t.Int("INSERT INTO acme_lock VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET "+
			"owner = excluded.owner, until = excluded.until WHERE acme_lock.until <= ?4 OR acme_lock.until > ?5 "+
			"RETURNING 1", name, owner, now+int64(lockFor), now, now+int64(2*lockFor))
		return err
	})
	if err != nil || !got {
		stop()
		a.mu.Lock()
		delete(a.held, name)
		a.mu.Unlock()
		return false, wrap(err, "lock %q", name)
	}
	go a.prolong(held, name, l) // until Unlock, which waits for it
	return true, nil
}

// reserve notes who has, or is about to get, a lock in this process; false: somebody does.
func (a *ACME) reserve(name string, l *acmeLock) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held[name] != nil {
		return false
	}
	a.held[name] = l
	return true
}

// prolong keeps a lock until its context ends. If it cannot, another process may take it: certmagic looks under the
// lock whether the work was done already.
func (a *ACME) prolong(ctx context.Context, name string, l *acmeLock) {
	defer close(l.done)
	periodic.Run(ctx, lockRenew, func() {
		err := a.s.write(ctx, func(t *tx) error {
			return t.Run("UPDATE acme_lock SET until = ? WHERE name = ? AND owner = ?",
				t.clock.nano(time.Now().Add(lockFor)), name, l.owner)
		})
		if err != nil && ctx.Err() == nil {
			a.s.log.Warn("the lock of a certificate could not be prolonged", "lock", name, "err", err)
		}
	})
}

// Unlock implements certmagic.Locker.
func (a *ACME) Unlock(ctx context.Context, name string) error {
	a.mu.Lock()
	l := a.held[name]
	delete(a.held, name)
	a.mu.Unlock()
	if l == nil {
		return fmt.Errorf("unlock %q: it is not held", name)
	}
	l.stop()
	<-l.done
	err := a.s.write(ctx, func(t *tx) error {
		return t.Run("DELETE FROM acme_lock WHERE name = ? AND owner = ?", name, l.owner)
	})
	return wrap(err, "unlock %q", name)
}
