package account

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

// Times of leases. A lease is renewed long before it ends. When it cannot be, what is sent is cut off early enough that
// nothing is open any more when the lease ends in the database: a cancelled Send waits at most 10 s for the reply to a
// whole message, and one clock may run a little faster than another.
const (
	leaseTime  = 40 * time.Second
	renewAfter = 3 * time.Second
	cutBefore  = 15 * time.Second
	wishTime   = 3 * time.Second // of a node that has nothing yet and wishes for something
	turnTime   = 2 * time.Second // how long a slot stays where it is while there are fewer slots than nodes
)

// ledger is what nodes know of one account together. Times are nanoseconds of the database's clock. A node that wants
// something settles its own part in a copy and swaps the row for it; where another node was faster it settles again.
//
// Nobody takes what another has: a node gives back what others wish for when it settles the next time, or its lease
// ends. What a former process of a node had, the next one gives back when it first settles. A slot that is leased
// counts whether it is used or not. A token of a rate that a node has taken counts as sent until the node says when it
// was used, or gives it back.
//
// It is pure: the caller passes the time.
type ledger struct {
	Holders []holder `json:"holders,omitempty"`
	Meters  []common `json:"meters,omitempty"`
	Hold    hold     `json:"hold,omitzero"`
	Probe   string   `json:"probe,omitempty"` // the holder that probes

	changed bool // is to be written
}

// holder is one table of one node: the one of a configuration before a reload is another, and so is that of a process
// before this one. See holderID.
type holder struct {
	ID    string `json:"id"`
	Until int64  `json:"until"`
	Limit int    `json:"limit"` // of slots, for all together, as far as this one knows
	Held  int    `json:"held,omitempty"`
	Wish  int    `json:"wish,omitempty"`  // slots that it has use for beside
	Asked int64  `json:"asked,omitempty"` // since when
	Since int64  `json:"since,omitempty"` // when the first of Held came
}

// common is one rate, or the memory of a quota's window, of all together.
type common struct {
	Unit  upstream.Unit   `json:"unit"`
	Span  time.Duration   `json:"span"`
	Cells [][2]int64      `json:"cells,omitempty"` // of a window: number and count
	Parts map[string]part `json:"parts,omitempty"` // by holder
}

// part is what a holder has of a rate.
type part struct {
	Out   int64 `json:"out,omitempty"`  // taken, and neither used nor given back as far as is known here
	Used  int64 `json:"used,omitempty"` // of all that it ever sent, what is known here
	Lack  int64 `json:"lack,omitempty"` // that it has use for beside
	Asked int64 `json:"asked,omitempty"`
}

// hold is the state of the breaker. Epoch counts its changes.
type hold struct {
	Epoch    int64           `json:"epoch"`
	Status   upstream.Status `json:"status,omitempty"`
	Until    int64           `json:"until,omitempty"`
	Wait     int64           `json:"wait,omitempty"` // how long that was, whatever the clock says since
	Since    int64           `json:"since,omitempty"`
	Pressure int             `json:"pressure,omitempty"`
	Faults   int             `json:"faults,omitempty"`
	Early    bool            `json:"early,omitempty"`
	Spent    bool            `json:"spent,omitempty"` // a quota is used up
	Reply    mail.Reply      `json:"reply,omitzero"`
}

func (h *hold) ready() bool { return h.Status == "" || h.Status == upstream.Ready }

func decodeLedger(state []byte) (*ledger, error) {
	l := new(ledger)
	if len(state) == 0 {
		return l, nil
	}
	if err := json.Unmarshal(state, l); err != nil {
		return nil, fmt.Errorf("what nodes know of an account together cannot be read: %w", err)
	}
	return l, nil
}

func (l *ledger) encode() []byte {
	state, err := json.Marshal(l)
	if err != nil {
		panic(err) // there is nothing in it that could not be written
	}
	return state
}

func (l *ledger) clone() *ledger {
	c := *l
	c.changed = false
	c.Holders, c.Meters = slices.Clone(l.Holders), slices.Clone(l.Meters)
	for i := range c.Meters {
		m := &c.Meters[i]
		m.Cells, m.Parts = slices.Clone(m.Cells), maps.Clone(m.Parts)
	}
	return &c
}

// holderID names a table: by its node, by which of the node's processes has it, and by a number.
func holderID(node, life string, number int) string {
	return fmt.Sprintf("%s/%s.%d", node, life, number)
}

// succeeds reports whether a holder is of the same node as another one, and of another process: the other has ended.
func succeeds(id, other string) bool {
	node, life := splitID(id)
	was, ended := splitID(other)
	return node != "" && node == was && life != ended
}

// splitID returns the node of a holder, whose name may have any octets, and its process.
func splitID(id string) (node, life string) {
	end := max(0, strings.LastIndexByte(id, '/'))
	life, _, _ = strings.Cut(id[end:], ".")
	return id[:end], life
}

func (l *ledger) holder(id string) (h holder, ok bool) {
	if i := l.index(id); i >= 0 {
		return l.Holders[i], true
	}
	return holder{ID: id}, false
}

func (l *ledger) index(id string) int {
	return slices.IndexFunc(l.Holders, func(h holder) bool { return h.ID == id })
}

func (l *ledger) meter(unit upstream.Unit, span time.Duration) *common {
	same := func(m common) bool { return m.Unit == unit && m.Span == span }
	if i := slices.IndexFunc(l.Meters, same); i >= 0 {
		return &l.Meters[i]
	}
	l.Meters = append(l.Meters, common{Unit: unit, Span: span})
	return &l.Meters[len(l.Meters)-1]
}

// find is meter for reading.
func (l *ledger) find(unit upstream.Unit, span time.Duration) common {
	for _, m := range l.Meters {
		if m.Unit == unit && m.Span == span {
			return m
		}
	}
	return common{Unit: unit, Span: span}
}

func (l *ledger) lacks(id string) bool {
	return slices.ContainsFunc(l.Meters, func(m common) bool { return m.Parts[id].Lack > 0 })
}

// window is what was sent of the rate, tokens that are out not included.
func (m *common) window(now int64) window {
	w := window{span: m.Span}
	w.advance(time.Unix(0, now))
	for _, c := range m.Cells {
		if n := min(c[0], w.head); n >= w.head-cells {
			w.used[w.index(n)] += uint32(c[1])
			w.sum += c[1]
		}
	}
	return w
}

func (m *common) keep(w *window) {
	m.Cells = m.Cells[:0]
	for c := w.head - cells; c <= w.head; c++ {
		if n := w.used[w.index(c)]; n > 0 {
			m.Cells = append(m.Cells, [2]int64{c, int64(n)})
		}
	}
}

// out is how many tokens are with holders.
func (m *common) out() (n int64) {
	for _, p := range m.Parts {
		n += p.Out
	}
	return n
}

// QuotaOf is what a row says of an account's rates, and of a quota that is used up. local makes a time of this machine
// from one of the database's clock in nanoseconds.
func QuotaOf(r Row, local func(int64) time.Time) (q upstream.Quota, err error) {
	l, err := decodeLedger(r.State)
	if err != nil {
		return q, err
	}
	q.Identity = r.Account
	if l.Hold.Spent && !l.Hold.ready() {
		q.Until, q.Reply = local(l.Hold.Until), l.Hold.Reply
	}
	for _, m := range l.Meters {
		w := window{span: m.Span}
		for _, c := range m.Cells {
			q.Counts = append(q.Counts, upstream.QuotaCount{Unit: m.Unit, Per: m.Span,
				Leaves: local(w.leaves(c[0]).UnixNano()), Count: c[1]})
		}
	}
	return q, nil
}

// forget is when nobody misses the ledger any more.
func (l *ledger) forget(now int64) int64 {
	at := max(now+int64(leaseTime), l.Hold.Until)
	for i := range l.Meters {
		m := &l.Meters[i]
		at = max(at, now+int64(m.Span)+int64(m.Span)/cells)
	}
	if !l.Hold.ready() {
		at = max(at, now) + int64(24*time.Hour)
	}
	return at
}
