package store

import (
	"testing"
	"time"

	"postern/internal/testkit"
)

// Of nodes that see one condition the first tells of its beginning, and the last of its end.
func TestOneNodeTellsAnAlert(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	a, b := open(t, ofServer(t, url, "a", true)), open(t, ofServer(t, url, "b", true))
	since := time.Unix(1700000000, 0).UTC()
	begin := func(s *Store, after time.Duration, want bool) {
		t.Helper()
		tell, first, err := s.BeginAlert(t.Context(), "key", since.Add(after))
		if err != nil || tell != want || !first.Equal(since) {
			t.Errorf("it tells of the beginning: %t, want %t; since %s, %v", tell, want, first, err)
		}
	}
	end := func(s *Store, want bool) {
		t.Helper()
		if tell, err := s.EndAlert(t.Context(), "key"); err != nil || tell != want {
			t.Errorf("it tells of the end: %t, want %t, %v", tell, want, err)
		}
	}
	later := func(hours string) {
		t.Helper()
		testkit.SQL(t, url, "UPDATE alert_told SET told = told - "+hours+" * 3600000000000")
	}
	begin(a, 0, true)
	begin(a, 0, true) // the hook did not take it
	begin(b, time.Second, false)
	end(a, false)
	begin(a, time.Minute, false) // b has heard that the hook knows
	later("24")
	begin(b, time.Second, true) // a day later, again
	begin(a, time.Minute, false)

	still(b) // dies
	testkit.SQL(t, url, "UPDATE node SET until = 1 WHERE name = 'b'")
	end(a, true)
	if rows := testkit.SQL(t, url, "SELECT k FROM alert_told"); len(rows) > 0 {
		t.Errorf("left: %q", rows)
	}
	begin(a, 0, true)
	later("73")
	if tell, _, err := a.BeginAlert(t.Context(), "other", since); err != nil || !tell {
		t.Errorf("another condition: %t, %v", tell, err)
	}
	if rows := testkit.SQL(t, url, "SELECT k FROM alert_told"); len(rows) != 1 {
		t.Errorf("after three days: %q", rows)
	}
}
