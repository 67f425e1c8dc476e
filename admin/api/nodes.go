package api

import (
	"context"
	"net/http"

	"postern/operate"
	"postern/relay/status"
)

// nodesAPI serves what is done with several nodes at one database.
type nodesAPI struct{ ops *operate.Operations }

func nodeRoutes(s *server) []route {
	n := nodesAPI{s.Operations}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/nodes", id: "nodes", tag: "Nodes",
			needs: []operate.Operation{operate.SeeNodes}, summary: "The nodes that share the database",
			about: "Those that live first. With SQLite there is one node, and the list is empty."}, n.list),
		handle(s, route{method: http.MethodPost, path: "/nodes/{name}/drain", id: "node-drain", tag: "Nodes",
			needs: []operate.Operation{operate.DrainNode}, faults: []kind{notFound, conflict},
			summary: "Let a node take no mail and begin no delivery",
			about: "What it has under way ends: see `carries`. It stays so after a restart. The answer warns if no " +
				"node takes mail then."},
			func(ctx context.Context, by operate.Actor, in *ofNode) (*shown[operate.Drained], error) {
				d, err := n.ops.Nodes.Drain(ctx, by, in.Name)
				return &shown[operate.Drained]{d}, err
			}),
		handle(s, route{method: http.MethodPost, path: "/nodes/{name}/undrain", id: "node-undrain", tag: "Nodes",
			needs: []operate.Operation{operate.UndrainNode}, faults: []kind{notFound, conflict},
			summary: "Let a node take mail and deliver again"},
			func(ctx context.Context, by operate.Actor, in *ofNode) (*shown[operate.Drained], error) {
				d, err := n.ops.Nodes.Undrain(ctx, by, in.Name)
				return &shown[operate.Drained]{d}, err
			}),
	}
}

type ofNode struct {
	Name string `path:"name" maxLength:"63"`
	Body struct{}
}

// Nodes are the nodes at one time.
type Nodes struct {
	Nodes  []status.Node `json:"nodes"`
	Shared bool          `json:"shared" doc:"False: the store is SQLite, and there is one node."`
}

func (n nodesAPI) list(ctx context.Context, by operate.Actor, _ *none) (*shown[Nodes], error) {
	nodes, err := n.ops.Nodes.List(ctx, by)
	return &shown[Nodes]{Nodes{append([]status.Node{}, nodes...), n.ops.Nodes.Shared()}}, err
}
