package relay

import (
	"context"
	"log/slog"
	"sync/atomic"

	"postern/auth"
	"postern/mail"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// scramQueue is how many passwords wait for their keys. One that finds no room gets them at a later login.
const scramQueue = 256

// scramMaker makes the keys of SCRAM for accounts of the store that have none, of the passwords that they log in with:
// where SCRAM is switched on later, nobody needs a new password.
type scramMaker struct {
	store  *relaystore.Store
	log    *slog.Logger
	secret []byte
	on     atomic.Bool // a listener offers SCRAM
	queue  chan scramWish
}

// scramWish is a password that was right.
type scramWish struct {
	identity auth.Identity
	password auth.Secret
}

func (m *scramMaker) open(ctx context.Context, c *config.Config, s *relaystore.Store, log *slog.Logger) (err error) {
	m.store, m.log, m.queue = s, log, make(chan scramWish, scramQueue)
	m.on.Store(c.UsesScram())
	m.secret, err = s.Secret(ctx, auth.ScramSaltName, auth.ScramSaltSize)
	return err
}

// want hears of a right password.
func (m *scramMaker) want(id auth.Identity, password string) {
	if !m.on.Load() || id.Source != config.SourceStore {
		return
	}
	select {
	case m.queue <- scramWish{id, auth.Secret(password)}:
	default:
	}
}

// run makes keys, one after the other, until ctx ends.
func (m *scramMaker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-m.queue:
			if err := m.make(ctx, w); err != nil && ctx.Err() == nil {
				m.log.Warn("the keys of SCRAM are not made: the login goes on with PLAIN", "login", w.identity.Login,
					"err", mail.Printable(err.Error()))
			}
		}
	}
}

// make stores the keys of a password, if its account has none and was not changed since the password was right.
func (m *scramMaker) make(ctx context.Context, w scramWish) error {
	login := w.identity.Login
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
