//go:build unix

package run

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

func TestGroup(t *testing.T) {
	sh := testkit.Need(t, "sh")
	for _, tt := range []struct {
		name  string
		group *Group
	}{{"as the system allows", NewGroup()}, {"process tree", &Group{}}} {
		t.Run(tt.name, func(t *testing.T) {
			g := tt.group
			// A child that has ended and one that lives, each with some work done.
			work := `i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done`
			cmd := g.Command(sh, "-c", work+`; (`+work+`); sleep 60 & echo ready; wait`)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			g.Add(cmd.Process.Pid)
			if n, err := out.Read(make([]byte, 10)); n == 0 {
				t.Fatal(err)
			}
			cpu, err := g.CPU()
			if err != nil || cpu < 20*time.Millisecond || cpu > 30*time.Second {
				t.Errorf("CPU %v, %v", cpu, err)
			}
			m, err := g.Memory()
			if err != nil || m.PSS < 100<<10 || m.RSS < m.PSS {
				t.Errorf("memory %+v, %v", m, err)
			}
			if n := len(g.Pids()); n != 2 {
				t.Errorf("%d processes", n)
			}
			reaped := make(chan struct{})
			go func() { defer close(reaped); cmd.Wait() }()
			if err := g.Kill(); err != nil {
				t.Error(err)
			}
			<-reaped
			if g.dir != "" {
				if _, err := os.Stat(g.dir); err == nil {
					t.Error("the control group stays")
				}
			}
		})
	}
}

// A process that was started elsewhere counts with those that it has started, and is ended in its own way.
func TestGroupAdopts(t *testing.T) {
	cmd := exec.Command(testkit.Need(t, "sh"), "-c", "sleep 60 & echo ready; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 10)); n == 0 {
		t.Fatal(err)
	}
	g, ended := NewGroup(), false
	if err := g.Adopt(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if n := len(g.Pids()); n != 2 {
		t.Errorf("%d processes", n)
	}
	reaped := make(chan struct{})
	go func() { defer close(reaped); cmd.Wait() }()
	g.AtEnd(func() { ended = len(g.Pids()) == 2 })
	if err := g.Kill(); err != nil || !ended {
		t.Errorf("ended in its own way: %v, %v", ended, err)
	}
	<-reaped
}

// Of the store at PostgreSQL other things are demanded.
func TestTableOfServer(t *testing.T) {
	r := results(map[string]map[string][]float64{"Postfix": {"reused rate": {100}}, "Postern": {"reused rate": {600}},
		"Postern " + serverQueued:  {"reused rate": {260}, "reused cpu": {9}},
		"Postern " + serverDefault: {"reused rate": {590}}, "Postern " + nodesDefault: {"reused rate": {10}}})
	r.Systems = append(r.Systems, "Postern "+serverQueued, "Postern "+serverDefault, "Postern "+nodesDefault)
	var b strings.Builder
	if met, err := r.WriteTable(&b); err != nil || met {
		t.Errorf("590 are not 600: %v", err)
	}
	for _, want := range []string{"2.60x of 2.5x Postfix", "0.98x of 1x Postern MISSED"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	r.Figures["Postern "+serverDefault]["reused rate"] = []float64{600}
	if met, err := r.WriteTable(&b); err != nil || !met {
		t.Errorf("all demands are met: %v\n%s", err, &b)
	}
	r.Figures["Postern"]["backlog empty"] = []float64{9} // each is compared with itself
	queued := r.Figures["Postern "+serverQueued]
	queued["backlog empty"], queued["backlog full"] = []float64{1}, []float64{1.11}
	if met, err := r.WriteTable(&b); err != nil || met || !strings.Contains(b.String(), "at most 1.10 MISSED") {
		t.Errorf("1.11 is within a tenth of 1: %v\n%s", err, &b)
	}
}

// Mail without signatures is compared with Postfix that has no milter, and OpenSSL's with our own and its signature.
func TestTableOfSignatures(t *testing.T) {
	r := results(map[string]map[string][]float64{
		"Postern": {"reused rate": {1000}}, postfixUnsigned: {"reused rate": {400}},
		"Postern " + unsignedDefault: {"reused rate": {8000}, "reused cpu": {3}},
		"Postern " + opensslDefault:  {"reused rate": {1900}, "reused cpu": {0.45}, "signature": {0.25}}})
	r.Systems = []string{postfixUnsigned, "Postern", "Postern " + unsignedDefault, "Postern " + opensslDefault}
	var b strings.Builder
	if met, err := r.WriteTable(&b); err != nil || met {
		t.Errorf("1900 are not twice 1000: %v", err)
	}
	for _, want := range []string{"20.00x of 10x Postfix unsigned", "1.90x of 2x Postern MISSED", "at most 0.50"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	r.Figures["Postern "+opensslDefault]["reused rate"] = []float64{2000}
	if met, err := r.WriteTable(&b); err != nil || !met {
		t.Errorf("all demands are met: %v\n%s", err, &b)
	}
	r.Figures["Postern "+opensslDefault]["signature"] = []float64{0.2}
	if met, _ := r.WriteTable(&b); met {
		t.Error("0.45 ms are not twice 0.2")
	}
}

func TestCountCalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	trace := `12 fsync(5)                          = 0
13 fdatasync(7 <unfinished ...>
12 fsync(5)                          = 0
13 <... fdatasync resumed>)          = 0
12345 sync_file_range(3, 0, 0, 2)    = 0
12 +++ exited with 0 +++
`
	if err := os.WriteFile(path, []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := countCalls(path); err != nil || n != 4 {
		t.Errorf("%d calls, %v", n, err)
	}
}

// strace must see what it is asked for, or zero syncs would look like a triumph.
func TestStraceSeesSyncs(t *testing.T) {
	testkit.Need(t, "strace")
	path := filepath.Join(t.TempDir(), "trace")
	script := "import os\nf = os.open(" + `"` + path + `.x"` +
		", os.O_CREAT | os.O_WRONLY)\nfor _ in range(3): os.fsync(f)\nos.fdatasync(f)\n"
	args := append(straceOptions(path), testkit.Need(t, "python3"), "-c", script)
	if out, err := exec.Command("strace", args...).CombinedOutput(); err != nil {
		t.Skipf("strace cannot trace here: %v %s", err, out)
	}
	if n, err := countCalls(path); err != nil || n != 4 {
		t.Errorf("%d calls, %v", n, err)
	}
}

func results(figures map[string]map[string][]float64) *Results {
	r := newResults(Options{Idle: 1000, Backlog: 200000})
	r.Figures = figures
	r.Systems = []string{"Postfix", "Postern"}
	return r
}

func TestTable(t *testing.T) {
	r := results(map[string]map[string][]float64{
		"Postfix": {"reused rate": {400, 500, 421}, "reused cpu": {2.5}, "large rate": {138}},
		"Postern": {"reused rate": {1300, 1200, 1500}, "reused cpu": {1.2}, "large rate": {300}, "idle": {20},
			"syncs": {0.1}, "backlog empty": {1}, "backlog full": {1.05}},
	})
	var b strings.Builder
	met, err := r.WriteTable(&b)
	if err != nil {
		t.Fatal(err)
	}
	if met {
		t.Error("1.2 ms are not at most 1.1 ms")
	}
	for _, want := range []string{"421", "1300", "3.1x of 3x", "at most 1.1 MISSED", "2.2x of 2x", "at most 40",
		"at most 1.10"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "start with") {
		t.Error("a figure that was not measured is shown")
	}
	r.Figures["Postern"]["reused cpu"] = []float64{1.0}
	if met, _ := r.WriteTable(&strings.Builder{}); !met {
		t.Error("all demands are met")
	}
	r.Figures["Postern"]["large rate"] = []float64{270}
	if met, _ := r.WriteTable(&strings.Builder{}); met {
		t.Error("270 is not twice 138")
	}
}

func TestMedian(t *testing.T) {
	r := results(map[string]map[string][]float64{"Postern": {"odd": {3, 1, 2}, "even": {4, 1, 2, 3}}})
	for figure, want := range map[string]float64{"odd": 2, "even": 2.5} {
		if got, ok := r.Median("Postern", figure); !ok || got != want {
			t.Errorf("%s: %v", figure, got)
		}
	}
	if _, ok := r.Median("Postern", "none"); ok {
		t.Error("median of nothing")
	}
}

// The whole measurement runs, with few messages.
func TestMeasurePostern(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	var log strings.Builder
	r, err := Run(t.Context(),
		Options{Binary: testkit.Binary(t), Dir: t.TempDir(), Runs: 1, Scale: 0.005, Idle: 5, Backlog: 50,
			Systems: []string{"postern-queued", "unsigned"}, Cases: []string{"reused", "fresh", "idle", "backlog"},
			Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	for _, figure := range []string{"start", "reused rate", "reused cpu", "fresh rate", "idle", "backlog full",
		"backlog start"} {
		if v, ok := r.Median("Postern handoff=0s", figure); !ok || v <= 0 && figure != "idle" {
			t.Errorf("%s: %v %t", figure, v, ok)
		}
	}
	if _, signed := r.Median("Postern "+unsignedDefault, "signature"); signed {
		t.Error("a signature is measured where none is made")
	}
	if rate, ok := r.Median("Postern "+unsignedDefault, "reused rate"); !ok || rate <= 0 {
		t.Errorf("without signatures: %v %t", rate, ok)
	}
}
