package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/auth"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// A database of the version before has its accounts, its queue and its trace; what is new begins empty, and old events
// are found before and after they are indexed.
func TestUpgrade(t *testing.T) {
	fileOnly(t)
	whole, dir := migrations, t.TempDir()
	t.Cleanup(func() { migrations = whole })
	before := slices.Index(migrations, migration{both: schemaLockout}) + 1
	migrations = migrations[:before:before]
	s, err := Open(t.Context(), at(t, Options{Dir: dir, Daemon: true, moving: true})) // that version knew nothing of it
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(-time.Hour)
	m := &queue.Message{ID: "waits", Login: "anna", Received: now, Expires: now.Add(48 * time.Hour), NextAttempt: now,
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: mail.Address{Local: "b", Domain: "example.net"}},
			Status: queue.Pending}}}
	row, err := encodeUser(auth.User{Login: "anna", Created: now, Changed: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context(), func(t *tx) error { return storeUser(t.Conn, "anna", row) }); err != nil {
		t.Fatal(err)
	}
	content := mail.BytesContent("Subject: x\r\n\r\n")
	if err := s.Add(t.Context(), queue.NewMessage{Message: m, Content: content}); err != nil {
		t.Fatal(err)
	}
	script := ""
	for i := range 300 {
		script += fmt.Sprintf("INSERT INTO event VALUES (%d, 'delivered', 'm%d', 's', 'anna', 'example.com@anna', "+
			"'example.net@bob', CAST('{\"reply\":{\"code\":250,\"text\":\"2.0.0 OK word%d\"}}' AS BLOB));",
			unixNano(now)+int64(i), i, i)
	}
	if err := s.write(t.Context(), func(t *tx) error { return t.Exec(script) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	migrations = whole
	s = open(t, Options{Dir: dir, Daemon: true})
	if u, err := s.User(t.Context(), "anna"); err != nil || u.Login != "anna" {
		t.Errorf("%+v, %v", u, err)
	}
	if got, err := s.Get(t.Context(), "waits"); err != nil || got.Login != "anna" {
		t.Errorf("%+v, %v", got, err)
	}
	if events, err := s.Events(t.Context(), trace.Query{Login: "anna", Limit: 1000}); err != nil || len(events) != 300 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if alerts, err := s.Alerts(t.Context(), AlertQuery{Limit: 10}); err != nil || len(alerts) != 0 {
		t.Errorf("%v, %v", alerts, err)
	}
	if entries, err := s.Audit(t.Context(), AuditQuery{}); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	find := func(when string) {
		t.Helper()
		a, err := s.Search(t.Context(), trace.Search{Words: "word77 bob@example.net"})
		if err != nil || len(a.Found) != 1 || a.Found[0].ID != "m77" {
			t.Errorf("%s: %+v, %v", when, a, err)
		}
	}
	find("before it is indexed")
	newTestIndexer(s).all(t)
	find("indexed")
	open(t, Options{Dir: dir}) // a second process
	migrations = migrations[:before:before]
	if _, err := Open(t.Context(), at(t, Options{Dir: dir})); err == nil {
		t.Error("the version before opens it")
	}
}
