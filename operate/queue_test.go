package operate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/queue"
	"postern/relay/store"
	"postern/relay/trace"
)

// rig is operations on a store of their own.
type rig struct {
	*Operations
	t     *testing.T
	store *store.Store
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c := &config.Config{Delivery: config.Delivery{Expire: config.Duration(48 * time.Hour)}}
	return &rig{New(Options{Config: func() *config.Config { return c }, Store: s}), t, s}
}

var owner = Actor{Name: "root", Channel: CommandLine}

func (r *rig) add(id string, statuses ...queue.Status) {
	r.t.Helper()
	now := time.Now()
	m := &queue.Message{ID: id, Login: "anna@example.com", Received: now, Expires: now.Add(-time.Minute),
		NextAttempt: now.Add(time.Hour)}
	m.Envelope.From, _ = mail.ParseAddress("anna@example.com")
	for _, s := range statuses {
		to, _ := mail.ParseAddress("bob@example.net")
		m.Recipients = append(m.Recipients, queue.Recipient{Recipient: mail.Recipient{To: to}, Status: s})
	}
	content := mail.BytesContent([]byte("Subject: hello\r\nX-Secret: no\r\n\r\nbody\r\n"))
	if err := r.store.Add(r.t.Context(), queue.NewMessage{Message: m, Content: content}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) get(id string) *queue.Message {
	r.t.Helper()
	m, err := r.Queue.Get(r.t.Context(), owner, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) events() (all []string) {
	r.t.Helper()
	events, err := r.store.Events(r.t.Context(), trace.Query{Kinds: []trace.Kind{trace.Operator}})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		all = append(all, strings.TrimSpace(e.ID+e.Login+" "+e.Detail))
	}
	return all
}

func TestActions(t *testing.T) {
	r := newRig(t)
	r.add("M1", queue.Pending)
	r.add("M2", queue.Failed, queue.Pending, queue.Delivered, queue.Unclear)
	anna := Actor{Name: "anna", Channel: Console, Client: "192.0.2.1", Role: Operator}
	for _, step := range []struct {
		action Action
		ids    []string
		n      int64
		is     func() bool
	}{
		{Hold, []string{"M1"}, 1, func() bool { return StateOf(r.get("M1"), time.Now()) == IsHeld }},
		{Resend, []string{"M1"}, 0, func() bool { return r.get("M1").Held }},
		{Release, nil, 1, func() bool { return !r.get("M1").Held }},
		{Resend, []string{"M1"}, 0, func() bool { return true }},
		{Resend, []string{"M2"}, 1, func() bool {
			m := r.get("M2")
			return m.Recipients[0].Status == queue.Pending && m.Recipients[2].Status == queue.Delivered &&
				m.Recipients[3].Status == queue.Pending && m.Expires.After(time.Now()) &&
				!m.NextAttempt.After(time.Now())
		}},
		{Retry, []string{"M1", "M2"}, 2, func() bool { return !r.get("M1").NextAttempt.After(time.Now()) }},
		{Bounce, []string{"M1"}, 1, func() bool { return StateOf(r.get("M1"), time.Now()) == IsReturned }},
		{Delete, []string{"M1", "none"}, 1, func() bool {
			_, err := r.Queue.Get(t.Context(), owner, "M1")
			kind, known := KindOf(err)
			return known && kind == NotFound
		}},
	} {
		n, err := r.Queue.Do(t.Context(), anna, step.action, queue.Filter{IDs: step.ids}, Order{Reason: "because"})
		if err != nil || n != step.n || !step.is() {
			t.Errorf("%s %v: %d, %v", step.action.Verb, step.ids, n, err)
		}
	}
	got := strings.Join(r.events(), "\n")
	for _, want := range []string{"M1 hold by anna in the console (1 message)", "M2 resend by anna in the console",
		"release by anna in the console (1 message)", "M2 retry by anna in the console (2 messages)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// The trace and the audit name what was changed, and nothing else: not what is not there, nor what stayed as it was.
func TestActionsTraceWhatTheyChanged(t *testing.T) {
	r := newRig(t)
	r.add("M1", queue.Pending)
	r.add("M2", queue.Pending)
	all := queue.Filter{IDs: []string{"M1", "M2", "none"}}
	one, because := queue.Filter{IDs: []string{"M2"}}, Order{Reason: "x"}
	if n, err := r.Queue.Do(t.Context(), owner, Hold, one, because); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := r.Queue.Do(t.Context(), owner, Hold, all, because); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	want := []string{"M2 hold from the command line (1 message)", "M1 hold from the command line (1 message)"}
	if got := r.events(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	one.IDs = []string{"none"}
	if n, err := r.Queue.Do(t.Context(), owner, Delete, one, Order{}); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if got := r.events(); len(got) != len(want) {
		t.Errorf("nothing was changed, and traced is %q", got)
	}
}

// What nobody may does nothing.
func TestForbiddenDoesNothing(t *testing.T) {
	r := newRig(t)
	r.add("M1", queue.Pending)
	viewer := Actor{Name: "ben", Channel: Console, Role: Viewer, Strong: true}
	for _, a := range Actions {
		if _, err := r.Queue.Do(t.Context(), viewer, a, queue.Filter{}, Order{}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", a.Verb, err)
		}
	}
	if _, err := r.Queue.Content(t.Context(), viewer, "M1"); !errors.Is(err, ErrForbidden) {
		t.Error(err)
	}
	if _, err := r.Queue.Headers(t.Context(), viewer, "M1"); !errors.Is(err, ErrForbidden) {
		t.Error(err)
	}
	if m := r.get("M1"); m.Held || m.Bounce || len(r.events()) != 0 {
		t.Errorf("%+v %q", m, r.events())
	}
}

func TestHeadersEndBeforeTheBody(t *testing.T) {
	r := newRig(t)
	r.add("M1", queue.Pending)
	h, err := r.Queue.Headers(t.Context(), owner, "M1")
	if err != nil || string(h) != "Subject: hello\r\nX-Secret: no" {
		t.Errorf("%q, %v", h, err)
	}
	if _, err := r.Queue.Headers(context.Background(), owner, "M2"); err == nil {
		t.Error("of a message that is not there")
	}
}

func TestAccounts(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	anna := Actor{Name: "anna", Channel: API, Scopes: []Scope{ScopeAccounts}}
	c, err := r.Accounts.Add(ctx, anna, NewAccount{Login: "Scanner", Device: true, Senders: []string{"a@example.com"}})
	if err != nil || c.Login != "scanner" || c.Password == "" {
		t.Fatalf("%+v, %v", c, err)
	}
	kind := func(err error) Kind {
		k, known := KindOf(err)
		if !known {
			t.Errorf("not told apart: %v", err)
		}
		return k
	}
	if _, err := r.Accounts.Add(ctx, anna, NewAccount{Login: "scanner"}); kind(err) != Conflict {
		t.Error(err)
	}
	if _, err := r.Accounts.Add(ctx, anna, NewAccount{Login: "x", Networks: []string{"x"}}); kind(err) != Invalid {
		t.Error(err)
	}
	if _, err := r.Accounts.Add(ctx, anna, NewAccount{Login: "x", Password: "a\x01b"}); kind(err) != Invalid {
		t.Error(err)
	}
	if _, err := r.Accounts.Password(ctx, anna, Everybody, "scaner", ""); kind(err) != NotFound ||
		!strings.Contains(err.Error(), "scanner") {
		t.Error(err)
	}
	if err := r.Accounts.Lock(ctx, anna, "scanner", "lost\r\n"); err != nil {
		t.Error(err)
	}
	if u, err := r.Accounts.Get(ctx, anna, DevicesOnly, "scanner"); err != nil || !u.Locked {
		t.Errorf("%+v %v", u, err)
	}
	if u, err := r.Accounts.Unlock(ctx, anna, "scanner"); err != nil || !u.Account {
		t.Errorf("%+v %v", u, err)
	}
	if _, err := r.Accounts.Unlock(ctx, anna, "192.0.2.1"); kind(err) != NotFound {
		t.Error(err)
	}
	if err := r.Accounts.Remove(ctx, anna, Everybody, "scanner"); !errors.Is(err, ErrForbidden) {
		t.Errorf("a token may not remove: %v", err)
	}
	if err := r.Accounts.Remove(ctx, owner, Everybody, "scanner"); err != nil {
		t.Error(err)
	}
	if err := r.Accounts.Remove(ctx, owner, Everybody, "scanner"); kind(err) != NotFound {
		t.Error(err)
	}
}
