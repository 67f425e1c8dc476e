// Package alert tells people of faults by HTTPS: a relay whose mail does not leave cannot warn by mail. Conditions begin and
// end; each hook is told once of both, and each day of one that lasts.
//
// Failure semantics: an alert is worth trying again and worth nothing that would hold up mail. What is to be told waits in a
// short queue for each hook and is tried again with growing waits for a day. A hook that refuses an alert for good (4yz of HTTP, a
// redirect) is not asked again with this one, but a day later, if the condition lasts. At shutdown what waits is offered once more, for some
// seconds. Who has been told what is kept in a file, so that a restart neither repeats an alert nor forgets its end; without
// that file alerts are repeated at most. The path, query and user of a hook's URL are its password: no error and no log has them.
package alert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Event is the kind of a condition.
type Event string

// The events that may be asked for, and Test, which is sent by hand only.
const (
	UpstreamPaused    Event = "upstream-paused"    // a provider refuses us, and mail waits
	LoginLocked       Event = "login-locked"       // somebody guesses passwords, or a login went over a limit that locks it
	QueueAge          Event = "queue-age"          // mail waits for longer than it should
	CertificateExpiry Event = "certificate-expiry" // a certificate that we present ends soon
	SecretExpiry      Event = "secret-expiry"      // what we log in at a provider with ends soon
	ReportFailed      Event = "report-failed"      // a report about undelivered mail could not be delivered itself
	DiskFull          Event = "disk-full"          // no new mail is taken: the disk, or the store, is full or has failed
	Test              Event = "test"
)

// Events lists what may be asked for.
func Events() []Event {
	return []Event{UpstreamPaused, LoginLocked, QueueAge, CertificateExpiry, SecretExpiry, ReportFailed, DiskFull}
}

// Condition is something that a person should know of while it holds. Event and Subject name it.
type Condition struct {
	Event   Event  `json:"event"`
	Subject string `json:"subject"`
	// Group is what many conditions may have in common: when more than a few of one event and group hold at once, the others
	// are told of together.
	Group   string            `json:"group,omitempty"`
	Summary string            `json:"summary"`         // what is wrong and what to do, in plain sentences
	Block   string            `json:"block,omitempty"` // of relay.toml, behind the summary: lines to paste
	Over    string            `json:"over,omitempty"`  // what to say when it has ended
	Details map[string]string `json:"details,omitempty"`
	// Until ends the condition by itself; zero: End does.
	Until time.Time `json:"until,omitzero"`
	// Threshold is the age that a QueueAge is about: only hooks that ask for this one hear of it.
	Threshold time.Duration `json:"-"`
}

// name is a Condition's.
type name struct {
	event   Event
	subject string
}

func (c *Condition) name() name { return name{c.Event, c.Subject} }

// Options are what an Alerter is made of.
type Options struct {
	File   string // where it is kept who has been told what; "": nowhere
	Logger *slog.Logger
	// Count is called for each alert that a hook took ("sent") or that was given up ("failed"). May be nil.
	Count func(e Event, outcome string)

	post func(context.Context, Hook, []byte) result // of tests
}

// Bounds and waits.
const (
	repeatAfter = 24 * time.Hour // of a condition that lasts
	giveUp      = 24 * time.Hour // of one alert
	retryFirst  = 5 * time.Second
	retryMost   = 15 * time.Minute
	lookPeriod  = time.Minute // for what is to be repeated or ends by itself
	drainTime   = 3 * time.Second
	maxWaiting  = 200 // alerts, for each hook
	maxOpen     = 10  // of one event and group
	othersLife  = 2 * time.Hour
	forgetAfter = 30 * 24 * time.Hour // what an earlier process told of and nobody has seen since
)

// Alerter tells hooks of conditions. Its methods are safe for concurrent use and never wait for a hook.
type Alerter struct {
	o Options

	mu      sync.Mutex // guards what follows and all that is in the hooks
	host    string
	hooks   []*hook // in the order of Use
	kept    map[string][]*entry
	changed chan struct{} // hooks has changed

	file keeper
}

// hook is a Hook with what it knows and what it is to be told.
type hook struct {
	Hook
	id      string
	known   map[name]*entry
	waiting []*notice
	wake    chan struct{}
	gone    bool
}

// entry is a condition as one hook knows it.
type entry struct {
	Condition
	Since  time.Time `json:"since"`
	Queued time.Time `json:"-"`    // the last alert about it
	Told   time.Time `json:"told"` // and the last that the hook took
	Ending bool      `json:"ending,omitempty"`
	seen   bool      // in this process
}

// notice is one alert that waits for its hook.
type notice struct {
	doc  Document
	of   name
	made time.Time
}

// New makes an Alerter without hooks.
func New(o Options) *Alerter {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.post == nil {
		o.post = post
	}
	a := &Alerter{o: o, changed: make(chan struct{}, 1), file: keeper{path: o.File, log: o.Logger}}
	a.kept = a.file.load()
	return a
}

// Use replaces the hooks, and the name of the relay that they are told. One with the URL of a hook before it goes on where
// that one was.
func (a *Alerter) Use(host string, hooks []Hook) {
	a.mu.Lock()
	a.host = host
	now := time.Now()
	before := a.hooks
	a.hooks = nil
	for _, h := range hooks {
		id := idOf(h.URL)
		i := slices.IndexFunc(before, func(b *hook) bool { return b.id == id })
		if i < 0 {
			a.hooks = append(a.hooks, a.newHookLocked(now, h, id))
			continue
		}
		before[i].follow(h)
		a.hooks = append(a.hooks, before[i])
		before = slices.Delete(slices.Clone(before), i, i+1)
	}
	for _, b := range before {
		b.gone = true
		poke(b.wake)
	}
	a.mu.Unlock()
	poke(a.changed)
	if len(hooks)+len(before) > 0 {
		a.save()
	}
}

// follow takes over settings. What the hook does not ask for any more is forgotten, and neither repeated nor ended.
func (h *hook) follow(settings Hook) {
	h.Hook = settings
	for of := range h.known {
		if !h.asksFor(of.event) {
			delete(h.known, of)
		}
	}
	h.waiting = slices.DeleteFunc(h.waiting, func(n *notice) bool { return !h.asksFor(n.of.event) })
}

// newHookLocked takes over what an earlier process told the hook.
func (a *Alerter) newHookLocked(now time.Time, h Hook, id string) *hook {
	made := &hook{Hook: h, id: id, known: make(map[name]*entry), wake: make(chan struct{}, 1)}
	for _, e := range a.kept[id] {
		if !h.asksFor(e.Event) {
			continue
		}
		if e.Told.After(now) { // the clock was wrong then, and nothing would be due before
			e.Told = now
		}
		e.Queued = e.Told
		made.known[e.name()] = e
		if e.Ending {
			a.enqueueLocked(now, made, e, true)
		}
	}
	delete(a.kept, id)
	return made
}

// idOf names a hook without its secret.
func idOf(url string) string {
	sum := sha256.Sum256([]byte(url))
	return hex.EncodeToString(sum[:12])
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Watched reports whether anybody wants to hear of anything.
func (a *Alerter) Watched() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.hooks) > 0
}

// Thresholds lists the ages of the queue that hooks ask for.
func (a *Alerter) Thresholds() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []time.Duration
	for _, h := range a.hooks {
		if h.asksFor(QueueAge) && !slices.Contains(all, h.QueueAge) {
			all = append(all, h.QueueAge)
		}
	}
	return all
}

// Begin says that a condition holds. It may be said as often as one likes.
func (a *Alerter) Begin(c Condition) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, h := range a.hooks {
		if h.wants(&c) {
			a.beginLocked(now, h, c)
		}
	}
}

func (a *Alerter) beginLocked(now time.Time, h *hook, c Condition) {
	e := h.known[c.name()]
	switch {
	case e != nil && !e.Ending:
		e.Condition, e.seen = c, true
		return
	case h.open(c.Event, c.Group) >= maxOpen:
		c = others(now, c)
		if e = h.known[c.name()]; e != nil && !e.Ending {
			e.Condition, e.seen = c, true
			return
		}
	}
	if e == nil {
		e = &entry{}
		h.known[c.name()] = e
	}
	e.Condition, e.Since, e.Ending, e.seen = c, now, false, true
	a.enqueueLocked(now, h, e, false)
}

// others stands for the conditions of a group that are too many to be told one by one. The one in between counts as a
// condition of no group, so that it does not take their place.
func others(now time.Time, c Condition) Condition {
	return Condition{
		Event: c.Event, Subject: "others: " + c.Group, Until: now.Add(othersLife),
		Summary: "There are more alerts of this kind (" + c.Group + ") than the " + strconv.Itoa(maxOpen) +
			" that are sent one by one. Look at the log, /metrics or postern trace for the others, of which " + c.Subject + " is one.",
		Over:    "There are no further alerts of this kind (" + c.Group + ") beside those that are sent one by one.",
		Details: map[string]string{"group": c.Group},
	}
}

// End says that a condition does not hold any more. words, where not empty, say why.
func (a *Alerter) End(event Event, subject, words string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, h := range a.hooks {
		if e := h.known[name{event, subject}]; e != nil {
			a.endLocked(now, h, e, words)
		}
	}
}

func (a *Alerter) endLocked(now time.Time, h *hook, e *entry, words string) {
	if e.Ending {
		return
	}
	if words != "" {
		e.Over = words
	}
	if e.Told.IsZero() && !h.waits(e.name()) {
		delete(h.known, e.name()) // it never came to know
		return
	}
	e.Ending = true
	a.enqueueLocked(now, h, e, true)
}

// Set says which conditions of an event hold; the others of that event have ended.
func (a *Alerter) Set(event Event, hold []Condition) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, h := range a.hooks {
		holds := make(map[name]bool)
		for _, c := range hold {
			if h.wants(&c) {
				holds[c.name()] = true
				a.beginLocked(now, h, c)
			}
		}
		for _, e := range h.sorted() {
			if e.Event == event && !holds[e.name()] && e.Until.IsZero() {
				a.endLocked(now, h, e, "")
			}
		}
	}
}

// Open lists the conditions of an event that a hook believes to hold, those that an earlier process told of included.
func (a *Alerter) Open(event Event) []Condition {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Condition
	seen := make(map[name]bool)
	for _, h := range a.hooks {
		for _, e := range h.sorted() {
			if e.Event == event && !e.Ending && !seen[e.name()] {
				seen[e.name()] = true
				all = append(all, e.Condition)
			}
		}
	}
	return all
}

// look repeats what lasts, ends what ends by itself, and forgets what nobody has seen for long.
func (a *Alerter) look(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.hooks {
		for _, e := range h.sorted() {
			switch {
			case e.Ending:
			case !e.Until.IsZero() && !now.Before(e.Until):
				a.endLocked(now, h, e, "")
			case !e.seen && now.Sub(e.Told) >= forgetAfter:
				delete(h.known, e.name())
			case e.seen && h.wants(&e.Condition) && now.Sub(e.Queued) >= repeatAfter && !h.waits(e.name()):
				a.enqueueLocked(now, h, e, false)
			}
		}
	}
}

// enqueueLocked makes an alert of an entry. Over the bound the oldest is given up: what is told must be what is.
func (a *Alerter) enqueueLocked(now time.Time, h *hook, e *entry, resolved bool) {
	if len(h.waiting) >= maxWaiting {
		oldest := h.waiting[0]
		h.waiting = h.waiting[1:]
		if gone := h.known[oldest.of]; gone != nil && gone.Ending && oldest.doc.Resolved {
			delete(h.known, oldest.of)
		}
		a.o.Logger.Warn("an alert is given up: too many wait for the hook", "hook", h.Name, "event", string(oldest.doc.Event), "subject", oldest.doc.Subject)
		a.count(oldest.doc.Event, "failed")
	}
	e.Queued = now
	h.waiting = append(h.waiting, &notice{doc: documentOf(a.host, now, e, resolved), of: e.name(), made: now})
	poke(h.wake)
}

func (a *Alerter) count(e Event, outcome string) {
	if a.o.Count != nil {
		a.o.Count(e, outcome)
	}
}

// Run tells the hooks until ctx ends, and then for some seconds what waits.
func (a *Alerter) Run(ctx context.Context) {
	last, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cut) })
	defer stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	running := make(map[*hook]bool)
	tick := time.NewTicker(lookPeriod)
	defer tick.Stop()
	for {
		a.mu.Lock()
		hooks := slices.Clone(a.hooks)
		a.mu.Unlock()
		for h := range running {
			if !slices.Contains(hooks, h) {
				delete(running, h)
			}
		}
		for _, h := range hooks {
			if !running[h] {
				running[h] = true
				workers.Go(func() { a.serve(ctx, last, h) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		case <-tick.C:
			a.look(time.Now())
		}
	}
}

// serve tells one hook, in order, until ctx ends or the hook has left. last ends a little later than ctx.
func (a *Alerter) serve(ctx, last context.Context, h *hook) {
	failures, lastChance := 0, false
	for {
		n, settings, over := a.next(h)
		if over {
			return
		}
		if n == nil {
			select {
			case <-ctx.Done():
				return
			case <-h.wake:
			}
			continue
		}
		r := a.o.post(last, settings, n.doc.encode())
		if a.settle(time.Now(), h, n, r) {
			failures = 0
			continue
		}
		failures++
		wait := max(retryWait(failures), min(r.after, giveUp))
		a.o.Logger.Warn("an alert was not taken, it is tried again", "hook", settings.Name, "host", settings.host(), "event", string(n.doc.Event), "subject", n.doc.Subject, "err", r.err, "in", wait.Round(time.Second))
		if !a.pause(ctx, h, wait) {
			if lastChance || r.after > 0 || last.Err() != nil {
				return
			}
			lastChance = true
		}
	}
}

// pause waits, and reports whether the hook is to be told further.
func (a *Alerter) pause(ctx context.Context, h *hook, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-h.wake: // something more waits, or the hook has left
			a.mu.Lock()
			gone := h.gone
			a.mu.Unlock()
			if gone {
				return true // next says so
			}
		}
	}
}

// retryWait doubles with each failure, spread by a fifth both ways.
func retryWait(failures int) time.Duration {
	d := retryFirst
	for i := 1; i < failures && d < retryMost; i++ {
		d *= 2
	}
	return time.Duration(float64(min(d, retryMost)) * (0.8 + 0.4*rand.Float64()))
}

// next returns the alert that is to be told, nil for none, and whether the hook has left.
func (a *Alerter) next(h *hook) (n *notice, settings Hook, over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.gone {
		return nil, Hook{}, true
	}
	for len(h.waiting) > 0 {
		n := h.waiting[0]
		e := h.known[n.of]
		if !n.doc.Resolved || e != nil && !e.Told.IsZero() {
			return n, h.Hook, false
		}
		h.waiting = h.waiting[1:] // the end of what the hook refused to hear of
		if e != nil && e.Ending {
			delete(h.known, n.of)
		}
	}
	return nil, h.Hook, false
}

// settle notes what became of an alert, and reports whether it is done with.
func (a *Alerter) settle(now time.Time, h *hook, n *notice, r result) bool {
	late := now.Sub(n.made) >= giveUp
	if r.err != nil && !r.final && !late {
		return false
	}
	a.mu.Lock()
	h.waiting = slices.DeleteFunc(h.waiting, func(w *notice) bool { return w == n })
	e := h.known[n.of]
	switch {
	case e == nil:
	case n.doc.Resolved && e.Ending: // a person may look for the end in vain, but not for ever
		delete(h.known, n.of)
	case r.err == nil:
		e.Told = now
	}
	name, host := h.Name, h.host()
	a.mu.Unlock()
	if r.err != nil {
		a.count(n.doc.Event, "failed")
		a.o.Logger.Error("an alert is given up", "hook", name, "host", host, "event", string(n.doc.Event), "subject", n.doc.Subject, "resolved", n.doc.Resolved, "err", r.err)
	} else {
		a.count(n.doc.Event, "sent")
		a.o.Logger.Info("alert sent", "hook", name, "host", host, "event", string(n.doc.Event), "subject", n.doc.Subject, "resolved", n.doc.Resolved)
	}
	a.save()
	return true
}

// save writes down who has been told what.
func (a *Alerter) save() {
	a.file.save(func() map[string][]*entry {
		a.mu.Lock()
		defer a.mu.Unlock()
		all := make(map[string][]*entry)
		for _, h := range a.hooks {
			for _, e := range h.sorted() {
				if !e.Told.IsZero() {
					kept := *e
					all[h.id] = append(all[h.id], &kept)
				}
			}
		}
		return all
	})
}

func (h Hook) asksFor(e Event) bool { return len(h.Events) == 0 || slices.Contains(h.Events, e) }

func (h *hook) wants(c *Condition) bool {
	return h.asksFor(c.Event) && (c.Event != QueueAge || c.Threshold == h.QueueAge)
}

// open counts the conditions of an event and group.
func (h *hook) open(event Event, group string) (n int) {
	if group == "" {
		return 0
	}
	for _, e := range h.known {
		if e.Event == event && e.Group == group && !e.Ending {
			n++
		}
	}
	return n
}

// waits reports whether a condition's beginning waits to be told.
func (h *hook) waits(of name) bool {
	return slices.ContainsFunc(h.waiting, func(n *notice) bool { return n.of == of && !n.doc.Resolved })
}

// sorted returns what the hook knows, in a steady order.
func (h *hook) sorted() []*entry {
	all := make([]*entry, 0, len(h.known))
	for _, e := range h.known {
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y *entry) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Event, y.Event), cmp.Compare(x.Subject, y.Subject))
	})
	return all
}
