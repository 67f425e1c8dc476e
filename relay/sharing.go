package relay

import (
	"context"
	"errors"
	"sync"

	relaystore "postern/relay/store"
	"postern/relay/upstream/account"
)

// newSharing is what nodes share of the accounts at upstreams; nil with SQLite, whose one daemon shares with no other.
func (s *Server) newSharing() *account.Sharing {
	shared := s.store.SharedAccounts()
	if shared == nil {
		return nil
	}
	return account.NewSharing(shared, s.store.SoleOwner(), s.log)
}

// share begins to share the accounts of the upstreams, until unshare. When it returns there is a slot for the first
// client, unless other nodes have them all.
func (s *Server) share(ctx context.Context, sharing *account.Sharing) {
	if sharing == nil {
		return
	}
	sharing.Begin(ctx)
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { sharing.Run(ctx) })
	s.unshare = func() {
		stop()
		running.Wait()
	}
}

// closeUpstreams closes the upstreams in force, at the same time: while the database is away, each waits a while for it
// to give back what it has leased. Sharing ends behind them, or what they have leased would not be renewed while what
// is under way ends.
func (s *Server) closeUpstreams(ctx context.Context) error {
	var errs []error
	if st := s.state.Load(); st != nil {
		errs = make([]error, len(st.routes.Upstreams))
		var closing sync.WaitGroup
		for i, up := range st.routes.Upstreams {
			closing.Go(func() { errs[i] = up.Close(ctx) })
		}
		closing.Wait()
	}
	if s.unshare != nil {
		s.unshare()
	}
	return errors.Join(errs...)
}

// forgetAccounts removes what nodes knew of accounts that nobody uses any more; nil: there are no nodes.
func forgetAccounts(ctx context.Context, shared *relaystore.SharedAccounts) error {
	for more := shared != nil; more; {
		var err error
		if more, err = shared.Forget(ctx); err != nil {
			return err
		}
	}
	return nil
}
