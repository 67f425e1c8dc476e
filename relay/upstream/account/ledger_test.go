package account

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/relay/upstream"
)

const second = int64(time.Second)

// asks settles for one who needs slots, and has none but what it may use open.
func asks(l *ledger, now int64, id string, need, limit int) (may int) {
	h, _ := l.holder(id)
	return l.settle(now, &ask{id: id, trust: true, limit: limit, open: min(h.Held, need), need: need, like: need})
}

// Who has asked first is served first, up to a fair share.
func TestSlotsGoToWhoHasWaited(t *testing.T) {
	l := new(ledger)
	asks(l, 0, "a", 4, 4)
	asks(l, 1*second, "b", 2, 4)
	asks(l, 2*second, "c", 2, 4)
	if may := asks(l, 2*second+1, "a", 4, 4); may != 2 {
		t.Fatalf("a keeps %d", may)
	}
	l.Holders[0].Held = 2 // its messages have ended
	for i, want := range []struct {
		id  string
		may int
	}{{"d", 0}, {"a", 1}, {"c", 1}, {"b", 1}} {
		if may := asks(l, 2*second+2+int64(i), want.id, 4, 4); may != want.may {
			t.Errorf("%s may use %d, want %d", want.id, may, want.may)
		}
	}
}

// The most careful node's limit holds for all, and ends with its lease.
func TestLowestLimitHolds(t *testing.T) {
	l := new(ledger)
	asks(l, 0, "a", 1, 5)
	asks(l, 0, "b", 1, 2)
	if may := asks(l, 1, "a", 5, 5); may != 1 {
		t.Errorf("a may use %d, with one of b's two", may)
	}
	if may := asks(l, int64(leaseTime)+1, "a", 5, 5); may != 5 {
		t.Errorf("a may use %d without b", may)
	}
}

// takes settles for one who needs tokens.
func takes(l *ledger, now int64, id string, used, need int64) (out int64) {
	l.settle(now, &ask{id: id, trust: true, limit: 9, need: 1, like: 1, tell: true, rates: []rateAsk{{
		unit: upstream.Messages, span: time.Minute, limit: 10, used: used, need: need, like: need}}})
	return l.find(upstream.Messages, time.Minute).Parts[id].Out
}

// Tokens go to who has waited, and what was sent leaves the window a minute after it was told.
func TestTokensGoToWhoHasWaited(t *testing.T) {
	l := new(ledger)
	if out := takes(l, 0, "a", 0, 10); out != 10 {
		t.Fatalf("a has %d of 10", out)
	}
	takes(l, 0, "a", 10, 0)
	if takes(l, 1*second, "b", 0, 4)+takes(l, 2*second, "c", 0, 4)+takes(l, 3*second, "d", 0, 8) != 0 {
		t.Error("there are more than 10")
	}
	for now := 3 * second; now < 59*second; now += second {
		if takes(l, now, "b", 0, 4)+takes(l, now, "c", 0, 4)+takes(l, now, "d", 0, 8) != 0 {
			t.Fatalf("more than 10 in a minute, after %v", time.Duration(now))
		}
	}
	now := 62 * second
	d, c, b := takes(l, now, "d", 0, 8), takes(l, now, "c", 0, 4), takes(l, now, "b", 0, 4)
	if d != 2 || c != 4 || b != 4 {
		t.Errorf("d has %d, c %d, b %d", d, c, b)
	}
}

// What a former process of a node had taken of a rate counts as sent, since nobody knows what it has sent. Its slots
// and its right to probe are free, whether the clock is to be trusted or not. What another table of this process has
// stays.
func TestFormerProcessEnds(t *testing.T) {
	l := new(ledger)
	former, next := holderID("node/1", "former", 7), holderID("node/1", "next", 1)
	takes(l, 0, former, 0, 5)
	takes(l, 0, former, 2, 3)
	l.settle(0, &ask{id: former, limit: 9, need: 9, like: 9, probe: true, hold: &hold{Status: upstream.Paused}})
	if l.Probe != former {
		t.Fatalf("%s probes", l.Probe)
	}
	if may := l.settle(second, &ask{id: next, limit: 9, need: 8, like: 8, probe: true}); may != 8 || l.Probe != next {
		t.Errorf("the next has %d slots, %q probes", may, l.Probe)
	}
	if _, there := l.holder(former); there || !l.changed {
		t.Errorf("the former is there: %v; changed: %v", there, l.changed)
	}
	m := l.find(upstream.Messages, time.Minute)
	if w := m.window(second); w.sum != 5 || m.out() != 0 {
		t.Errorf("%d count as sent, of 2 that were and 3 that were out; %d are out", w.sum, m.out())
	}
	if may := asks(l, second, holderID("node/1", "next", 2), 9, 9); may != 1 {
		t.Errorf("another table of the process has %d slots of the last", may)
	}
	if _, there := l.holder(next); !there {
		t.Error("the first table of the process has lost what it had")
	}
}

// A clock that was set back holds up nobody for longer than leases and windows last.
func TestClockSetBackHoldsUpNobody(t *testing.T) {
	const hour = int64(time.Hour)
	l := new(ledger)
	takes(l, hour, "a", 0, 10)
	takes(l, hour, "a", 10, 0)
	if may := asks(l, 0, "b", 9, 9); may > 8 {
		t.Errorf("b may use %d while a has one", may)
	}
	if may := asks(l, int64(leaseTime)+2*second, "b", 9, 9); may != 9 {
		t.Errorf("b may use %d long after a", may)
	}
	l = new(ledger)
	takes(l, hour, "a", 0, 10)
	takes(l, hour, "a", 10, 0)
	takes(l, 0, "b", 0, 1)
	if out := takes(l, 62*second, "b", 0, 10); out != 10 {
		t.Errorf("b has %d tokens a minute after the clock was set", out)
	}
}

// What one node writes another reads; what it cannot read is an error.
func TestLedgerIsReadAsWritten(t *testing.T) {
	l := new(ledger)
	takes(l, 0, "a", 0, 10)
	takes(l, second, "a", 7, 3)
	l.settle(2*second, &ask{id: "a", limit: 3, need: 1, like: 1,
		hold: &hold{Status: upstream.Paused, Until: 5, Wait: 3}})
	state := l.encode()
	again, err := decodeLedger(state)
	if err != nil || !bytes.Equal(again.encode(), state) {
		t.Errorf("%s is read as %s, %v", state, again.encode(), err)
	}
	for _, bad := range []string{"{", `{"holders":3}`, "\x00"} {
		if _, err := decodeLedger([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// A copy shares nothing with what it was made of: what is known stays as it was read.
func TestCloneSharesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := new(ledger)
		for i := range rapid.IntRange(1, 20).Draw(rt, "steps") {
			before := l.encode()
			c := l.clone()
			takes(c, int64(i)*second, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "who"),
				rapid.Int64Range(0, 9).Draw(rt, "used"), rapid.Int64Range(0, 9).Draw(rt, "need"))
			if !bytes.Equal(l.encode(), before) {
				rt.Fatalf("%s has become %s", before, l.encode())
			}
			l = c
		}
	})
}

// Nothing that is settled makes more slots or tokens than there are.
func TestSettlingMakesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l, now := new(ledger), int64(0)
		used := make(map[string]int64)
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			now += rapid.SampledFrom([]int64{0, 1, second, 5 * second, 45 * second}).Draw(rt, "time")
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "who")
			h, _ := l.holder(id)
			out := l.find(upstream.Messages, time.Minute).Parts[id]
			if free := out.Out - (used[id] - out.Used); free > 0 && h.Until > now {
				used[id] += rapid.Int64Range(0, free).Draw(rt, "sent")
			}
			need := rapid.IntRange(0, 4).Draw(rt, "need")
			l.settle(now, &ask{id: id, trust: true, limit: 4, open: rapid.IntRange(0, h.Held).Draw(rt, "open"),
				need: need, like: rapid.IntRange(need, 4).Draw(rt, "like"), tell: rapid.Bool().Draw(rt, "tell"),
				rates: []rateAsk{{unit: upstream.Messages, span: time.Minute, limit: 10, used: used[id],
					need: rapid.Int64Range(0, 12).Draw(rt, "tokens"),
					like: rapid.Int64Range(0, 12).Draw(rt, "ahead")}}})
			held := 0
			for _, h := range l.Holders {
				held += h.Held
			}
			m := l.find(upstream.Messages, time.Minute)
			if w := m.window(now); held > 4 || w.sum+m.out() > 10 {
				rt.Fatalf("%d slots of 4, %d tokens of 10: %s", held, w.sum+m.out(), l.encode())
			}
		}
	})
}
