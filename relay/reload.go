package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"postern/relay/config"
	"postern/relay/monitor"
	"postern/relay/outbound"
)

// Reload reads the configuration again, validates it whole and swaps it. Open sessions take it over
// at their next MAIL. When anything is wrong, nothing changes and the error says what. While the server starts, Reload
// waits: listeners that it opened would take mail for a queue that is not there yet.
func (s *Server) Reload(ctx context.Context) error {
	if s.options.Load == nil {
		return errors.New("this server has no configuration to read again")
	}
	select {
	case <-s.up:
	case <-s.draining:
		return errStopping
	case <-ctx.Done():
		return errStopping
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if s.stopping {
		return errStopping
	}
	err := s.reload(ctx)
	if err != nil && ctx.Err() != nil { // cut off by the shutdown: nothing is wrong with the file
		return errStopping
	}
	if err != nil {
		if undo := usePrivacy(ctx, s.store, s.state.Load().config.Privacy); undo != nil {
			s.log.Warn("[privacy] is that of the refused configuration until the next reload", "err", undo)
		}
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
	if err := s.enforce(ctx, before, st); err != nil {
		s.leave(st.routes.Beside(before.routes))
		return err
	}
	return nil
}

// leave closes upstreams that are not in force, once attempts under way have ended.
func (s *Server) leave(ups []*outbound.Upstream) {
	for _, up := range ups {
		s.leaving.Go(func() { closeUpstream(s.deliveries, up, s.log) })
	}
}

// enforce puts a state in the place of the one before, or changes nothing.
func (s *Server) enforce(ctx context.Context, before, st *state) error {
	c := st.config
	hooks, err := monitor.HooksOf(c)
	if err != nil {
		return err
	}
	if err := usePrivacy(ctx, s.store, c.Privacy); err != nil {
		return err
	}
	console, err := consoleOptions(c, s.store, s.log)
	if err != nil {
		return err
	}
	logins, err := s.accounts.newSources(before.config, c)
	if err != nil {
		return err
	}
	opened, err := s.listeners.openNew(c)
	if err != nil {
		return err
	}
	byACME, err := acmeOptions(c, s.acmeStore, s.log)
	if err == nil {
		err = s.certs.Use(c.CertOptions(s.log))
	}
	if err != nil {
		closeAll(opened)
		return err
	}
	if err := s.companion.Use(c.CompanionOptions(s.log)); err != nil {
		closeAll(opened)
		return errors.Join(err, s.certs.Use(before.config.CertOptions(s.log)))
	}
	if acmeChanged(before.config, c) {
		s.acme.Use(*byACME)
	}
	if s.access != nil {
		if err := s.access.Use(console); err != nil { // what it refuses, validation has refused before
			s.log.Error("console: the settings before stay", "err", err)
		}
	}
	s.selfService.use(c)
	s.state.Store(st)
	s.accounts.useSources(logins)
	s.accounts.keys.use(ctx, c)
	s.submission.Recount()
	st.routes.Run()
	for _, gone := range s.listeners.swap(c, opened) {
		s.leaving.Go(func() { s.listeners.end(gone) })
	}
	s.leave(before.routes.Retire(st.routes))
	s.queue.SetSchedule(schedule(c))
	s.accounts.SetLockout(lockout(c))
	s.monitor.Use(c.Hostname, hooks)
	s.queue.Refresh()
	return nil
}

// sameInstance refuses what only a restart can change.
func sameInstance(before, c *config.Config) error {
	address, httpAddress := before.Autoconfig.Listens()
	newAddress, newHTTPAddress := c.Autoconfig.Listens()
	for _, k := range []struct{ key, old, new string }{
		{"data_dir", before.DataDir, c.DataDir},
		{"store.url", before.Store.URL.String(), c.Store.URL.String()},
		{"store.node", before.Store.Node, c.Store.Node},
		{"store.degraded", before.Store.Degraded, c.Store.Degraded},
		{"store.max_size", fmt.Sprint(before.Store.MaxSize), fmt.Sprint(c.Store.MaxSize)},
		{"store.min_free", fmt.Sprint(before.Store.MinFree), fmt.Sprint(c.Store.MinFree)},
		{"admin.address", before.Admin.Address, c.Admin.Address},
		{"admin.tls", fmt.Sprint(before.Admin.TLS), fmt.Sprint(c.Admin.TLS)},
		{"admin.console", fmt.Sprint(before.Admin.Console), fmt.Sprint(c.Admin.Console)},
		{"self_service.address", before.SelfService.Listens(), c.SelfService.Listens()},
		{"autoconfig.address", address, newAddress},
		{"autoconfig.http_address", httpAddress, newHTTPAddress},
		{"log.format", before.Log.Format, c.Log.Format},
		{"log.level", before.Log.Level, c.Log.Level},
	} {
		if k.old != k.new {
			return fmt.Errorf("%s changed from %q to %q: that needs a restart", k.key, k.old, k.new)
		}
	}
	for _, k := range []struct {
		key      string
		old, new config.Secret
	}{
		{"store.password", before.Store.Password, c.Store.Password},
		{"store.seal_key", before.Store.SealKey, c.Store.SealKey},
	} {
		if k.old.Value() != k.new.Value() {
			return fmt.Errorf("%s changed: that needs a restart", k.key)
		}
	}
	return nil
}

// closeUpstream closes an upstream that a reload took out, once attempts under way have ended.
func closeUpstream(ctx context.Context, up *outbound.Upstream, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := up.Close(ctx); err != nil {
		log.Warn("closing an upstream that left the configuration", "upstream", up.Config.Name, "err", err)
	}
}
