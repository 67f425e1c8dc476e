package submission

import (
	"context"
	"errors"
	"testing"

	"postern/relay/queue"
)

func TestHeldMailIsCountedOnce(t *testing.T) {
	asked := 0
	stored := []*queue.Message{{Size: 10}, {Size: 20}}
	h := newHeldMail(func(_ context.Context, f queue.Filter) ([]*queue.Message, error) {
		asked++
		if f.Login != "anna" || !f.Held || f.Limit != 4 {
			t.Errorf("asked for %+v", f)
		}
		return stored, nil
	})
	take := func(size int64, max int, octets int64) (func(), bool) {
		giveBack, ok, err := h.take(t.Context(), "anna", size, max, octets)
		if err != nil {
			t.Fatal(err)
		}
		return giveBack, ok
	}
	if _, ok := take(71, 4, 100); ok {
		t.Error("more octets than the bound are held")
	}
	giveBack, ok := take(70, 4, 100)
	if !ok {
		t.Error("what fits is refused")
	}
	if _, ok := take(1, 4, 100); ok {
		t.Error("octets are not counted")
	}
	if _, ok := take(1, 4, 0); !ok {
		t.Error("octets are counted without a bound")
	}
	if _, ok := take(1, 4, 0); ok {
		t.Error("more messages than the bound are held")
	}
	giveBack()
	giveBack()
	if _, ok := take(1, 4, 0); !ok {
		t.Error("what was given back is counted")
	}
	if _, ok := take(1, 4, 0); ok {
		t.Error("it was given back twice")
	}
	if asked != 1 {
		t.Errorf("counted %d times", asked)
	}
	stored = nil
	h.forget()
	if _, ok := take(1000, 4, 100); !ok || asked != 2 {
		t.Errorf("a single large message where nothing is held: %v, counted %d times", ok, asked)
	}
}

func TestHeldMailThatCannotBeCounted(t *testing.T) {
	broken := errors.New("disk")
	h := newHeldMail(func(context.Context, queue.Filter) ([]*queue.Message, error) { return nil, broken })
	for range 2 {
		if _, ok, err := h.take(t.Context(), "anna", 1, 4, 0); ok || !errors.Is(err, broken) {
			t.Errorf("%v, %v", ok, err)
		}
	}
}

// A login may have policies with bounds of their own, by listener: what one of them need not know another must.
func TestHeldMailUnderAnotherBound(t *testing.T) {
	stored := make([]*queue.Message, 5)
	for i := range stored {
		stored[i] = &queue.Message{Size: 1}
	}
	h := newHeldMail(func(_ context.Context, f queue.Filter) ([]*queue.Message, error) {
		return stored[:min(len(stored), f.Limit)], nil
	})
	for _, c := range []struct {
		max int
		ok  bool
	}{{1, false}, {5, false}, {6, true}, {6, false}, {2, false}, {7, true}} {
		if _, ok, err := h.take(t.Context(), "anna", 1, c.max, 0); ok != c.ok || err != nil {
			t.Errorf("of %d: %v, %v", c.max, ok, err)
		}
	}
}
