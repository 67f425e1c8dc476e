package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testkit"
)

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(testkit.Need(t, "promtool"), args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Prometheus itself reads the rules, and has each alert fire, alone, at what it is for.
func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "prometheus/rules.yaml")
	promtool(t, "test", "rules", "prometheus/rules_test.yaml")
	cases := read(t, "prometheus/rules_test.yaml")
	alerts := regexp.MustCompile(`- alert: (\w+)\n`).FindAllStringSubmatch(read(t, "prometheus/rules.yaml"), -1)
	for _, a := range alerts {
		if !strings.Contains(cases, `{alertname="`+a[1]+`"}`) {
			t.Errorf("no case in which %s fires", a[1])
		}
	}
	if len(alerts) < 15 {
		t.Errorf("only %d alerts", len(alerts))
	}
}

// panel is what is looked at of a panel of Grafana.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	Targets                  []struct{ RefID, Expr string }
}

func dashboard(t *testing.T) []panel {
	t.Helper()
	var d struct {
		UID    string
		Panels []panel
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/postern.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || len(d.Panels) < 20 {
		t.Fatalf("%q with %d panels", d.UID, len(d.Panels))
	}
	return d.Panels
}

// Each panel says what it shows, asks the chosen Prometheus, and has a place of its own.
func TestDashboard(t *testing.T) {
	ids, taken := make(map[int]string), make(map[[2]int]string)
	for _, p := range dashboard(t) {
		if other := ids[p.ID]; other != "" {
			t.Errorf("%s and %s have one id", p.Title, other)
		}
		ids[p.ID] = p.Title
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" || at[0] > 23 {
					t.Fatalf("%s lies over %q at %v", p.Title, other, at)
				}
				taken[at] = p.Title
			}
		}
		if p.Type != "row" && (p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0) {
			t.Errorf("%s: %+v", p.Title, p)
		}
	}
}

// Prometheus itself reads the expressions of the dashboard, with values for its variables.
func TestDashboardAsksWhatPrometheusUnderstands(t *testing.T) {
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", "postern", "$upstream", ".*")
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for _, p := range dashboard(t) {
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: an unknown variable: %s", p.Title, expr)
			}
			rules += fmt.Sprintf("  - record: panel_%d_%s\n    expr: %q\n", p.ID, target.RefID, expr)
		}
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
