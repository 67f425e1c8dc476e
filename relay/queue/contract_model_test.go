package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/mail"
	"postern/relay/queue"
)

// runModel runs random operations on a store and beside it on a map, and compares what they say. The
// scheduling of the map is as simple as can be: everything is looked at each time.
func runModel(t *testing.T, open func(t *testing.T) wholeStore) {
	store, first := open(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		if _, err := store.ReleaseLeases(ctx, owner); err != nil {
			rt.Fatal(err)
		}
		if _, err := store.Delete(ctx, queue.Filter{}); err != nil {
			rt.Fatal(err)
		}
		first += 1000 // an ID never comes again
		m := &modelled{first: first, next: first, store: store, ctx: ctx, rows: map[string]*queue.Message{},
			now: time.Now().UTC()}
		m.s = &suite{T: t, store: store, ctx: ctx, now: m.now}
		rt.Repeat(map[string]func(*rapid.T){
			"add": m.add, "lease": m.lease, "finish": m.finish, "remove": m.remove, "postpone": m.postpone,
			"wake": m.wake,
			"hold": m.hold, "release": m.release, "retry": m.retry, "bounce": m.bounce, "delete": m.delete, "": m.check,
		})
	})
}

type modelled struct {
	s     *suite
	store wholeStore
	ctx   context.Context
	now   time.Time
	first int // IDs are of numbers behind it
	next  int
	rows  map[string]*queue.Message
}

var logins = rapid.SampledFrom([]string{"", "alice", "bob", "carol"})

// someID is mostly an ID that exists.
func (m *modelled) someID(rt *rapid.T) string {
	return fmt.Sprintf("%016d", m.first+rapid.IntRange(1, max(m.next-m.first, 1)).Draw(rt, "id"))
}

func (m *modelled) someTime(rt *rapid.T) time.Time {
	return m.now.Add(time.Duration(rapid.IntRange(-3, 3).Draw(rt, "minutes")) * time.Minute)
}

func (m *modelled) add(rt *rapid.T) {
	m.next++
	msg := m.s.message(m.next, logins.Draw(rt, "login"))
	msg.NextAttempt = m.someTime(rt)
	msg.Received = m.now.Add(time.Duration(m.next-m.first) * time.Millisecond)
	if rapid.Bool().Draw(rt, "leased") {
		msg.LeaseOwner, msg.LeaseUntil = owner, m.now.Add(time.Hour)
	}
	if err := m.store.Add(m.ctx, queue.NewMessage{Message: msg, Content: mail.BytesContent(hello)}); err != nil {
		rt.Fatal(err)
	}
	row := *msg
	if row.LeaseOwner != "" {
		row.Attempts = 1
	}
	m.rows[row.ID] = &row
}

func (m *modelled) outcome(rt *rapid.T, err error, ok bool) {
	rt.Helper()
	if ok && err != nil {
		rt.Fatal(err)
	}
	if !ok && !errors.Is(err, queue.ErrNotFound) {
		rt.Fatalf("got error %v, want ErrNotFound", err)
	}
}

// version is that of a message, or the one before.
func (m *modelled) version(rt *rapid.T) (row *queue.Message, v queue.Version, now bool) {
	v.ID = m.someID(rt)
	if row = m.rows[v.ID]; row != nil {
		v = row.Version()
	}
	if rapid.IntRange(0, 3).Draw(rt, "old") == 0 {
		v.Attempts--
	}
	return row, v, row != nil && row.Attempts == v.Attempts
}

func (m *modelled) lease(rt *rapid.T) {
	row, v, now := m.version(rt)
	until := m.now.Add(time.Hour)
	may := row != nil && !row.Held && (now && row.LeaseOwner == "" || !now && row.LeaseOwner == owner)
	m.outcome(rt, m.store.Lease(m.ctx, v, owner, m.now, until), may)
	if may {
		row.LeaseOwner, row.LeaseUntil, row.WaitingFor = owner, until, ""
		row.Attempts = v.Attempts + 1
	}
}

func (m *modelled) finish(rt *rapid.T) {
	row, v, now := m.version(rt)
	o := queue.Outcome{Recipients: m.s.message(1, "").Recipients, NextAttempt: m.someTime(rt),
		LastReply: mail.R(451, "4.3.0", "later")}
	if rapid.Bool().Draw(rt, "waits") {
		o.WaitingFor = "office"
	}
	record := rapid.Bool().Draw(rt, "late")
	commit, may := m.store.Finish, now && row.LeaseOwner == owner
	if record {
		commit, may = m.store.Record, now
	}
	m.outcome(rt, commit(m.ctx, v, owner, o), may)
	if !may {
		return
	}
	if record {
		row.Attempts++
	}
	if row.LeaseOwner != owner {
		row.Recipients, row.LastReply = o.Recipients, o.LastReply
		return
	}
	if row.Bounce && row.NextAttempt.Before(o.NextAttempt) {
		o.NextAttempt = row.NextAttempt
	}
	row.Recipients, row.NextAttempt, row.WaitingFor, row.LastReply = o.Recipients, o.NextAttempt, o.WaitingFor,
		o.LastReply
	row.LeaseOwner, row.LeaseUntil = "", time.Time{}
}

func (m *modelled) remove(rt *rapid.T) {
	_, v, now := m.version(rt)
	ours := now && m.rows[v.ID].LeaseOwner == owner
	m.outcome(rt, m.store.Finish(m.ctx, v, owner, queue.Outcome{Remove: true}), ours)
	if ours {
		delete(m.rows, v.ID)
	}
}

func (m *modelled) postpone(rt *rapid.T) {
	row, v, now := m.version(rt)
	until := m.someTime(rt)
	if err := m.store.Postpone(m.ctx, []queue.Version{v}, until, "office"); err != nil {
		rt.Fatal(err)
	}
	if now && !row.Held && !row.Bounce && row.LeaseOwner == "" {
		row.NextAttempt, row.WaitingFor = until, "office"
	}
}

func (m *modelled) wake(rt *rapid.T) {
	var waiting []*queue.Message
	for _, row := range m.rows {
		if row.WaitingFor == "office" && !row.Held {
			waiting = append(waiting, row)
		}
	}
	names, err := m.store.WaitedFor(m.ctx, "", 10)
	if want := len(waiting) > 0; err != nil || want != slices.Equal(names, []string{"office"}) || !want &&
		len(names) > 0 {
		rt.Fatalf("%d messages wait, for %q (%v)", len(waiting), names, err)
	}
	limit := rapid.IntRange(1, 4).Draw(rt, "limit")
	n, err := m.store.Wake(m.ctx, "office", m.now, limit)
	if err != nil || n != min(limit, len(waiting)) {
		rt.Fatalf("%d of %d were woken, at most %d asked for: %v", n, len(waiting), limit, err)
	}
	for _, row := range waiting { // which ones is the contract's business: the store says
		got, err := m.store.Get(m.ctx, row.ID)
		if err != nil {
			rt.Fatal(err)
		}
		if got.WaitingFor == "" {
			row.NextAttempt, row.WaitingFor = m.now, ""
			n--
		}
	}
	if n != 0 {
		rt.Fatalf("%d more were counted than woken", n)
	}
}

// changed applies an action to the map and compares how many rows it changed.
func (m *modelled) changed(rt *rapid.T, n int64, err error, action func(*queue.Message) bool) {
	rt.Helper()
	if err != nil {
		rt.Fatal(err)
	}
	for _, row := range m.rows {
		if action(row) {
			n--
		}
	}
	if n != 0 {
		rt.Fatalf("the store changed %d messages more than it should", n)
	}
}

func (m *modelled) filter(rt *rapid.T) (queue.Filter, func(*queue.Message) bool) {
	if rapid.Bool().Draw(rt, "by login") {
		login := logins.Draw(rt, "login")
		return queue.Filter{Login: login}, func(row *queue.Message) bool { return login == "" || row.Login == login }
	}
	id := m.someID(rt)
	return queue.Filter{IDs: []string{id}}, func(row *queue.Message) bool { return row.ID == id }
}

func (m *modelled) hold(rt *rapid.T) {
	f, match := m.filter(rt)
	n, err := m.store.Hold(m.ctx, f, "")
	m.changed(rt, n, err, func(row *queue.Message) bool {
		changed := match(row) && !row.Held
		row.Held = row.Held || changed
		return changed
	})
}

func (m *modelled) release(rt *rapid.T) {
	f, match := m.filter(rt)
	n, err := m.store.Release(m.ctx, f, m.now)
	m.changed(rt, n, err, func(row *queue.Message) bool {
		if !match(row) || !row.Held {
			return false
		}
		row.Held, row.NextAttempt, row.WaitingFor = false, m.now, ""
		return true
	})
}

func (m *modelled) retry(rt *rapid.T) {
	f, match := m.filter(rt)
	_, err := m.store.Retry(m.ctx, f, m.now)
	m.changed(rt, 0, err, func(row *queue.Message) bool {
		if match(row) && !row.Held && row.LeaseOwner == "" {
			row.NextAttempt, row.WaitingFor = m.now, ""
		}
		return false
	})
}

func (m *modelled) bounce(rt *rapid.T) {
	f, match := m.filter(rt)
	n, err := m.store.Bounce(m.ctx, f, m.now)
	m.changed(rt, n, err, func(row *queue.Message) bool {
		if !match(row) {
			return false
		}
		row.Held, row.Bounce, row.NextAttempt, row.WaitingFor = false, true, m.now, ""
		return true
	})
}

func (m *modelled) delete(rt *rapid.T) {
	f, match := m.filter(rt)
	n, err := m.store.Delete(m.ctx, f)
	m.changed(rt, n, err, func(row *queue.Message) bool {
		if !match(row) || row.LeaseOwner != "" {
			return false
		}
		delete(m.rows, row.ID)
		return true
	})
}

func (m *modelled) check(rt *rapid.T) {
	list, err := m.store.List(m.ctx, queue.Filter{})
	if err != nil {
		rt.Fatal(err)
	}
	if len(list) != len(m.rows) {
		rt.Fatalf("%d messages are listed, want %d", len(list), len(m.rows))
	}
	want := queue.Stats{Messages: int64(len(list)), Bytes: int64(len(list) * len(hello))}
	for i, got := range list {
		row := m.rows[got.ID]
		if row == nil {
			rt.Fatalf("%s is listed", got.ID)
		}
		if err := compare(got, row); err != nil {
			rt.Fatal(err)
		}
		if i == 0 {
			want.Oldest = row.Received
		}
		if row.Held {
			want.Held++
		}
		if row.LeaseOwner != "" {
			want.Leased++
		}
	}
	got, err := m.store.Stats(m.ctx)
	if err != nil || !got.Oldest.Equal(want.Oldest) {
		rt.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if got.Oldest = want.Oldest; got != want {
		rt.Fatalf("got %+v, want %+v", got, want)
	}
	m.checkDue(rt)
}

// checkDue: exactly what is due, each login in turn, the earliest of each first.
func (m *modelled) checkDue(rt *rapid.T) {
	perLogin, limit := rapid.IntRange(1, 3).Draw(rt, "per login"), rapid.IntRange(1, 5).Draw(rt, "limit")
	due, next, err := m.store.Due(m.ctx, m.now, logins.Draw(rt, "after"), perLogin, limit)
	if err != nil {
		rt.Fatal(err)
	}
	has, got := map[string]int{}, map[string]int{}
	var wantNext time.Time
	for _, row := range m.rows {
		at := row.NextAttempt
		if row.LeaseUntil.After(at) {
			at = row.LeaseUntil
		}
		switch {
		case row.Held:
		case !at.After(m.now):
			has[row.Login]++
		case wantNext.IsZero() || at.Before(wantNext):
			wantNext = at
		}
	}
	total, most, least := 0, 0, limit
	for _, row := range due {
		got[row.Login]++
		if r := m.rows[row.ID]; r == nil || r.Held || r.LeaseOwner != "" || r.NextAttempt.After(m.now) {
			rt.Fatalf("%s is not due", row.ID)
		}
	}
	for login, n := range has {
		total += min(n, perLogin)
		most = max(most, got[login])
		if got[login] < min(n, perLogin) {
			least = min(least, got[login])
		}
	}
	if len(due) != min(total, limit) {
		rt.Fatalf("%d messages are due, want %d", len(due), min(total, limit))
	}
	if most > perLogin || most > least+1 {
		rt.Fatalf("unfair: %v of %v", got, has)
	}
	if !next.Equal(wantNext) {
		rt.Fatalf("the next one is due at %v, want %v", next, wantNext)
	}
}
