package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"postern/mail"
)

const (
	// maxKnown bounds the recipients kept in memory, maxPending those that wait to be written.
	maxKnown   = 65536
	maxPending = 32768
	// refresh is how often a recipient that is written to again is recorded as used.
	refresh = 24 * time.Hour
)

// known tells which recipients a login has written to before. Memory holds the recent ones, so that
// writing to the same people costs no look into the store; new ones are written with the next save. A
// crash forgets those of the last moments, which then count as new again.
type known struct {
	store LimitStore

	mu      sync.Mutex // guards all below
	recent  *simplelru.LRU[contact, time.Time]
	pending map[contact]struct{}
}

type contact struct{ login, to string }

func newKnown(store LimitStore) *known {
	recent, err := simplelru.NewLRU[contact, time.Time](maxKnown, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &known{store: store, recent: recent, pending: make(map[contact]struct{})}
}

// fresh returns the keys of those recipients that login has not written to.
func (k *known) fresh(ctx context.Context, now time.Time, login string, to []mail.Address) (fresh []string, err error) {
	rest := k.notRecent(now, login, recipientKeys(to))
	if len(rest) == 0 {
		return nil, nil
	}
	n, err := k.store.NewRecipients(ctx, login, rest)
	if err != nil || n == len(rest) {
		return rest, err
	}
	for _, addr := range rest {
		if n > 0 { // some are: ask which
			one, err := k.store.NewRecipients(ctx, login, []string{addr})
			if err != nil {
				return nil, err
			}
			if one > 0 {
				fresh = append(fresh, addr)
				continue
			}
		}
		k.remember(now, login, []string{addr})
	}
	return fresh, nil
}

// notRecent returns the keys that memory does not know, and notes the others as used.
func (k *known) notRecent(now time.Time, login string, keys []string) (rest []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, addr := range keys {
		c := contact{login, addr}
		at, ok := k.recent.Get(c)
		if _, waits := k.pending[c]; !ok && !waits {
			rest = append(rest, addr)
			continue
		}
		if ok && now.Sub(at) > refresh {
			k.rememberLocked(now, c)
		}
	}
	return rest
}

func (k *known) remember(now time.Time, login string, keys []string) {
	if len(keys) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, addr := range keys {
		k.rememberLocked(now, contact{login, addr})
	}
}

// rememberLocked drops what cannot be kept: it counts as new again later, so that nothing is given
// away.
func (k *known) rememberLocked(now time.Time, c contact) {
	k.recent.Add(c, now)
	if len(k.pending) < maxPending {
		k.pending[c] = struct{}{}
	}
}

// save writes what is pending, as used at now: a moment late, for what is forgotten by the month.
func (k *known) save(ctx context.Context, now time.Time) error {
	var errs []error
	for login, addrs := range k.takePending() {
		if err := k.store.RememberRecipients(ctx, login, addrs, now); err != nil {
			errs = append(errs, fmt.Errorf("remember %d recipients: %w", len(addrs), err))
			k.remember(now, login, addrs)
		}
	}
	return errors.Join(errs...)
}

func (k *known) takePending() map[string][]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	byLogin := make(map[string][]string)
	for c := range k.pending {
		byLogin[c.login] = append(byLogin[c.login], c.to)
	}
	clear(k.pending)
	return byLogin
}
