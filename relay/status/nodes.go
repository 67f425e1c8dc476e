package status

import (
	"slices"
	"time"
)

// Node is one of several daemons at one database.
type Node struct {
	Name    string    `json:"name"`
	Host    string    `json:"host"` // the machine
	State   NodeState `json:"state"`
	Drained bool      `json:"drained"` // also of one that is gone: it comes back so
	Leads   bool      `json:"leads"`   // it does what one does for all
	Since   time.Time `json:"since"`   // its start
	Seen    time.Time `json:"seen"`
	Carries int64     `json:"carries"`     // messages that it tries
	Alike   bool      `json:"same_config"` // as the others
	Version string    `json:"version"`
}

// NodeState is what a node does.
type NodeState string

// The states of a node.
const (
	NodeAlive   NodeState = "alive"
	NodeDrained NodeState = "drained" // it lives, takes no mail and begins no attempt
	NodeGone    NodeState = "gone"
)

// Drained reports whether every node that lives is drained: nothing is taken, and nothing sent.
func (r *Report) Drained() bool {
	in := func(state NodeState) bool {
		return slices.ContainsFunc(r.Nodes, func(n Node) bool { return n.State == state })
	}
	return in(NodeDrained) && !in(NodeAlive)
}
