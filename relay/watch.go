package relay

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	relaystore "postern/relay/store"
)

// How often the daemon looks for what others changed.
const (
	storePoll  = time.Second
	queueLook  = 30 // rounds of storePoll
	configPoll = 2 * time.Second
)

// watchStore looks each second for what the command line changed (accounts, keys, queue, grants) and whether
// there is room for mail.
func (s *Server) watchStore(ctx context.Context) {
	seen := map[string]int64{}
	for _, topic := range []string{"users", "keys", "queue", relaystore.TopicGrants, relaystore.TopicLockouts} {
		seen[topic], _ = s.store.Generation(ctx, topic)
	}
	tick := time.NewTicker(storePoll)
	defer tick.Stop()
	failing := false
	for round := 0; ; round++ {
		s.room.Check()
		if round%queueLook == 0 {
			s.queue.Wake() // the queue wakes by itself; this costs nothing and forgives everything
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.accounts.saveLockout(ctx); err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("lockouts are not saved: a restart will not know them", "err", err)
			failing = true
		} else if err == nil {
			failing = false
		}
		for topic, before := range seen {
			now, err := s.store.Generation(ctx, topic)
			if err != nil || now == before {
				continue
			}
			seen[topic] = now
			s.storeChanged(ctx, topic)
		}
	}
}

func (s *Server) storeChanged(ctx context.Context, topic string) {
	switch topic {
	case "users":
		s.usersChanged(ctx)
	case "keys":
		s.reloadKeys(ctx)
	case "queue":
		s.submission.Recount()
		s.queue.Refresh()
	case relaystore.TopicGrants:
		s.state.Load().routes.TryAgain()
	case relaystore.TopicLockouts:
		s.accounts.lockoutsLifted(ctx)
	}
}

// usersChanged drops what is remembered of all logins, ends the lockouts of those that were changed, and
// learns who is in which group.
func (s *Server) usersChanged(ctx context.Context) {
	s.accounts.changed()
	s.reloading.Lock() // or a reload that has read the users already would publish old groups
	defer s.reloading.Unlock()
	users, err := s.store.Users(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("accounts not read again", "err", err)
		}
		return
	}
	s.state.Load().settings.Policy.SetGroups(relaystore.Members(users))
	s.accounts.forgive(users, time.Now().Add(-10*storePoll))
}

// reloadKeys takes over DKIM keys that the command line added or removed.
func (s *Server) reloadKeys(ctx context.Context) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	before := s.state.Load()
	routes, err := s.outbound.WithKeys(ctx, before.config, before.routes)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("DKIM keys not taken over, those in force stay", "err", err)
		}
		return
	}
	st := *before
	st.routes = routes
	s.state.Store(&st)
	s.log.Info("DKIM keys reloaded")
}

// watchCertificates takes over certificates that changed.
func (s *Server) watchCertificates(ctx context.Context) {
	if err := s.certs.Run(ctx); err != nil {
		s.log.Error("certificates are not watched any more", "err", err)
	}
}

// watchConfig reloads when a file that the configuration was read from has changed and is whole.
func (s *Server) watchConfig(ctx context.Context) {
	if s.options.Load == nil {
		return
	}
	loaded := fingerprint(s.state.Load().config.Files())
	last := loaded
	tick := time.NewTicker(configPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := fingerprint(s.state.Load().config.Files())
		if now != loaded && now == last { // seen twice: nobody is writing any more
			_ = s.Reload(ctx) // reported in the log; a bad file is tried again when it changes
			loaded = fingerprint(s.state.Load().config.Files())
			now = loaded
		}
		last = now
	}
}

// fingerprint tells versions of files apart by time and size. A file that is missing has one too.
func fingerprint(files []string) string {
	var b strings.Builder
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			fmt.Fprintf(&b, "%s missing\n", f)
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", f, info.ModTime().UnixNano(), info.Size())
	}
	return b.String()
}
