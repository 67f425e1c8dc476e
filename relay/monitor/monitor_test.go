package monitor

import (
	"errors"
	"log/slog"
	"testing"

	"postern/relay/alert"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/queue"
	relaystore "postern/relay/store"
)

// TestACheckThatPanics: a condition whose check meets a fault of ours ends neither the others nor the service.
func TestACheckThatPanics(t *testing.T) {
	s, err := relaystore.Open(t.Context(), relaystore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	full := func() error { return queue.ErrFull }
	m := stand(t, Options{Room: NewRoom(full, false, slog.New(slog.DiscardHandler)), Store: s, InForce: func() InForce {
		return InForce{Config: &config.Config{}, Routes: &outbound.Routes{Upstreams: []*outbound.Upstream{nil}}}
	}})
	m.Room.Check()
	m.look(t.Context(), 1)
	if open := m.alerter.Open(alert.DiskFull); len(open) != 1 || !errors.Is(m.Room.Full(), queue.ErrFull) {
		t.Errorf("alerts of the disk: %v", open)
	}
}
