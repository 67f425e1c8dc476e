// Package finding is what is said of anything that can be wrong: what it is, why it matters and what to do, for people
// who are no mail experts. What looks for faults (doctor, dnscheck) returns findings; the command line, the API, the
// console and alerts show them.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Weight is how much a finding matters. The lower, the more.
type Weight uint8

// The weights.
const (
	Danger  Weight = 1 // mail is refused, lost or taken for spam now, or will be within days
	Fault   Weight = 2 // something does not work, but mail leaves
	Advice  Weight = 3 // it works, and could be better or safer
	Healthy Weight = 4 // looked at, and in order
)

// String returns the weight's name, as JSON has it.
func (w Weight) String() string {
	switch w {
	case Danger:
		return "danger"
	case Fault:
		return "fault"
	case Advice:
		return "advice"
	}
	return "ok"
}

// MarshalText implements encoding.TextMarshaler.
func (w Weight) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (w *Weight) UnmarshalText(text []byte) error {
	for _, known := range []Weight{Danger, Fault, Advice, Healthy} {
		if string(text) == known.String() {
			*w = known
			return nil
		}
	}
	return fmt.Errorf("%q is no weight", text)
}

// Finding is one thing found. Its texts are plain English without markup, and may quote what outsiders say: whoever
// shows them escapes them.
type Finding struct {
	Code    string `json:"code"`              // what kind, such as "spf-lookups": stays, for scripts and alerts
	Weight  Weight `json:"weight"`            //
	Subject string `json:"subject,omitempty"` // what it is about: a domain, an upstream, a file
	What    string `json:"what"`              // a sentence
	Why     string `json:"why,omitempty"`     // it matters
	Fix     string `json:"fix,omitempty"`     // what to do; records and commands ready to paste, a line each
}

// Sort puts the heaviest first, and brings what is about the same thing together.
func Sort(list []Finding) {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Weight, b.Weight), strings.Compare(a.Subject, b.Subject))
	})
}

// Worst is the lowest weight of all, Healthy where there is none.
func Worst(list []Finding) Weight {
	worst := Healthy
	for _, f := range list {
		worst = min(worst, f.Weight)
	}
	return worst
}
