package trace

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/mail"
)

// Bounds of a search.
const (
	MaxWords    = 8   // of one search
	MaxQuery    = 512 // octets of Search.Words
	DefaultPage = 50  // rows of one answer
	MaxPage     = 500
)

// Search is what somebody types into the one search box. An event matches when it has every word (see Terms for what
// the words of an event are); without words every event of the time matches.
type Search struct {
	Words        string
	About        Subject   // what the events that match are about
	Since, Until time.Time // of the events that match; Until is not part of it; zero: open
	Limit        int       // rows, at most MaxPage; 0: DefaultPage
	After        string    // Answer.Next of the page before; empty: the first page
	By           string    // who searches: while mail is busy each waits for their own searches only
}

// Subject is what events are about.
type Subject string

// What a search may be about.
const (
	Everything Subject = ""
	Mail       Subject = "mail"     // messages, those that were refused among them
	Refusals   Subject = "refusals" // connections and logins that were refused
	Changes    Subject = "changes"  // of accounts, by people
)

// Has reports whether an event is about s.
func (s Subject) Has(e *Event) bool {
	about := Mail
	switch {
	case e.Kind == Refused || e.Kind == AuthFail:
		about = Refusals
	case e.Kind == Operator && e.ID == "":
		about = Changes
	}
	return s == Everything || s == about
}

// ErrQuery is wrapped by the error of a search that nobody can answer: its text says what to change.
var ErrQuery = errors.New("cannot search")

// ErrTooMany is the error of a search whose searcher has too many others under way.
var ErrTooMany = errors.New("too many searches at once")

// Terms returns the words as the index knows them, each once.
func (s Search) Terms() ([]string, error) {
	if len(s.Words) > MaxQuery {
		return nil, fmt.Errorf("%w for more than %d octets", ErrQuery, MaxQuery)
	}
	terms := queryTerms(s.Words)
	switch {
	case len(terms) > MaxWords:
		return nil, fmt.Errorf("%w for more than %d words at once: leave some out", ErrQuery, MaxWords)
	case len(terms) == 0 && strings.TrimSpace(s.Words) != "":
		return nil, fmt.Errorf("%w for %q: it has no word of at least two letters or three digits", ErrQuery,
			mail.Printable(s.Words))
	}
	return terms, nil
}

// Answer is one page of what was found: messages, and sessions and logins that were refused, newest first.
type Answer struct {
	Found []Found `json:"found"`
	// Next is where the next page begins; empty: there is nothing more. A page may have fewer rows than asked for, or
	// none, and still a next one: a search looks at a bounded number of events at a time.
	Next string `json:"next,omitempty"`
	// Partial reports that old events are not in the index yet, so that going back to them takes longer.
	Partial bool `json:"partial,omitempty"`
	// Reached is the time back to which this page has looked when there is a next one.
	Reached time.Time `json:"reached,omitzero"`
}

// Found is a message, or a session without one that was refused. Counts are of its recipients, by what became of each
// last.
type Found struct {
	ID       string     `json:"id,omitempty"`      // of the message; empty: none came of it
	Session  string     `json:"session,omitempty"` // of its last event
	Time     time.Time  `json:"time"`              // of the newest event that matches, by which rows are ordered
	First    time.Time  `json:"first"`             // of its first event
	Last     time.Time  `json:"last"`              // of its last event
	State    Kind       `json:"state"`             // of its last event that is no report and no operator's, if any
	Login    string     `json:"login,omitempty"`
	Client   string     `json:"client,omitempty"`
	Listener string     `json:"listener,omitempty"`
	From     string     `json:"from,omitempty"`
	To       string     `json:"to,omitempty"` // first recipient
	Upstream string     `json:"upstream,omitempty"`
	Reply    mail.Reply `json:"reply,omitzero"`   // of the event of State
	Detail   string     `json:"detail,omitempty"` // of the event of State
	Events   int        `json:"events"`
	// Recipients is how many are known from events; the others say how many of them are so.
	Recipients int `json:"recipients"`
	Delivered  int `json:"delivered,omitempty"`
	Deferred   int `json:"deferred,omitempty"`
	Failed     int `json:"failed,omitempty"`
	Unclear    int `json:"unclear,omitempty"`
}

// Cursor is where a page of a search ends. New events do not move what lies behind it.
type Cursor struct {
	Before int64 // events before this number are still to be looked at
	AsOf   int64 // events from this number on came after the first page
}

func (c Cursor) String() string {
	return strconv.FormatInt(c.Before, 36) + "." + strconv.FormatInt(c.AsOf, 36)
}

// ParseCursor reads what String wrote.
func ParseCursor(s string) (c Cursor, err error) {
	before, asOf, ok := strings.Cut(s, ".")
	if ok {
		c.Before, err = strconv.ParseInt(before, 36, 64)
		if err == nil {
			c.AsOf, err = strconv.ParseInt(asOf, 36, 64)
		}
	}
	if !ok || err != nil {
		return Cursor{}, fmt.Errorf("%w after %q: it is not where a page ended", ErrQuery,
			mail.Printable(mail.Cut(s, 60)))
	}
	return c, nil
}
