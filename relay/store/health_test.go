package store

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"postern/relay/trace"
)

// A store that is whole is said to be, one that there was no time to read is not, and damage is named.
func TestHealth(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true}))
	if err != nil {
		t.Fatal(err)
	}
	var events []trace.Event
	for range 2000 {
		events = append(events, trace.Event{Kind: trace.Refused, Client: "192.0.2.1",
			Detail: "no TLS handshake in time"})
	}
	if err := s.AppendEventsNow(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	h, err := s.Health(t.Context())
	if err != nil || !h.Whole || len(h.Damage) > 0 || h.Events != 2000 || h.History < 2000*100 || h.File == 0 {
		t.Errorf("%+v, %v", h, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if h, err := s.Health(over); err != nil || h.Whole || len(h.Damage) > 0 || h.Events != 2000 {
		t.Errorf("without time: %+v, %v", h, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fileOnly(t)
	damage(t, filepath.Join(dir, FileName))
	if s, err = Open(t.Context(), at(t, Options{Dir: dir})); err != nil {
		t.Fatal(err) // the header is whole
	}
	defer s.Close()
	if h, err := s.Health(t.Context()); err == nil && len(h.Damage) == 0 {
		t.Errorf("nothing is damaged: %+v", h)
	}
}

// damage overwrites pages in the last quarter of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 4 * 3; i < len(data); i++ {
		data[i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
