//go:build unix

package run

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"postern/bench/load"
)

const (
	stallLimit = time.Minute // without any arrival
	warmUp     = 100         // messages
)

// Case is one kind of load.
type Case struct {
	Key, Title    string
	Connections   int
	PerConnection int
	Size          int
	Count         int // messages in a full run
	Delay         time.Duration
}

// Cases are the loads whose throughput is compared.
var Cases = []Case{
	{Key: "reused", Title: "20 reused connections, 4 KiB", Connections: 20, Size: 4096, Count: 18000},
	{Key: "fresh", Title: "one message per connection", Connections: 20, PerConnection: 1, Size: 4096, Count: 3000},
	{Key: "large", Title: "8 connections, 1 MB", Connections: 8, Size: 1000000, Count: 800},
	{Key: "far", Title: "upstream 50 ms away, 20 connections", Connections: 20, Size: 4096, Count: 2000,
		Delay: 50 * time.Millisecond},
}

// Figures is the result of one run of a case.
type Figures struct {
	Rate     float64       // delivered messages per second, from the first octet sent to the last arrival
	CPU      time.Duration // processor time of the system per message
	Accepted float64       // accepted messages per second
	P99      time.Duration // latency of the client
}

var runNumber atomic.Int64

// throughput runs one case against a running system.
func throughput(ctx context.Context, s System, e *Environment, g *Group, c Case, count int) (Figures, error) {
	e.Sink.SetDelay(c.Delay)
	defer e.Sink.SetDelay(0)
	if _, _, err := send(ctx, s, e, c, min(warmUp, count)); err != nil {
		return Figures{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := g.CPU()
	if err != nil {
		return Figures{}, err
	}
	report, last, err := send(ctx, s, e, c, count)
	if err != nil {
		return Figures{}, err
	}
	waitIdle(ctx)
	after, err := g.CPU()
	if err != nil {
		return Figures{}, err
	}
	return Figures{
		Rate:     float64(count) / last.Sub(report.Begin).Seconds(),
		CPU:      (after - before) / time.Duration(count),
		Accepted: report.Rate(),
		P99:      report.Latency.Quantile(0.99),
	}, nil
}

// duties sends one message and checks what the comparison demands for every message: it arrived over TLS with AUTH, as
// the sink requires, and its signature verifies, or it has none where none is measured.
func duties(ctx context.Context, s System, e *Environment) error {
	e.Sink.SetKeep(1)
	defer e.Sink.SetKeep(0)
	if _, _, err := send(ctx, s, e, Cases[0], 1); err != nil {
		return err
	}
	kept := e.Sink.Messages()
	if len(kept) != 1 || kept[0].Login != upstreamLogin {
		return fmt.Errorf("%s: %d messages kept, or without login", s.Name(), len(kept))
	}
	record, err := dkimRecord()
	if err != nil {
		return err
	}
	found, err := dkim.VerifyWithOptions(bytes.NewReader(kept[0].Data), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{record}, nil },
	})
	if err == nil && len(found) == 0 && unsigned(s) {
		return nil
	}
	if err != nil || len(found) != 1 || unsigned(s) || found[0].Err != nil || found[0].Domain != domain {
		return fmt.Errorf("%s: signatures %+v: %w", s.Name(), found, err)
	}
	return nil
}

// unsigned is whether mail is not to be signed.
func unsigned(s System) bool {
	if e, ok := s.(entry); ok {
		s = e.System
	}
	switch s := s.(type) {
	case *Postern:
		return s.Unsigned
	case *Postfix:
		return s.Unsigned
	}
	return false
}

// waitIdle lets a system finish what it does after the last reply: removing queue files, closing.
func waitIdle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(300 * time.Millisecond):
	}
}

// send sends count messages, waits until all have arrived, and returns the time of the last arrival. It fails unless
// every message arrives once and unchanged.
func send(ctx context.Context, s System, e *Environment, c Case, count int) (*load.Report, time.Time, error) {
	run := fmt.Sprintf("run%d", runNumber.Add(1))
	e.Sink.Ledger().Reset() // earlier runs have been proven
	report, err := load.Run(ctx, load.Config{
		Addr: s.Addr(), Others: others(s), Mode: load.StartTLS, TLS: e.clientTLS(), Login: login, Password: e.Password,
		Run: run, From: sender, To: []string{recipient}, Size: c.Size, Count: count,
		Connections: c.Connections, PerConnection: c.PerConnection,
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	if report.Accepted.Len() != count {
		return nil, time.Time{}, fmt.Errorf("%s accepted %d of %d: refused %v, failures %v",
			s.Name(), report.Accepted.Len(), count, report.Refused, report.Failures)
	}
	last, err := arrived(ctx, e, run, count)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%s: %w\n%s\nsink: %+v", s.Name(), err, s.Explain(), e.Sink.Stats())
	}
	if proof := e.Sink.Ledger().Check(report.Claim()); !proof.OK() {
		return nil, time.Time{}, fmt.Errorf("%s: the ledger does not agree: %+v", s.Name(), proof)
	}
	return report, last, nil
}

// others are the addresses of further nodes.
func others(s System) []string {
	if e, ok := s.(entry); ok {
		s = e.System
	}
	if p, ok := s.(*Postern); ok && p.Second != nil {
		return []string{p.Second.Addr()}
	}
	return nil
}

// arrived waits until count messages of a run have arrived. It gives up if none arrives for stallLimit.
func arrived(ctx context.Context, e *Environment, run string, count int) (time.Time, error) {
	seen, since := int64(0), time.Now()
	for time.Since(since) < stallLimit {
		s := e.Sink.Ledger().Summary(run)
		if s.Deliveries >= int64(count) {
			return s.Last, nil
		}
		if s.Deliveries > seen {
			seen, since = s.Deliveries, time.Now()
		}
		select {
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return time.Time{}, fmt.Errorf("%d of %d messages arrived, then none for %v", seen, count, stallLimit)
}

// idle returns the memory that each of n idle authenticated connections costs a running system.
func idle(ctx context.Context, s System, e *Environment, g *Group, n int) (Memory, error) {
	waitIdle(ctx)
	before, err := g.Memory()
	if err != nil {
		return Memory{}, err
	}
	held, err := load.Hold(ctx, load.Config{Addr: s.Addr(), TLS: e.clientTLS(), Login: login, Password: e.Password}, n)
	if err != nil {
		return Memory{}, fmt.Errorf("%s: %w", s.Name(), err)
	}
	defer held.Close()
	select { // until the garbage of the handshakes is collected
	case <-ctx.Done():
	case <-time.After(5 * time.Second):
	}
	after, err := g.Memory()
	if err != nil {
		return Memory{}, err
	}
	if alive := held.Alive(); alive != n {
		return Memory{}, fmt.Errorf("%s: %d of %d connections still answer", s.Name(), alive, n)
	}
	return Memory{PSS: (after.PSS - before.PSS) / int64(n), RSS: (after.RSS - before.RSS) / int64(n)}, nil
}

// syncCalls are the system calls that wait for the disk.
const syncCalls = "fsync,fdatasync,sync_file_range,syncfs,sync,msync"

// syncs counts the calls per accepted message that wait for the disk. The system runs under strace, which stops it only
// at these calls; those at start and stop do not count.
func syncs(ctx context.Context, s System, e *Environment, c Case, count int) (float64, error) {
	g := NewGroup()
	defer g.Kill()
	trace := filepath.Join(e.Dir, "syncs.trace")
	os.Remove(trace)
	wrap := append([]string{"strace"}, straceOptions(trace)...)
	if _, err := s.Start(ctx, e, g, StartOptions{Fresh: true, Wrap: wrap}); err != nil {
		return 0, err
	}
	if _, _, err := send(ctx, s, e, c, min(warmUp, count)); err != nil {
		return 0, err
	}
	waitIdle(ctx)
	before, err := countCalls(trace)
	if err != nil {
		return 0, err
	}
	if _, _, err := send(ctx, s, e, c, count); err != nil {
		return 0, err
	}
	waitIdle(ctx)
	after, err := countCalls(trace)
	if err != nil {
		return 0, err
	}
	return float64(after-before) / float64(count), s.Stop()
}

func straceOptions(trace string) []string {
	return []string{"-f", "-qq", "--seccomp-bpf", "-e", "trace=" + syncCalls, "-e", "signal=none", "-o", trace}
}

func countCalls(trace string) (int, error) {
	data, err := os.ReadFile(trace)
	if err != nil {
		return 0, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		_, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, found := strings.Cut(strings.TrimSpace(call), "(")
		if found && strings.Contains(","+syncCalls+",", ","+name+",") { // not "<... fsync resumed>"
			n++
		}
	}
	return n, nil
}
