package relay

import (
	"context"
	"net/netip"
	"sync"
	"time"

	relaystore "postern/relay/store"
)

// How exactly it is kept when an app password was last used, so that a printer that sends all day costs few writes.
const (
	appUseEvery = 10 * time.Minute
	appUseMoved = time.Minute // from another address
	maxAppUses  = 100_000     // that are remembered as saved
)

// appUses learns when and from where app passwords are used.
type appUses struct {
	store *relaystore.Store

	mu      sync.Mutex // guards what follows
	unsaved map[string]relaystore.AppUse
	saved   map[string]relaystore.AppUse
}

func newAppUses(s *relaystore.Store) *appUses {
	return &appUses{store: s, unsaved: map[string]relaystore.AppUse{}, saved: map[string]relaystore.AppUse{}}
}

// used hears of a login.
func (u *appUses) used(id string, client netip.Addr) { u.usedAt(time.Now(), id, client) }

func (u *appUses) usedAt(now time.Time, id string, client netip.Addr) {
	from := client.Unmap().WithZone("").String()
	u.mu.Lock()
	defer u.mu.Unlock()
	age := now.Sub(u.saved[id].At)
	if age >= appUseEvery || age >= appUseMoved && u.saved[id].From != from {
		u.unsaved[id] = relaystore.AppUse{ID: id, At: now, From: from}
	}
}

// save writes down what is new. What cannot be written comes again.
func (u *appUses) save(ctx context.Context) error {
	u.mu.Lock()
	list := make([]relaystore.AppUse, 0, len(u.unsaved))
	if len(u.saved)+len(u.unsaved) > maxAppUses {
		clear(u.saved)
	}
	for id, use := range u.unsaved {
		list = append(list, use)
		u.saved[id] = use
	}
	clear(u.unsaved)
	u.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := u.store.SaveAppUses(ctx, list)
	if err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, use := range list {
			delete(u.saved, use.ID)
			if _, newer := u.unsaved[use.ID]; !newer {
				u.unsaved[use.ID] = use
			}
		}
	}
	return err
}
