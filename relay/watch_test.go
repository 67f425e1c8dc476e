package relay

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"postern/relay/keyring"
	relaystore "postern/relay/store"
	"postern/relay/trace"
)

// brokenSink is a trace that cannot be written.
type brokenSink struct{ writes int }

func (s *brokenSink) AppendEvents(context.Context, []trace.Event) error {
	s.writes++
	return errors.New("disk on fire")
}

// A command that asks for the trace while it cannot be written does not press: what is refused too often is dropped.
func TestTraceAskedForWhileItCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	open := func(daemon bool) *relaystore.Store {
		s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: dir, Daemon: daemon})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	sink, log := &brokenSink{}, slog.New(slog.DiscardHandler)
	s := &Server{store: open(true), trace: trace.NewRecorder(sink, log), log: log}
	s.trace.Record(trace.Event{Kind: trace.Delivered})
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan bool, 1)
	command := open(false)
	go func() { answered <- command.AwaitEvents(ctx) }()
	seen := map[string]int64{}
	for looks := 0; looks < 20; {
		s.takeChanges(t.Context(), seen, map[string]int64{})
		if sink.writes > 0 { // it was asked
			looks++
		}
	}
	cancel()
	if <-answered {
		t.Error("it was answered")
	}
	if sink.writes != 1 || s.trace.Dropped() > 0 {
		t.Errorf("%d writes, %d events dropped", sink.writes, s.trace.Dropped())
	}
}

// A change that cannot be taken over is told once, counts as not seen, and is tried again when a wakePeriod is over.
func TestAChangeThatFailsIsTriedAgain(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	r.close()
	c, err := r.load()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s, err := New(t.Context(), Options{Config: c, Poll: rigPoll, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	bad := relaystore.Key{Domain: "example.com", Selector: "s", PEM: "no key",
		State: keyring.State{Stage: keyring.Signing}}
	if err := s.store.AddKeys(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	seen, failed := s.opened, map[string]int64{}
	before, told := seen["keys"], func() int { return strings.Count(log.String(), "DKIM keys not taken over") }
	for range 3 {
		s.takeChanges(t.Context(), seen, failed)
	}
	if seen["keys"] != before || told() != 1 {
		t.Errorf("seen %d, was %d; told %d times: %s", seen["keys"], before, told(), log.String())
	}
	clear(failed)
	if s.takeChanges(t.Context(), seen, failed); told() != 2 {
		t.Errorf("told %d times: %s", told(), log.String())
	}
}
