// Package suggest finds the name that a mistyped one was probably meant to be.
package suggest

import "strings"

// maxName bounds the names that are compared, in octets.
const maxName = 64

// Nearest returns the candidate that differs from name in at most two letters, ignoring case, or "".
func Nearest(name string, candidates []string) string {
	best, distance := "", 3
	if len(name) > maxName {
		return best
	}
	name = strings.ToLower(name)
	for _, c := range candidates {
		if len(c) > maxName {
			continue
		}
		if n := edits(name, strings.ToLower(c)); n < distance && n < len(c) {
			best, distance = c, n
		}
	}
	return best
}

// Question ends a sentence about an unknown name: "; did you mean X?", or "" if nothing is near.
func Question(name string, candidates []string) string {
	near := Nearest(name, candidates)
	if near == "" {
		return ""
	}
	return "; did you mean " + near + "?"
}

// edits is the number of letters to add, drop, replace or swap with a neighbour (optimal string alignment).
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
