package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/relay/config"
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

// nodes watches what becomes of the nodes at a database, and what people ask of this one.
type nodes struct {
	*Server
	share   int64          // as Membership said it
	differ  string         // nodes with other settings
	told    *config.Config // that the others can compare with theirs
	failing bool           // the listeners do not open again, or the others were not told; the log says so
}

// watchNodes returns the work of adopting what becomes of the nodes. It ends the server when another process has taken
// over from it.
func (s *Server) watchNodes() func(context.Context) {
	if !s.store.Shared() {
		return func(context.Context) {}
	}
	n := &nodes{Server: s, share: s.store.Membership()}
	return n.run
}

func (n *nodes) run(ctx context.Context) {
	tick := time.NewTicker(n.options.Poll / 5)
	defer tick.Stop()
	for {
		n.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-n.draining:
			return
		case <-tick.C:
		}
	}
}

func (n *nodes) look(ctx context.Context) {
	if err := n.store.Ousted(); err != nil {
		n.fail(fmt.Errorf("this process ends, to be started again: %w", err))
		return
	}
	if share := n.store.Membership(); share != n.share {
		rank, of := n.store.Share()
		n.log.Info("the nodes that share the queue are others now", "nodes", of, "rank", rank)
		n.share = share
		n.queue.Refresh()
	}
	if differ := strings.Join(n.store.Differ(), ", "); differ != n.differ {
		if n.differ = differ; differ != "" {
			n.log.Warn("other nodes have other settings: relay.toml is to be the same on all of them, but for "+
				"addresses and files", "nodes", differ)
		}
	}
	err := n.adopt(ctx, n.store.Drained())
	if err != nil && !n.failing && ctx.Err() == nil {
		n.log.Error("what a node is to do was not done; it is tried again", "err", err)
	}
	n.failing = err != nil
}

// adopt lets the others know of the settings in force, and opens or closes the listeners as a person has asked. What
// fails is tried again at the next look.
func (n *nodes) adopt(ctx context.Context, drained bool) error {
	if c := n.config(); c != n.told {
		if err := n.store.SetSettings(ctx, config.Digest(c)); err != nil {
			return err
		}
		n.told = c
	}
	n.reloading.Lock()
	defer n.reloading.Unlock()
	switch {
	case n.stopping || !n.serving.Load() || drained == n.listeners.drained():
	case drained:
		n.log.Info("this node is drained: the listeners close, what is under way ends")
		for _, gone := range n.listeners.drain() {
			n.leaving.Go(func() { n.listeners.end(gone) })
		}
	default:
		if err := n.listeners.undrain(n.config()); err != nil {
			return fmt.Errorf("open the listeners again: %w", err)
		}
		n.log.Info("this node is not drained any more: the listeners are open")
	}
	return nil
}
