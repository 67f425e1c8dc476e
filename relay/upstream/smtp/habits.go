package smtp

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// habits is what servers were found to do other than they offer. What EHLO says tells one server from another behind
// the same name, so a server that changes its offer is tried anew; so is each of them after a day.
type habits struct {
	mu    sync.Mutex
	known map[string][]habit // by what EHLO offered
}

// habit is one thing that a server does.
type habit struct {
	name  string
	since time.Time
}

// The habits that are no keyword of EHLO. Those of mechanisms are made by mechanismHabit and bareHabit.
const habitTalks = "more replies than commands"

// What log and trace say of them.
const wordsTalks = "the upstream sends more replies than it is asked for, so messages go by DATA from now on"

const (
	maxOffers   = 16 // servers behind one name that are told apart
	maxHabits   = 24 // of one of them
	habitLasts  = 24 * time.Hour
	maxOfferKey = 2 << 10 // octets of an offer that are compared
)

func (h *habits) of(offer string, now time.Time) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, ok := h.known[offer]
	if !ok {
		return nil
	}
	all = slices.DeleteFunc(all, func(a habit) bool { return now.Sub(a.since) >= habitLasts })
	if len(all) == 0 {
		delete(h.known, offer)
		return nil
	}
	h.known[offer] = all
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.name
	}
	return names
}

// learn notes a habit. It reports whether it is new.
func (h *habits) learn(offer, name string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.known[offer]
	if slices.ContainsFunc(all, func(a habit) bool { return a.name == name }) || len(all) >= maxHabits {
		return false
	}
	if h.known == nil {
		h.known = make(map[string][]habit)
	}
	if len(h.known) >= maxOffers && all == nil {
		h.evictLocked()
	}
	h.known[offer] = append(all, habit{name, now})
	return true
}

// evictLocked forgets the offer of which something was learned the longest ago.
func (h *habits) evictLocked() {
	oldest, found := "", time.Time{}
	for offer, all := range h.known {
		if last := all[len(all)-1].since; found.IsZero() || last.Before(found) {
			oldest, found = offer, last
		}
	}
	delete(h.known, oldest)
}

// offerKey is what EHLO said, without the greeting, which names one machine of many.
func offerKey(keywords []string) string {
	key := strings.Join(keywords, "\n")
	return key[:min(len(key), maxOfferKey)]
}

// heed applies what is known of the server to what it offers.
func (c *conn) heed() {
	c.known = c.u.habits.of(offerKey(c.ext.keywords), time.Now())
	for _, name := range c.known {
		c.ext.deny(name) // other habits are nobody's keyword
	}
	if c.has(habitTalks) {
		c.ext.chunking = false // the reply to DATA shows where we are
	}
}

func (c *conn) has(name string) bool { return slices.Contains(c.known, name) }

// learn remembers what the server does, for this connection and those to come. words say it in log and trace.
func (c *conn) learn(name, words string) {
	if c.has(name) {
		return
	}
	c.known = append(c.known, name)
	c.ext.deny(name)
	c.notes = append(c.notes, words)
	if c.u.habits.learn(offerKey(c.ext.keywords), name, time.Now()) {
		c.u.log.Info("upstream does not keep to what it offers", "what", words, "for", habitLasts)
	}
}

// takeNotes returns what was learned since the last call.
func (c *conn) takeNotes() []string {
	notes := c.notes
	c.notes = nil
	return notes
}
