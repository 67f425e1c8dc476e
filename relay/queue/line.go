package queue

import (
	"container/list"
	"slices"
)

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
