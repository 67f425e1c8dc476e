package relay

import (
	"context"
	"time"

	"postern/auth"
)

// recallLockout tells a new Authenticator what its predecessor knew: who logged in from where, and who is locked out.
func (s *Server) recallLockout(ctx context.Context, a *auth.Authenticator) error {
	key, err := s.store.Secret(ctx, auth.PlaceKeyName, auth.PlaceKeySize)
	if err != nil {
		return err
	}
	now := time.Now()
	places, err := s.store.Places(ctx, now)
	if err != nil {
		return err
	}
	locks, err := s.store.Lockouts(ctx, now)
	if err != nil {
		return err
	}
	a.Restore(key, places, locks)
	return nil
}

// saveLockout writes down what changed since the last time.
func (s *Server) saveLockout(ctx context.Context) error {
	u := s.auth.Unsaved()
	if u.Empty() {
		return nil
	}
	if err := s.store.SaveLockout(ctx, time.Now(), u); err != nil {
		s.auth.Again(u)
		return err
	}
	s.auth.Saved(u)
	return nil
}

// lockoutsLifted lets in whom a person has let in.
func (s *Server) lockoutsLifted(ctx context.Context) {
	locks, err := s.store.Lockouts(ctx, time.Now())
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("lockouts that a person has lifted are not lifted here", "err", err)
		}
		return
	}
	for _, l := range s.auth.KeepLocks(locks) {
		s.log.Info("lockout lifted by a person", "login", l.Login, "client", l.Client)
		s.alerts.lifted(l)
	}
}
