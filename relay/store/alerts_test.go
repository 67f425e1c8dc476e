package store

import (
	"errors"
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
	list := func(open bool, limit int) (names []string) {
		t.Helper()
		alerts, err := s.Alerts(ctx, AlertQuery{Open: open, Limit: limit})
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
	want(list(true, 10), "office upstream-paused 2 it refuses us|", "disk disk-full 1 still no room|")

	save(Alert{Event: "upstream-paused", Subject: "office", Since: at(2), Ended: at(4), Over: "it works"})
	want(list(true, 10), "disk disk-full 1 still no room|")
	want(list(false, 10), "office upstream-paused 2 it refuses us|it works", "disk disk-full 1 still no room|")
	want(list(false, 1), "office upstream-paused 2 it refuses us|it works")

	// A process that did not see the end of its alert: the next beginning ends it.
	save(Alert{Event: "disk-full", Subject: "disk", Since: at(5), Summary: "again"})
	want(list(true, 10), "disk disk-full 5 again|")
	// An end without a beginning, as after a lost file.
	save(Alert{Event: "queue-age", Subject: "q", Since: at(6), Ended: at(7), Over: "gone"})
	want(list(true, 10), "disk disk-full 5 again|")
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
	all, err := s.Alerts(t.Context(), AlertQuery{Limit: 2 * maxAlerts})
	if err != nil || len(all) != maxAlerts || all[0].Subject != "new" {
		t.Errorf("%d alerts, %v", len(all), err)
	}
}

// Pages lose no alert and show none twice, though many begin at one moment and others begin meanwhile.
func TestPagesOfAlerts(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	at := time.Unix(1_800_000_000, 0)
	want := 0
	for _, event := range []string{"disk-full", "queue-age"} {
		for i := range 7 {
			a := Alert{Event: event, Subject: fmt.Sprint("two words ", i), Since: at.Add(time.Duration(i / 4))}
			if err := s.SaveAlert(ctx, a); err != nil {
				t.Fatal(err)
			}
			want++
		}
	}
	for limit := 1; limit <= want; limit++ {
		seen, q := map[string]bool{}, AlertQuery{Limit: limit, Open: limit%2 == 0}
		for {
			page, err := s.Alerts(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page {
				if seen[a.Place()] {
					t.Errorf("%s is there twice", a.Place())
				}
				seen[a.Place()] = true
			}
			if len(page) < limit {
				break
			}
			q.After = page[limit-1].Place()
		}
		if len(seen) != want {
			t.Errorf("%d of %d alerts in pages of %d", len(seen), want, limit)
		}
	}
	for _, place := range []string{"x", "1", "1 disk-full", "x disk-full y"} {
		if _, err := s.Alerts(ctx, AlertQuery{After: place, Limit: 1}); !errors.Is(err, ErrPlace) {
			t.Errorf("%q: %v", place, err)
		}
	}
}

// Past alerts go when they are old, and with a person whom they name. What is open stays.
func TestAlertsAreForgotten(t *testing.T) {
	s := open(t, Options{})
	at := func(days int) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(days) * 24 * time.Hour) }
	save := func(subject, summary string, since, ended int, details map[string]string) {
		t.Helper()
		a := Alert{Event: "report-failed", Subject: subject, Since: at(since), Summary: summary, Details: details}
		if err := s.SaveAlert(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if a.Ended = at(ended); ended > 0 {
			if err := s.SaveAlert(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(want ...string) {
		t.Helper()
		alerts, err := s.Alerts(t.Context(), AlertQuery{Limit: 100})
		var got []string
		for _, a := range alerts {
			got = append(got, a.Subject)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	save("a", "A report to <Bob@example.net> failed.", 1, 2, nil)
	save("b", "A report failed.", 2, 9, map[string]string{"to": "bob@example.net"})
	save("scanner", "The login is locked.", 3, 9, map[string]string{"login": "scanner"})
	save("c", "A report to jacob@example.net failed, of scanner-2.", 4, 9, nil)
	save("bob@example.net", "It is open.", 5, 0, nil)
	save("old", "It has been over for long, and began after others.", 1, 3, nil)
	if n, err := s.PruneAlerts(t.Context(), at(4)); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	left("bob@example.net", "c", "scanner", "b")
	for name, want := range map[string]int64{"bob@example.net": 1, "scanner": 1, "nobody@example.net": 0} {
		if f, err := s.Forget(t.Context(), name, "by a test"); err != nil || f.Alerts != want {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	left("bob@example.net", "c")
}
