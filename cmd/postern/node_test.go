package main

import (
	"encoding/json"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/internal/testkit/nodetest"
	"postern/relay/config"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// Nodes at a database are listed, drained before an upgrade, and undrained.
func TestNodes(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	database := testkit.SharedPostgreSQL(t).NewDatabase(t)
	l.config = l.serverConfig(database)
	c, err := config.Read(l.config)
	if err != nil {
		t.Fatal(err)
	}
	if out := l.ok("node", "list"); !strings.Contains(out, "No node has used") {
		t.Error(out)
	}
	o := relaystore.Of(c)
	o.Daemon, o.Node = true, "mail-1"
	node, err := relaystore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	nodetest.Add(t, database, "mail-2", false, false)

	out := l.ok("node", "list")
	for _, want := range []string{"NAME", "CARRIES", "mail-1", "alive", "mail-2", "rack", "gone since"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, errs, err := l.run("node", "drain", "mail-1")
	if err != nil || !strings.Contains(out, "postern node drain mail-1 --undo") ||
		!strings.Contains(errs, "No node takes mail now") {
		t.Errorf("%v\n%s%s", err, out, errs)
	}
	if out := l.ok("node", "drain", "mail-2"); !strings.Contains(out, "does not run at present") {
		t.Error(out)
	}
	var nodes []status.Node
	if err := json.Unmarshal([]byte(l.ok("node", "list", "--json")), &nodes); err != nil || len(nodes) != 2 ||
		nodes[0].State != status.NodeDrained || nodes[1].State != status.NodeGone || !nodes[1].Drained {
		t.Errorf("%+v, %v", nodes, err)
	}
	if out := l.ok("node", "drain", "mail-1", "--undo"); !strings.Contains(out, "not drained any more") {
		t.Error(out)
	}
	if out := l.ok("node", "drain", "mail-2", "--undo", "--json"); !strings.Contains(out, `"drained": false`) {
		t.Error(out)
	}
	_, _, err = l.run("node", "drain", "mail-3")
	if err == nil || !strings.Contains(err.Error(), "postern node list") {
		t.Error(err)
	}
	if out := l.ok("audit"); strings.Count(out, "node drain") != 3 || strings.Count(out, "node undrain") != 2 {
		t.Error(out)
	}
}

// With SQLite there is one node, and nothing to drain.
func TestNodesWithSQLite(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	if out := l.ok("node", "list"); out != "There is one node, this machine: the store is SQLite.\n" {
		t.Error(out)
	}
	if out := l.ok("node", "list", "--json"); out != "[]\n" {
		t.Error(out)
	}
	if _, _, err := l.run("node", "drain", "x"); err == nil || !strings.Contains(err.Error(), "stop it instead") {
		t.Error(err)
	}
}
