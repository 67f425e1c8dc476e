package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// TestQueueExpect: an action whose selection is larger than --expect does nothing.
func TestQueueExpect(t *testing.T) {
	t.Parallel()
	l := newCommandLine(t)
	for i := range 3 {
		m := &queue.Message{ID: fmt.Sprint("m", i), Login: "anna", Received: time.Now(),
			Expires: time.Now().Add(time.Hour), NextAttempt: time.Now().Add(time.Hour)}
		to, _ := mail.ParseAddress("bob@example.net")
		m.Recipients = []queue.Recipient{{Recipient: mail.Recipient{To: to}, Status: queue.Pending}}
		err := l.store.Add(t.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent([]byte("x"))})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := l.run("queue", "delete", "--login", "anna", "--expect", "2"); err == nil ||
		!strings.Contains(err.Error(), "nothing was done: 3 messages") {
		t.Errorf("%v", err)
	}
	if _, _, err := l.run("queue", "delete", "--all", "--expect", "-2"); err == nil {
		t.Error("a number below zero is taken")
	}
	if out := l.ok("queue", "hold", "--all", "--expect", "3"); !strings.HasPrefix(out, "3 messages held") {
		t.Error(out)
	}
	// A script that cannot answer is not asked.
	if out, errs, err := l.run("queue", "delete", "--all"); err != nil || !strings.HasPrefix(out, "3 messages") ||
		errs != "" {
		t.Errorf("%s%s%v", out, errs, err)
	}
}

func TestAgree(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"y\n": true, "YES\r\n": true, "\n": false, "": false, "n\n": false,
		"yes please\n": false, "y": true} {
		var asked bytes.Buffer
		err := agree(strings.NewReader(answer), &asked, "delete", 12)
		if (err == nil) != want || asked.String() != "Delete 12 messages? This cannot be undone. [y/N] " {
			t.Errorf("%q: %v, asked %q", answer, err, &asked)
		}
	}
}
