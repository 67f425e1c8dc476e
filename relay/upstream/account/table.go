// Package account answers one question, whatever the protocol: may this account send now? A Table has the accounts of
// one upstream (its identities), each with its slots, circuit breaker, rates, quotas and refused senders.
//
// Reserve takes a slot, without waiting, and Release returns it; in between, Record reports the result once.
//
// Failure semantics:
//   - A fault of the account pauses it, back-pressure makes it back off; a single attempt, the probe, ends either.
//   - "Too much at a time" first costs slots; the account waits only when no slot is left to take away.
//   - What was sent within the windows of rates and quotas is persisted; a crash loses the last half minute of it.
//   - The table is bounded: an account whose state is that of a new one makes room.
//   - With a Sharing the tables of several nodes hold to one number of slots, one count of each rate, one pause and one
//     probe together. What a node may use it has leased before; see Sharing, ledger and Shared.
package account

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// maxAccounts bounds the table; accounts that have neither slots in use nor a history make room.
const maxAccounts = 10_000

// Held is what a protocol has for each account, such as idle connections. Its methods are called with the table's lock
// held.
type Held interface {
	// Connections are those that nobody uses now: idle, and closing, which still take a slot at the provider.
	Connections() (idle, closing int)
	// Blank reports that nothing is lost when it is made anew.
	Blank() bool
	// Shed closes n idle connections: another node is to have their slots.
	Shed(n int)
}

// Options of a table beside the upstream's settings.
type Options struct {
	Windows  []time.Duration // of quotas that the provider may speak of
	Spent    upstream.Status // of an account whose quota is used up, where a restart remembers that
	FoldCase bool            // names that differ in case are one account
	Sharing  *Sharing        // with the tables of other nodes; nil: there are none. Settings.Quotas is not used beside
	Log      *slog.Logger
}

// key is what an account goes by.
func (o *Options) key(name string) string {
	if o.FoldCase {
		return mail.LowerASCII(name)
	}
	return name
}

// Table is the accounts of one upstream. All methods are safe for concurrent use.
type Table[H Held] struct {
	set  *upstream.Settings
	o    Options
	held func() H // makes what the protocol has for a new account

	party *party[H] // with other nodes; nil: nothing is shared

	mu         sync.Mutex // guards what follows, and every account
	accounts   map[string]*account[H]
	onChange   func()
	closed     bool
	empty      bool          // closed, and no slot is taken
	drained    chan struct{} // closed when empty gets true
	saver      *time.Timer   // fires when quotas are to be saved; nil: nothing new
	handedOver bool          // another table counts from here on
	saved      bool          // for good

	saving sync.Mutex // held while quotas are saved; taken before mu
}

// account is one identity. Guarded by Table.mu.
type account[H Held] struct {
	name    string
	held    H
	inUse   int    // slots reserved
	taken   uint64 // how often one was
	flow    flow   // how many there are
	breaker Breaker
	alarm   *time.Timer // fires when the breaker's wait is over
	pace    pace
	paced   *time.Timer // fires when the rates have room again
	lease   *lease      // nil: nothing is shared

	spentUntil time.Time // a quota is used up until then, zero or past: none
	senders    map[string]refusedSender
}

// New makes a table and reads what was saved for the upstream. held makes what the protocol has for one account.
func New[H Held](set *upstream.Settings, o Options, held func() H) *Table[H] {
	t := &Table[H]{set: set, o: o, held: held, accounts: make(map[string]*account[H]), drained: make(chan struct{})}
	if o.Sharing == nil {
		t.restoreLocked(saved(set, o.Log))
		return t
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.party = &party[H]{Table: t, born: time.Now()}
	t.party.id = o.Sharing.join(t.party)
	t.accountLocked(set.Username)
	return t
}

// Reserve takes a slot for one message now; see upstream.Transport. Nobody queues here, so nobody is overtaken here:
// who asks first after a slot got free has it. first, if not nil, runs in the same Update, and may take an idle
// connection for the slot.
func (t *Table[H]) Reserve(now time.Time, identity string, first func(H)) (slot *Slot[H], until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, time.Time{}
	}
	a := t.accountLocked(cmp.Or(identity, t.set.Username))
	if a == nil {
		return nil, time.Time{}
	}
	until, busy := a.breaker.Wait(now)
	if busy || !until.IsZero() {
		return nil, until
	}
	if !a.mayProbe(now) || !a.free(now) {
		return nil, time.Time{}
	}
	if until, busy = a.pace.wait(now, share{}, least); busy || !until.IsZero() {
		a.need(now, share{}, least)
		return nil, t.shortLocked(a, now, until)
	}
	a.inUse++
	a.taken++
	if first != nil {
		first(a.held)
	}
	s := &Slot[H]{t: t, a: a, taken: a.taken, lonely: a.open()+a.elsewhere() == 1, admission: a.breaker.Admit()}
	if a.lease != nil {
		s.term = a.lease.term
	}
	a.pace.take(&s.share, least)
	a.ahead(now)
	return s, time.Time{}
}

// shortLocked turns a short wait for the rates into a busy that OnChange ends.
func (t *Table[H]) shortLocked(a *account[H], now, until time.Time) time.Time {
	if until.IsZero() || until.Sub(now) > shortWait {
		return until
	}
	if a.paced == nil {
		a.paced = time.AfterFunc(until.Sub(now), func() {
			t.Update(func() { a.paced = nil })
			t.Changed()
		})
	}
	return time.Time{}
}

func (t *Table[H]) accountLocked(name string) *account[H] {
	key := t.o.key(name)
	if a := t.accounts[key]; a != nil {
		return a
	}
	if len(t.accounts) >= maxAccounts && !t.evictLocked() {
		return nil
	}
	a := &account[H]{name: name, held: t.held(), flow: newFlow(t.set.MaxConnections),
		pace: newPace(t.set.Rates, t.o.Windows)}
	if t.party != nil {
		a.share(t.party.id, t.o.Sharing)
	}
	t.accounts[key] = a
	return a
}

// evictLocked forgets one account that would be no different if it were new.
func (t *Table[H]) evictLocked() bool {
	looked, now := 0, time.Now()
	for key, a := range t.accounts {
		if !a.busyLocked() && !a.leased() && a.breaker.blank() && a.held.Blank() && len(a.senders) == 0 &&
			a.pace.blank(now) {
			stop(&a.paced)
			delete(t.accounts, key)
			return true
		}
		if looked++; looked == 64 {
			return false
		}
	}
	return false
}

// busyLocked reports that a slot is taken, or a connection open.
func (a *account[H]) busyLocked() bool {
	idle, closing := a.held.Connections()
	return a.inUse+idle+closing > 0
}

// stop ends a timer, if there is one.
func stop(timer **time.Timer) {
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
}

// Update runs f while nothing else changes in the table or in what is held.
func (t *Table[H]) Update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	if !t.closed || t.empty {
		return
	}
	for _, a := range t.accounts {
		if a.busyLocked() {
			return
		}
	}
	t.empty = true
	close(t.drained)
}

// Each is Update for what is held of every account.
func (t *Table[H]) Each(f func(H)) {
	t.Update(func() {
		for _, a := range t.accounts {
			f(a.held)
		}
	})
}

// OnChange implements upstream.Transport.
func (t *Table[H]) OnChange(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onChange = f
}

// Changed calls what OnChange has set. It is called without the lock.
func (t *Table[H]) Changed() {
	t.mu.Lock()
	f := t.onChange
	t.mu.Unlock()
	if f != nil {
		f()
	}
}

// TryAgain implements upstream.Transport. Each account is probed once, as at the end of its pause.
func (t *Table[H]) TryAgain() {
	now, moved := time.Now(), false
	t.Update(func() {
		for _, a := range t.accounts {
			if b := &a.breaker; b.Status == upstream.Paused && b.Early && now.Before(b.Until) {
				b.Until, moved = now, true
				stop(&a.alarm)
				a.moved(!a.spentUntil.IsZero())
			}
		}
	})
	if moved {
		t.Changed()
	}
}

// armLocked calls OnChange when the account has waited long enough.
func (t *Table[H]) armLocked(a *account[H], now time.Time) {
	stop(&a.alarm)
	if !t.closed && !a.breaker.Ready() {
		a.alarm = time.AfterFunc(a.breaker.Until.Sub(now), t.Changed)
	}
}

func (b *Breaker) log(log *slog.Logger, identity string) {
	if b.Ready() {
		log.Info("upstream works again", "identity", identity)
		return
	}
	log.Warn("upstream "+string(b.Status), "identity", identity, "until", b.Until, "reply", b.Reply.String())
}

// States implements upstream.Transport.
func (t *Table[H]) States() []upstream.State {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.accounts) == 0 && !t.closed {
		t.accountLocked(t.set.Username)
	}
	now, states := time.Now(), make([]upstream.State, 0, len(t.accounts))
	for _, a := range t.accounts {
		idle, closing := a.held.Connections()
		s := upstream.State{
			Upstream: t.set.Name, Identity: a.name, Status: upstream.Ready,
			Limit: a.flow.now, Most: a.flow.most, InUse: a.inUse, Idle: idle, Closing: closing,
			Rates: a.pace.states(now),
		}
		if b := &a.breaker; !b.Ready() {
			s.Status, s.Probing, s.Until, s.Since, s.Reply = b.Status, b.Probing, b.Until, b.Since, b.Reply
			s.Failures = b.Pressure + b.Faults
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b upstream.State) int { return strings.Compare(a.Identity, b.Identity) })
	return states
}

// Shut ends reserving. What is held is for the protocol to let go.
func (t *Table[H]) Shut() {
	t.Update(func() {
		t.closed = true
		stop(&t.saver)
		for _, a := range t.accounts {
			stop(&a.alarm)
			stop(&a.paced)
			if a.lease != nil {
				a.lease.leaving = true
			}
		}
	})
}

// Wait waits, behind Shut, until every slot is given back, or ctx ends, and saves what is to be remembered.
func (t *Table[H]) Wait(ctx context.Context) error {
	defer t.save(context.WithoutCancel(ctx))
	select {
	case <-t.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
