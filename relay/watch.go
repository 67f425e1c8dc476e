package relay

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"postern/internal/periodic"
	"postern/internal/textfile"
	"postern/relay/sign"
	relaystore "postern/relay/store"
)

// Poll is Options.Poll of a service. How long a change counts as recent follows from it, whatever Options.Poll is.
const Poll = time.Second

// wakePeriod is how often the queue is woken though nothing happened: it wakes by itself, and this forgives everything.
const wakePeriod = 30 * time.Second

// watchStore looks for what the command line changed (accounts, keys, queue, grants) or asks for, saves lockouts, and
// looks whether there is room for mail.
func (s *Server) watchStore(ctx context.Context) {
	seen, failed := s.opened, map[string]int64{}
	slow, fast := time.NewTicker(s.options.Poll), time.NewTicker(s.options.Poll/5)
	defer slow.Stop()
	defer fast.Stop()
	s.room.Check()
	var room sync.WaitGroup
	room.Go(func() { s.watchRoom(ctx) })
	defer room.Wait()
	failing := false
	for woken := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-slow.C:
			if now := time.Now(); now.Sub(woken) >= wakePeriod {
				s.queue.Wake()
				clear(failed)
				woken = now
			} else if _, nodes := s.store.Share(); nodes > 1 {
				s.queue.Wake() // another node may have taken mail that is of this one's share
			}
			err := s.saveLockouts(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				s.log.Warn("lockouts are not saved: a restart will not know them", "err", err)
			}
			failing = err != nil
		case <-fast.C:
			if s.hasNewLocks() && !failing {
				_ = s.saveLockouts(ctx) // slow tries again and says so
			}
			s.takeChanges(ctx, seen, failed)
		}
	}
}

// watchRoom looks whether there is room for mail, by itself: a database that stands still holds up all else.
func (s *Server) watchRoom(ctx context.Context) {
	periodic.Run(ctx, s.options.Poll, func() { s.room.Check() })
}

// takeChanges takes over what was changed since it was seen. What failed is tried again each
// wakePeriod: a bad key would fill the log.
func (s *Server) takeChanges(ctx context.Context, seen, failed map[string]int64) {
	now, _ := s.store.Generations(ctx)
	for topic, n := range now {
		if n == seen[topic] || n == failed[topic] {
			continue
		}
		if s.storeChanged(ctx, topic, n) {
			seen[topic] = n
		} else {
			failed[topic] = n
		}
	}
}

// storeChanged adopts a change and reports whether it is done with.
func (s *Server) storeChanged(ctx context.Context, topic string, n int64) bool {
	switch topic {
	case "users":
		return s.usersChanged(ctx)
	case relaystore.TopicAppPasswords:
		// Which of them were revoked is looked for when they are used. A login that is under way may know an older
		// state, so it comes last.
		defer s.accounts.DoubtApps()
		return s.usersChanged(ctx)
	case "keys":
		return s.reloadKeys(ctx)
	case "queue":
		s.submission.Recount()
		s.queue.Refresh()
	case relaystore.TopicGrants:
		s.state.Load().routes.TryAgain()
	case relaystore.TopicLockouts:
		return s.accounts.lockoutsLifted(ctx)
	case relaystore.TopicConsoleLockouts:
		return s.consoleLifted(ctx)
	case relaystore.TopicDevices:
		return s.devicesChanged(ctx)
	case relaystore.TopicConsole:
		return s.consoleChanged(ctx)
	case relaystore.TopicACME:
		s.acme.Kick()
	case relaystore.TopicTraceAsked:
		s.answerTrace(ctx, n)
	}
	return true
}

// answerTrace writes events, statistics and what limits have counted down for a command that wants to show them: who
// looks right after a message finds it. It tries once: the command does not wait for long, and the recorder drops what
// is refused too often.
func (s *Server) answerTrace(ctx context.Context, asked int64) {
	if s.trace.Flush(ctx) != nil || s.stats.Flush(ctx) != nil || s.limiter.Save(ctx, time.Now()) != nil {
		return // who keeps them has said so, or will
	}
	if err := s.store.AnswerEvents(ctx, asked); err != nil && ctx.Err() == nil {
		s.log.Warn("events could not be written for a command that shows the trace", "err", err)
	}
}

// usersChanged drops what is remembered of all logins and app passwords, ends the lockouts of those that were changed,
// and learns who is in which group.
func (s *Server) usersChanged(ctx context.Context) bool {
	s.accounts.unread.Store(true)
	defer s.accounts.unread.Store(false)
	s.accounts.changed()
	s.reloading.Lock() // or a reload that has read the users already would publish old groups
	defer s.reloading.Unlock()
	now := time.Now()
	users, err := s.store.Users(ctx)
	people, err2 := s.store.ProvidedPersons(ctx)
	elsewhere, err3 := s.store.LockedElsewhere(ctx)
	if err = cmp.Or(err, err2, err3, s.accounts.keys.look(ctx)); err != nil {
		if ctx.Err() == nil {
			s.log.Error("accounts not read again", "err", err)
		}
		s.accounts.Doubt()
		if s.usersUnread.IsZero() {
			s.usersUnread = now
		}
		return false
	}
	if !s.usersUnread.IsZero() {
		now, s.usersUnread = s.usersUnread, time.Time{}
	}
	s.state.Load().settings.Policy.SetGroups(relaystore.Members(users, people))
	s.accounts.forgive(append(users, elsewhere...), now.Add(-10*Poll))
	return true
}

// reloadKeys takes over DKIM keys that the command line added or removed.
func (s *Server) reloadKeys(ctx context.Context) bool {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	before := s.state.Load()
	routes, err := s.outbound.WithKeys(ctx, before.config, before.routes)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("DKIM keys not taken over, those in force stay", "err", err)
		}
		return false
	}
	st := *before
	st.routes = routes
	s.state.Store(&st)
	s.log.Info("DKIM keys reloaded")
	return true
}

// configuredKeys are the keys of relay.toml that sign.
func (s *Server) configuredKeys() (keys []sign.Key) {
	st := s.state.Load()
	for _, d := range st.config.DKIM {
		for _, k := range st.routes.Ring.For(d.Domain) {
			if k.Selector == d.Selector && strings.EqualFold(k.Domain, d.Domain) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// watchFiles calls changed when one of the files has changed and is whole.
func watchFiles(ctx context.Context, files func() []string, period time.Duration, changed func(context.Context)) {
	look := func() textfile.Fingerprint { return textfile.FingerprintOf(files()...) }
	known := look()
	last := known
	periodic.Run(ctx, period, func() {
		now := look()
		if !now.Same(known) && now.Same(last) { // seen twice: nobody is writing any more
			changed(ctx)
			known = look() // a bad file is tried again when it changes
			now = known
		}
		last = now
	})
}
