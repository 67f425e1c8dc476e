package queue

import (
	"fmt"
	"testing"
	"time"
)

func TestReaderReads(t *testing.T) {
	began := noon
	for _, tt := range []struct {
		name string
		r    reader
		want time.Duration // after the last read; -1: not at all
	}{
		{"nothing to read for", reader{}, -1},
		{"a change", reader{changed: true, polled: true, more: true, nextDue: began.Add(time.Hour)}, 0},
		{"Wake", reader{polled: true}, pollEvery},
		{"a message that is due", reader{nextDue: began}, dueEvery},
		{"a message that will be due", reader{nextDue: began.Add(time.Hour)}, time.Hour},
		{"more, and half of the window has moved on", reader{more: true, rows: 10, moved: 5}, 0},
		{"more, and some has", reader{more: true, rows: 10, moved: 4}, moreEvery},
		{"more, and nothing moves", reader{more: true, rows: 10}, turnEvery},
	} {
		tt.r.began = began
		at, wanted := tt.r.at()
		if wanted != (tt.want >= 0) || wanted && (at.Sub(began) < tt.want ||
			at.Sub(began) > tt.want+10*time.Millisecond) {
			t.Errorf("%s: read %v, in %v", tt.name, wanted, at.Sub(began))
		}
		tt.r.begin(began)
		if at, wanted := tt.r.at(); wanted {
			t.Errorf("%s: a read that has begun is wanted again at %v", tt.name, at)
		}
	}
}

func TestReaderEnds(t *testing.T) {
	due := func(n int, login string) (due []*Message) {
		for i := range n {
			due = append(due, &Message{ID: fmt.Sprint(login, i), Login: login})
		}
		return due
	}
	for _, tt := range []struct {
		name string
		due  []*Message
		more bool
	}{
		{"nothing", nil, false},
		{"half a window", append(append(due(4, "anna"), due(4, "bert")...), due(2, "carl")...), false},
		{"more than half", append(append(due(4, "anna"), due(4, "bert")...), due(3, "carl")...), true},
		{"more than half of what a login may have", due(6, "anna"), true},
	} {
		r := reader{left: map[string]struct{}{}}
		r.begin(noon)
		r.forgot("anna1")
		if !r.old("anna1") || r.old("anna2") {
			t.Errorf("%s: what was forgotten while reading is old", tt.name)
		}
		r.end(tt.due, noon.Add(time.Minute), 10, 20)
		if r.more != tt.more || r.old("anna1") || r.rows != len(tt.due) || !r.nextDue.Equal(noon.Add(time.Minute)) {
			t.Errorf("%s: %+v", tt.name, r)
		}
		if r.forgot("anna1"); r.old("anna1") {
			t.Errorf("%s: no read is under way", tt.name)
		}
	}
	r := reader{left: map[string]struct{}{}}
	r.begin(noon)
	if r.failed(); !r.changed || r.reading {
		t.Errorf("after a failure: %+v", r)
	}
}

func TestHealth(t *testing.T) {
	var h health
	if h.down(noon) || h.works(writes) {
		t.Fatal("a store works until it fails")
	}
	now, wait := noon, storeBackoff
	for n := range 10 {
		if first := h.fails(now, writes); first != (n == 0) || !h.down(now.Add(wait-1)) || h.down(now.Add(wait)) {
			t.Fatalf("failure %d: first %v, %+v", n, first, h)
		}
		now, wait = now.Add(wait), min(2*wait, maxStoreBackoff)
	}
	if h.works(reads) || !h.failing {
		t.Fatal("a read proves nothing of commits")
	}
	if !h.works(writes) || h != (health{}) {
		t.Fatalf("%+v", h)
	}
}
