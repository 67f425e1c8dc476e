package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/relay/config"
)

// Reload reads the configuration again, validates it whole and swaps it. Open sessions take it over
// at their next MAIL. When anything is wrong, nothing changes and the error says what.
func (s *Server) Reload(ctx context.Context) error {
	if s.options.Load == nil {
		return errors.New("this server has no configuration to read again")
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if s.stopping {
		return errStopping
	}
	err := s.reload(ctx)
	if err != nil {
		why := err.Error()
		s.refused.Store(&why)
		s.log.Error("reload refused, the configuration in force stays", "err", err)
		return err
	}
	s.refused.Store(nil)
	s.log.Info("configuration reloaded")
	return nil
}

var errStopping = errors.New("the server is going down")

// stopReloads waits for a reload under way and refuses further ones: one during the shutdown would open
// listeners and upstreams that nobody closes.
func (s *Server) stopReloads() {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.stopping = true
}

func (s *Server) reload(ctx context.Context) error {
	c, err := s.options.Load()
	if err != nil {
		return err
	}
	before := s.state.Load()
	if err := sameInstance(before.config, c); err != nil {
		return err
	}
	st, err := s.newState(ctx, c, before)
	if err != nil {
		return err
	}
	hooks, err := hooksOf(c)
	if err != nil {
		return err
	}
	opened, err := s.openNew(c)
	if err != nil {
		return err
	}
	if err := s.certs.Use(certOptions(c, s.log)); err != nil {
		for _, l := range opened {
			l.socket.Close()
		}
		return err
	}
	s.state.Store(st)
	s.held.forget() // as much as counted under the old bound
	st.runTokens()
	s.swapListeners(c, opened)
	s.retire(before, st)
	s.queue.SetSchedule(schedule(c))
	s.auth.SetLockout(lockout(c))
	s.alerts.use(c, hooks)
	s.queue.Refresh()
	return nil
}

// sameInstance refuses what only a restart can change.
func sameInstance(before, c *config.Config) error {
	for _, k := range []struct{ key, old, new string }{
		{"data_dir", before.DataDir, c.DataDir},
		{"store.url", before.Store.URL, c.Store.URL},
		{"store.max_size", fmt.Sprint(before.Store.MaxSize), fmt.Sprint(c.Store.MaxSize)},
		{"store.min_free", fmt.Sprint(before.Store.MinFree), fmt.Sprint(c.Store.MinFree)},
		{"admin.address", before.Admin.Address, c.Admin.Address},
		{"log.format", before.Log.Format, c.Log.Format},
		{"log.level", before.Log.Level, c.Log.Level},
	} {
		if k.old != k.new {
			return fmt.Errorf("%s changed from %q to %q: that needs a restart", k.key, k.old, k.new)
		}
	}
	return nil
}

// openNew binds the listeners that the new configuration adds, or all none. An address that another
// listener of ours gives up in the same reload needs a restart.
func (s *Server) openNew(c *config.Config) ([]*listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var opened []*listener
	for _, block := range c.Listeners {
		if old := s.listeners[block.Name]; old != nil && old.Address == block.Address {
			continue
		}
		l, err := s.openListener(c, block)
		if err != nil {
			for _, l := range opened {
				l.socket.Close()
			}
			return nil, err
		}
		opened = append(opened, l)
	}
	return opened, nil
}

// swapListeners gives listeners that stay their new options, starts new ones and ends those that are
// gone. Open sessions keep their address and TLS.
func (s *Server) swapListeners(c *config.Config, opened []*listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.listeners
	s.listeners = make(map[string]*listener, len(c.Listeners))
	for _, block := range c.Listeners {
		if old := before[block.Name]; old != nil && old.Address == block.Address {
			old.wire.SetOptions(s.wireOptions(c, block))
			s.listeners[block.Name] = &listener{Listener: block, socket: old.socket, wire: old.wire}
			delete(before, block.Name)
		}
	}
	for _, l := range opened {
		s.listeners[l.Name] = l
		s.serve(l)
	}
	for _, gone := range before {
		s.log.Info("listener closed", "listener", gone.Name)
		s.attempts.Go(func() { s.endListener(gone) })
	}
}

// retire closes upstreams that the new state no longer has, once attempts under way have ended.
func (s *Server) retire(before, st *state) {
	for _, old := range before.upstreams {
		if slices.Contains(st.upstreams, old) {
			continue
		}
		for _, up := range st.upstreams {
			if up.config.Name == old.config.Name { // the provider goes on counting
				up.Inherit(old.HandOver())
			}
		}
		old.standby.end()
		s.attempts.Go(func() {
			ctx, cancel := context.WithTimeout(s.deliveries, 10*time.Minute)
			defer cancel()
			if err := old.Close(ctx); err != nil {
				s.log.Warn("closing an upstream that left the configuration", "upstream", old.config.Name, "err", err)
			}
		})
	}
}
