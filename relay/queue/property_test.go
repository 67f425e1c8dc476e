package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"

	"pgregory.net/rapid"
)

// scenario is what a run of the property test is made of. Details follow from the seed.
type scenario struct {
	Seed     uint64
	Messages int
	Kills    int
	Faults   int // spells of a failing store
	Pauses   int // of the upstreams; some last until everything works
	Renames  int // of the upstreams
	Orders   int // of a person
	Places   int
	Window   int
	Chaos    time.Duration // after that everything works
}

func drawScenario(t *rapid.T) scenario {
	return scenario{
		Seed:     rapid.Uint64().Draw(t, "seed"),
		Messages: rapid.IntRange(1, 15).Draw(t, "messages"),
		Kills:    rapid.IntRange(0, 5).Draw(t, "kills"),
		Faults:   rapid.IntRange(0, 6).Draw(t, "faults"),
		Pauses:   rapid.IntRange(0, 4).Draw(t, "pauses"),
		Renames:  rapid.IntRange(0, 3).Draw(t, "renames"),
		Orders:   rapid.IntRange(0, 8).Draw(t, "orders"),
		Places:   rapid.IntRange(1, 3).Draw(t, "places"),
		Window:   rapid.IntRange(1, 8).Draw(t, "window"),
		Chaos:    rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 60 * time.Hour}).Draw(t, "chaos"),
	}
}

// ledger is the account of what happened outside of the queue.
type ledger struct {
	mu        sync.Mutex
	rnd       *rand.Rand
	now       *life
	calm      bool
	failUntil time.Time
	pauseTo   map[string]time.Time // by upstream
	names     int                  // generation of the upstreams' names

	accepted  map[string]*queue.Message // 250 was answered
	refused   map[string]bool           // 4yz was answered and no attempt was running: never to be sent
	delivered map[string]int            // "id/index" taken by the upstream
	deleted   map[string]bool           // id: by a person
	cut       map[string]int            // "id/index": attempts that a kill left without an answer
	running   map[string]map[int]bool   // id: attempt in progress, in this life; what was told of its recipients
	made      map[string]queue.Notice   // report id
	reported  map[string]int            // "id/index" failure reports that arrived, each counted once
	arrived   map[string]bool           // report id
	failed    map[string]bool           // "id/index" with a Failed in the trace
	faults    []string
	journal   journal
}

// life is one process.
type life struct {
	l     *ledger
	store *memstore
	q     *queue.Queue
	stop  context.CancelFunc
	done  chan struct{}
	dead  bool
	free  map[string]int
}

func (l *ledger) wrong(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

var errDead = errors.New("process is dead")

// fault is the store's trouble: slow commits, spells of failure, death.
func (p *life) fault(op string) error {
	p.l.mu.Lock()
	pause := time.Duration(p.l.rnd.IntN(30)) * time.Millisecond
	p.l.mu.Unlock()
	time.Sleep(pause)
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	switch {
	case p.dead:
		return errDead
	case !p.isUp(): // else the process ends and is started again
		return nil
	case time.Now().Before(p.l.failUntil):
		return errStore
	case !p.l.calm && p.l.rnd.IntN(100) == 0:
		return errStore
	}
	return nil
}

func (p *life) isUp() bool {
	select {
	case <-p.q.Up():
		return true
	default:
		return false
	}
}

func (l *ledger) begin(store *memstore, s scenario) {
	p := &life{l: l, store: store, done: make(chan struct{}), free: map[string]int{"a": s.Places, "b": s.Places}}
	store.Fault = p.fault
	p.q = queue.New(queue.Options{
		Store: store, Dispatcher: p, Owner: "node1", Window: s.Window, MaxContent: 100, Drain: time.Second,
		Report: l.report, Trace: l.trace, Journal: &l.journal, Schedule: usual, Logger: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.done)
		_ = p.q.Run(ctx) // a life that is killed may leave outcomes behind
	}()
	l.mu.Lock()
	l.now = p
	l.mu.Unlock()
}

// kill ends a life as kill -9 would: what is in the store stays, everything else is gone.
func (l *ledger) kill() (*memstore, *life) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.now
	p.dead = true
	left := p.store.Fork()
	list, _ := left.List(context.Background(), queue.Filter{})
	for _, m := range list {
		if m.LeaseOwner == "" || l.running[m.ID] == nil {
			continue
		}
		for i := range m.Recipients {
			if !l.running[m.ID][i] {
				l.cut[fmt.Sprintf("%s/%d", m.ID, i)]++
			}
		}
	}
	clear(l.running)
	p.stop()
	return left, p
}

func (p *life) Reserve(now time.Time, m *queue.Message) (queue.Slot, queue.Wait) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	name := func(key string) string { return fmt.Sprint(key, p.l.names) }
	route := []string{"a"}
	w := queue.Wait{}
	switch m.Login {
	case "bert":
		route = []string{"b"}
	case "carl":
		route, w.Route = []string{"a", "b"}, name("a")+", "+name("b")
	}
	for _, key := range route {
		switch until := p.l.pauseTo[key]; {
		case until.After(now):
			if w.Until.IsZero() || until.Before(w.Until) {
				w.Key, w.Until = name(key), until
			}
		case p.free[key] == 0:
			return nil, queue.Wait{Key: name(key), Route: w.Route}
		default:
			p.free[key]--
			return &lifeSlot{p: p, key: key}, queue.Wait{Key: name(key), Route: w.Route}
		}
	}
	return nil, w
}

type lifeSlot struct {
	p    *life
	key  string
	used bool
}

func (t *lifeSlot) Release() {
	t.p.l.mu.Lock()
	if t.used {
		t.p.l.wrong("slot used twice")
	}
	t.used = true
	t.p.free[t.key]++
	t.p.l.mu.Unlock()
	t.p.q.Wake()
}

func (t *lifeSlot) Attempt(ctx context.Context, m *queue.Message, c mail.Content, _ *queue.Lease,
	taken func([]mail.Result)) []mail.Result {
	l := t.p.l
	if !l.start(t.p, m, c) {
		return nil
	}
	parts := l.part(t.p, m, taken)
	l.mu.Lock()
	took := time.Duration(l.rnd.IntN(5000)) * time.Millisecond
	if l.rnd.IntN(20) == 0 {
		took = 20 * time.Minute // longer than a lease
	}
	l.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
	}
	return append(parts, l.outcome(t.p, m, t.key)...)
}

// start checks that an attempt may be made at all.
func (l *ledger) start(p *life, m *queue.Message, c mail.Content) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.dead {
		return false
	}
	if l.running[m.ID] != nil {
		l.wrong("%s is tried twice at a time", m.ID)
	}
	if l.refused[m.ID] {
		l.wrong("%s is tried though the client was told that it is not stored", m.ID)
	}
	if c.Size() != int64(len(body)) && m.Login != "" {
		l.wrong("%s has %d octets", m.ID, c.Size())
	}
	l.running[m.ID] = make(map[int]bool)
	return true
}

// part lets the upstream take the message for the first pending recipient before the rest is tried, at times, and
// tells.
func (l *ledger) part(p *life, m *queue.Message, taken func([]mail.Result)) []mail.Result {
	l.mu.Lock()
	first := slices.IndexFunc(m.Recipients, func(to queue.Recipient) bool { return to.Status == queue.Pending })
	if taken == nil || first < 0 || p.dead || l.rnd.IntN(4) > 0 {
		l.mu.Unlock()
		return nil
	}
	r := delivered
	r.Recipient = first
	l.deliveredLocked(m, first)
	l.running[m.ID][first] = true
	l.mu.Unlock()
	taken([]mail.Result{r})
	return []mail.Result{r}
}

// outcome draws the results of an attempt and enters them.
func (l *ledger) outcome(p *life, m *queue.Message, key string) []mail.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.dead {
		return nil
	}
	told := l.running[m.ID]
	delete(l.running, m.ID)
	var out []mail.Result
	for i, to := range m.Recipients {
		if to.Status != queue.Pending || told[i] {
			continue
		}
		r := l.drawLocked(m.Login == "")
		r.Recipient = i
		if r.Class == mail.BackPressure {
			l.pauseTo[key] = time.Now().Add(time.Minute)
		}
		if r.Class == mail.Delivered {
			l.deliveredLocked(m, i)
		}
		out = append(out, r)
	}
	return out
}

func (l *ledger) drawLocked(report bool) mail.Result {
	n := l.rnd.IntN(100)
	switch {
	case n < 20 && !report:
		return unknown
	case l.calm || n < 50:
		return delivered
	case n < 60:
		return unreached
	case n < 70:
		return badLogin
	case n < 75:
		r := greylisted
		r.RetryAfter = 2 * time.Hour
		return r
	}
	return greylisted
}

func (l *ledger) deliveredLocked(m *queue.Message, i int) {
	l.delivered[fmt.Sprintf("%s/%d", m.ID, i)]++
	l.arrivedLocked(m.ID)
}

// arrivedLocked counts a failure report, once.
func (l *ledger) arrivedLocked(id string) {
	n, isReport := l.made[id]
	if !isReport || n.Kind != queue.Failure || l.arrived[id] {
		return
	}
	l.arrived[id] = true
	for _, a := range n.About {
		l.reported[fmt.Sprintf("%s/%d", n.Message.ID, a.Index)]++
	}
}

func (l *ledger) report(n queue.Notice) (*queue.NewMessage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.calm && l.rnd.IntN(10) == 0 {
		return nil, errStore
	}
	made := reportAbout(n)
	made.Message.ID += fmt.Sprintf("-%d", len(l.made))
	l.made[made.Message.ID] = n
	return made, nil
}

func (l *ledger) trace(e trace.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Kind == trace.Failed {
		l.failed[e.ID+"/"+e.To] = true
		l.arrivedLocked(e.ID) // a report may expire too: then there is nobody to tell
	}
}

// submit hands a message in, in one of the three ways.
func (l *ledger) submit(id string) {
	l.mu.Lock()
	m := message(id, []string{"anna", "bert", "carl"}[l.rnd.IntN(3)])
	m.Recipients = nil
	for i := range 1 + l.rnd.IntN(3) {
		notify := []mail.Notify{0, 0, mail.NotifyNever, mail.NotifyFailure | mail.NotifySuccess}[l.rnd.IntN(4)]
		to := mail.Recipient{To: address(fmt.Sprintf("r%d@example.net", i)), Notify: notify}
		m.Recipients = append(m.Recipients, queue.Recipient{Recipient: to, Status: queue.Pending})
	}
	if l.rnd.IntN(8) == 0 {
		m.Envelope.From = mail.Address{}
	}
	way, p := l.rnd.IntN(4), l.now
	l.mu.Unlock()
	kept := *m
	var err error
	if way == 0 {
		err = l.handOff(p, m)
	} else if err = p.q.Submit(context.Background(), m, body); err != nil {
		l.mu.Lock()
		l.refused[id] = true
		l.mu.Unlock()
	}
	if err == nil {
		l.mu.Lock()
		l.accepted[id] = &kept
		l.mu.Unlock()
	}
}

// handOff is an attempt that began before the queue knew of the message.
func (l *ledger) handOff(p *life, m *queue.Message) error {
	t, _ := p.Reserve(time.Now(), m)
	if t == nil {
		return p.q.Submit(context.Background(), m, body)
	}
	c := make(chan []mail.Result, 1)
	go func() { c <- t.Attempt(context.Background(), m, body, nil, nil) }()
	time.Sleep(time.Second)
	return p.q.Adopt(context.Background(), m, body, new(queue.Lease), c, t.Release)
}

// order is what a person does to a message, whatever state it is in.
func (l *ledger) order(id string, what int) {
	l.mu.Lock()
	p := l.now
	l.mu.Unlock()
	ctx, only, now := context.Background(), queue.Filter{IDs: []string{id}}, time.Now()
	switch what {
	case 0:
		_, _ = p.store.Hold(ctx, only, "a person says so")
	case 1:
		_, _ = p.store.Release(ctx, only, now)
	case 2:
		_, _ = p.store.Retry(ctx, only, now)
	case 3:
		_, _ = p.store.Bounce(ctx, only, now)
	case 4:
		if n, err := p.store.Delete(ctx, only); n == 1 && err == nil {
			l.set(func() { l.deleted[id] = true })
		}
	}
	p.q.Refresh()
}

// happen is something at a time of the scenario.
type happening struct {
	at time.Duration
	do func()
}

// simulate plays a scenario and returns what went wrong.
func simulate(s scenario) []string {
	l := &ledger{
		rnd: rand.New(rand.NewPCG(s.Seed, 1)), pauseTo: map[string]time.Time{},
		accepted: map[string]*queue.Message{}, refused: map[string]bool{}, delivered: map[string]int{},
		cut:     map[string]int{},
		running: map[string]map[int]bool{}, deleted: map[string]bool{}, made: map[string]queue.Notice{},
		reported: map[string]int{}, arrived: map[string]bool{}, failed: map[string]bool{},
	}
	l.begin(newMemstore(), s)
	synctest.Wait()
	var lives, submits sync.WaitGroup
	plans := rand.New(rand.NewPCG(s.Seed, 2))
	within := func(d time.Duration) time.Duration { return time.Duration(plans.Int64N(int64(d))) }
	var plan []happening
	for i := range s.Messages {
		id := fmt.Sprintf("M%02d", i)
		plan = append(plan, happening{within(min(s.Chaos, time.Hour)), func() { submits.Go(func() { l.submit(id) }) }})
	}
	for range s.Kills {
		at := plan[plans.IntN(s.Messages)].at + within(6*time.Second) // while there is something to cut
		plan = append(plan, happening{at, func() {
			submits.Wait() // a client whose server dies was told nothing: nothing to check
			left, old := l.kill()
			l.begin(left, s)
			lives.Go(func() { <-old.done })
			synctest.Wait()
		}})
	}
	for range s.Faults {
		d := within(10 * time.Minute)
		plan = append(plan, happening{within(s.Chaos), func() { l.set(func() { l.failUntil = time.Now().Add(d) }) }})
	}
	for range s.Pauses {
		key, d := []string{"a", "b"}[plans.IntN(2)], within(s.Chaos)
		if plans.IntN(3) == 0 {
			d = 1000 * time.Hour
		}
		plan = append(plan, happening{within(s.Chaos), func() { l.set(func() { l.pauseTo[key] = time.Now().Add(d) }) }})
	}
	for range s.Renames { // a reload does that
		plan = append(plan, happening{within(s.Chaos), func() { l.set(func() { l.names++ }); l.now.q.Refresh() }})
	}
	for range s.Orders {
		id, what := fmt.Sprintf("M%02d", plans.IntN(s.Messages)), plans.IntN(5)
		plan = append(plan, happening{within(s.Chaos), func() { submits.Go(func() { l.order(id, what) }) }})
	}
	slices.SortStableFunc(plan, func(a, b happening) int { return int(a.at - b.at) })
	start := time.Now()
	for _, h := range plan {
		time.Sleep(h.at - time.Since(start))
		h.do()
	}
	time.Sleep(s.Chaos - time.Since(start))
	submits.Wait()
	l.set(func() { l.calm, l.failUntil = true, time.Time{}; clear(l.pauseTo) })
	for id := range s.Messages {
		l.order(fmt.Sprintf("M%02d", id), 1) // what is held is to end too
	}
	l.now.q.Wake()
	time.Sleep(20 * time.Hour)
	l.now.stop()
	<-l.now.done
	lives.Wait()
	return l.audit()
}

func (l *ledger) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// audit compares what was promised with what happened.
func (l *ledger) audit() []string {
	l.now.store.Fault = nil
	list, _ := l.now.store.List(context.Background(), queue.Filter{})
	for _, m := range list {
		l.wrong("%s is still in the queue: %+v", m.ID, *m)
	}
	for id, m := range l.accepted {
		if l.deleted[id] {
			continue
		}
		for i, to := range m.Recipients {
			l.auditRecipient(id, i, m, to)
		}
	}
	return l.faults
}

func (l *ledger) auditRecipient(id string, i int, m *queue.Message, to queue.Recipient) {
	key := fmt.Sprintf("%s/%d", id, i)
	taken, reports := l.delivered[key], l.reported[key]
	failed := l.failed[id+"/"+to.To.String()]
	wanted := !m.Envelope.From.IsNull() && to.Notify&mail.NotifyNever == 0
	switch {
	case taken == 0 && !failed:
		l.wrong("%s is lost", key)
	case taken == 0 && wanted && reports == 0:
		l.wrong("%s failed without a report", key)
	case taken > 1+l.cut[key]:
		l.wrong("%s was delivered %d times with %d cut attempts", key, taken, l.cut[key])
	case reports > 1:
		l.wrong("%s has %d failure reports", key, reports)
	case reports > 0 && !wanted:
		l.wrong("%s has a report that nobody asked for", key)
	case taken > 0 && reports > 0 && l.cut[key] == 0:
		l.wrong("%s was delivered and reported as failed", key)
	}
}

// Each accepted message ends once, as delivered or failed with one report, whatever upstreams and store do
// and whenever the process is killed. Only attempts that a kill cut may be made again.
func TestEveryMessageEndsOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		var faults []string
		synctest.Test(t, func(*testing.T) { faults = simulate(s) })
		if len(faults) > 0 {
			rt.Fatalf("%+v: %s", s, faults)
		}
	})
}
