package config

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong in a configuration, or one warning about it.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from one; 0 when the file could not be read
	Key     string `json:"key,omitempty"`  // "listener[1].address"; "" when no key is concerned
	Message string `json:"message"`        // what is wrong, and what to write
}

// String returns "file:line: key: message".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	return b.String() + ": " + p.Message
}

// Error is every problem of a configuration, in the order of the file.
type Error struct{ Problems []Problem }

// Error returns one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// list collects problems about one document, at most one for each key: a second is mostly a
// consequence of the first.
type list struct {
	problems []Problem
	seen     map[string]bool
}

func (l *list) add(p Problem) {
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	if l.seen[p.Key] {
		return
	}
	l.seen[p.Key] = true
	l.problems = append(l.problems, p)
}

// within reports whether a problem concerns key or a key below it.
func (l *list) within(key string) bool {
	for k := range l.seen {
		if rest, ok := strings.CutPrefix(k, key); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

func (l *list) sorted() []Problem {
	slices.SortStableFunc(l.problems, func(a, b Problem) int { return a.Line - b.Line })
	return l.problems
}

// err returns nil when nothing was added.
func (l *list) err() error {
	if len(l.problems) == 0 {
		return nil
	}
	return &Error{Problems: l.sorted()}
}
