package relay

import (
	"context"
	"errors"
	"sync"

	relaystore "postern/relay/store"
	"postern/relay/upstream/account"
)

// shareAccounts begins to share the accounts at upstreams with other nodes, until unshare; nil where there are none.
func (s *Server) shareAccounts() *account.Sharing {
	shared := s.store.SharedAccounts()
	if shared == nil {
		return nil
	}
	sharing := account.NewSharing(shared, s.store.Owner(), s.log)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { sharing.Run(ctx) })
	s.unshare = func() {
		stop()
		running.Wait()
	}
	return sharing
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
