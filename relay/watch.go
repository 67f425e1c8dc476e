package relay

import (
	"context"
	"time"

	"postern/auth"
	"postern/internal/textfile"
	"postern/policy"
	relaystore "postern/relay/store"
)

// How often the daemon looks for what others changed.
const (
	storePoll    = time.Second
	changePoll   = 200 * time.Millisecond
	queueLook    = 30 // rounds of storePoll
	configPoll   = time.Second
	trimPeriod   = time.Second
	pruneRounds  = 600                  // of trimPeriod
	pruneRecency = 365 * 24 * time.Hour // recipients not written to for a year count as new again
)

// watchStore looks for what the command line changed (accounts, keys, queue, grants) or asks for, saves lockouts, and looks
// whether there is room for mail.
func (s *Server) watchStore(ctx context.Context) {
	seen, _ := s.store.Generations(ctx)
	seen[relaystore.TopicTraceAsked] = seen[relaystore.TopicTraceAnswered]
	slow, fast := time.NewTicker(storePoll), time.NewTicker(changePoll)
	defer slow.Stop()
	defer fast.Stop()
	s.checkRoom()
	failing := false
	for round := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-slow.C:
			s.checkRoom()
			if round++; round%queueLook == 0 {
				s.queue.Wake() // the queue wakes by itself; this costs nothing and forgives everything
			}
			err := s.saveLockout(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				s.log.Warn("lockouts are not saved: a restart will not know them", "err", err)
			}
			failing = err != nil
		case <-fast.C:
			now, _ := s.store.Generations(ctx)
			for topic, n := range now {
				if n != seen[topic] && s.storeChanged(ctx, topic, n) {
					seen[topic] = n
				}
			}
		}
	}
}

// storeChanged takes over what was changed; false: it could not, and is to be tried again.
func (s *Server) storeChanged(ctx context.Context, topic string, n int64) bool {
	switch topic {
	case "users":
		s.usersChanged(ctx)
	case "keys":
		s.reloadKeys(ctx)
	case "queue":
		s.held.forget()
		s.queue.Refresh()
	case relaystore.TopicGrants:
		s.grantsChanged()
	case relaystore.TopicLockouts:
		s.lockoutsLifted(ctx)
	case relaystore.TopicTraceAsked:
		return s.answerTrace(ctx, n)
	}
	return true
}

// answerTrace writes events down for a command that wants to show them: who looks right after a message finds it.
func (s *Server) answerTrace(ctx context.Context, asked int64) bool {
	if err := s.trace.Flush(ctx); err != nil {
		return false // the recorder has said so
	}
	err := s.store.AnswerEvents(ctx, asked)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("events could not be written for a command that shows the trace", "err", err)
	}
	return err == nil
}

// usersChanged drops what is remembered of all logins, ends the lockouts of those that were changed, and
// learns who is in which group.
func (s *Server) usersChanged(ctx context.Context) {
	s.auth.Forget()
	s.accounts.Add(1)
	s.reloading.Lock() // or a reload that has read the users already would publish old groups
	defer s.reloading.Unlock()
	users, err := s.store.Users(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("accounts not read again", "err", err)
		}
		return
	}
	since := time.Now().Add(-10 * storePoll)
	for _, u := range users {
		if u.Changed.After(since) {
			s.auth.Forget(u.Login)
		}
	}
	s.state.Load().policy.SetGroups(members(users))
	s.alerts.accounts(users, since)
}

func members(users []auth.User) []policy.Member {
	all := make([]policy.Member, 0, len(users))
	for _, u := range users {
		if len(u.Groups) > 0 {
			all = append(all, policy.Member{Login: u.Login, Groups: u.Groups, Senders: u.Senders})
		}
	}
	return all
}

// reloadKeys takes over DKIM keys that the command line added or removed.
func (s *Server) reloadKeys(ctx context.Context) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	before := s.state.Load()
	ring, err := s.loadKeys(ctx, before.config)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("DKIM keys not taken over, those in force stay", "err", err)
		}
		return
	}
	st := *before
	st.ring = ring
	s.state.Store(&st)
	s.log.Info("DKIM keys reloaded")
}

// checkRoom notes whether the store takes new mail. A change is logged once.
func (s *Server) checkRoom() {
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	err := s.store.Writable()
	before := s.noRoom.Load()
	switch {
	case err == nil && before != nil:
		s.noRoom.Store(nil)
		s.log.Info("there is room for mail again")
	case err != nil && before == nil:
		s.noRoom.Store(&err)
		s.log.Error("no new mail is taken: clients are answered 452", "err", err)
	case err != nil:
		s.noRoom.Store(&err)
	}
}

// prune keeps the history within [store] history and history_size.
func (s *Server) prune(ctx context.Context) {
	tick := time.NewTicker(trimPeriod)
	defer tick.Stop()
	failing := false
	for round := 0; ; round++ {
		if round%pruneRounds == 0 {
			s.forgetOld(ctx, time.Now())
		}
		err := s.trimHistory(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("the trace was not trimmed", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Server) forgetOld(ctx context.Context, now time.Time) {
	if _, err := s.store.PruneEvents(ctx, now.Add(-s.state.Load().config.Store.History.Std())); err != nil && ctx.Err() == nil {
		s.log.Warn("old trace events were not removed", "err", err)
	}
	if _, err := s.store.ForgetRecipients(ctx, now.Add(-pruneRecency)); err != nil && ctx.Err() == nil {
		s.log.Warn("old recipients were not removed", "err", err)
	}
}

// trimHistory looks each second, so that little is over the bound at any time. A trace that is at its bound says so once.
func (s *Server) trimHistory(ctx context.Context) error {
	size := s.state.Load().config.Store.HistorySize
	n, err := s.store.TrimEvents(ctx, int64(size))
	if n > 0 {
		s.trimmed.Do(func() {
			s.log.Info("the history has less room than [store] history would take: its oldest events go", "history_size", size)
		})
	}
	return err
}

// watchCertificates takes over certificates that changed.
func (s *Server) watchCertificates(ctx context.Context) {
	if err := s.certs.Run(ctx); err != nil {
		s.log.Error("certificates are not watched any more", "err", err)
	}
}

// watchConfig reloads when a file that the configuration was read from has changed and settled.
func (s *Server) watchConfig(ctx context.Context) {
	if s.options.Load == nil {
		return
	}
	look := func() textfile.Fingerprint { return textfile.FingerprintOf(s.state.Load().config.Files()...) }
	loaded := look()
	last := loaded
	tick := time.NewTicker(configPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := look()
		if !now.Same(loaded) && now.Same(last) { // seen twice: nobody is writing any more
			_ = s.Reload(ctx) // reported in the log; a bad file is tried again when it changes
			loaded = look()
			now = loaded
		}
		last = now
	}
}
