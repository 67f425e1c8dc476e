package operate

import (
	"context"
	"errors"
	"slices"

	"postern/mail"
	"postern/relay/monitor"
	"postern/relay/status"
	"postern/relay/store"
)

// Operations on several nodes at one database.
var (
	SeeNodes    = Operation{Name: "node list", Role: Viewer, Scope: ScopeRead}
	DrainNode   = Operation{Name: "node drain", Role: Admin, Scope: ScopeAdmin, Audit: true}
	UndrainNode = Operation{Name: "node undrain", Role: Admin, Scope: ScopeAdmin, Audit: true}
)

// Nodes are the daemons that share a store at a server.
type Nodes struct{ *desk }

// Shared reports whether there can be several: by the store, or by what it is to be where there is none yet.
func (n Nodes) Shared() bool { return n.Store.Shared() || n.Config().Store.URL.Server() }

// List returns them, those that live first; none where the store is SQLite.
func (n Nodes) List(ctx context.Context, by Actor) ([]status.Node, error) {
	if err := by.May(SeeNodes); err != nil {
		return nil, err
	}
	return monitor.Nodes(ctx, n.Store)
}

// Drained is a node that was drained, or is no more.
type Drained struct {
	status.Node
	Warning string `json:"warning,omitempty"`
}

// Drain makes a node take no mail and begin no attempt, also after a restart, until Undrain.
func (n Nodes) Drain(ctx context.Context, by Actor, name string) (Drained, error) {
	return n.drain(ctx, by, DrainNode, name)
}

// Undrain ends that.
func (n Nodes) Undrain(ctx context.Context, by Actor, name string) (Drained, error) {
	return n.drain(ctx, by, UndrainNode, name)
}

func (n Nodes) drain(ctx context.Context, by Actor, op Operation, name string) (d Drained, err error) {
	err = n.act(ctx, by, op, name, func(ctx context.Context, _ *string) error {
		if !n.Shared() {
			return fault(Conflict, "the store is SQLite, and its one node cannot be drained: stop it instead")
		}
		err := n.Store.DrainNode(ctx, name, op == DrainNode)
		if errors.Is(err, store.ErrNoNode) {
			return noNode(name)
		}
		return err
	})
	if err != nil {
		return d, err
	}
	all, err := monitor.Nodes(ctx, n.Store)
	i := slices.IndexFunc(all, func(one status.Node) bool { return one.Name == name })
	switch {
	case err != nil:
		return d, err
	case i < 0: // forgotten meanwhile
		return d, noNode(name)
	}
	d.Node = all[i]
	works := func(one status.Node) bool { return one.State == status.NodeAlive }
	if op == DrainNode && !slices.ContainsFunc(all, works) {
		d.Warning = "No node takes mail now: each that lives is drained."
	}
	return d, nil
}

func noNode(name string) error {
	return fault(NotFound, "there is no node %s", mail.Printable(mail.Cut(name, maxNamed)))
}
