package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestAlerts(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	at := func(minutes int) time.Time { return time.Unix(1_800_000_000+int64(minutes)*60, 0) }
	save := func(a Alert) {
		t.Helper()
		if err := s.SaveAlert(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	list := func(open bool, before time.Time, limit int) (names []string) {
		t.Helper()
		alerts, err := s.Alerts(ctx, open, before, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range alerts {
			names = append(names, fmt.Sprintf("%s %s %d %s|%s", a.Subject, a.Event, int(a.Since.Sub(at(0)).Minutes()),
				a.Summary, a.Over))
		}
		return names
	}
	want := func(got []string, want ...string) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	save(Alert{Event: "disk-full", Subject: "disk", Since: at(1), Summary: "no room"})
	save(Alert{Event: "upstream-paused", Subject: "office", Since: at(2), Summary: "it refuses us",
		Details: map[string]string{"upstream": "office"}})
	save(Alert{Event: "disk-full", Subject: "disk", Since: at(1), Summary: "still no room"}) // repeated
	want(list(true, at(9), 10), "office upstream-paused 2 it refuses us|", "disk disk-full 1 still no room|")

	save(Alert{Event: "upstream-paused", Subject: "office", Since: at(2), Ended: at(4), Over: "it works"})
	want(list(true, at(9), 10), "disk disk-full 1 still no room|")
	want(list(false, at(9), 10), "office upstream-paused 2 it refuses us|it works", "disk disk-full 1 still no room|")
	want(list(false, at(2), 10), "disk disk-full 1 still no room|")
	want(list(false, at(9), 1), "office upstream-paused 2 it refuses us|it works")

	// A process that did not see the end of its alert: the next beginning ends it.
	save(Alert{Event: "disk-full", Subject: "disk", Since: at(5), Summary: "again"})
	want(list(true, at(9), 10), "disk disk-full 5 again|")
	// An end without a beginning, as after a lost file.
	save(Alert{Event: "queue-age", Subject: "q", Since: at(6), Ended: at(7), Over: "gone"})
	want(list(true, at(9), 10), "disk disk-full 5 again|")
}

func TestAlertsAreBounded(t *testing.T) {
	s := open(t, Options{})
	err := s.write(t.Context(), func(t *tx) error {
		for i := range maxAlerts + 50 {
			if err := t.Run("INSERT INTO alert VALUES ('e', ?, ?, 1, '{}')", fmt.Sprint(i), int64(i+1)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveAlert(t.Context(), Alert{Event: "e", Subject: "new", Since: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Alerts(t.Context(), false, time.Now(), 2*maxAlerts)
	if err != nil || len(all) != maxAlerts || all[0].Subject != "new" {
		t.Errorf("%d alerts, %v", len(all), err)
	}
}
