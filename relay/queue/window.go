package queue

import (
	"container/list"
	"slices"
	"time"

	"postern/mail"
)

// window is the messages in memory.
//
// Messages wait in lines, one for each thing to wait for; in a line the logins take turns, so that a
// login with many messages gets one slot when a login with one message does. Messages that nobody
// asked a slot for yet wait in fresh, for the dispatcher alone knows their line.
type window struct {
	size    int // entries, at most
	entries map[string]*entry
	lines   map[string]*line
	fresh   *line
	waiting int   // entries in lines
	active  int   // entries in attempts
	budget  int64 // octets of content, at most
	content int64

	reviews   []*entry // to begin
	reviewing int      // begun
	postpones []*entry
}

func newWindow(size int, budget int64) window {
	return window{size: size, budget: budget, entries: make(map[string]*entry), lines: make(map[string]*line),
		fresh: newLine("")}
}

// line returns the line for a key, making it.
func (w *window) line(key string) *line {
	l := w.lines[key]
	if l == nil {
		l = newLine(key)
		w.lines[key] = l
	}
	return l
}

// all lists the lines.
func (w *window) all(yield func(*line) bool) {
	if !yield(w.fresh) {
		return
	}
	for _, l := range w.lines {
		if !yield(l) {
			return
		}
	}
}

// add takes in an entry that is in no line yet, and its content if that is in memory and the budget allows.
func (w *window) add(e *entry, c mail.Content) {
	w.entries[e.m.ID] = e
	if c == nil || c.Bytes() == nil || w.content+c.Size() > w.budget {
		return
	}
	e.content = mail.BytesContent(c.Bytes()) // and nothing else that c may hold on to
	w.content += c.Size()
}

// remove forgets an entry that is in no line.
func (w *window) remove(e *entry) {
	if e.state == active {
		w.active--
	}
	if w.entries[e.m.ID] != e {
		return
	}
	delete(w.entries, e.m.ID)
	if e.content != nil {
		w.content -= e.content.Size()
		e.content = nil
	}
}

func (w *window) wait(e *entry, l *line) {
	e.state = waiting
	l.push(e)
	w.waiting++
}

// take takes the first entry out of a line; empty lines go.
func (w *window) take(l *line) *entry {
	e := l.take()
	w.waiting--
	w.tidy(l)
	return e
}

// extract takes the entries that pick chooses out of a line.
func (w *window) extract(l *line, pick func(*entry) bool) []*entry {
	out := l.extract(pick)
	w.waiting -= len(out)
	w.tidy(l)
	return out
}

func (w *window) tidy(l *line) {
	if l.n == 0 && l != w.fresh {
		delete(w.lines, l.key)
	}
}

func (w *window) review(e *entry) {
	e.state = reviewing
	w.reviews = append(w.reviews, e)
}

// nextReviews returns the reviews to begin now.
func (w *window) nextReviews() []*entry {
	n := min(len(w.reviews), maxReviews-w.reviewing)
	next := w.reviews[:n:n]
	w.reviews = w.reviews[n:]
	w.reviewing += n
	return next
}

// begin marks an entry as being attempted.
func (w *window) begin(e *entry) {
	e.state = active
	w.active++
}

// room reports whether there is room for a message of login. Another login that has more may have to make it: out.
func (w *window) room(login string) (out *entry, ok bool) {
	if len(w.entries) < w.size {
		return nil, true
	}
	out = w.displace(login)
	return out, out != nil
}

// displace takes out an entry of the login that has the most in one line, if that has at least two more than login: the
// window is shared evenly.
func (w *window) displace(login string) *entry {
	var from *line
	var of *list.Element
	most, own := 1, 0
	for l := range w.all {
		for el := l.turns.Front(); el != nil; el = el.Next() {
			if n := len(el.Value.(*lane).entries); n > most {
				from, of, most = l, el, n
			}
		}
		if el := l.lanes[login]; el != nil {
			own += len(el.Value.(*lane).entries)
		}
	}
	if from == nil || of.Value.(*lane).login == login || own+2 > most {
		return nil
	}
	e := from.dropLast(of)
	w.waiting--
	w.tidy(from)
	return e
}

// admit takes in a message that is being stored, if there is room and it is due, and asks for a slot if nobody waits.
// With a slot its attempt has begun. Where its route is paused, it is to be stored as put off.
func (p *plan) admit(now time.Time, e *entry, c mail.Content) Slot {
	m := e.m
	if p.health.down(now) || m.Held || m.NextAttempt.After(now) || m.Bounce || !p.room(m.Login) {
		return nil
	}
	p.window.add(e, c)
	if p.window.waiting > 0 || len(p.window.reviews) > 0 {
		return nil
	}
	slot, w := p.dispatcher.Reserve(now, m)
	e.belongs(w)
	switch {
	case slot != nil:
		p.window.begin(e)
	case w.Until.After(now):
		e.until, e.asleep = w.Until, p.routes.pause(w, m)
		m.NextAttempt, m.WaitingFor = p.times.sleepAt(now, m, e.until, e.asleep), e.asleep
	}
	return slot
}

// stored learns how the store took a message that admit has seen: where it did, the message waits, if it is in the
// window and due. putOff: it sleeps instead.
func (p *plan) stored(now time.Time, e *entry, err error) (putOff bool) {
	in := p.window.entries[e.m.ID] == e
	switch {
	case err != nil:
		if in {
			p.forget(e)
		}
	case !in:
		p.enter(now, NewMessage{Message: e.m}, false)
	case e.m.NextAttempt.After(now):
		p.leave(now, e, e.m.NextAttempt, e.asleep)
		return true
	default:
		p.join(now, e)
	}
	return false
}

// belongs notes what a dispatcher says of an entry.
func (e *entry) belongs(w Wait) {
	if w.Key != "" {
		e.key, e.route = w.Key, w.route()
	}
}

func (w Wait) route() string {
	if w.Route == "" {
		return w.Key
	}
	return w.Route
}

// line is a queue of entries in which logins take turns.
type line struct {
	key   string
	busy  bool // no slot at the last question
	n     int
	lanes map[string]*list.Element // of *lane, by login
	turns *list.List
}

type lane struct {
	login   string
	entries []*entry
}

func newLine(key string) *line {
	return &line{key: key, lanes: make(map[string]*list.Element), turns: list.New()}
}

func (l *line) lane(login string) *lane {
	el := l.lanes[login]
	if el == nil {
		el = l.turns.PushBack(&lane{login: login})
		l.lanes[login] = el
	}
	return el.Value.(*lane)
}

func (l *line) push(e *entry) {
	n := l.lane(e.m.Login)
	n.entries = append(n.entries, e)
	l.n++
}

// first returns the entry whose turn it is, nil when the line is empty.
func (l *line) first() *entry {
	front := l.turns.Front()
	if front == nil {
		return nil
	}
	return front.Value.(*lane).entries[0]
}

// take removes the first entry and ends the turn of its login.
func (l *line) take() *entry {
	front := l.turns.Front()
	n := front.Value.(*lane)
	e := n.entries[0]
	n.entries[0] = nil
	n.entries = n.entries[1:]
	l.removed(front)
	if len(n.entries) > 0 {
		l.turns.MoveToBack(front)
	}
	return e
}

// dropLast removes the entry that a login would be the last to need.
func (l *line) dropLast(el *list.Element) *entry {
	n := el.Value.(*lane)
	last := len(n.entries) - 1
	e := n.entries[last]
	n.entries[last] = nil
	n.entries = n.entries[:last]
	l.removed(el)
	return e
}

// extract removes the entries that pick chooses.
func (l *line) extract(pick func(*entry) bool) []*entry {
	var out []*entry
	for el := l.turns.Front(); el != nil; {
		next, n := el.Next(), el.Value.(*lane)
		n.entries = slices.DeleteFunc(n.entries, func(e *entry) bool {
			picked := pick(e)
			if picked {
				out = append(out, e)
			}
			return picked
		})
		if len(n.entries) == 0 {
			l.turns.Remove(el)
			delete(l.lanes, n.login)
		}
		el = next
	}
	l.n -= len(out)
	return out
}

func (l *line) removed(el *list.Element) {
	l.n--
	if n := el.Value.(*lane); len(n.entries) == 0 {
		l.turns.Remove(el)
		delete(l.lanes, n.login)
	}
}

// room reports whether the window has room for a message of login, making it at the cost of a login that has more.
func (p *plan) room(login string) bool {
	out, ok := p.window.room(login)
	if out != nil {
		p.forget(out)
		p.reader.more = true
	}
	return ok
}

// enter takes in a message that is in the store, if there is room and it is due; else it is found there again.
func (p *plan) enter(now time.Time, n NewMessage, open bool) {
	m := n.Message
	switch {
	case m.Held:
	case m.NextAttempt.After(now):
		p.reader.due(m.NextAttempt)
	case !open || p.window.entries[m.ID] != nil || !p.room(m.Login):
		p.reader.more = true
	default:
		e := &entry{m: m}
		p.window.add(e, n.Content)
		p.join(now, e)
	}
}

// join lets a due message that is in no line wait where it belongs, as far as that is known.
func (p *plan) join(now time.Time, e *entry) {
	e.until, e.asleep = time.Time{}, ""
	if r := p.routes.routes[e.m.WaitingFor]; r.closed(now) {
		p.postpone(now, e, Wait{Route: e.m.WaitingFor, Until: r.until})
		return
	}
	l := p.window.lines[e.key]
	if l == nil {
		l = p.window.lines[e.m.WaitingFor]
	}
	switch {
	case e.m.Bounce:
		p.window.review(e)
	case l != nil:
		p.window.wait(e, l)
	default:
		p.window.wait(e, p.window.fresh)
	}
}

// postpone takes a message that is in no line off the schedule until its route works, or has it reviewed if it cannot
// wait that long.
func (p *plan) postpone(now time.Time, e *entry, w Wait) {
	p.reader.moved++
	e.route, e.until, e.asleep = w.Route, w.Until, ""
	if p.routes.routes[w.Route] != nil {
		e.asleep = w.Route
	}
	if p.times.overdue(now, e.m) {
		p.window.review(e)
		return
	}
	e.state = postponing
	p.window.postpones = append(p.window.postpones, e)
}

// leave leaves an entry to the store, where it becomes due at a time, or sleeps for a route. A person may have given it
// up meanwhile: then a read says so.
func (p *plan) leave(now time.Time, e *entry, at time.Time, route string) {
	p.forget(e)
	p.reader.due(at)
	p.routes.asleep(now, route)
	p.reader.changed = p.reader.changed || e.stale
}

// forget removes an entry, which is in no line, from the window.
func (p *plan) forget(e *entry) {
	p.window.remove(e)
	p.reader.forgot(e.m.ID)
}
