package store

import (
	"errors"
	"net/netip"
	"testing"

	"postern/relay/devices"
)

// TestPlacesAreBounded: there are so many places and no more, and each can be given to another account.
func TestPlacesAreBounded(t *testing.T) {
	fileOnly(t) // by SQL of SQLite
	s := open(t, Options{})
	if err := s.write(t.Context(), func(tx *tx) error {
		return tx.Run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO "+
			"device_place SELECT 'devices', '10.1.0.' || i, 'scanner' FROM n", devices.MostPlaces)
	}); err != nil {
		t.Fatal(err)
	}
	place := devices.Place{Listener: "devices", Address: netip.MustParseAddr("10.1.0.7"), Login: "printer"}
	if err := s.SetPlace(t.Context(), place); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	place.Address = netip.MustParseAddr("10.2.0.1")
	if err := s.SetPlace(t.Context(), place); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
}
