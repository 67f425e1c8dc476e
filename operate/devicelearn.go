package operate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/domains"
	"postern/relay/store"
)

// Devices is what may be done with devices that have no account yet, and what was seen of those that have one.
type Devices struct{ *desk }

// LearnRequest is what somebody wants to learn.
type LearnRequest struct {
	Listener string // with profile "appliance"; "": the only one
	Network  string // CIDR within the listener's networks
	For      time.Duration
}

// Learn lets the clients of a network send without login for a while. What they send is held, and who they are is
// proposed.
func (d Devices) Learn(ctx context.Context, by Actor, r LearnRequest) (l devices.Learning, err error) {
	listener, err := d.listener(r.Listener)
	if err == nil {
		l, err = d.learning(listener, r)
	}
	if err == nil {
		err = d.someSender(ctx)
	}
	if err != nil {
		return l, err
	}
	l.By = by.Name
	subject := l.Listener + " " + l.Network.String()
	err = d.act(ctx, by, LearnDevices, subject, func(ctx context.Context, detail *string) error {
		*detail = "until " + l.Until.UTC().Format(time.RFC3339)
		err := d.Store.Learn(ctx, l)
		if errors.Is(err, store.ErrTooMany) {
			return fault(Conflict, "%d networks are being learned already, end one first: postern device "+
				"learn --stop", devices.MostLearnings)
		}
		if err != nil {
			return err
		}
		return d.note(ctx, event(by, "", fmt.Sprintf("devices of %s may send to listener %s without login %s, "+
			"to be held", l.Network, l.Listener, *detail)))
	})
	return l, err
}

// someSender refuses to learn where no device would be let in, since whatever it sends as is nobody's.
func (d Devices) someSender(ctx context.Context) error {
	patterns, err := domains.SenderPatterns(ctx, d.Config(), d.Store)
	if err == nil && len(patterns) == 0 {
		err = fault(Conflict, "no domain is known that mail is sent for, and devices may send as no other: add an "+
			"account with an address of it, or a key by postern dkim add, or name it in senders of a [[policy]]")
	}
	return err
}

// listener is the one for old devices with a name, or the only one.
func (d Devices) listener(name string) (*config.Listener, error) {
	c := d.Config()
	var found []*config.Listener
	var names []string
	for i := range c.Listeners {
		if l := &c.Listeners[i]; l.IsAppliance() && l.Auth == config.AuthRequired {
			names = append(names, l.Name)
			if name == "" || l.Name == name {
				found = append(found, l)
			}
		}
	}
	switch {
	case len(names) == 0:
		return nil, fault(Invalid, `no [[listener]] has profile = "appliance" and auth = "required": devices are `+
			"learned at such a one, see docs/devices.md")
	case len(found) == 0:
		return nil, fault(NotFound, "%s is no listener where devices can be learned; there is %s",
			mail.Printable(mail.Cut(name, maxNamed)), strings.Join(names, ", "))
	case len(found) > 1:
		return nil, fault(Invalid, "name the listener, one of %s", strings.Join(names, ", "))
	}
	return found[0], nil
}

// learning is what a request comes to, or what is wrong with it.
func (d Devices) learning(listener *config.Listener, r LearnRequest) (l devices.Learning, err error) {
	network, err := config.ParseNetwork(r.Network)
	if err != nil {
		return l, fault(Invalid, "network %v", err)
	}
	least := devices.WidestNetwork6
	if network.Addr().Is4() {
		least = devices.WidestNetwork4
	}
	inside := false
	for _, n := range listener.Networks {
		inside = inside || n.Bits() <= network.Bits() && n.Prefix.Contains(network.Addr())
	}
	switch privacy := d.Config().Privacy; {
	case network.Bits() < least:
		return l, fault(Invalid, "%s is too wide to be learned, name a network of /%d or narrower", network, least)
	case !inside:
		return l, fault(Invalid, "%s is not within the networks of listener %s, whose clients alone may connect",
			network, listener.Name)
	case r.For < time.Minute || r.For > devices.LongestLearning:
		return l, fault(Invalid, "%s is out of range, learn for 1m to %s", r.For, "2h")
	case privacy.Clients != "keep" && privacy.After == 0:
		return l, fault(Invalid, "[privacy] clients = %q keeps no addresses, by which devices are proposed",
			privacy.Clients)
	}
	now := time.Now()
	return devices.Learning{Listener: listener.Name, Network: network.Masked(), Began: now, Until: now.Add(r.For)}, nil
}

// StopLearning ends what is learned at a listener, "" at all, and returns how many networks that were.
func (d Devices) StopLearning(ctx context.Context, by Actor, listener string) (n int64, err error) {
	subject := strings.TrimSpace(listener + " stop")
	err = d.act(ctx, by, LearnDevices, subject, func(ctx context.Context, detail *string) error {
		*detail = "none was under way"
		if n, err = d.Store.StopLearning(ctx, listener, time.Now()); err != nil || n == 0 {
			return err
		}
		*detail = fmt.Sprintf("%d networks", n)
		return d.note(ctx, event(by, "", "learning of devices stopped"))
	})
	return n, err
}

// Learnings are those under way.
func (d Devices) Learnings(ctx context.Context, by Actor, now time.Time) (active []devices.Learning, err error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	known, err := d.Store.KnownDevices(ctx)
	for _, l := range known.Learnings {
		if now.Before(l.Until) {
			active = append(active, l)
		}
	}
	return active, err
}

// Acceptance is a device that is to become an account.
type Acceptance struct {
	Address string
	Name    string   // login; "": what it calls itself, or its address
	Senders []string // none: those that it was seen to use
	Groups  []string
	Note    string
	Release bool // what is held of it goes out, as far as it is from these senders
}

// Accepted is a device that became an account.
type Accepted struct {
	Credential
	Listener string   `json:"listener"`
	Address  string   `json:"address"`
	Senders  []string `json:"senders"`
	Released int64    `json:"released"`
}

// Accept makes an account of a device, which needs no login at its address from then on, and may log in there.
func (d Devices) Accept(ctx context.Context, by Actor, a Acceptance) (done Accepted, err error) {
	address, err := netip.ParseAddr(a.Address)
	if err != nil {
		return done, fault(Invalid, "%q is no address", mail.Printable(mail.Cut(a.Address, maxNamed)))
	}
	proposal, err := d.proposalOf(ctx, by, address.Unmap().WithZone(""))
	if err != nil {
		return done, err
	}
	n := NewAccount{Login: a.Name, Device: true, Senders: a.Senders, Groups: a.Groups, Note: a.Note,
		Networks: []string{proposal.Address}}
	if n.Login == "" {
		n.Login = proposal.name()
	}
	if len(n.Senders) == 0 {
		n.Senders = proposal.Senders
	}
	if len(n.Senders) == 0 {
		return done, fault(Invalid, "%s has sent nothing that shows whom it sends as: name an address with --sender",
			proposal.Address)
	}
	u, err := n.check()
	if err != nil {
		return done, err
	}
	if err := by.May(AddAccount); err != nil {
		return done, err
	}
	subject := proposal.Address + " as " + u.Login
	err = d.act(ctx, by, AcceptDevice, subject, func(ctx context.Context, detail *string) error {
		*detail = "senders " + ListText(u.Senders)
		c, err := Accounts(d).create(ctx, by, u, "")
		if err != nil {
			return err
		}
		place := devices.Place{Listener: proposal.Listener, Address: u.Networks[0].Addr(), Login: u.Login}
		if err := d.Store.SetPlace(ctx, place); err != nil { // done whole or not at all
			return errors.Join(err, d.Store.DeleteUser(context.WithoutCancel(ctx), u.Login, nil))
		}
		done.Credential = c
		return nil
	})
	if err != nil {
		return Accepted{}, err
	}
	done.Listener, done.Address, done.Senders = proposal.Listener, proposal.Address, u.Senders
	if a.Release {
		done.Released, err = d.release(ctx, by, proposal.Address, u.Senders)
		if err != nil {
			done.warn(fmt.Errorf("what is held of it was not released: %w", err))
		}
	}
	return done, nil
}
