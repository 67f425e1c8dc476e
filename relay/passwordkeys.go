package relay

import (
	"cmp"
	"context"
	"log/slog"
	"sync/atomic"

	"postern/auth"
	"postern/mail"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// keyQueue is how many passwords wait for their keys. One that finds no room gets them at a later login.
const keyQueue = 256

// keyMaker makes the keys of SCRAM and CRAM-MD5 for accounts of the store that have none, of the passwords that they
// log in with: where these are switched on later, nobody needs a new password.
type keyMaker struct {
	store  *relaystore.Store
	log    *slog.Logger
	secret []byte
	scram  atomic.Bool // a listener offers it
	cram   atomic.Bool // a listener has it
	some   atomic.Bool // a device has keys for CRAM-MD5
	queue  chan keyWish
}

// keyWish is a password that was right.
type keyWish struct {
	identity auth.Identity
	password auth.Secret
}

func (m *keyMaker) open(ctx context.Context, c *config.Config, s *relaystore.Store, log *slog.Logger) (err error) {
	m.store, m.log, m.queue = s, log, make(chan keyWish, keyQueue)
	m.use(ctx, c)
	m.secret, err = s.Secret(ctx, auth.ScramSaltName, auth.ScramSaltSize)
	return err
}

// use takes over a configuration.
func (m *keyMaker) use(ctx context.Context, c *config.Config) {
	m.scram.Store(len(c.OfferedAt(auth.ScramSHA256)) > 0)
	m.cram.Store(len(c.OfferedAt(auth.CramMD5)) > 0)
	if err := m.look(ctx); err != nil {
		m.log.Warn("which devices have keys for CRAM-MD5 cannot be read: it is offered as before", "err", err)
	}
}

// look learns whether a device can use CRAM-MD5.
func (m *keyMaker) look(ctx context.Context) error {
	if !m.cram.Load() {
		return nil
	}
	with, err := m.store.WithCram(ctx)
	if err == nil {
		m.some.Store(len(with) > 0)
	}
	return err
}

// withheld reports that nobody could use a mechanism: programs that choose it would be refused for nothing.
func (m *keyMaker) withheld(mechanism string) bool {
	return mechanism == auth.CramMD5 && !m.some.Load()
}

// want hears of a right password.
func (m *keyMaker) want(id auth.Identity, password string) {
	if !m.scram.Load() && !m.cram.Load() || id.Source != config.SourceStore {
		return
	}
	select {
	case m.queue <- keyWish{id, auth.Secret(password)}:
	default:
	}
}

// run makes keys, one after the other, until ctx ends.
func (m *keyMaker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-m.queue:
			if err := cmp.Or(m.makeScram(ctx, w), m.makeCram(ctx, w)); err != nil && ctx.Err() == nil {
				m.log.Warn("the keys of a password are not made: the login goes on with PLAIN", "login",
					w.identity.Login, "err", mail.Printable(err.Error()))
			}
		}
	}
}

// makeScram stores the keys of a password, if its account has none and was not changed since the password was right.
func (m *keyMaker) makeScram(ctx context.Context, w keyWish) error {
	login := w.identity.Login
	if !m.scram.Load() {
		return nil
	}
	u, keys, err := m.store.ScramUser(ctx, login)
	if err != nil || !keys.IsZero() || !u.Changed.Equal(w.identity.Changed) {
		return err
	}
	if keys, err = auth.DeriveScram(m.secret, login, string(w.password)); err != nil {
		return err
	}
	if err := m.store.SetScram(ctx, login, u.Hash, keys); err != nil {
		return err
	}
	m.log.Info("SCRAM keys made at a login", "login", login)
	return nil
}

// makeCram is makeScram for CRAM-MD5, of devices only.
func (m *keyMaker) makeCram(ctx context.Context, w keyWish) error {
	login := w.identity.Login
	if !m.cram.Load() {
		return nil
	}
	u, keys, err := m.store.CramUser(ctx, login)
	if err != nil || !keys.IsZero() || !u.MayCram() || !u.Changed.Equal(w.identity.Changed) {
		return err
	}
	if err := m.store.SetCram(ctx, login, u.Hash, auth.DeriveCram(string(w.password))); err != nil {
		return err
	}
	m.some.Store(true)
	m.log.Info("CRAM-MD5 keys made at a login", "login", login)
	return nil
}
