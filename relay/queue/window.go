package queue

import (
	"container/list"
	"time"

	"postern/mail"
)

// state is where a message in the window stands.
type state uint8

const (
	adding     state = iota // Submit commits it at this moment
	waiting                 // due, in a line
	postponing              // to be put off in the store
	reviewing               // to be decided about without an attempt
	active                  // attempt or outcome in progress
)

// entry is a message in the window. Its message belongs to the one goroutine that works on it while it
// is active or reviewing, else to the window.
type entry struct {
	m       *Message
	content mail.Content // nil: the store has it
	key     string       // the line that it belongs to
	route   string       // what it would sleep for
	state   state
	until   time.Time // while postponing or reviewing: when its route may work again, zero: the retry table decides
	// while postponing or reviewing: the paused route that it is to sleep for, "" if only until counts
	asleep string

	leaseUntil time.Time // zero: not leased (yet)
	stale      bool      // another process changed the queue while it was in no line: the store may know better
}

// belongs notes what a dispatcher says of an entry.
func (e *entry) belongs(w Wait) {
	if w.Key != "" {
		e.key, e.route = w.Key, w.route()
	}
}

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

// begin marks an entry as being attempted and reports whether it is the only one.
func (w *window) begin(e *entry) bool {
	e.state = active
	w.active++
	return w.active == 1
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

// rotate takes out up to n messages that wait in busy lines, so that others in the store get their turn: those of the
// logins that have most, and among equals those whose turn is farthest. Who waits first keeps waiting.
func (w *window) rotate(n int) []*entry {
	var out []*entry
	for len(out) < n {
		var from *line
		var of *list.Element
		most := 0
		for _, l := range w.lines {
			for el := l.turns.Back(); l.busy && l.n > 1 && el != nil; el = el.Prev() {
				if have := len(el.Value.(*lane).entries); have > most {
					from, of, most = l, el, have
				}
			}
		}
		if from == nil {
			break
		}
		out = append(out, from.dropLast(of))
		w.waiting--
	}
	return out
}
