package operate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store"
)

func waiting(n int, age time.Duration, now time.Time, domains ...string) *queue.Message {
	m := &queue.Message{ID: fmt.Sprintf("%016d", n), Received: now.Add(-age), Expires: now.Add(time.Hour),
		NextAttempt: now, Envelope: mail.Envelope{From: mail.Address{Local: "anna", Domain: "example.com"}}}
	for _, d := range domains {
		m.Recipients = append(m.Recipients, queue.Recipient{Status: queue.Pending,
			Recipient: mail.Recipient{To: mail.Address{Local: "ben", Domain: d}}})
	}
	return m
}

// TestShape counts by age, upstream and domain, once for each message, and leaves held ones out.
func TestShape(t *testing.T) {
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	messages := []*queue.Message{
		waiting(1, 30*time.Hour, now, "a.example"),
		waiting(2, 6*time.Minute, now, "a.example", "a.example", "b.example"),
		waiting(3, time.Minute, now, "b.example"),
		waiting(4, time.Minute, now, "c.example"),
	}
	messages[0].WaitingFor = "office"
	messages[1].Recipients[0].Upstream = "backup"
	messages[3].Held = true
	for _, m := range messages {
		if err := s.Add(t.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent("x")}); err != nil {
			t.Fatal(err)
		}
	}
	q := New(Options{Store: s}).Queue
	got, err := q.Shape(t.Context(), Actor{Role: Viewer}, now)
	if err != nil || got.Counted != 3 || got.Partial {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, want := range map[string][]int{"office": {9}, "backup": {1}, "": {0}} {
		i := slices.IndexFunc(got.Upstreams, func(r ShapeRow) bool { return r.Name == name })
		if i < 0 || got.Upstreams[i].Total != 1 || got.Upstreams[i].Bins[want[0]] != 1 {
			t.Errorf("upstream %q: %+v", name, got.Upstreams)
		}
	}
	if a := got.Domains[0]; a.Name != "a.example" || a.Total != 2 || a.Bins[1] != 1 || a.Bins[9] != 1 ||
		!a.Oldest.Equal(messages[0].Received) {
		t.Errorf("%+v", a)
	}
	if _, err := q.Shape(t.Context(), Actor{}, now); err == nil {
		t.Error("nobody may look")
	}
}

// TestShapeIsBounded: of many domains the last row has the rest.
func TestShapeIsBounded(t *testing.T) {
	now, rows := time.Now(), map[string]*ShapeRow{}
	for i := range 3 * maxShapeRows {
		count(rows, fmt.Sprintf("d%d.example", i), waiting(i, time.Minute, now), now)
	}
	all := shapeRows(rows)
	if last := all[len(all)-1]; len(all) != maxShapeRows || !last.Rest || last.Total != 2*maxShapeRows+1 ||
		last.Bins[0] != last.Total {
		t.Errorf("%d rows, the last %+v", len(all), last)
	}
}
