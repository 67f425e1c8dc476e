package ledger

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestMessage(t *testing.T) {
	for _, size := range []int{0, 500, 1000, 4096, 4097, 4172, 4173, 4174, 100000} {
		m := NewMessage("run-1", "ann@example.com", "bob@example.net", size, day)
		data := m.Stamped(1234567)
		if size >= 500 && len(data) != size {
			t.Errorf("size %d: %d octets", size, len(data))
		}
		header, body, ok := bytes.Cut(data, []byte("\r\n\r\n"))
		if !ok {
			t.Fatalf("size %d: no body", size)
		}
		stamp, err := ParseStamp(append(header, "\r\n"...))
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if want := (Stamp{"run-1", 1234567, int64(len(body)), Checksum(0, body)}); stamp != want {
			t.Errorf("size %d: stamp %+v, want %+v", size, stamp, want)
		}
		if !bytes.Contains(header, []byte("<run-1.0001234567@bench.example.com>")) {
			t.Errorf("size %d: message id is not numbered: %s", size, header)
		}
		for line := range bytes.Lines(data) {
			if !bytes.HasSuffix(line, []byte("\r\n")) || len(line) > 200 || line[0] == '.' {
				t.Fatalf("size %d: bad line %q", size, line)
			}
		}
	}
}

func TestStampedAgain(t *testing.T) {
	m := NewMessage("r", "a@example.com", "b@example.net", 600, day)
	first := string(m.Stamped(999))
	c := m.Clone()
	c.Stamped(1)
	if got := string(m.Stamped(999)); got != first {
		t.Error("a clone changes its original, or a stamp depends on the one before")
	}
}

func TestParseStamp(t *testing.T) {
	good := "Subject: x\r\nX-Bench-Run: r\r\nX-Bench-Seq: 0000000007\r\nX-Bench-Body: 0000000003 0000abcd\r\n"
	if s, err := ParseStamp([]byte(good)); err != nil || s != (Stamp{"r", 7, 3, 0xabcd}) {
		t.Errorf("%+v, %v", s, err)
	}
	for name, header := range map[string]string{
		"none":         "Subject: x\r\n",
		"no run":       strings.Replace(good, "X-Bench-Run: r\r\n", "", 1),
		"no number":    strings.Replace(good, "0000000007", "seven", 1),
		"negative":     strings.Replace(good, "0000000007", "-000000007", 1),
		"over the top": strings.Replace(good, "0000000007", "9000000000", 1),
		"no checksum":  strings.Replace(good, " 0000abcd", "", 1),
		"long run":     strings.Replace(good, "Run: r", "Run: "+strings.Repeat("r", 65), 1),
		"cut":          good[:len(good)-2],
	} {
		if s, err := ParseStamp([]byte(header)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func set(seqs ...int) Set {
	var s Set
	for _, n := range seqs {
		s.Add(n)
	}
	return s
}

// record records whole messages.
func record(l *Ledger, run string, recipients []string, seqs ...int) {
	for _, n := range seqs {
		l.Record(Stamp{Run: run, Seq: n, Size: 3, CRC: 9}, recipients, 100, 3, 9, day)
	}
}

func TestCheck(t *testing.T) {
	both := []string{"a@example.net", "b@example.net"}
	for _, tt := range []struct {
		name   string
		arrive func(*Ledger)
		claim  Claim
		want   Proof
		ok     bool
	}{
		{"all once", func(l *Ledger) { record(l, "r", both, 0, 1, 2) },
			Claim{Recipients: both, Accepted: set(0, 1, 2)}, Proof{Claimed: 6, Arrived: 6}, true},
		{"nothing came", func(*Ledger) {},
			Claim{Recipients: both[:1], Accepted: set(5)},
			Proof{Claimed: 1, Missing: 1, Lost: []Delivery{{5, both[0], 0}}}, false},
		{"one lost", func(l *Ledger) { record(l, "r", both[:1], 0, 2) },
			Claim{Recipients: both[:1], Accepted: set(0, 1, 2)}, Proof{Claimed: 3, Arrived: 2, Missing: 1}, false},
		{"lost for one recipient", func(l *Ledger) { record(l, "r", both, 0); record(l, "r", both[:1], 1) },
			Claim{Recipients: both, Accepted: set(0, 1)},
			Proof{Claimed: 4, Arrived: 3, Missing: 1, Lost: []Delivery{{1, both[1], 0}}}, false},
		{"one twice", func(l *Ledger) { record(l, "r", both[:1], 0, 1, 1) },
			Claim{Recipients: both[:1], Accepted: set(0, 1)},
			Proof{Claimed: 2, Arrived: 2, Duplicates: 1, Twice: []Delivery{{1, both[0], 2}}}, false},
		{"refused but sent on", func(l *Ledger) { record(l, "r", both[:1], 0, 1) },
			Claim{Recipients: both[:1], Accepted: set(0)},
			Proof{Claimed: 1, Arrived: 1, Unclaimed: 1, Foreign: []Delivery{{1, both[0], 1}}}, false},
		{"uncertain, arrived", func(l *Ledger) { record(l, "r", both[:1], 0, 1) },
			Claim{Recipients: both[:1], Accepted: set(0), Uncertain: set(1)}, Proof{Claimed: 1, Arrived: 1}, true},
		{"uncertain, not arrived", func(l *Ledger) { record(l, "r", both[:1], 0) },
			Claim{Recipients: both[:1], Accepted: set(0), Uncertain: set(1)}, Proof{Claimed: 1, Arrived: 1}, true},
		{"recipient nobody named", func(l *Ledger) { record(l, "r", []string{both[0], "eve@example.org"}, 0) },
			Claim{Recipients: both[:1], Accepted: set(0)}, Proof{Claimed: 1, Arrived: 1, Unclaimed: 1}, false},
		{"changed body", func(l *Ledger) {
			l.Record(Stamp{Run: "r", Seq: 0, Size: 3, CRC: 9}, both[:1], 100, 3, 8,
				day)
		},
			Claim{Recipients: both[:1], Accepted: set(0)}, Proof{Claimed: 1, Missing: 1, Corrupt: 1}, false},
		{"shorter body", func(l *Ledger) {
			l.Record(Stamp{Run: "r", Seq: 0, Size: 3, CRC: 9}, both[:1], 100, 2, 9,
				day)
		},
			Claim{Recipients: both[:1], Accepted: set(0)}, Proof{Claimed: 1, Missing: 1, Corrupt: 1}, false},
		{"another run", func(l *Ledger) { record(l, "other", both[:1], 0) },
			Claim{Recipients: both[:1], Accepted: set(0)}, Proof{Claimed: 1, Missing: 1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := New()
			tt.arrive(l)
			tt.claim.Run = "r"
			got := l.Check(tt.claim)
			if got.OK() != tt.ok {
				t.Errorf("OK is %t: %+v", got.OK(), got)
			}
			if tt.want.Lost != nil && !slices.Equal(got.Lost, tt.want.Lost) ||
				tt.want.Twice != nil && !slices.Equal(got.Twice, tt.want.Twice) ||
				tt.want.Foreign != nil && !slices.Equal(got.Foreign, tt.want.Foreign) {
				t.Errorf("lists %+v, want %+v", got, tt.want)
			}
			for _, p := range []*Proof{&got, &tt.want} {
				p.Lost, p.Twice, p.Foreign = nil, nil, nil
			}
			if got.Claimed != tt.want.Claimed || got.Arrived != tt.want.Arrived || got.Missing != tt.want.Missing ||
				got.Duplicates != tt.want.Duplicates || got.Unclaimed != tt.want.Unclaimed ||
				got.Corrupt != tt.want.Corrupt {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Whatever is lost, repeated or changed, the proof finds exactly that.
func TestCheckFindsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New()
		var c Claim
		c.Run, c.Recipients = "r", []string{"a@example.net"}
		missing, twice, foreign := 0, 0, 0
		for seq := range rapid.IntRange(0, 200).Draw(t, "messages") {
			accepted := rapid.Bool().Draw(t, "accepted")
			arrivals := rapid.IntRange(0, 3).Draw(t, "arrivals")
			if accepted {
				c.Accepted.Add(seq)
			}
			for range arrivals {
				record(l, "r", c.Recipients, seq)
			}
			switch {
			case accepted && arrivals == 0:
				missing++
			case !accepted && arrivals > 0:
				foreign++
			}
			if arrivals > 1 {
				twice++
			}
		}
		p := l.Check(c)
		if p.Missing != missing || p.Duplicates != twice || p.Unclaimed != foreign {
			t.Fatalf("%+v, want missing %d, twice %d, foreign %d", p, missing, twice, foreign)
		}
	})
}

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOf(rapid.IntRange(0, 500)).Draw(t, "numbers")
		s := set(numbers...)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Set
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		for n := range 510 {
			if want := slices.Contains(numbers, n); s.Has(n) != want || back.Has(n) != want {
				t.Fatalf("%d: has %t, back %t, want %t (%s)", n, s.Has(n), back.Has(n), want, data)
			}
		}
		slices.Sort(numbers)
		if n := len(slices.Compact(numbers)); s.Len() != n {
			t.Fatalf("Len %d, want %d", s.Len(), n)
		}
	})
	for _, bad := range []string{`[[2,1]]`, `[[-1,1]]`, `[[0,99999999999]]`, `{}`} {
		if err := json.Unmarshal([]byte(bad), new(Set)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
	var s Set
	if s.Add(-1) || s.Add(MaxSeq+1) || s.Has(-1) {
		t.Error("numbers out of bounds are taken")
	}
}

func TestBounds(t *testing.T) {
	l := New()
	for run := range maxRuns + 10 {
		record(l, strings.Repeat("r", run+1), []string{"a@example.net"}, 0)
	}
	if n := len(l.Summaries()); n != maxRuns {
		t.Errorf("%d runs", n)
	}
	if p := l.Check(Claim{Run: "not recorded"}); p.OK() || p.Overflow != 10 {
		t.Errorf("a run there was no room for proves something: %+v", p)
	}
	l.Reset()
	l.slots = maxSlots
	record(l, "r", []string{"a@example.net"}, 0)
	if p := l.Check(Claim{Run: "r", Recipients: []string{"a@example.net"}}); p.OK() || p.Overflow != 1 {
		t.Errorf("an overflown ledger proves something: %+v", p)
	}
}

func TestWriteTo(t *testing.T) {
	l := New()
	record(l, "r", []string{"b@example.net", "a@example.net"}, 0, 1, 2, 2, 5)
	var b strings.Builder
	n, err := l.WriteTo(&b)
	want := `{"run":"r","recipient":"a@example.net","arrived":[[0,2],[5,5]],"repeated":[[2,2]]}
{"run":"r","recipient":"b@example.net","arrived":[[0,2],[5,5]],"repeated":[[2,2]]}
`
	if err != nil || b.String() != want || n != int64(len(want)) {
		t.Errorf("%d %v\n%s", n, err, b.String())
	}
}
