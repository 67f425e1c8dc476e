//go:build unix

package run

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"postern/bench/load"
)

// Options says what to measure.
type Options struct {
	Binary  string    // of Postern; "" omits Postern
	OpenSSL string    // of Postern as BuildOpenSSL makes it; "" omits it
	Dir     string    // directory for everything, on the disk to measure; "": a temporary one
	Runs    int       // whose median counts; 0: 3
	Scale   float64   // scales the numbers of messages; 0: 1
	Cases   []string  // keys; empty: all. Also "idle", "syncs", "backlog" and "search"
	Systems []string  // keys of entries; empty: all that are installed
	Idle    int       // connections; 0: 1000
	Backlog int       // messages; 0: 200 000
	Log     io.Writer // progress
}

// entry is a system with its key in Options.Systems.
type entry struct {
	key string
	System
	only []string // the cases that it is measured with; nil: all
}

func (e entry) wants(o Options, key string) bool {
	return o.wants(key) && (e.only == nil || slices.Contains(e.only, key))
}

// systems returns those of all that are asked for and can be run here.
func (o Options) systems() []entry {
	return slices.DeleteFunc(o.all(), func(e entry) bool {
		if len(o.Systems) > 0 && !slices.Contains(o.Systems, e.key) {
			return true
		}
		if err := e.Installed(); err != nil {
			fmt.Fprintf(o.Log, "%s is left out: %v\n", e.Name(), err)
			return true
		}
		return false
	})
}

func (o Options) all() []entry {
	few := []string{fewCase}
	all := []entry{{"postfix", &Postfix{}, nil}, {"postfix-unsigned", &Postfix{Unsigned: true}, few}}
	if o.Binary != "" {
		all = append(all,
			entry{"postern-queued", &Postern{Binary: o.Binary, Handoff: "0s", Flavour: "handoff=0s"}, nil},
			entry{"postern", &Postern{Binary: o.Binary}, nil},
			entry{"unsigned-queued", &Postern{Binary: o.Binary, Handoff: "0s", Flavour: unsignedQueued, Unsigned: true},
				few},
			entry{"unsigned", &Postern{Binary: o.Binary, Flavour: unsignedDefault, Unsigned: true}, few},
			entry{"postgres-queued", &Postern{Binary: o.Binary, Handoff: "0s", Flavour: serverQueued, Database: true},
				[]string{fewCase, "backlog"}},
			entry{"postgres", &Postern{Binary: o.Binary, Flavour: serverDefault, Database: true}, few},
			entry{"postgres-unsigned", &Postern{Binary: o.Binary, Flavour: serverUnsigned, Unsigned: true,
				Database: true}, few},
			entry{"nodes-queued", &Postern{Binary: o.Binary, Handoff: "0s", Flavour: nodesQueued, Database: true,
				Second: new(Postern)}, few},
			entry{"nodes", &Postern{Binary: o.Binary, Flavour: nodesDefault, Database: true, Second: new(Postern)},
				few})
	}
	if o.OpenSSL != "" {
		all = append(all,
			entry{"openssl-queued", &Postern{Binary: o.OpenSSL, Handoff: "0s", Flavour: opensslQueued, OpenSSL: true},
				few},
			entry{"openssl", &Postern{Binary: o.OpenSSL, Flavour: opensslDefault, OpenSSL: true}, few})
	}
	return all
}

// What is measured in few cases, most of it in this one: the store at PostgreSQL with one node, and with two that the
// load is spread over; mail that we do not sign, as for Microsoft 365, beside Postfix without a milter; signatures by
// OpenSSL.
const (
	fewCase         = "reused"
	serverQueued    = "PostgreSQL handoff=0s"
	serverDefault   = "PostgreSQL"
	serverUnsigned  = "PostgreSQL unsigned"
	nodesQueued     = "2 nodes handoff=0s"
	nodesDefault    = "2 nodes"
	unsignedQueued  = "unsigned handoff=0s"
	unsignedDefault = "unsigned"
	opensslQueued   = "openssl handoff=0s"
	opensslDefault  = "openssl"
)

func (o Options) wants(key string) bool { return len(o.Cases) == 0 || slices.Contains(o.Cases, key) }

func (o Options) count(n int) int { return max(int(float64(n)*o.Scale), 20) }

func (o Options) withDefaults() Options {
	if o.Runs <= 0 {
		o.Runs = 3
	}
	if o.Scale <= 0 {
		o.Scale = 1
	}
	if o.Idle <= 0 {
		o.Idle = 1000
	}
	if o.Backlog <= 0 {
		o.Backlog = 200000
	}
	o.Log = cmp.Or(o.Log, io.Discard)
	return o
}

// Run measures and returns the results. Everything it starts has ended when it returns.
func Run(ctx context.Context, o Options) (*Results, error) {
	o = o.withDefaults()
	dir, err := os.MkdirTemp(o.Dir, "postern-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // Postfix's processes run as other users
		return nil, err
	}
	e, err := NewEnvironment(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	r := newResults(o)
	systems := o.systems()
	for n := range o.Runs {
		for _, s := range systems {
			fmt.Fprintf(o.Log, "run %d of %d: %s\n", n+1, o.Runs, s.Name())
			if err := r.all(ctx, o, s, e); err != nil {
				return r, err
			}
		}
	}
	for _, s := range systems {
		if p, ok := s.System.(*Postern); ok && p.Handoff == "" && s.wants(o, "search") {
			if err := r.search(ctx, o, p, e); err != nil {
				return r, fmt.Errorf("search: %w", err)
			}
		}
		if s.wants(o, "syncs") {
			if err := r.syncs(ctx, o, s, e); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

// all measures everything but the syncs, in one run of a system.
func (r *Results) all(ctx context.Context, o Options, s entry, e *Environment) (err error) {
	g := NewGroup()
	defer func() {
		if kill := g.Kill(); err == nil {
			err = kill
		}
	}()
	took, err := s.Start(ctx, e, g, StartOptions{Fresh: true})
	if err != nil {
		return err
	}
	r.add(s, "start", took.Seconds())
	if err := duties(ctx, s, e); err != nil {
		return err
	}
	if err := r.signature(o, s); err != nil {
		return err
	}
	for _, c := range Cases {
		if !s.wants(o, c.Key) {
			continue
		}
		f, err := throughput(ctx, s, e, g, c, o.count(c.Count))
		if err != nil {
			return fmt.Errorf("%s: %w", c.Title, err)
		}
		fmt.Fprintf(o.Log, "  %-36s %7.0f delivered/s %7.0f accepted/s  %6.2f ms CPU  p99 %v\n",
			c.Title, f.Rate, f.Accepted, ms(f.CPU), f.P99.Round(time.Millisecond))
		r.add(s, c.Key+" rate", f.Rate)
		r.add(s, c.Key+" cpu", ms(f.CPU))
	}
	if s.wants(o, "idle") {
		m, err := idle(ctx, s, e, g, o.Idle)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Log, "  %-36s %7.1f KiB each (PSS; RSS %.1f)\n",
			fmt.Sprintf("%d idle connections", o.Idle), kib(m.PSS), kib(m.RSS))
		r.add(s, "idle", kib(m.PSS))
	}
	if p, ok := postern(s); ok && s.wants(o, "backlog") {
		if err := r.backlog(ctx, o, p, e, g); err != nil {
			return err
		}
	}
	return s.Stop()
}

func (r *Results) signature(o Options, s entry) error {
	took, err := signature(s.System)
	if err != nil || took == 0 {
		return err
	}
	fmt.Fprintf(o.Log, "  %-36s %6.2f ms\n", "an RSA-2048 signature alone", ms(took))
	r.add(s, "signature", ms(took))
	return nil
}

func postern(s entry) (*Postern, bool) {
	p, ok := s.System.(*Postern)
	return p, ok && p.Handoff == "0s" // with hand-off the backlog would take another path
}

// backlog measures the cost of a message with an empty and a full queue, and the start with a full one.
func (r *Results) backlog(ctx context.Context, o Options, p *Postern, e *Environment, g *Group) error {
	c := Cases[0]
	empty, err := throughput(ctx, p, e, g, c, o.count(c.Count))
	if err != nil {
		return err
	}
	begin := time.Now()
	report, err := load.Run(ctx, load.Config{
		Addr: p.Addr(), TLS: e.clientTLS(), Login: login, Password: e.Password, Run: "backlog",
		From: backlogSender, To: []string{recipient}, Size: 1024, Connections: 20, Count: o.Backlog,
	})
	if err != nil {
		return err
	}
	if n := report.Accepted.Len(); n != o.Backlog {
		return fmt.Errorf("backlog: accepted %d of %d: %v %v", n, o.Backlog, report.Refused, report.Failures)
	}
	fmt.Fprintf(o.Log, "  queued %d messages in %v\n", o.Backlog, time.Since(begin).Round(time.Second))
	full, err := throughput(ctx, p, e, g, c, o.count(c.Count))
	if err != nil {
		return err
	}
	if err := p.Stop(); err != nil {
		return err
	}
	start, err := p.Start(ctx, e, g, StartOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Log, "  CPU %.2f ms empty, %.2f ms with %d queued; start %v\n",
		ms(empty.CPU), ms(full.CPU), o.Backlog, start.Round(time.Millisecond))
	r.add(p, "backlog empty", ms(empty.CPU))
	r.add(p, "backlog full", ms(full.CPU))
	r.add(p, "backlog start", start.Seconds())
	return nil
}

func (r *Results) syncs(ctx context.Context, o Options, s System, e *Environment) error {
	if err := needTools("strace"); err != nil {
		fmt.Fprintf(o.Log, "syncs are left out: %v\n", err)
		return nil
	}
	n, err := syncs(ctx, s, e, Cases[0], o.count(Cases[0].Count/2))
	if err != nil {
		return fmt.Errorf("syncs: %w", err)
	}
	fmt.Fprintf(o.Log, "%s: %.3f syncs per accepted message\n", s.Name(), n)
	r.add(s, "syncs", n)
	return nil
}

// Build builds Postern from the tree of the working directory.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "postern")
	_, err := output(exec.CommandContext(ctx, "go", "build", "-o", path, "postern/cmd/postern"))
	return path, err
}

// BuildOpenSSL builds Postern with signatures by OpenSSL, and what measures them. It needs a C compiler and the headers
// of OpenSSL.
func BuildOpenSSL(ctx context.Context, dir string) (string, error) {
	dir = filepath.Join(dir, "openssl")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", "openssl", "-o", dir, "postern/cmd/postern",
		"postern/bench/cmd/signature")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	_, err := output(build)
	return filepath.Join(dir, "postern"), err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func kib(n int64) float64 { return float64(n) / 1024 }
