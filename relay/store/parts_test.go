package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/queue"
)

// Contents go with the part of their hour, once no message needs it. A few messages that wait do not keep a part.
func TestPartsAreDropped(t *testing.T) {
	once(t)
	pg := testkit.SharedPostgreSQL(t)
	url := pg.NewDatabase(t)
	s := open(t, ofServer(t, url, "a", true))
	add := func(id string, age time.Duration, leased bool) {
		m := small(id)
		m.Message.Received = time.Now().Add(-age)
		if leased {
			m.Message.LeaseOwner, m.Message.LeaseUntil = "a", time.Now().Add(time.Hour)
		}
		m.Content = mail.BytesContent(bytes.Repeat([]byte(id), chunkSize/2))
		if err := s.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	parts := func() int {
		return len(testkit.SQL(t, url, "SELECT 1 FROM pg_inherits WHERE inhparent = 'content'::regclass"))
	}
	drop := func(want, left int) {
		t.Helper()
		if n, err := s.DropContents(t.Context()); err != nil || n != want || parts() != left {
			t.Errorf("%d parts dropped, %d left, want %d and %d; %v", n, parts(), want, left, err)
		}
	}
	add("now", 0, false)
	add("young", 3*time.Hour, false)
	add("old", 30*time.Hour, false)
	add("done", 40*time.Hour, true)
	add("tried", 50*time.Hour, true)
	for i := range partFew + 1 {
		add(fmt.Sprint("many", i), 60*time.Hour, false)
	}
	if err := s.Finish(t.Context(), attempt(1, "done"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Fatal(err)
	}
	drop(2, 4) // of done, and of old, which is moved
	for _, id := range []string{"now", "young", "old", "tried", "many7"} {
		c, err := s.Content(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, bytes.Repeat([]byte(id), chunkSize/2)) {
			t.Errorf("%s: %d octets, %v", id, len(b), err)
		}
	}
	if err := s.Finish(t.Context(), attempt(1, "tried"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Fatal(err)
	}
	drop(1, 3)
	drop(0, 3)
}

// A part that was dropped is made again for a message that belongs into it.
func TestPartIsMadeAgain(t *testing.T) {
	once(t)
	s := open(t, ofServer(t, testkit.SharedPostgreSQL(t).NewDatabase(t), "a", true))
	add := func(id string) {
		m := leased(id)
		m.Message.Received = time.Now().Add(-40 * time.Hour)
		if err := s.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	add("m1")
	if err := s.Finish(t.Context(), attempt(1, "m1"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.DropContents(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	add("m2")
}

// A message that comes into an old part while that is being dropped keeps its contents.
func TestPartIsInUseMeanwhile(t *testing.T) {
	once(t)
	url := testkit.SharedPostgreSQL(t).NewDatabase(t)
	s := open(t, ofServer(t, url, "a", true))
	m := leased("m1")
	m.Message.Received = time.Now().Add(-40 * time.Hour)
	if err := s.Add(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	part := testkit.SQL(t, url, "SELECT part FROM content")[0][0]
	if err := s.Finish(t.Context(), attempt(1, "m1"), "a", queue.Outcome{Remove: true}); err != nil {
		t.Fatal(err)
	}
	exec := stranger(t, url)
	exec("BEGIN; INSERT INTO content VALUES (" + part + ", 'm2', 0, 'x'); INSERT INTO message_body VALUES ('m2', 0, " +
		"0, " +
		"1, " + part + ", 1, '', '', '')")
	dropped := make(chan int, 1)
	go func() {
		n, err := s.DropContents(t.Context())
		if err != nil {
			t.Error(err)
		}
		dropped <- n
	}()
	for waits := false; !waits; { // as long as it does before it gives up: it comes again
		waits = len(testkit.SQL(t, url, "SELECT 1 FROM pg_locks WHERE NOT granted AND "+
			"mode = 'AccessExclusiveLock'")) > 0
		if !waits && len(dropped) > 0 {
			t.Fatal("it does not wait for who writes")
		}
	}
	exec("COMMIT")
	if n := <-dropped; n != 0 {
		t.Errorf("%d parts are dropped", n)
	}
	if left := testkit.SQL(t, url, "SELECT 1 FROM content WHERE id = 'm2'"); len(left) != 1 {
		t.Error("the contents are gone")
	}
}

// stranger is a connection of somebody else, for statements within one transaction.
func stranger(t *testing.T, url string) (exec func(query string)) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return func(query string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), query).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}
