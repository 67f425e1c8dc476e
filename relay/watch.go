package relay

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	relaystore "postern/relay/store"
)

// Poll is Options.Poll of a service. What was changed lately is as long ago for a server that looks more often.
const Poll = time.Second

// wakePeriod is how often the queue is woken though nothing happened: it wakes by itself, and this forgives everything.
const wakePeriod = 30 * time.Second

// watchStore looks for what the command line changed (accounts, keys, queue, grants) and whether there is room for
// mail.
func (s *Server) watchStore(ctx context.Context) {
	seen := map[string]int64{}
	for _, topic := range []string{"users", "keys", "queue", relaystore.TopicGrants, relaystore.TopicLockouts} {
		seen[topic], _ = s.store.Generation(ctx, topic)
	}
	tick := time.NewTicker(s.options.Poll)
	defer tick.Stop()
	failing := false
	for woken := (time.Time{}); ; {
		s.room.Check()
		if now := time.Now(); now.Sub(woken) >= wakePeriod {
			s.queue.Wake()
			woken = now
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
	s.accounts.forgive(users, time.Now().Add(-10*Poll))
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

// watchFiles calls changed when one of the files has changed and is whole.
func watchFiles(ctx context.Context, files func() []string, period time.Duration, changed func(context.Context)) {
	known := fingerprint(files())
	last := known
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := fingerprint(files())
		if now != known && now == last { // seen twice: nobody is writing any more
			changed(ctx)
			known = fingerprint(files()) // a bad file is tried again when it changes
			now = known
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
