package operate_test

import (
	"errors"
	"testing"

	"postern/operate"
	"postern/relay/status"
)

// A node is drained and is no more; who drains the last one that works is told so.
func TestDrain(t *testing.T) {
	o := newOfficeOfNodes(t) // mail-2 is drained
	ctx := t.Context()
	d, err := o.Nodes.Undrain(ctx, root, "mail-2")
	if err != nil || d.State != status.NodeAlive || d.Drained || d.Warning != "" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = o.Nodes.Drain(ctx, root, "mail-2"); err != nil || d.State != status.NodeDrained || d.Warning != "" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = o.Nodes.Drain(ctx, root, "mail-1"); err != nil || d.State != status.NodeDrained || d.Warning == "" {
		t.Errorf("the last one: %+v, %v", d, err)
	}
	o.behind.rows("UPDATE node SET until = 0 WHERE name = 'mail-1'")
	if d, err = o.Nodes.Undrain(ctx, root, "mail-1"); err != nil || d.State != status.NodeGone || d.Drained {
		t.Errorf("one that is gone: %+v, %v", d, err)
	}
	all, err := o.Nodes.List(ctx, root)
	if err != nil || len(all) != 2 || all[0].Name != "mail-2" || !all[0].Drained || all[1].State != status.NodeGone {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = o.Nodes.Drain(ctx, root, "mail-3")
	if kind, known := operate.KindOf(err); !known || kind != operate.NotFound {
		t.Errorf("no such node: %v", err)
	}
	viewer := operate.Actor{Name: "anna", Channel: operate.Console, Role: operate.Operator}
	if _, err := o.Nodes.Drain(ctx, viewer, "mail-2"); !errors.Is(err, operate.ErrForbidden) {
		t.Errorf("an operator: %v", err)
	}
	if _, err := o.Nodes.List(ctx, operate.Actor{Channel: operate.Console}); !errors.Is(err, operate.ErrForbidden) {
		t.Errorf("nobody: %v", err)
	}
}

// With SQLite there is nothing to list, and nothing to drain.
func TestDrainWithSQLite(t *testing.T) {
	o := newOffice(t)
	if all, err := o.Nodes.List(t.Context(), root); err != nil || len(all) > 0 || o.Nodes.Shared() {
		t.Errorf("%+v, %v", all, err)
	}
	_, err := o.Nodes.Drain(t.Context(), root, "mail-1")
	if kind, known := operate.KindOf(err); !known || kind != operate.Conflict {
		t.Error(err)
	}
}
