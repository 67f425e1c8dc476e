package queue

import (
	"container/list"
	"slices"
	"time"

	"postern/mail"
)

// state is where a message in the window stands.
type state uint8

const (
	adding  state = iota // Submit commits it at this moment
	waiting              // due, in a line
	aside                // to be postponed
	looking              // to be settled without an attempt
	active               // attempt or outcome in progress
)

// entry is a message in the window. Its message belongs to the one goroutine that works on it while it
// is active or looking, else to the window.
type entry struct {
	m       *Message
	content mail.Content // nil: the store has it
	key     string       // the line that it belongs to
	route   string       // what it would sleep for
	state   state
	until   time.Time // while aside or looking: when its route may work again, zero: the retry table decides
	asleep  string    // while aside or looking: the pause that it is to sleep in, "" if only until counts

	leaseUntil time.Time // zero: not leased (yet)
	doubted    bool      // another process changed the queue while it was in no line: the store may know better
}

// belongs notes what a dispatcher says of an entry.
func (e *entry) belongs(w Wait) {
	if w.Key != "" {
		e.key, e.route = w.Key, w.route()
	}
}

// window is what the scheduler has in memory. It is guarded by Queue.mu.
//
// Messages wait in lines, one for each thing to wait for; in a line the logins take turns, so that a
// login with many messages gets one place when a login with one message does. Messages that nobody
// asked a place for yet wait in fresh, for the dispatcher alone knows their line.
type window struct {
	entries map[string]*entry
	lines   map[string]*line
	fresh   *line
	waiting int   // entries in lines
	busy    int   // active entries
	content int64 // octets
	looks   []*entry
}

func newWindow() window {
	return window{
		entries: make(map[string]*entry), lines: make(map[string]*line),
		fresh: newLine(""),
	}
}

// line is a queue of entries in which logins take turns.
type line struct {
	key   string
	busy  bool // no place at the last question
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

// lineLocked returns the line for a key, making it.
func (w *window) lineLocked(key string) *line {
	l := w.lines[key]
	if l == nil {
		l = newLine(key)
		w.lines[key] = l
	}
	return l
}

func (w *window) waitLocked(e *entry, l *line) {
	e.state = waiting
	l.push(e)
	w.waiting++
}

// takeLocked takes the first entry out of a line; empty lines go.
func (w *window) takeLocked(l *line) *entry {
	e := l.take()
	w.waiting--
	w.tidyLocked(l)
	return e
}

func (w *window) tidyLocked(l *line) {
	if l.n == 0 && l != w.fresh {
		delete(w.lines, l.key)
	}
}

// keepContentLocked keeps the content of e in memory if it is there and the budget allows.
func (w *window) keepContentLocked(e *entry, c mail.Content, budget int64) {
	if c == nil || c.Bytes() == nil || w.content+c.Size() > budget {
		return
	}
	e.content = mail.BytesContent(c.Bytes()) // and nothing else that c may hold on to
	w.content += c.Size()
}

// removeLocked forgets an entry that is in no line.
func (w *window) removeLocked(e *entry) {
	if w.entries[e.m.ID] != e {
		return
	}
	delete(w.entries, e.m.ID)
	if e.content != nil {
		w.content -= e.content.Size()
		e.content = nil
	}
}

// longestLocked finds the login with the most waiting messages in one line.
func (w *window) longestLocked() (l *line, el *list.Element, n int) {
	look := func(candidate *line) {
		for e := candidate.turns.Front(); e != nil; e = e.Next() {
			if have := len(e.Value.(*lane).entries); have > n {
				l, el, n = candidate, e, have
			}
		}
	}
	look(w.fresh)
	for _, candidate := range w.lines {
		look(candidate)
	}
	return l, el, n
}

// displaceLocked makes room for a message of login by forgetting one of the login that has the most,
// if that has at least two more: the window is shared evenly. It reports whether there is room now.
func (w *window) displaceLocked(login string) *entry {
	l, el, n := w.longestLocked()
	if l == nil || n < 2 || el.Value.(*lane).login == login {
		return nil
	}
	if own := w.countLocked(login); own+2 > n {
		return nil
	}
	e := l.dropLast(el)
	w.waiting--
	w.tidyLocked(l)
	return e
}

func (w *window) countLocked(login string) int {
	n := 0
	count := func(l *line) {
		if el := l.lanes[login]; el != nil {
			n += len(el.Value.(*lane).entries)
		}
	}
	count(w.fresh)
	for _, l := range w.lines {
		count(l)
	}
	return n
}

// rotateLocked forgets up to n messages that wait in busy lines, so that others in the store get a look:
// those of the logins that have most, and among equals those whose turn is farthest.
func (w *window) rotateLocked(n int) []*entry {
	var out []*entry
	for len(out) < n {
		l, el := w.farthestLocked()
		if l == nil {
			break
		}
		out = append(out, l.dropLast(el))
		w.waiting--
	}
	return out
}

func (w *window) farthestLocked() (l *line, el *list.Element) {
	most := 0
	for _, candidate := range w.lines {
		if !candidate.busy || candidate.n < 2 { // who waits first keeps waiting
			continue
		}
		for e := candidate.turns.Back(); e != nil; e = e.Prev() {
			if have := len(e.Value.(*lane).entries); have > most {
				l, el, most = candidate, e, have
			}
		}
	}
	return l, el
}
