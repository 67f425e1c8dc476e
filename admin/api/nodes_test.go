package api

import (
	"net/http"
	"os"
	"testing"

	"postern/internal/testkit"
	"postern/internal/testkit/nodetest"
	"postern/operate"
	"postern/relay/status"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// TestNodes: a node is listed, drained before an upgrade, and undrained.
func TestNodes(t *testing.T) {
	at, _ := nodetest.Options(t)
	at.Daemon, at.Node = true, "mail-1"
	r := newRigAt(t, at)
	var all Nodes
	if r.get("/nodes", &all); !all.Shared || len(all.Nodes) != 1 || all.Nodes[0].State != status.NodeAlive {
		t.Errorf("%+v", all)
	}
	var d operate.Drained
	if r.post("/nodes/mail-1/drain", `{}`, http.StatusOK, &d); !d.Drained || d.Warning == "" {
		t.Errorf("%+v", d)
	}
	if r.get("/nodes", &all); all.Nodes[0].State != status.NodeDrained {
		t.Errorf("%+v", all)
	}
	if r.post("/nodes/mail-1/undrain", `{}`, http.StatusOK, &d); d.State != status.NodeAlive {
		t.Errorf("%+v", d)
	}
	r.post("/nodes/mail-2/drain", `{}`, http.StatusNotFound, nil)
}

// TestNodesWithSQLite: there is one, which is not listed and cannot be drained.
func TestNodesWithSQLite(t *testing.T) {
	r := newRig(t)
	var all Nodes
	if r.get("/nodes", &all); all.Shared || len(all.Nodes) != 0 {
		t.Errorf("%+v", all)
	}
	r.post("/nodes/mail-1/drain", `{}`, http.StatusConflict, nil)
}
