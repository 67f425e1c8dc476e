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

// How many refusals are recorded one by one. The rest is counted, and summarised once a minute.
const (
	meterWindow  = time.Minute
	perKind      = 20   // per window, of one kind, of a login or a login that an unauthenticated client claims
	perSubject   = 100  // per window, of a login, or of all unauthenticated clients at an IPv4 address or IPv6 /64
	unauthRate   = 5    // per second, of all unauthenticated clients
	unauthBurst  = 600  // at once, of all unauthenticated clients
	maxTallies   = 8192 // groups, and subjects, of unauthenticated clients in a window; logins have as many again
	maxSummaries = 200  // summaries per window
)

// subject is who a refusal counts against: a login, or the network of an unauthenticated client, whose claims prove
// nothing.
type subject struct {
	login   string
	network netip.Prefix
}

// group is the refusals of one subject that are alike.
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
	listener   string     // of the first that was left out
	reply      mail.Reply // its reply
}

// meter bounds what a refused client, logged in or not, can make us write. It is safe for concurrent use.
type meter struct {
	mu              sync.Mutex // guards all below
	groups          map[group]*tally
	subjects        map[subject]*tally
	unauthenticated *rate.Limiter
	others          tally // those counted against nobody
	total           uint64
}

func newMeter() *meter {
	return &meter{
		groups: map[group]*tally{}, subjects: map[subject]*tally{},
		unauthenticated: rate.NewLimiter(unauthRate, unauthBurst),
	}
}

func subjectOf(e *Event) subject {
	if e.Login != "" && e.Kind != AuthFail {
		return subject{login: e.Login}
	}
	return subject{network: network(e.Client)}
}

// network is the network that counts as one client: an IPv4 address or IPv6 /64.
func network(client string) netip.Prefix {
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

// allow reports whether to record a refusal; otherwise it counts it.
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
	case of == nil, all == nil, who.login == "" && !m.unauthenticated.AllowN(now, 1):
		m.leaveLocked(&m.others, e)
	default:
		of.told++
		all.told++
		return true
	}
	return false
}

// tallyOf finds a tally, or makes one if there is room.
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

// leftOut returns how many refusals were not recorded since the start.
func (m *meter) leftOut() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// summary is an event that stands for the ones that were left out.
type summary struct {
	Event
	left int
}

// sweep ends a window and returns its summaries, largest first.
func (m *meter) sweep(now time.Time) []summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []summary
	for s, t := range m.groups {
		if t.left > 0 {
			e := Event{Kind: s.kind, Login: s.login + s.claimed, Listener: t.listener, Reply: t.reply}
			e.Client = shown(s.network)
			e.Detail = fmt.Sprintf("and %d more of this kind in the last minute", t.left)
			all = append(all, summary{e, t.left})
		}
	}
	for s, t := range m.subjects {
		if t.left > 0 {
			e := Event{Kind: Refused, Login: s.login, Listener: t.listener, Client: shown(s.network)}
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
	m.groups, m.subjects = map[group]*tally{}, map[subject]*tally{} // new ones: a flood's maps are large
	m.others = tally{}
	return all
}

// shown is a network as the trace shows clients.
func shown(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}
