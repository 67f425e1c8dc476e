package relay

import (
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/internal/testkit/nodetest"
	"postern/relay/status"
)

// What `postern status` is told has the nodes of the database, and says so when none of them takes mail.
func TestStatusNamesNodes(t *testing.T) {
	database := testkit.SharedPostgreSQL(t).NewDatabase(t)
	r := newRigAt(t, newProvider(t), database, "")
	nodetest.Add(t, database, "other", true, true)
	got := r.asked()
	if len(got.Nodes) != 2 || got.Nodes[0].State != status.NodeAlive || !got.Nodes[1].Drained || !got.OK {
		t.Errorf("%v %s: %+v", got.OK, got.Summary, got.Nodes)
	}
	if err := r.server.store.DrainNode(t.Context(), got.Nodes[0].Name, true); err != nil {
		t.Fatal(err)
	}
	if got = r.asked(); got.OK || !strings.Contains(got.Summary, "every node is drained") {
		t.Errorf("%v %s", got.OK, got.Summary)
	}
}
