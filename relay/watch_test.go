package relay

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

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
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if open(false).AwaitEvents(ctx) {
		t.Error("it was answered")
	}
	seen := map[string]int64{}
	for range 20 {
		s.takeChanges(t.Context(), seen, map[string]int64{})
	}
	if sink.writes != 1 || s.trace.Dropped() > 0 {
		t.Errorf("%d writes, %d events dropped", sink.writes, s.trace.Dropped())
	}
}
