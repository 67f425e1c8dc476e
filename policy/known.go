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
	// maxKnown bounds the recipients in memory, maxPending those not yet saved.
	maxKnown   = 65536
	maxPending = 32768
	// refresh is how often the last use of a known recipient is recorded.
	refresh = 24 * time.Hour
)

// known remembers which recipients a login has written to. Memory holds the recent ones, so that writing to the same
// people needs no query; save writes new ones. A crash forgets the unsaved ones, which then count as new again.
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
		panic(err) // only for a size below one
	}
	return &known{store: store, recent: recent, pending: make(map[contact]struct{})}
}

// fresh returns the keys of the recipients that login has not written to.
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
		if n > 0 { // some are new: ask which
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

// notRecent returns the keys that are not in memory, and marks the others as used.
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

// met notes in memory what the store knows already.
func (k *known) met(now time.Time, login string, keys []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, addr := range keys {
		k.recent.Add(contact{login, addr}, now)
	}
}

// rememberLocked drops what exceeds maxPending: it will count as new again, which errs on the safe side.
func (k *known) rememberLocked(now time.Time, c contact) {
	k.recent.Add(c, now)
	if len(k.pending) < maxPending {
		k.pending[c] = struct{}{}
	}
}

// save writes the pending recipients as used at now. That is a little late, but they are forgotten only after months.
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
