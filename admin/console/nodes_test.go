package console

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/internal/testkit/nodetest"
	"postern/operate"
	"postern/relay/status"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// now is the page Now, with the nodes as the store has them.
func (r *rig) nowWithNodes(role operate.Role) string {
	r.t.Helper()
	nodes, err := r.operations.Nodes.List(r.t.Context(), *person(operate.Admin))
	r.must(err)
	r.report.Nodes = nodes
	return r.page2(role, "/")
}

// TestNodes: an admin sees the nodes and drains one, after a question; others see them.
func TestNodes(t *testing.T) {
	at, database := nodetest.Options(t)
	at.Daemon, at.Node = true, "mail-1"
	r := newRigAt(t, at)
	r.healthy()
	if body := r.nowWithNodes(operate.Admin); strings.Contains(body, "/nodes/act/") {
		t.Error("one node that works is listed")
	}
	nodetest.Add(t, database, "mail-2", false, false)
	body := r.nowWithNodes(operate.Admin)
	for _, want := range []string{"mail-1", "rack", "not there", "/nodes/act/drain"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if body := r.nowWithNodes(operate.Operator); !strings.Contains(body, "mail-2") ||
		strings.Contains(body, "/nodes/act/") {
		t.Error("an operator sees none, or may drain them")
	}
	form := url.Values{"name": {"mail-1"}}
	if w := r.ask(person(operate.Operator), "POST", "/nodes/act/drain", form); w.Code != http.StatusForbidden {
		t.Errorf("an operator drains: %d", w.Code)
	}
	question, next := r.confirmedBy(person(operate.Admin), "/nodes/act/drain", form)
	if next != "/" || !strings.Contains(question, "Drain node mail-1?") {
		t.Errorf("%s, leads to %s", question, next)
	}
	body = r.nowWithNodes(operate.Admin)
	if !strings.Contains(body, "Every node is drained.") || !strings.Contains(body, "/nodes/act/undrain") {
		t.Error(body)
	}
	r.ask(person(operate.Admin), "POST", "/nodes/act/undrain", form)
	if r.nowWithNodes(operate.Admin); r.report.Nodes[0].State != status.NodeAlive {
		t.Errorf("%+v", r.report.Nodes)
	}
}

// TestNodesThatAreNot: what cannot be drained is said in German, too.
func TestNodesThatAreNot(t *testing.T) {
	r := newRig(t)
	form := url.Values{"name": {hostile}, "confirmed": {"yes"}}
	w := r.ask(person(operate.Admin), "POST", "/nodes/act/drain", form, in("de"))
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "lässt sich nicht außer Betrieb nehmen") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
