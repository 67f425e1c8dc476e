// Package devices knows which clients of a listener for old devices need no login: those of a network that is being
// learned, whose mail is held, and devices that an administrator has accepted at their address.
//
// Failure semantics: what is not known is not let in. A learning ends at its time whatever else happens, also while
// nothing runs: it is a time in the store, compared at each message, and no timer.
package devices

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Bounds of what is kept.
const (
	LongestLearning = 2 * time.Hour
	MostLearnings   = 8    // under way at the same time
	MostPlaces      = 4096 // accepted devices that log in by their address
	MostHeld        = 50   // messages that wait for a person, of all that was learned
	MostForgotten   = 4096 // devices that are not to be proposed
	WidestNetwork4  = 20   // bits of the widest network that may be learned: 4096 addresses
	WidestNetwork6  = 64
)

// LearningLogin is whose mail is that was taken while learning. No account can have this name.
const LearningLogin = "(device learning)"

// Learning lets the clients of one network send without login at one listener, for a while. What they send is held.
type Learning struct {
	Listener string       `json:"listener"`
	Network  netip.Prefix `json:"network"`
	Began    time.Time    `json:"began"`
	Until    time.Time    `json:"until"`
	By       string       `json:"by"`
}

// Place is a device that is known by its address: it may log in, and need not.
type Place struct {
	Listener string
	Address  netip.Addr
	Login    string
}

// Forgotten is a device that somebody did not want: what it did until then proposes it no more.
type Forgotten struct {
	Listener string
	Address  netip.Addr
	At       time.Time
}

// Known are all learnings, places and forgotten devices at one time.
type Known struct {
	Learnings []Learning
	Places    []Place
	Forgotten []Forgotten
}

// Table is what sessions ask. The zero Table knows nobody. It is safe for concurrent use.
type Table struct{ current atomic.Pointer[index] }

type index struct {
	learnings []Learning
	logins    map[at]string
}

type at struct {
	listener string
	client   netip.Addr
}

// Set replaces what is known.
func (t *Table) Set(k Known) {
	x := &index{learnings: k.Learnings, logins: make(map[at]string, len(k.Places))}
	for _, p := range k.Places {
		x.logins[at{p.Listener, p.Address}] = p.Login
	}
	t.current.Store(x)
}

// Learns reports whether clients at an address may send without login now, to be held.
func (t *Table) Learns(listener string, client netip.Addr, now time.Time) bool {
	x := t.current.Load()
	return x != nil && slices.ContainsFunc(x.learnings, func(l Learning) bool {
		return l.Listener == listener && now.Before(l.Until) && !now.Before(l.Began.Add(-time.Minute)) &&
			l.Network.Contains(plain(client))
	})
}

// Login is the account of an accepted device, "" if there is none at this address.
func (t *Table) Login(listener string, client netip.Addr) string {
	if x := t.current.Load(); x != nil {
		return x.logins[at{listener, plain(client)}]
	}
	return ""
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
