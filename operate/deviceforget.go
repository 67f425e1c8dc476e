package operate

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/queue"
	"postern/relay/store"
)

// LearningPlace is a listener where devices can be learned.
type LearningPlace struct {
	Listener string         `json:"listener"`
	Networks []netip.Prefix `json:"networks"` // within which a network is learned
	Local    bool           `json:"local"`    // only programs of this machine reach it
}

// Places are the listeners where devices can be learned.
func (d Devices) Places(by Actor) (places []LearningPlace, err error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	c := d.Config()
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if !l.IsAppliance() || l.Auth != config.AuthRequired {
			continue
		}
		place := LearningPlace{Listener: l.Name, Local: l.IsLocal()}
		for _, n := range l.Networks {
			place.Networks = append(place.Networks, n.Prefix)
		}
		places = append(places, place)
	}
	return places, nil
}

// Proposal returns the device that is proposed at an address.
func (d Devices) Proposal(ctx context.Context, by Actor, address string, now time.Time) (p Proposal, err error) {
	all, err := d.Proposals(ctx, by, now)
	if err != nil {
		return p, err
	}
	i := slices.IndexFunc(all, func(p Proposal) bool { return p.Address == address })
	if i < 0 {
		return p, fault(NotFound, "no device is proposed at %s; see: postern device list",
			mail.Printable(mail.Cut(address, maxNamed)))
	}
	return all[i], nil
}

// Name is a login for the device: what it calls itself, or its address.
func (p Proposal) Name() string { return p.name() }

// Forgetting is a device that is not wanted.
type Forgetting struct {
	Address string
	Delete  bool // what is held of it, too
}

// Forget has a device not be proposed any more, until it sends again while learning. It returns how many messages of
// it were deleted.
func (d Devices) Forget(ctx context.Context, by Actor, f Forgetting) (deleted int64, err error) {
	now := time.Now()
	if err := by.May(ForgetDevice); err != nil {
		return 0, err
	}
	p, err := d.Proposal(ctx, by, f.Address, now)
	if err != nil {
		return 0, err
	}
	if f.Delete {
		if deleted, err = d.deleteHeld(ctx, by, p.Address); err != nil {
			return deleted, err
		}
	}
	forgotten := devices.Forgotten{Listener: p.Listener, At: now}
	if forgotten.Address, err = netip.ParseAddr(p.Address); err != nil {
		return deleted, err
	}
	err = d.act(ctx, by, ForgetDevice, p.Address, func(ctx context.Context, detail *string) error {
		*detail = "seen at listener " + p.Listener
		err := d.Store.ForgetDevice(ctx, forgotten)
		if errors.Is(err, store.ErrTooMany) {
			return fault(Conflict, "%d devices were forgotten within a week, which is as many as are kept: stop "+
				"learning (postern device learn --stop), and learn a narrower network", devices.MostForgotten)
		}
		return err
	})
	return deleted, err
}

func (d Devices) deleteHeld(ctx context.Context, by Actor, address string) (int64, error) {
	held, err := d.heldOf(ctx, address)
	if err != nil || len(held) == 0 {
		return 0, errors.Join(err, by.May(DeleteMessages))
	}
	ids := make([]string, len(held))
	for i, m := range held {
		ids[i] = m.ID
	}
	return Queue(d).Do(ctx, by, Delete, queue.Filter{IDs: ids}, Order{})
}
