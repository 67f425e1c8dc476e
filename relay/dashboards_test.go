package relay

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postern/certs"
	"postern/internal/testkit"
)

// exported is what a running server has for Prometheus: the labels of each metric, and the values they have now.
type exported struct {
	labels map[string][]string
	values map[string]map[string]bool // by metric and label, as "metric label"
}

var describedAs = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

func (r *rig) exported() *exported {
	r.t.Helper()
	e := &exported{labels: make(map[string][]string), values: make(map[string]map[string]bool)}
	all := make(chan *prometheus.Desc)
	go func() {
		defer close(all)
		r.server.registry.Describe(all)
	}()
	for d := range all {
		m := describedAs.FindStringSubmatch(d.String())
		if m == nil {
			r.t.Fatal(d)
		}
		e.labels[m[1]] = strings.FieldsFunc(m[2], func(c rune) bool { return c == ',' })
	}
	families, err := r.server.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				key := f.GetName() + " " + l.GetName()
				if e.values[key] == nil {
					e.values[key] = make(map[string]bool)
				}
				e.values[key][l.GetValue()] = true
			}
		}
	}
	return e
}

// metric returns the metric of a series: histograms have three kinds.
func (e *exported) metric(series string) (name string, ok bool) {
	for _, suffix := range []string{"", "_bucket", "_count", "_sum"} {
		name = strings.TrimSuffix(series, suffix)
		if _, ok = e.labels[name]; ok {
			return name, true
		}
	}
	return "", false
}

var (
	selected = regexp.MustCompile(`\b((?:postern|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*=~?\s*"([^"]*)"`)
	grouped  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	shown    = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z_]+)`)
)

// fromPrometheus are labels that Prometheus gives to what it reads, and that of buckets.
var fromPrometheus = []string{"job", "instance", "le"}

// check holds an expression, and the words that name its labels, against what there is.
func (e *exported) check(t *testing.T, where, expr, words string) {
	t.Helper()
	has := slices.Clone(fromPrometheus)
	for _, m := range selected.FindAllStringSubmatch(expr, -1) {
		name, ok := e.metric(m[1])
		if !ok {
			t.Errorf("%s: no server has %s", where, m[1])
		}
		has = append(has, e.labels[name]...)
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			e.checkMatcher(t, where, name, l[1], l[2])
		}
	}
	labels := shown.FindAllStringSubmatch(words, -1)
	for _, g := range grouped.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			labels = append(labels, []string{"", strings.TrimSpace(label)})
		}
	}
	for _, l := range labels {
		if !slices.Contains(has, l[1]) {
			t.Errorf("%s: nothing in it has the label %s: %s", where, l[1], expr)
		}
	}
}

// checkMatcher looks for each value that a label is asked for, where it is no variable of a dashboard. That an alert
// was given up takes hours.
func (e *exported) checkMatcher(t *testing.T, where, metric, label, values string) {
	t.Helper()
	if slices.Contains(fromPrometheus, label) || metric == "postern_alerts_total" && values == "failed" {
		return
	}
	if !slices.Contains(e.labels[metric], label) {
		t.Errorf("%s: %s has no label %s", where, metric, label)
	}
	for value := range strings.SplitSeq(values, "|") {
		if !strings.HasPrefix(value, "$") && !e.values[metric+" "+label][value] {
			t.Errorf("%s: %s never has %s=%q, but %v", where, metric, label, value, e.values[metric+" "+label])
		}
	}
}

// Every metric, label and value that the dashboard and the rules in deploy/ name is there in a server that works.
func TestDashboardAndRulesNameWhatThereIs(t *testing.T) {
	p := newProvider(t)
	r := newRigAt(t, p, testkit.SharedPostgreSQL(t).NewDatabase(t), "")
	if _, err := r.send(rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	p.wait(1)
	if err := r.tryLogin(rigLogin, "another"); err == nil {
		t.Fatal("a wrong password is taken")
	}
	e := r.exported()
	text, err := os.ReadFile("../deploy/grafana/postern.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			e.check(t, "panel "+panel.Title, target.Expr, target.LegendFormat)
			seen++
		}
	}
	for _, v := range dashboard.Templating.List {
		e.check(t, "a variable", v.Definition, "")
	}
	text, err = os.ReadFile("../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range strings.Split(string(text), "- alert: ")[1:] {
		name, rest, _ := strings.Cut(rule, "\n")
		_, expr, found := strings.Cut(rest, "expr:")
		expr, words, cut := strings.Cut(expr, "labels:")
		if !found || !cut {
			t.Errorf("%s: no expression", name)
		}
		e.check(t, name, expr, words)
		seen++
	}
	if seen < 50 {
		t.Errorf("only %d expressions", seen)
	}
}

// Prometheus itself reads the metrics, and finds nothing in their names to complain about.
func TestMetricsByPromtool(t *testing.T) {
	tool := testkit.Need(t, "promtool")
	r := newRig(t, newProvider(t), "")
	if _, err := r.send(rigLogin, []string{"bob@example.net"}, plainMessage); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(r.server.registry, promhttp.HandlerOpts{}).ServeHTTP(page,
		httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = page.Body
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// Two certificates of the same kind, one for each name as [tls.acme] has them, are two metrics.
func TestEndsOfCertificates(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 12, n, 0, 0, 0, 0, time.UTC) }
	got := ends([]certs.Info{
		{Names: []string{"a.example", "b.example"}, Key: "ECDSA P-256", NotAfter: day(3)},
		{Names: []string{"c.example"}, Key: "ECDSA P-256", NotAfter: day(5)},
		{Names: []string{"a.example"}, Key: "RSA 2048", NotAfter: day(7)},
		{Names: []string{"a.example"}, Key: "RSA 2048", NotAfter: day(6)}, // from two files
	})
	want := map[certificate]time.Time{{"a.example", "ECDSA P-256"}: day(3), {"c.example", "ECDSA P-256"}: day(5),
		{"a.example", "RSA 2048"}: day(6)}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for c, end := range want {
		if !got[c].Equal(end) {
			t.Errorf("%v: %v, want %v", c, got[c], end)
		}
	}
}
