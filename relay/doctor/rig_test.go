package doctor

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/auth"
	"postern/internal/disk"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/finding"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

// seen are the codes that some test has found.
var seen sync.Map

// Every code of the catalogue is found by some test.
func TestMain(m *testing.M) {
	code := testkit.Main(m)
	if only := flag.Lookup("test.run").Value.String(); code == 0 && only == "" && !testing.Short() {
		for _, c := range catalogue {
			if _, ok := seen.Load(c.Code); !ok {
				fmt.Printf("no test finds %s\n", c.Code)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// ward is a relay that is examined.
type ward struct {
	t    *testing.T
	dir  string // data_dir
	path string // of relay.toml
	o    Options
}

// healthyMachine is one on which nothing is wrong.
func healthyMachine() machine {
	return machine{
		lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
		own:   func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil },
		room:  func(string) (disk.Room, error) { return disk.Room{Free: 100e9, Files: 1e6, FreeFiles: 9e5}, nil },
		clock: func() (bool, bool) { return true, true },
	}
}

const plainUpstream = "[[upstream]]\nname = \"office\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n"

// newWard writes a configuration.
func newWard(t *testing.T, text string) *ward {
	t.Helper()
	dir := t.TempDir()
	w := &ward{t: t, dir: filepath.Join(dir, "data"), path: filepath.Join(dir, "relay.toml")}
	text = fmt.Sprintf("hostname = \"relay.example.com\"\ndata_dir = %q\n", w.dir) + text
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.o = Options{Path: w.path, machine: healthyMachine()}
	return w
}

// daemon answers as a running relay would, with a report that may be changed. Its store is open.
func (w *ward) daemon(change func(*status.Report)) *relaystore.Store {
	w.t.Helper()
	s, err := relaystore.Open(w.t.Context(), relaystore.Options{Dir: w.dir, Daemon: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	l, err := status.Listen(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &status.Report{Running: true, Phase: status.Serving, Version: "v1", Config: w.path, PID: os.Getpid(),
		Since: time.Now(), Time: time.Now()}
	if change != nil {
		change(r)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); status.Serve(ctx, l, func(context.Context) *status.Report { return r }) }()
	w.t.Cleanup(func() { stop(); <-ended })
	return s
}

// addUser makes an account.
func addUser(t *testing.T, s *relaystore.Store, u auth.User) {
	t.Helper()
	u.Hash = "x"
	if u.Created.IsZero() {
		u.Created = time.Now()
	}
	if err := s.AddUser(t.Context(), u); err != nil {
		t.Fatal(err)
	}
}

// examine returns what some examiners find.
func (w *ward) examine(only ...string) []finding.Finding {
	w.t.Helper()
	o := w.o
	o.Only = only
	r, err := Examine(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.OK != (finding.Worst(r.Findings) != finding.Danger) {
		w.t.Errorf("OK is %v", r.OK)
	}
	for _, f := range r.Findings {
		for line := range strings.SplitSeq(f.Subject+"\n"+f.What+"\n"+f.Why+"\n"+f.Fix, "\n") {
			if mail.Printable(line) != line {
				w.t.Errorf("%s has what is not printable: %q", f.Code, line)
			}
		}
	}
	return r.Findings
}

// with returns the finding with a code.
func with(list []finding.Finding, code string) (finding.Finding, bool) {
	i := slices.IndexFunc(list, func(f finding.Finding) bool { return f.Code == code })
	if i < 0 {
		return finding.Finding{}, false
	}
	return list[i], true
}

// want checks that something was found with these words, and that its texts are whole.
func want(t *testing.T, list []finding.Finding, code string, weight finding.Weight, words ...string) {
	t.Helper()
	for _, f := range list {
		if f.Code != code || f.Weight != weight || !hasAll(f, words) {
			continue
		}
		seen.Store(code, true)
		if weight != finding.Healthy && (f.What == "" || f.Fix == "" || f.Why == "" && code != codeMoreFindings) {
			t.Errorf("%s is not whole: %+v", code, f)
		}
		return
	}
	t.Errorf("%s %s with %q was not found in\n%s", weight, code, words, text(list))
}

func hasAll(f finding.Finding, words []string) bool {
	all := f.Subject + "\n" + f.What + "\n" + f.Why + "\n" + f.Fix
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(all, word) })
}

// not checks that something was not found.
func not(t *testing.T, list []finding.Finding, codes ...string) {
	t.Helper()
	for _, code := range codes {
		if f, ok := with(list, code); ok {
			t.Errorf("%s was found: %s", code, f.What)
		}
	}
}

func text(list []finding.Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "  %s %s: %s: %s\n    %s\n    %s\n", f.Weight, f.Code, f.Subject, f.What, f.Why, f.Fix)
	}
	return b.String()
}

// certified is the [tls] of a certificate.
func certified(c testkit.Cert) string {
	return fmt.Sprintf("[tls]\ncert_file = %q\nkey_file = %q\n", c.CertFile, c.KeyFile)
}
