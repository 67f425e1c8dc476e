package status

import (
	"strings"
	"testing"
)

// Mail goes on while one node works, whatever became of the others.
func TestDrainedNodes(t *testing.T) {
	for states, drained := range map[string]bool{"": false, "alive": false, "drained": true, "drained gone": true,
		"alive drained": false, "gone": false} {
		r := Report{Running: true, Phase: Serving, Upstreams: []Upstream{{Name: "a", State: Works}}}
		for _, state := range strings.Fields(states) {
			r.Nodes = append(r.Nodes, Node{State: NodeState(state)})
		}
		if r.Summarize(); r.OK == drained || strings.Contains(r.Summary, "--undo") != drained {
			t.Errorf("%q: %v, %s", states, r.OK, r.Summary)
		}
	}
}
