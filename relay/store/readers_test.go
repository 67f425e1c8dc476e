package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"postern/auth"
	"postern/relay/stats"
	"postern/relay/store/internal/db"
	"postern/relay/store/internal/postgres"
	"postern/relay/trace"
)

// However many people look things up, and however long it takes, mail does not wait for them.
func TestLookupsDoNotHoldUpMail(t *testing.T) {
	s := open(t, Options{Daemon: true})
	if err := s.AddUser(t.Context(), auth.User{Login: "anna"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), small("m1")); err != nil {
		t.Fatal(err)
	}
	var taken []db.Conn
	for range maxLookups {
		taken = append(taken, <-s.lookups.free)
	}
	ctx, cancel := context.WithCancel(t.Context())
	now := time.Now()
	looks := map[string]func() error{
		"search":     func() error { _, err := s.Search(ctx, trace.Search{}); return err },
		"timeline":   func() error { _, _, err := s.Timeline(ctx, "", "m1"); return err },
		"events":     func() error { _, err := s.Events(ctx, trace.Query{Text: "x"}); return err },
		"statistics": func() error { _, err := s.Statistics(ctx, stats.Query{}, now); return err },
		"audit":      func() error { _, err := s.Audit(ctx, AuditQuery{}); return err },
		"alerts":     func() error { _, err := s.Alerts(ctx, AlertQuery{Limit: 1}); return err },
		"forget":     func() error { _, err := s.Forget(ctx, "zoe@example.com", "by a test"); return err },
	}
	ended := make(chan error, len(looks))
	for name, look := range looks {
		go func() {
			err := look()
			if !errors.Is(err, context.Canceled) {
				err = errors.Join(errors.New(name+" did not wait"), err)
			} else {
				err = nil
			}
			ended <- err
		}()
	}
	if _, err := s.User(t.Context(), "anna"); err != nil {
		t.Error(err)
	}
	if due, _, err := s.Due(t.Context(), now.Add(time.Hour), "", 10, 10); err != nil || len(due) != 1 {
		t.Error(due, err)
	}
	if c, err := s.Content(t.Context(), "m1"); err != nil || c.Size() == 0 {
		t.Error(c, err)
	}
	cancel()
	for range looks {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, conn := range taken {
		s.lookups.free <- conn
	}
}

// A connection that cannot be opened leaves its place to the next, also where the engine returns a nil of its own type.
func TestReadersAfterAFailedOpen(t *testing.T) {
	var none *postgres.Conn
	failed := errors.New("no route")
	r := &readers{open: func(context.Context) (db.Conn, error) { return none, failed }, free: make(chan db.Conn, 1)}
	r.free <- nil
	for range 2 {
		err := r.read(t.Context(), func(db.Conn) error {
			t.Error("it reads by no connection")
			return nil
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
