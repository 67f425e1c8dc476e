package monitor

import (
	"context"

	"postern/relay/status"
	relaystore "postern/relay/store"
)

// Nodes are the daemons that share a store at a server, those that live first; none with SQLite.
func Nodes(ctx context.Context, s *relaystore.Store) (all []status.Node, err error) {
	nodes, err := s.Nodes(ctx)
	for _, n := range nodes {
		state := status.NodeGone
		switch {
		case n.Alive && n.Drained:
			state = status.NodeDrained
		case n.Alive:
			state = status.NodeAlive
		}
		all = append(all, status.Node{Name: n.Name, Host: n.Host, State: state, Drained: n.Drained,
			Leads: n.Leads, Since: n.Started, Seen: n.Seen, Carries: n.Leased, Alike: n.Alike, Version: n.Version})
	}
	return all, err
}

// nodesStatus adds them. Where they cannot be read, what is said of the queue says why.
func nodesStatus(ctx context.Context, r *status.Report, s *relaystore.Store) {
	if nodes, err := Nodes(ctx, s); err == nil {
		r.Nodes = nodes
	}
}
