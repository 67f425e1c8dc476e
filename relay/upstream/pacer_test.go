package upstream

import (
	"testing"
	"time"
)

func TestPacer(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	rates := []Rate{{Count: 2, Unit: Messages, Per: time.Minute}, {Count: 100, Unit: Recipients, Per: time.Hour}}
	p := NewPacer(rates)
	for range 2 {
		if until, busy := p.Reserve(now); busy || !until.IsZero() {
			t.Fatal("no room at first")
		}
	}
	if _, busy := p.Reserve(now); !busy {
		t.Error("two are under way, and a third is let in or told a time")
	}
	p.Settle(now, 0, 0) // it was not sent
	if until, busy := p.Reserve(now); busy || !until.IsZero() {
		t.Error("what was not used does not come back")
	}
	p.Settle(now, 1, 60)
	p.Settle(now, 1, 60)
	if until, busy := p.Reserve(now); busy || until.Sub(now) < time.Hour {
		t.Errorf("busy %v until %v", busy, until)
	}
	if s := p.States(now); len(s) != 2 || s[0].Used != 2 || s[1].Used != 120 {
		t.Errorf("%+v", s)
	}

	heir := NewPacer(rates[:1])
	heir.Inherit(now, &p)
	if until, _ := heir.Reserve(now); until.Sub(now) < time.Minute || until.Sub(now) > time.Minute+2*time.Second {
		t.Errorf("the heir waits until %v", until)
	}
	if heir.Blank(now) || !heir.Blank(now.Add(2*time.Minute)) {
		t.Error("it remembers for too short or too long")
	}
}

// What a Pacer tells is what the one after a restart counts; the past is left out.
func TestPacerOverARestart(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	rates := []Rate{{Count: 3, Unit: Messages, Per: 24 * time.Hour}, {Count: 100, Unit: Messages, Per: time.Second}}
	p := NewPacer(rates)
	for range 3 {
		p.Reserve(now)
		p.Settle(now, 1, 1)
	}
	p.Reserve(now) // nothing is left, and nothing of it is under way
	later := now.Add(time.Hour)
	counts := p.Counts(later)
	if len(counts) != 1 || counts[0].Count != 3 {
		t.Fatalf("%+v", counts)
	}
	q := NewPacer(rates)
	q.Restore(later, counts)
	if until, _ := q.Reserve(later); until.Sub(now) < 24*time.Hour || until.Sub(now) > 25*time.Hour {
		t.Errorf("the heir waits until %v", until)
	}
	q = NewPacer(rates)
	q.Restore(now.Add(26*time.Hour), counts)
	if until, busy := q.Reserve(now.Add(26 * time.Hour)); busy || !until.IsZero() {
		t.Error("what has left the window counts")
	}
}
