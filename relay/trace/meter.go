package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern/mail"
)

// How many refusals are told one by one. What is left out is counted, and told once a minute.
const (
	meterWindow  = time.Minute
	perKind      = 20   // of one kind in a window: of a login, or of a login that somebody without one claims to be
	perSubject   = 100  // in a window, of a login, or of all strangers of one IPv4 address or IPv6 /64
	strangerRate = 5    // by the second, of all who have not logged in, and
	strangerMax  = 600  // at once
	maxTallies   = 8192 // groups, and as many subjects, that strangers can make in a window; logins have as much again
	maxSummaries = 200  // events that tell what was left out in a window
)

// subject is whom a refusal counts for: a login, or the place of a client that has not logged in. What such
// a client claims to be proves nothing.
type subject struct {
	login string
	place netip.Prefix
}

// group tells refusals of one subject apart.
type group struct {
	subject
	claimed  string // the login of a failed AUTH
	kind     Kind
	code     int
	enhanced string
}

// tally counts refusals of one group or subject in a window.
type tally struct {
	told, left int
	listener   string     // of the first that was left out, as is
	reply      mail.Reply // its reply
}

// meter bounds what a refused client, logged in or not, can make us write. It belongs to whoever calls
// it, from many goroutines.
type meter struct {
	mu        sync.Mutex // guards all below
	groups    map[group]*tally
	subjects  map[subject]*tally
	strangers *rate.Limiter
	others    tally // those that are counted for nobody
	total     uint64
}

func newMeter() *meter {
	return &meter{groups: map[group]*tally{}, subjects: map[subject]*tally{}, strangers: rate.NewLimiter(strangerRate, strangerMax)}
}

func subjectOf(e *Event) subject {
	if e.Login != "" && e.Kind != AuthFail {
		return subject{login: e.Login}
	}
	return subject{place: place(e.Client)}
}

// place is the part of an address that stands for one client: IPv4 /32, IPv6 /64.
func place(client string) netip.Prefix {
	p, err := netip.ParsePrefix(client)
	if err == nil {
		return p
	}
	a, err := netip.ParseAddr(client)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ = a.Prefix(bits)
	return p
}

// allow reports whether a refusal is told by itself; otherwise it is counted.
func (m *meter) allow(now time.Time, e *Event) bool {
	who := subjectOf(e)
	what := group{subject: who, kind: e.Kind, code: e.Reply.Code, enhanced: e.Reply.Enhanced}
	if who.login == "" {
		what.claimed = e.Login
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	room := 2 * maxTallies
	if who.login == "" {
		room = maxTallies
	}
	of, all := tallyOf(m.groups, what, room), tallyOf(m.subjects, who, room)
	switch {
	case of != nil && of.told >= perKind:
		m.leaveLocked(of, e)
	case all != nil && all.told >= perSubject:
		m.leaveLocked(all, e)
	case of == nil, all == nil, who.login == "" && !m.strangers.AllowN(now, 1):
		m.leaveLocked(&m.others, e)
	default:
		of.told++
		all.told++
		return true
	}
	return false
}

// tallyOf finds a tally or makes one, while there is room.
func tallyOf[K comparable](in map[K]*tally, key K, room int) *tally {
	t := in[key]
	if t == nil && len(in) < room {
		t = &tally{}
		in[key] = t
	}
	return t
}

func (m *meter) leaveLocked(t *tally, e *Event) {
	m.total++
	t.left++
	if t.left == 1 {
		t.listener, t.reply = e.Listener, e.Reply
	}
}

// leftOut returns how many refusals were not told by themselves, since the start.
func (m *meter) leftOut() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// summary is an event that stands for several.
type summary struct {
	Event
	left int
}

// sweep ends a window and returns what it left out, most first.
func (m *meter) sweep(now time.Time) []summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []summary
	for s, t := range m.groups {
		if t.left > 0 {
			e := Event{Kind: s.kind, Login: s.login + s.claimed, Listener: t.listener, Client: shown(s.place), Reply: t.reply}
			e.Detail = fmt.Sprintf("and %d more of this kind in the last minute", t.left)
			all = append(all, summary{e, t.left})
		}
	}
	for s, t := range m.subjects {
		if t.left > 0 {
			e := Event{Kind: Refused, Login: s.login, Listener: t.listener, Client: shown(s.place)}
			e.Detail = fmt.Sprintf("and %d more refusals of several kinds in the last minute", t.left)
			all = append(all, summary{e, t.left})
		}
	}
	slices.SortFunc(all, func(a, b summary) int { return b.left - a.left })
	for len(all) > maxSummaries {
		m.others.left += all[len(all)-1].left
		all = all[:len(all)-1]
	}
	if n := m.others.left; n > 0 {
		e := Event{Kind: Refused, Detail: fmt.Sprintf("and %d more refusals of many clients in the last minute", n)}
		all = append(all, summary{e, n})
	}
	for i := range all {
		all[i].Time = now
	}
	m.groups, m.subjects = map[group]*tally{}, map[subject]*tally{} // a flood's maps go with it
	m.others = tally{}
	return all
}

// shown is a place as the trace names clients.
func shown(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}
