package policy

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// nothing is a LimitStore that keeps nothing.
type nothing struct{}

func (nothing) LoadLimits(context.Context, time.Time) ([]State, error)       { return nil, nil }
func (nothing) SaveLimits(context.Context, time.Time, []State) error         { return nil }
func (nothing) NewRecipients(context.Context, string, []string) (int, error) { return 0, nil }
func (nothing) RememberRecipients(context.Context, string, []string, time.Time) error {
	return nil
}
func (nothing) ForgetRecipients(context.Context, time.Time) (int64, error) { return 0, nil }

// TestWhatEvictionGivesAway: with more logins than buckets a full bucket is dropped, which gives
// nothing away; only when every candidate is in use does one login get back what it had spent.
func TestWhatEvictionGivesAway(t *testing.T) {
	const size = 10
	now := time.Unix(1e9, 0)
	l, err := newLimiter(t.Context(), nothing{}, now, nil, size)
	if err != nil {
		t.Fatal(err)
	}
	perHour := limits(t, "10 messages/hour")
	take := func(now time.Time, login string, n int64) bool {
		v := l.take(now, login, perHour, amounts{Messages: n})
		if len(l.buckets) > size || l.order.Len() != len(l.buckets) {
			t.Fatalf("%d buckets, %d in order, bound %d", len(l.buckets), l.order.Len(), size)
		}
		return v.OK
	}
	// anna has spent all, and then is the longest unused; nine others spent one each, and it came back.
	take(now, "anna", 10)
	for i := range size - 1 {
		take(now, fmt.Sprint("idle", i), 1)
	}
	now = now.Add(10 * time.Minute)
	for i := range 50 { // passers-by: full ones make room, the newest of them among these
		take(now, fmt.Sprint("new", i), 1)
		now = now.Add(7 * time.Minute / 50)
	}
	if take(now, "anna", 10) {
		t.Error("anna got her burst back although there were fuller buckets to drop")
	}
	// Everybody has spent everything: one who is dropped begins anew. That is what eviction gives away.
	for i := range size {
		take(now, fmt.Sprint("busy", i), 10)
	}
	take(now, "one more", 10)
	again := 0
	for i := range size {
		if take(now, fmt.Sprint("busy", i), 10) {
			again++
		}
	}
	if again == 0 {
		t.Error("the bound was kept and nothing was given away: how?")
	}
}

func TestEvictedBucketsAreNotSaved(t *testing.T) {
	now := time.Unix(1e9, 0)
	l, err := newLimiter(t.Context(), nothing{}, now, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		l.take(now, fmt.Sprint(i), limits(t, "10 messages/hour"), amounts{Messages: 1})
	}
	if len(l.dirty) > 2 {
		t.Errorf("%d buckets wait to be saved, with a bound of 2", len(l.dirty))
	}
}

func TestKnownIsBounded(t *testing.T) {
	k := newKnown(nothing{})
	now := time.Unix(1e9, 0)
	for i := range maxKnown + 5000 {
		k.remember(now, "anna", []string{fmt.Sprint(i)})
	}
	if k.recent.Len() > maxKnown || len(k.pending) > maxPending {
		t.Errorf("%d known, %d pending", k.recent.Len(), len(k.pending))
	}
	if err := k.save(t.Context(), now); err != nil || len(k.pending) != 0 {
		t.Errorf("%d pending after a save, %v", len(k.pending), err)
	}
	// Used again a day later: recorded, so that it is not forgotten by the month.
	k.notRecent(now.Add(25*time.Hour), "anna", []string{fmt.Sprint(maxKnown)})
	if len(k.pending) != 1 {
		t.Errorf("%d pending after a day, want 1", len(k.pending))
	}
}
