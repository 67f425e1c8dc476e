package submission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/devices"
)

// admission is how a session came to its identity.
type admission uint8

const (
	byLogin    admission = iota
	byNetwork            // of the listener, which names the account
	byAddress            // of a device that was accepted there
	byLearning           // a client that is being learned
)

var (
	replyNotLearned = mail.R(421, "4.7.0", "this device is not learned any more; the administrator can accept it")
	replyLearned    = mail.R(452, "4.7.1",
		"enough mail of devices that are not accepted yet is held; the administrator can accept this one")
)

// waiver is why a session needed no login. The zero waiver is of one that did.
type waiver struct {
	by      admission
	devices *devices.Table
	at      string // listener
	client  netip.Addr
	login   string // byAddress: of the device
}

// check returns why a session without login may not go on, nil for all others. It is asked at each message, since a
// learning ends by the clock.
func (w waiver) check(now time.Time) error {
	switch {
	case w.by == byLearning && !w.devices.Learns(w.at, w.client, now):
		return mail.Refuse(replyNotLearned, errors.New("the time for learning is over"))
	case w.by == byAddress && w.devices.Login(w.at, w.client) != w.login:
		return mail.Refuse(replyAccount, errors.New("the device is not accepted at this address any more"))
	}
	return nil
}

// admitDevice lets a client of a listener for old devices in without login, if it is an accepted device or is being
// learned. Nobody is refused here: all others may log in, as these may.
func (s *session) admitDevice() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.since, s.accounts = time.Now(), s.service.Accounts.Generation()
	w := waiver{devices: s.service.Devices, at: s.listener.Name, client: s.conn.Client().Addr()}
	var identity auth.Identity
	var err error
	switch w.login = w.devices.Login(w.at, w.client); {
	case w.login != "":
		w.by = byAddress
		identity, err = s.service.Accounts.Lookup(ctx, w.login)
		if err == nil && !identity.Allows(w.client) {
			err = auth.ErrNetwork
		}
	case w.devices.Learns(w.at, w.client, s.since):
		w.by = byLearning
		identity, err = s.service.learned(ctx)
	default:
		return
	}
	if err != nil {
		s.events.log.Warn("the device is not let in without login", "login", cmp.Or(w.login, devices.LearningLogin),
			"client", w.client, "err", mail.Reason(err))
		return
	}
	s.waiver = w
	s.become(identity)
	s.events.loggedIn(identity)
}

// learned is who a device is that nobody has accepted yet: it may send as anybody of ours, since nothing of it leaves.
func (s *Service) learned(ctx context.Context) (auth.Identity, error) {
	senders, err := s.OwnSenders(ctx)
	if err == nil && len(senders) == 0 {
		err = errors.New("no domain is known that mail is sent for")
	}
	return auth.Identity{Login: devices.LearningLogin, Senders: senders}, err
}

// learned holds a message of a device that is not accepted yet: nothing that nobody answers for leaves. Its limit is
// how much is held, of all such devices together.
func (h *heldMail) learned(ctx context.Context, client netip.Addr, size, storeSize int64) (why string,
	giveBack func(), err error) {
	giveBack, ok, err := h.take(ctx, devices.LearningLogin, size, devices.MostHeld, storeSize/heldShare)
	if err == nil && !ok {
		err = mail.Refuse(replyLearned, nil)
	}
	return fmt.Sprintf("from %s, which is being learned: postern device accept %s, then postern queue release", client,
		client), giveBack, err
}

// helloOf is what a client calls itself, for the trace: of listeners for old devices, where the name of the machine is
// all that a person may know it by.
func (s *Service) helloOf(listener, hello string) string {
	all := s.Settings().Listeners
	i := slices.IndexFunc(all, func(l config.Listener) bool { return l.Name == listener && l.IsAppliance() })
	if i < 0 {
		return ""
	}
	return helloShown(hello)
}
