package store

import (
	"slices"
	"testing"
)

// TestAmple: between what is too little and what is enough lies a gap, so that nobody is told of each message.
func TestAmple(t *testing.T) {
	const mb = 1_000_000
	for _, c := range []struct {
		what string
		room Room
		want bool
	}{
		{"no bounds", Room{Floor: -1}, true},
		{"just above the floor", Room{Free: 201 * mb, Floor: 200 * mb}, false},
		{"a quarter more", Room{Free: 250 * mb, Floor: 200 * mb}, true},
		{"room inside the file", Room{Free: 120 * mb, Within: 200 * mb, Floor: 200 * mb}, true},
		{"no room outside for the log", Room{Free: 60 * mb, Within: 500 * mb, Floor: 200 * mb}, false},
		{"just below max", Room{Free: 500 * mb, Floor: 200 * mb, Queued: 99 * mb, Max: 100 * mb}, false},
		{"a quarter below max", Room{Free: 500 * mb, Floor: 200 * mb, Queued: 75 * mb, Max: 100 * mb}, true},
	} {
		if got := c.room.Ample(); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

func TestRoomAndSleeping(t *testing.T) {
	s := open(t, Options{})
	for id, waits := range map[string]string{"a": "office", "b": "office", "c": "backup", "d": ""} {
		m := small(id)
		m.Message.WaitingFor = waits
		if err := s.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	room, err := s.Room(t.Context())
	if err != nil || room.Free <= 0 && !onServer() || room.Queued <= 0 || room.File <= 0 {
		t.Errorf("%+v, %v", room, err)
	}
	got, err := s.Sleeping(t.Context(), 10)
	if want := []Sleeping{{"office", 2}, {"backup", 1}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, _ := s.Sleeping(t.Context(), 1); len(got) != 1 || got[0].For != "office" {
		t.Errorf("the most: %v", got)
	}
}
