package queue_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// memstore is a queue.Store in memory. It keeps the whole contract but durability, which a test can play with Fork: the
// copy is what a restart would find.
type memstore struct {
	// Fault, if set, is called before each operation with its name in lower case. Its error is what the
	// operation returns, and nothing is changed then. It may sleep to play a slow disk.
	Fault func(op string) error

	mu   sync.Mutex
	rows map[string]*row
	ops  map[string]int
	read int // rows that Due returned
}

type row struct {
	queue.Message
	content []byte
}

var _ queue.Store = (*memstore)(nil)

// newMemstore returns an empty memstore.
func newMemstore() *memstore {
	return &memstore{rows: make(map[string]*row), ops: make(map[string]int)}
}

// Fork returns a copy with the same messages and no Fault.
func (s *memstore) Fork() *memstore {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newMemstore()
	for id, r := range s.rows {
		c.rows[id] = &row{copyOf(&r.Message), r.content}
	}
	return c
}

// Ops returns how often an operation was called, "due.rows" how many rows Due returned in all.
func (s *memstore) Ops(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op == "due.rows" {
		return s.read
	}
	return s.ops[op]
}

// begin counts an operation and asks Fault. The lock is held when it returns nil.
func (s *memstore) begin(ctx context.Context, op string) error {
	if s.Fault != nil {
		if err := s.Fault(op); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	s.ops[op]++
	return nil
}

func copyOf(m *queue.Message) queue.Message {
	c := *m
	c.Recipients = slices.Clone(m.Recipients)
	c.Groups = slices.Clone(m.Groups)
	return c
}

// Add implements queue.Store.
func (s *memstore) Add(ctx context.Context, news ...queue.NewMessage) error {
	contents := make([][]byte, len(news))
	for i, n := range news {
		b, err := read(n.Content)
		if err != nil {
			return err
		}
		contents[i] = b
	}
	if err := s.begin(ctx, "add"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	return s.addLocked(news, contents)
}

// addLocked adds all messages or none.
func (s *memstore) addLocked(news []queue.NewMessage, contents [][]byte) error {
	ids := make(map[string]bool)
	for _, n := range news {
		if s.rows[n.Message.ID] != nil || ids[n.Message.ID] {
			return fmt.Errorf("%s is in the queue already", n.Message.ID)
		}
		ids[n.Message.ID] = true
	}
	for i, n := range news {
		r := &row{copyOf(n.Message), contents[i]}
		if r.LeaseOwner != "" {
			r.Attempts = max(r.Attempts, 1)
		}
		s.rows[r.ID] = r
	}
	return nil
}

func read(c mail.Content) ([]byte, error) {
	if b := c.Bytes(); b != nil {
		return slices.Clone(b), nil
	}
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != c.Size() {
		err = fmt.Errorf("content has %d octets, not %d", len(b), c.Size())
	}
	return b, err
}

// Content implements queue.Store. The content is never given as Bytes, as a store on disk would not.
func (s *memstore) Content(ctx context.Context, id string) (mail.Content, error) {
	if err := s.begin(ctx, "content"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	r := s.rows[id]
	if r == nil {
		return nil, queue.ErrNotFound
	}
	return stored{mail.BytesContent(r.content)}, nil
}

type stored struct{ mail.BytesContent }

func (stored) Bytes() []byte { return nil }

// Get implements queue.Store.
func (s *memstore) Get(ctx context.Context, id string) (*queue.Message, error) {
	if err := s.begin(ctx, "get"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	r := s.rows[id]
	if r == nil {
		return nil, queue.ErrNotFound
	}
	m := copyOf(&r.Message)
	return &m, nil
}

func leased(m *queue.Message, now time.Time) bool {
	return m.LeaseOwner != "" && m.LeaseUntil.After(now)
}

// Due implements queue.Store.
func (s *memstore) Due(ctx context.Context, now time.Time, after string, perLogin, limit int) ([]*queue.Message,
	time.Time, error) {
	if err := s.begin(ctx, "due"); err != nil {
		return nil, time.Time{}, err
	}
	defer s.mu.Unlock()
	var next time.Time
	byLogin := make(map[string][]*row)
	for _, r := range s.rows {
		at := r.NextAttempt
		if leased(&r.Message, now) && r.LeaseUntil.After(at) {
			at = r.LeaseUntil
		}
		switch {
		case r.Held:
		case !at.After(now):
			byLogin[r.Login] = firsts(append(byLogin[r.Login], r), 2*perLogin+100, perLogin)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	due := takeTurns(byLogin, after, perLogin, limit)
	s.read += len(due)
	return due, next, nil
}

func takeTurns(byLogin map[string][]*row, after string, perLogin, limit int) []*queue.Message {
	logins := slices.Sorted(maps.Keys(byLogin))
	first, _ := slices.BinarySearchFunc(logins, after, func(l, a string) int {
		if l <= a {
			return -1
		}
		return 1
	})
	logins = append(logins[first:len(logins):len(logins)], logins[:first]...)
	for _, l := range logins {
		byLogin[l] = firsts(byLogin[l], 0, perLogin)
	}
	var due []*queue.Message
	for turn := 0; turn < perLogin; turn++ {
		took := false
		for _, l := range logins {
			if turn < len(byLogin[l]) && len(due) < limit {
				m := copyOf(&byLogin[l][turn].Message)
				due, took = append(due, &m), true
			}
		}
		if !took {
			break
		}
	}
	return due
}

// firsts sorts rows and keeps the first n once there are more than limit.
func firsts(rows []*row, limit, n int) []*row {
	if len(rows) <= limit {
		return rows
	}
	slices.SortFunc(rows, func(a, b *row) int {
		return cmp.Or(a.NextAttempt.Compare(b.NextAttempt), strings.Compare(a.ID, b.ID))
	})
	return rows[:min(n, len(rows))]
}

// Lease implements queue.Store.
func (s *memstore) Lease(ctx context.Context, v queue.Version, owner string, now, until time.Time) error {
	if err := s.begin(ctx, "lease"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.rows[v.ID]
	if r == nil || r.Held {
		return queue.ErrNotFound
	}
	begun := r.Attempts == v.Attempts+1 && r.LeaseOwner == owner
	if !begun && (r.Version() != v || leased(&r.Message, now)) {
		return queue.ErrNotFound
	}
	r.LeaseOwner, r.LeaseUntil, r.WaitingFor, r.Attempts = owner, until, "", v.Attempts+1
	return nil
}

// Extend implements queue.Store.
func (s *memstore) Extend(ctx context.Context, v queue.Version, owner string, until time.Time) error {
	if err := s.begin(ctx, "extend"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.rows[v.ID]
	if r == nil || r.LeaseOwner != owner || r.Attempts != v.Attempts {
		return queue.ErrNotFound
	}
	r.LeaseUntil = until
	return nil
}

// Finish implements queue.Store.
func (s *memstore) Finish(ctx context.Context, v queue.Version, owner string, o queue.Outcome) error {
	return s.settle(ctx, "finish", v, owner, o)
}

// Record implements queue.Store.
func (s *memstore) Record(ctx context.Context, v queue.Version, owner string, o queue.Outcome) error {
	return s.settle(ctx, "record", v, owner, o)
}

func (s *memstore) settle(ctx context.Context, op string, v queue.Version, owner string, o queue.Outcome) error {
	contents := make([][]byte, len(o.Reports))
	for i, n := range o.Reports {
		b, err := read(n.Content)
		if err != nil {
			return err
		}
		contents[i] = b
	}
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.rows[v.ID]
	if r == nil || r.Attempts != v.Attempts || op == "finish" && r.LeaseOwner != owner ||
		op == "record" && r.LeaseOwner != v.Owner {
		return queue.ErrNotFound
	}
	if err := s.addLocked(o.Reports, contents); err != nil {
		return err
	}
	if o.Remove {
		delete(s.rows, v.ID)
		return nil
	}
	if op == "record" {
		r.Attempts++
	}
	if r.LeaseOwner != owner {
		r.Recipients, r.LastReply = slices.Clone(o.Recipients), o.LastReply
		return nil
	}
	if r.Bounce { // what a person asked for while the attempt ran is not put off
		o.NextAttempt = earlier(o.NextAttempt, r.NextAttempt)
	}
	r.Recipients = slices.Clone(o.Recipients)
	r.NextAttempt, r.WaitingFor, r.Warned, r.LastReply = o.NextAttempt, o.WaitingFor, o.Warned, o.LastReply
	r.LeaseOwner, r.LeaseUntil = "", time.Time{}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Postpone implements queue.Store.
func (s *memstore) Postpone(ctx context.Context, vs []queue.Version, until time.Time, waitingFor string) error {
	if err := s.begin(ctx, "postpone"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, v := range vs {
		if r := s.rows[v.ID]; r != nil && r.Version() == v && !r.Held && !r.Bounce && r.LeaseOwner == "" {
			r.NextAttempt, r.WaitingFor = until, waitingFor
		}
	}
	return nil
}

// Wake implements queue.Store.
func (s *memstore) Wake(ctx context.Context, waitingFor string, now time.Time, limit int) (int, error) {
	if err := s.begin(ctx, "wake"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	byLogin := make(map[string][]*row)
	for _, r := range s.rows {
		if waitingFor != "" && r.WaitingFor == waitingFor && !r.Held {
			byLogin[r.Login] = append(byLogin[r.Login], r)
		}
	}
	for _, rows := range byLogin {
		slices.SortFunc(rows, func(a, b *row) int { return strings.Compare(a.ID, b.ID) })
	}
	n := 0
	for turn := 0; len(byLogin) > 0; turn++ {
		for _, login := range slices.Sorted(maps.Keys(byLogin)) {
			switch {
			case n == limit:
				return n, nil
			case turn == len(byLogin[login]):
				delete(byLogin, login)
			default:
				r := byLogin[login][turn]
				r.NextAttempt, r.WaitingFor = now, ""
				n++
			}
		}
	}
	return n, nil
}

// WaitedFor implements queue.Store.
func (s *memstore) WaitedFor(ctx context.Context, after string, limit int) ([]string, error) {
	if err := s.begin(ctx, "waitedfor"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	names := make(map[string]bool)
	for _, r := range s.rows {
		if r.WaitingFor > after && !r.Held {
			names[r.WaitingFor] = true
		}
	}
	all := slices.Sorted(maps.Keys(names))
	return all[:min(limit, len(all))], nil
}

// ReleaseLeases implements queue.Store.
func (s *memstore) ReleaseLeases(ctx context.Context, owner string) (int64, error) {
	if err := s.begin(ctx, "releaseleases"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	var n int64
	for _, r := range s.rows {
		if r.LeaseOwner == owner {
			r.LeaseOwner, r.LeaseUntil = "", time.Time{}
			n++
		}
	}
	return n, nil
}
