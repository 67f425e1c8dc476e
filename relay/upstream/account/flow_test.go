package account

import (
	"testing"

	"pgregory.net/rapid"
)

// A batch of as many complaints as there were slots costs one slot, not all of them.
func TestFlowFallsByCohorts(t *testing.T) {
	f := newFlow(10)
	for range 10 {
		if f.slowed() {
			t.Fatal("waits with places left")
		}
		f.worked(1) // somebody gets through
	}
	if f.now != 9 {
		t.Errorf("%d places after one batch", f.now)
	}
	for range 9 {
		f.slowed()
		f.worked(1)
	}
	if f.now != 8 {
		t.Errorf("%d places after two batchs", f.now)
	}
}

func TestFlowWaitsAtTheFloor(t *testing.T) {
	f := newFlow(2)
	if f.slowed() || f.now != 1 {
		t.Fatalf("%+v", f)
	}
	f.worked(1)
	if f.slowed() {
		t.Error("the batch of before makes it wait")
	}
	if !f.slowed() {
		t.Errorf("one place is too many as well, and nobody waits: %+v", f)
	}
	if f.now != 1 {
		t.Errorf("%+v", f)
	}
}

func TestFlowRisesWhereAllPlacesAreUsed(t *testing.T) {
	f := flow{most: 4, now: 2}
	for range 100 {
		f.worked(1)
	}
	if f.now != 2 {
		t.Errorf("rose to %d though a place was free", f.now)
	}
	for range 2*riseShare - 1 {
		f.worked(2)
	}
	if f.now != 2 {
		t.Errorf("rose to %d after less than %d rounds", f.now, riseShare)
	}
	f.slowed()
	f = flow{most: 4, now: 2, rise: f.rise}
	n := 0
	for f.now < 4 {
		f.worked(f.now)
		n++
	}
	if n < 4*riseShare || n > 6*riseShare {
		t.Errorf("%d successes from 2 to 4", n)
	}
	for range 100 {
		f.worked(4)
	}
	if f.now != 4 {
		t.Errorf("exceeds what is configured: %d", f.now)
	}
}

func TestFlowStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 50).Draw(t, "most")
		f := newFlow(most)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "slow") {
				if was, streak := f.now, f.streak; f.slowed() && was != 1 && streak < was {
					t.Fatalf("waits with %d places", was)
				}
			} else {
				f.worked(rapid.IntRange(1, most).Draw(t, "busy"))
			}
			if f.now < 1 || f.now > most {
				t.Fatalf("%d places of %d", f.now, most)
			}
		}
	})
}

// When every slot was tried and nobody got through, the next try is for later.
func TestFlowWaitsWhenNobodyGetsThrough(t *testing.T) {
	f := newFlow(5)
	for i := range 4 {
		if f.slowed() {
			t.Fatalf("waits after %d complaints", i+1)
		}
	}
	if !f.slowed() {
		t.Errorf("nobody got through in five: %+v", f)
	}
	if f.slowed() {
		t.Error("the streak was not begun anew")
	}
}
