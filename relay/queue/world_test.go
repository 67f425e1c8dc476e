package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

var errStore = errors.New("disk on fire")

// fakeUpstreams is a Dispatcher with named upstream identities, each with places and pauses.
type fakeUpstreams struct {
	mu       sync.Mutex
	queue    *queue.Queue
	route    func(*queue.Message) string                                               // default: "office"
	answer   func(ctx context.Context, m *queue.Message, c mail.Content) []mail.Result // default: delivered
	free     map[string]int                                                            // absent: 10
	also     map[string]string                                                         // by login: a second upstream
	paused   map[string]time.Time
	reserves int
	attempts []attempt
	silent   bool // never calls Wake
	// meanwhile is called in each attempt before answer.
	meanwhile func(m *queue.Message, taken func([]mail.Result))
}

type attempt struct {
	id, login, key string
	at             time.Time
	number         int
	pending        int // recipients
	lease          *queue.Lease
}

func newUpstreams() *fakeUpstreams {
	return &fakeUpstreams{free: map[string]int{}, paused: map[string]time.Time{}}
}

func (u *fakeUpstreams) Reserve(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reserves++
	key := "office"
	if u.route != nil {
		key = u.route(m)
	}
	keys, w := []string{key}, queue.Wait{}
	if other := u.also[m.Login]; other != "" {
		keys = append(keys, other)
	}
	for _, key := range keys {
		if _, ok := u.free[key]; !ok {
			u.free[key] = 10
		}
		switch until := u.paused[key]; {
		case until.After(now):
			if w.Until.IsZero() || until.Before(w.Until) {
				w = queue.Wait{Key: key, Route: strings.Join(keys, ", "), Until: until}
			}
		case u.free[key] <= 0:
			return nil, queue.Wait{Key: key, Route: strings.Join(keys, ", ")}
		default:
			u.free[key]--
			return &fakeSlot{u: u, key: key}, queue.Wait{Key: key, Route: strings.Join(keys, ", ")}
		}
	}
	return nil, w
}

func (u *fakeUpstreams) pause(key string, until time.Time) {
	u.mu.Lock()
	u.paused[key] = until
	u.mu.Unlock()
	u.queue.Wake()
}

type fakeSlot struct {
	u    *fakeUpstreams
	key  string
	used bool
}

func (t *fakeSlot) Release() {
	t.u.mu.Lock()
	if t.used {
		panic("slot used twice")
	}
	t.used = true
	t.u.free[t.key]++
	silent := t.u.silent
	t.u.mu.Unlock()
	if !silent {
		t.u.queue.Wake()
	}
}

func (t *fakeSlot) Attempt(ctx context.Context, m *queue.Message, c mail.Content, l *queue.Lease,
	taken func([]mail.Result)) []mail.Result {
	t.u.mu.Lock()
	t.u.attempts = append(t.u.attempts, attempt{m.ID, m.Login, t.key, time.Now(), m.Attempts,
		len(results(m, delivered)), l})
	answer, meanwhile := t.u.answer, t.u.meanwhile
	t.u.mu.Unlock()
	if meanwhile != nil {
		meanwhile(m, taken)
	}
	if answer == nil {
		return results(m, delivered)
	}
	return answer(ctx, m, c)
}

func (u *fakeUpstreams) setAnswer(f func(context.Context, *queue.Message, mail.Content) []mail.Result) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = f
}

func (u *fakeUpstreams) of(id string) []attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []attempt
	for _, a := range u.attempts {
		if a.id == id {
			out = append(out, a)
		}
	}
	return out
}

func (u *fakeUpstreams) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.attempts)
}

func (u *fakeUpstreams) setFree(key string, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.free[key] = n
}

// asked is how often a place was asked for.
func (u *fakeUpstreams) asked() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reserves
}

// The results that tests choose from.
var (
	delivered = mail.Result{Class: mail.Delivered, Stage: mail.StageDot, Upstream: "office",
		Reply: mail.R(250, "2.0.0", "ok")}
	greylisted = mail.Result{Class: mail.Deferral, Stage: mail.StageRcpt, Upstream: "office", Host: "mx.example.net",
		Verbatim: true, Reply: mail.R(451, "4.7.1", "greylisted")}
	unknown = mail.Result{Class: mail.RecipientFault, Stage: mail.StageRcpt, Upstream: "office",
		Host: "mx.example.net", Verbatim: true, Reply: mail.R(550, "5.1.1", "no such user")}
	badLogin = mail.Result{Class: mail.AccountFault, Stage: mail.StageAuth, Upstream: "office",
		Reply: mail.R(535, "5.7.8", "bad credentials")}
	unreached = mail.Result{Class: mail.BackPressure, Stage: mail.StageConnect, Upstream: "office",
		Host: "mx.example.net", Reply: mail.R(451, "4.4.1", "connection refused")}
)

// results gives every pending recipient the same result.
func results(m *queue.Message, r mail.Result) []mail.Result {
	var out []mail.Result
	for i, to := range m.Recipients {
		if to.Status == queue.Pending {
			r.Recipient = i
			out = append(out, r)
		}
	}
	return out
}

func always(r mail.Result) func(context.Context, *queue.Message, mail.Content) []mail.Result {
	return func(_ context.Context, m *queue.Message, _ mail.Content) []mail.Result { return results(m, r) }
}

// slowly delivers after a time, unless the attempt is cut.
func slowly(d time.Duration) func(context.Context, *queue.Message, mail.Content) []mail.Result {
	return func(ctx context.Context, m *queue.Message, _ mail.Content) []mail.Result {
		select {
		case <-time.After(d):
			return results(m, delivered)
		case <-ctx.Done():
			return results(m, greylisted)
		}
	}
}

// world is a queue with everything around it. It lives in a synctest bubble.
type world struct {
	t      *testing.T
	store  *memstore
	up     *fakeUpstreams
	q      *queue.Queue
	mu     sync.Mutex
	events []trace.Event
	made   []queue.Notice
	stop   context.CancelFunc
	done   chan error
}

// usual is the schedule of relay.toml.
var usual = queue.Schedule{
	Retry: []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour,
		4 * time.Hour},
	Expire: 48 * time.Hour, WarnAfter: 4 * time.Hour,
}

// noJournal keeps nothing, as one on a full disk.
var noJournal = &journal{refuses: true}

func newWorld(t *testing.T, change func(*queue.Options)) *world {
	w := &world{t: t, store: newMemstore(), up: newUpstreams()}
	w.start(change)
	return w
}

func (w *world) start(change func(*queue.Options)) {
	w.t.Helper()
	o := queue.Options{
		Store: w.store, Journal: noJournal, Dispatcher: w.up, Owner: "node1", Schedule: usual, Drain: 30 * time.Second,
		Report: w.report, Trace: w.trace, Logger: slog.New(slog.DiscardHandler), Jitter: func() float64 { return 0.5 },
	}
	if change != nil {
		change(&o)
	}
	w.q = queue.New(o)
	w.up.queue = w.q
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan error, 1)
	q, done := w.q, w.done
	go func() { done <- q.Run(ctx) }()
	w.t.Cleanup(cancel)
	wait() // else what is submitted first may or may not meet it running
}

// end stops the queue and waits for it.
func (w *world) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Errorf("Run: %v", err)
	}
}

func (w *world) trace(e trace.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *world) kinds(id string) []trace.Kind {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []trace.Kind
	for _, e := range w.events {
		if e.ID == id {
			out = append(out, e.Kind)
		}
	}
	return out
}

func (w *world) report(n queue.Notice) (*queue.NewMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = append(w.made, n)
	return reportAbout(n), nil
}

func reportAbout(n queue.Notice) *queue.NewMessage {
	return &queue.NewMessage{
		Message: &queue.Message{
			ID:         fmt.Sprintf("%s-%s-%d", n.Message.ID, n.Kind, n.Time.UnixNano()),
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: n.Message.Envelope.From}}},
		},
		Content: mail.BytesContent("Subject: report\r\n\r\n"),
	}
}

func (w *world) notices(k queue.NoticeKind) []queue.Notice {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []queue.Notice
	for _, n := range w.made {
		if n.Kind == k {
			out = append(out, n)
		}
	}
	return out
}

func address(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// message makes one from login to the given forward-paths.
func message(id, login string, to ...string) *queue.Message {
	m := &queue.Message{ID: id, Login: login, Envelope: mail.Envelope{From: address(login + "@example.com")}}
	if len(to) == 0 {
		to = []string{"someone@example.net"}
	}
	for _, a := range to {
		m.Recipients = append(m.Recipients, queue.Recipient{Recipient: mail.Recipient{To: address(a)},
			Status: queue.Pending})
	}
	return m
}

var body = mail.BytesContent("Subject: hello\r\n\r\nHello.\r\n")

func (w *world) submit(ms ...*queue.Message) {
	w.t.Helper()
	for _, m := range ms {
		if err := w.q.Submit(context.Background(), m, body); err != nil {
			w.t.Fatalf("Submit %s: %v", m.ID, err)
		}
	}
}

// stock puts messages into the store as another process would, due now if they do not say when.
func (w *world) stock(ms ...*queue.Message) {
	w.t.Helper()
	now := time.Now()
	var news []queue.NewMessage
	for _, m := range ms {
		m.Received, m.Expires = now, now.Add(48*time.Hour)
		if m.NextAttempt.IsZero() {
			m.NextAttempt = now
		}
		for i := range m.Recipients {
			m.Recipients[i].Status = queue.Pending
		}
		news = append(news, queue.NewMessage{Message: m, Content: body})
	}
	if err := w.store.Add(context.Background(), news...); err != nil {
		w.t.Fatal(err)
	}
}

// inStore returns a message as the store has it, nil if it is gone.
func (w *world) inStore(id string) *queue.Message {
	w.t.Helper()
	m, err := w.store.Get(context.Background(), id)
	if err != nil && !errors.Is(err, queue.ErrNotFound) {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) wantGone(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		if m := w.inStore(id); m != nil {
			w.t.Errorf("%s is still in the queue: %+v", id, m)
		}
	}
}

func (w *world) wantKinds(id string, want ...trace.Kind) {
	w.t.Helper()
	if got := w.kinds(id); !slices.Equal(got, want) {
		w.t.Errorf("trace of %s: %v, want %v", id, got, want)
	}
}

func memstoreFailing(broken string) *memstore {
	s := newMemstore()
	s.Fault = func(op string) error {
		if op == broken {
			return errStore
		}
		return nil
	}
	return s
}

// slowDue is a store whose reads take five seconds to return what they saw.
type slowDue struct {
	queue.Store
	reads atomic.Int64
}

func (s *slowDue) Due(ctx context.Context, now time.Time, after string, perLogin, limit int) ([]*queue.Message,
	time.Time, error) {
	s.reads.Add(1)
	due, next, err := s.Store.Due(ctx, now, after, perLogin, limit)
	time.Sleep(5 * time.Second)
	return due, next, err
}

// journal is one in the memory of the machine: it outlives a process.
type journal struct {
	mu      sync.Mutex
	notes   map[int]queue.Note
	next    int
	forgot  int
	refuses bool
	closed  bool
}

func (j *journal) Note(n queue.Note) (func(), error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		panic("a note after the end")
	}
	if j.refuses {
		return nil, errStore
	}
	if j.notes == nil {
		j.notes = make(map[int]queue.Note)
	}
	j.next++
	at := j.next
	j.notes[at] = n
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.notes, at)
		j.forgot++
	}, nil
}

func (j *journal) Notes() (notes []queue.Note, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, at := range slices.Sorted(maps.Keys(j.notes)) {
		notes = append(notes, j.notes[at])
	}
	return notes, nil
}

func (j *journal) Clear() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.notes)
	return nil
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
}

func (j *journal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.notes)
}
