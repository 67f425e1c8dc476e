package store

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"postern/relay/devices"
)

// TestForgottenDevices: kept once for an address, no longer than they matter, and no more than are bounded.
func TestForgottenDevices(t *testing.T) {
	fileOnly(t) // by SQL of SQLite
	s := open(t, Options{})
	began := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	forget := func(n int, at time.Time) error {
		return s.ForgetDevice(t.Context(), devices.Forgotten{Listener: "devices", At: at,
			Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})})
	}
	kept := func() []devices.Forgotten {
		t.Helper()
		k, err := s.KnownDevices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return k.Forgotten
	}
	for _, at := range []time.Time{began, began.Add(time.Hour)} {
		if err := forget(1, at); err != nil {
			t.Fatal(err)
		}
	}
	if all := kept(); len(all) != 1 || !all[0].At.Equal(began.Add(time.Hour)) || all[0].Address.String() != "10.0.0.1" {
		t.Errorf("%+v", all)
	}
	if err := s.Learn(t.Context(), devices.Learning{Listener: "devices", Network: netip.MustParsePrefix("10.0.5.0/24"),
		Began: began.Add(9 * 24 * time.Hour), Until: began.Add(9*24*time.Hour + time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if all := kept(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if err := s.write(t.Context(), func(tx *tx) error { // as many as there may be
		return tx.Run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO "+
			"device_forgotten SELECT 'devices', '10.1.0.' || i, ? FROM n", devices.MostForgotten, unixNano(began))
	}); err != nil {
		t.Fatal(err)
	}
	if err := forget(1, began); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v", err)
	}
}
