package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// errDrained is why a node takes no mail, for whoever balances load.
var errDrained = errors.New("this node is drained: it takes no new mail")

// leading returns work that is done by one node only: while this one leads. It begins anew with each term. With SQLite
// there is one node.
func (s *Server) leading(work func(context.Context)) func(context.Context) {
	if !s.store.Shared() {
		return work
	}
	return func(ctx context.Context) { workWhile(ctx, s.store.Leads, s.options.Poll/5, work) }
}

// workWhile works while something holds, until ctx ends. It looks each period.
func workWhile(ctx context.Context, holds func() bool, period time.Duration, work func(context.Context)) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		if holds() {
			workTerm(ctx, holds, period, work)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// workTerm works until something does not hold any more.
func workTerm(ctx context.Context, holds func() bool, period time.Duration, work func(context.Context)) {
	term, end := context.WithCancel(ctx)
	defer end()
	go func() {
		defer end()
		tick := time.NewTicker(period)
		defer tick.Stop()
		for holds() {
			select {
			case <-term.Done():
				return
			case <-tick.C:
			}
		}
	}()
	work(term)
}

// membership is what a node has seen of the others, and of what people ask of it.
type membership struct {
	share   int64
	drained bool
	differ  string
	failing bool // the listeners do not open again
}

// watchNodes adopts what becomes of the nodes, and ends the server when another process has taken over from it.
func (s *Server) watchNodes(ctx context.Context) {
	if !s.store.Shared() {
		return
	}
	tick := time.NewTicker(s.options.Poll / 5)
	defer tick.Stop()
	seen := membership{share: s.store.Membership()}
	for {
		s.lookAtNodes(&seen)
		select {
		case <-ctx.Done():
			return
		case <-s.draining:
			return
		case <-tick.C:
		}
	}
}

func (s *Server) lookAtNodes(seen *membership) {
	if err := s.store.Ousted(); err != nil {
		s.fail(fmt.Errorf("this process ends, to be started again: %w", err))
	}
	if share := s.store.Membership(); share != seen.share {
		rank, of := s.store.Share()
		s.log.Info("the nodes that share the queue are others now", "nodes", of, "rank", rank)
		seen.share = share
		s.queue.Refresh()
	}
	if differ := strings.Join(s.store.Differ(), ", "); differ != seen.differ {
		if seen.differ = differ; differ != "" {
			s.log.Warn("other nodes have other settings: relay.toml is to be the same on all of them, but for addresses "+
				"and files", "nodes", differ)
		}
	}
	s.drain(s.store.Drained(), seen)
}

// drain closes the listeners, as a person has asked, or opens them again. What fails is tried again at the next look,
// and said once.
func (s *Server) drain(asked bool, seen *membership) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if s.stopping || !s.serving.Load() || asked == s.listeners.drained() {
		seen.failing = false
		return
	}
	if asked {
		s.log.Info("this node is drained: the listeners close, what is under way ends")
		for _, gone := range s.listeners.drain() {
			s.leaving.Go(func() { s.listeners.end(gone) })
		}
		return
	}
	err := s.listeners.undrain(s.config())
	switch {
	case err == nil:
		s.log.Info("this node is not drained any more: the listeners are open")
	case !seen.failing:
		s.log.Error("this node is not drained any more, but its listeners do not open; it is tried again", "err", err)
	}
	seen.failing = err != nil
}
