package submission

import (
	"context"
	"errors"
	"fmt"
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

// admitDevice lets a client of a listener for old devices in without login, if it is an accepted device or is being
// learned. Nobody is refused here: all others may log in, as these may.
func (s *session) admitDevice() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := s.conn.Client().Addr()
	s.since, s.accounts = time.Now(), s.service.Accounts.Generation()
	var identity auth.Identity
	var err error
	switch login := s.service.Devices.Login(s.listener.Name, client); {
	case login != "":
		s.by = byAddress
		if identity, err = s.service.Accounts.Lookup(ctx, login); err == nil && !identity.Allows(client) {
			err = auth.ErrNetwork
		}
		if err != nil {
			s.events.noAccount(login, err)
		}
	case s.service.Devices.Learns(s.listener.Name, client, s.since):
		s.by, identity.Login = byLearning, devices.LearningLogin
		if identity.Senders, err = s.service.OwnSenders(ctx); err != nil || len(identity.Senders) == 0 {
			s.events.noAccount(identity.Login, errors.Join(err, errors.New("no domain is known that mail is sent for")))
			err = errors.ErrUnsupported
		}
	default:
		return
	}
	if err != nil {
		s.by = byLogin
		return
	}
	s.become(identity)
	s.events.loggedIn(identity.Login)
}

// stillLearned returns why a session without login may not go on, nil for all others. It is asked at each message,
// since a learning ends by the clock.
func (s *session) stillLearned() error {
	switch {
	case s.by == byLearning && !s.service.Devices.Learns(s.listener.Name, s.conn.Client().Addr(), time.Now()):
		return mail.Refuse(replyNotLearned, errors.New("the time for learning is over"))
	case s.by == byAddress && !s.stillThere():
		return mail.Refuse(replyAccount, errors.New("no device is accepted at this address any more"))
	}
	return nil
}

// stillThere reports whether the device that was let in by its address is still accepted there.
func (s *session) stillThere() bool {
	return s.service.Devices.Login(s.listener.Name, s.conn.Client().Addr()) == s.identity.Login
}

// holdLearned holds the message of a device that is not accepted yet: nothing that nobody answers for leaves. Its limit
// is how much is held, of all such devices together.
func (u *submission) holdLearned(ctx context.Context) error {
	giveBack, ok, err := u.service.held.take(ctx, devices.LearningLogin, u.size, devices.MostHeld,
		u.session.settings.StoreSize/heldShare)
	switch {
	case err != nil:
		return err
	case !ok:
		return mail.Refuse(replyLearned, nil)
	}
	client := u.session.conn.Client().Addr()
	u.hold = fmt.Sprintf("from %s, which is being learned: postern device accept %s, then postern queue release",
		client, client)
	u.refund = giveBack
	return nil
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

func helloShown(hello string) string { return mail.Printable(mail.Cut(hello, 64)) }
