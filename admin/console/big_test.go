package console

import (
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// TestManyRows: with a hundred thousand messages and events each page is still bounded.
func TestManyRows(t *testing.T) {
	r := newRig(t)
	r.healthy()
	rows, at := 100_000, 5000
	if testkit.Race { // which takes twenty times as long, and finds the same in fewer
		rows = 10_000
	}
	for n := 0; n < rows; n += at {
		news, events := make([]queue.NewMessage, at), make([]trace.Event, at)
		for i := range news {
			news[i] = queue.NewMessage{Message: r.message(n+i, time.Hour), Content: mail.BytesContent("x")}
			news[i].Message.Held = i%2 == 0
			events[i] = trace.Event{Time: r.now.Add(-time.Duration(n+i) * time.Millisecond * 30),
				Kind: trace.Accepted, ID: id(n + i),
				Login: "anna", From: "anna@example.com", To: "ben@gmail.com"}
		}
		r.must(r.store.Add(t.Context(), news...))
		r.tell(events...)
	}
	for _, path := range []string{"/", "/messages", "/queue", "/held", "/messages?q=anna",
		"/messages?q=nobody&span=all"} {
		if body := r.page(path); len(body) > 400_000 {
			t.Errorf("%s has %d octets", path, len(body))
		}
	}
}
