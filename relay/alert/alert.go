// Package alert posts faults to HTTPS hooks: a relay whose mail does not leave cannot warn by mail. A condition begins
// and ends. Each hook is told of both once, and once a day while the condition lasts.
//
// Failure semantics: alerts are retried, but never hold up mail. Each hook has a short queue; a failed alert is retried
// with growing waits for a day. One that the hook refuses for good (HTTP 4yz or a redirect) is dropped; if the
// condition lasts, the next alert follows a day later. At shutdown the waiting alerts get one more try, for some
// seconds. A file records who has been told what, so that a restart neither repeats an alert nor forgets its end. If
// the file is lost, alerts are repeated, nothing worse. The path, query and user of a hook's URL are its password: they
// appear in no error and no log.
package alert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Event is the kind of condition.
type Event string

// The events a hook can subscribe to, and Test, which is only sent by hand.
const (
	UpstreamPaused    Event = "upstream-paused"    // a provider refuses us, and mail waits
	LoginLocked       Event = "login-locked"       // password guessing, or a limit that locks the login was exceeded
	QueueAge          Event = "queue-age"          // mail has waited too long
	CertificateExpiry Event = "certificate-expiry" // a certificate that we present expires soon
	SecretExpiry      Event = "secret-expiry"      // our credentials at a provider expire soon
	ReportFailed      Event = "report-failed"      // a report about undelivered mail was itself undeliverable
	DiskFull          Event = "disk-full"          // no new mail is accepted: disk or store is full or failed
	DKIMKey           Event = "dkim-key"           // a DKIM key or its record needs a person, or keys were switched
	LoginSource       Event = "login-source"       // a source of logins is down, or its file is broken
	Danger            Event = "danger"             // the doctor found what puts mail in danger
	Test              Event = "test"
)

// Events lists the events a hook can subscribe to.
func Events() []Event {
	return []Event{UpstreamPaused, LoginLocked, QueueAge, CertificateExpiry, SecretExpiry, ReportFailed, DiskFull,
		DKIMKey, LoginSource, Danger}
}

// Condition is something that a person should know about while it holds. Event and Subject identify it.
type Condition struct {
	Event   Event  `json:"event"`
	Subject string `json:"subject"`
	// Group joins related conditions: beyond maxOpen of one event and group, the rest share one alert.
	Group   string            `json:"group,omitempty"`
	Summary string            `json:"summary"`         // what is wrong and what to do, in plain sentences
	Block   string            `json:"block,omitempty"` // lines to paste into relay.toml, shown after the summary
	Over    string            `json:"over,omitempty"`  // the text when it has ended
	Details map[string]string `json:"details,omitempty"`
	// Until is when the condition ends by itself; if zero, End ends it.
	Until time.Time `json:"until,omitzero"`
	// Threshold is the age that a QueueAge has exceeded. Only hooks with the same threshold are told.
	Threshold time.Duration `json:"threshold,omitempty"`
}

// name identifies a Condition.
type name struct {
	event   Event
	subject string
}

func (c *Condition) name() name { return name{c.Event, c.Subject} }

// Options configures an Alerter.
type Options struct {
	File   string // records who has been told what; "" for none
	Logger *slog.Logger
	// Nodes, unless nil, are those that tell the same hooks.
	Nodes Nodes
	// Count, unless nil, is called for each alert that a hook took ("sent") or that was given up ("failed").
	Count func(e Event, outcome string)

	post func(context.Context, Hook, Document) result // for tests
}

// Bounds and waits.
const (
	repeatAfter = 24 * time.Hour // between alerts about a condition that lasts
	giveUp      = 24 * time.Hour // after which one alert is dropped
	retryFirst  = 5 * time.Second
	retryMost   = 15 * time.Minute
	lookPeriod  = time.Minute // between looks for conditions to repeat or to end
	drainTime   = 3 * time.Second
	maxWaiting  = 200 // alerts per hook
	maxOpen     = 10  // conditions per event and group
	othersLife  = 2 * time.Hour
	forgetAfter = 30 * 24 * time.Hour // for conditions of an earlier process that have not been seen again
)

// Alerter tells hooks about conditions. Its methods are safe for concurrent use and never wait for a hook.
type Alerter struct {
	o Options

	mu      sync.Mutex // guards the fields below and the contents of all hooks
	host    string
	hooks   []*hook             // in the order given to Use
	loaded  map[string][]*entry // what an earlier process told hooks that Use has not named yet
	changed chan struct{}       // signals that hooks has changed

	file stateFile
}

// hook is a Hook with the conditions it knows about and the alerts that wait for it.
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
	Queued time.Time `json:"-"`    // when the last alert about it was queued
	Told   time.Time `json:"told"` // when the hook last took one
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
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.post == nil {
		o.post = deliver
	}
	a := &Alerter{o: o, changed: make(chan struct{}, 1), file: stateFile{path: o.File, log: o.Logger}}
	a.loaded = a.file.load()
	return a
}

// Use replaces the hooks and the relay's name. A hook whose URL was already in use carries on with its state.
func (a *Alerter) Use(host string, hooks []Hook) {
	a.mu.Lock()
	a.host = host
	now := time.Now()
	before := a.hooks
	a.hooks = nil
	for _, h := range hooks {
		id := idOf(h.key())
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

// follow applies new settings. Conditions that the hook no longer subscribes to are dropped without an end.
func (h *hook) follow(settings Hook) {
	h.Hook = settings
	for of := range h.known {
		if !h.asksFor(of.event) {
			delete(h.known, of)
		}
	}
	h.waiting = slices.DeleteFunc(h.waiting, func(n *notice) bool { return !h.asksFor(n.of.event) })
}

// newHookLocked makes a hook that knows what an earlier process told it.
func (a *Alerter) newHookLocked(now time.Time, h Hook, id string) *hook {
	made := &hook{Hook: h, id: id, known: make(map[name]*entry), wake: make(chan struct{}, 1)}
	for _, e := range a.loaded[id] {
		if !h.asksFor(e.Event) {
			continue
		}
		if e.Told.After(now) { // the clock was wrong then; without this no repeat would be due until Told
			e.Told = now
		}
		e.Queued = e.Told
		made.known[e.name()] = e
		if e.Ending {
			a.enqueueLocked(now, made, e, true)
		}
	}
	delete(a.loaded, id)
	return made
}

// idOf identifies a hook without revealing its key, which may be its URL.
func idOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:12])
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Thresholds lists the queue ages that hooks subscribe to.
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

// Begin reports that a condition holds. Repeated calls are harmless.
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

// others stands for the conditions of a group beyond maxOpen. It has no group itself and so does not count in theirs.
func others(now time.Time, c Condition) Condition {
	return Condition{
		Event: c.Event, Subject: "others: " + c.Group, Until: now.Add(othersLife),
		Summary: fmt.Sprintf("There are more alerts of this kind (%s) than the %d that are sent one by one. "+
			"Look at the log, /metrics or postern trace for the others; %s is one of them.", c.Group, maxOpen,
			c.Subject),
		Over:    "There are no more alerts of this kind (" + c.Group + ") than those sent one by one.",
		Details: map[string]string{"group": c.Group},
	}
}

// End reports that a condition no longer holds. words, unless empty, say why.
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
		delete(h.known, e.name()) // the hook never heard of it
		return
	}
	e.Ending = true
	a.enqueueLocked(now, h, e, true)
}

// Set reports all conditions of an event that hold; any others of that event have ended.
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

// Open lists the conditions of an event that some hook believes to hold, including those of an earlier process.
func (a *Alerter) Open(event Event) []Condition {
	a.mu.Lock()
	defer a.mu.Unlock()
	type told struct { // hooks may ask for different ages of the queue
		name
		threshold time.Duration
	}
	var all []Condition
	seen := make(map[told]bool)
	for _, h := range a.hooks {
		for _, e := range h.sorted() {
			if of := (told{e.name(), e.Threshold}); e.Event == event && !e.Ending && !seen[of] {
				seen[of] = true
				all = append(all, e.Condition)
			}
		}
	}
	return all
}

// look repeats conditions that last, ends those whose time is up, and forgets those that have not been seen for long.
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

// enqueueLocked queues an alert about an entry. A full queue drops its oldest alert: the newest state matters most.
func (a *Alerter) enqueueLocked(now time.Time, h *hook, e *entry, resolved bool) {
	if len(h.waiting) >= maxWaiting {
		oldest := h.waiting[0]
		h.waiting = h.waiting[1:]
		if gone := h.known[oldest.of]; gone != nil && gone.Ending && oldest.doc.Resolved {
			delete(h.known, oldest.of)
		}
		a.logger(h.Hook, oldest).Warn("alert given up: too many wait for the hook")
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

func (h Hook) asksFor(e Event) bool { return len(h.Events) == 0 || slices.Contains(h.Events, e) }

func (h *hook) wants(c *Condition) bool {
	return h.asksFor(c.Event) && (c.Event != QueueAge || c.Threshold == h.QueueAge)
}

// open counts the conditions of an event and group that hold.
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

// waits reports whether an alert about a condition's beginning is queued.
func (h *hook) waits(of name) bool {
	return slices.ContainsFunc(h.waiting, func(n *notice) bool { return n.of == of && !n.doc.Resolved })
}

// sorted returns the hook's entries in a stable order.
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
