package replies

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// Bounds of hints: a set of words that is too large costs more than the pattern.
const (
	maxHints   = 96
	maxProduct = 32
	minHint    = 3 // octets
)

// hintsOf returns words of which a text has at least one where the pattern matches it, in lower case; nil where
// nothing can be said. Searching words is much cheaper than the pattern, and most rules have nothing to do with most
// replies.
func hintsOf(pattern string) []string {
	re, err := syntax.Parse(pattern, syntax.Perl|syntax.FoldCase|syntax.DotNL)
	if err != nil {
		return nil
	}
	hints := required(re.Simplify())
	slices.Sort(hints)
	if hints = slices.Compact(hints); len(hints) > maxHints || shortest(hints) < minHint {
		return nil
	}
	return hints
}

// hinted reports whether a text may match.
func hinted(hints []string, lower string) bool {
	return hints == nil || slices.ContainsFunc(hints, func(h string) bool { return strings.Contains(lower, h) })
}

// required is a set of which a match contains one, nil for none known.
func required(re *syntax.Regexp) []string {
	if words, ok := exact(re); ok {
		return words
	}
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			words := required(sub)
			if shortest(words) == 0 {
				return nil
			}
			all = append(all, words...)
		}
		return all
	case syntax.OpConcat:
		return requiredOfRun(re.Sub)
	}
	return nil
}

// requiredOfRun joins neighbours that can be written out, and takes what says most.
func requiredOfRun(subs []*syntax.Regexp) (best []string) {
	run := []string{""}
	take := func(words []string) {
		if better(words, best) {
			best = words
		}
	}
	for _, sub := range subs {
		words, ok := exact(sub)
		if ok && len(run)*len(words) <= maxProduct {
			run = product(run, words)
			take(run)
			continue
		}
		if run = []string{""}; ok {
			run = words
			take(run)
			continue
		}
		take(required(sub))
	}
	return best
}

// better prefers longer words to few.
func better(a, b []string) bool {
	la, lb := min(shortest(a), 5), min(shortest(b), 5)
	return la > lb || la == lb && la > 0 && len(a) < len(b)
}

// exact writes out all texts that the pattern can match, if they are few.
func exact(re *syntax.Regexp) (words []string, ok bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return []string{strings.ToLower(string(re.Rune))}, true
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return []string{""}, true
	case syntax.OpCapture:
		return exact(re.Sub[0])
	case syntax.OpQuest:
		words, ok = exact(re.Sub[0])
		return append(words, ""), ok
	case syntax.OpCharClass:
		return exactClass(re.Rune)
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			w, ok := exact(sub)
			if !ok || len(words)+len(w) > maxHints {
				return nil, false
			}
			words = append(words, w...)
		}
		return words, true
	case syntax.OpConcat:
		words = []string{""}
		for _, sub := range re.Sub {
			w, ok := exact(sub)
			if !ok || len(words)*len(w) > maxProduct {
				return nil, false
			}
			words = product(words, w)
		}
		return words, true
	}
	return nil, false
}

// exactClass writes out a class of a few characters.
func exactClass(ranges []rune) (words []string, ok bool) {
	for i := 0; i < len(ranges); i += 2 {
		if ranges[i+1]-ranges[i] > 3 {
			return nil, false
		}
		for c := ranges[i]; c <= ranges[i+1]; c++ {
			words = append(words, strings.ToLower(string(c)))
		}
	}
	slices.Sort(words)
	words = slices.Compact(words)
	return words, len(words) <= 4
}

func product(a, b []string) []string {
	all := make([]string, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			all = append(all, x+y)
		}
	}
	return all
}

// shortest is the length of the shortest word, 0 for no words.
func shortest(words []string) int {
	if len(words) == 0 {
		return 0
	}
	n := len(words[0])
	for _, w := range words {
		n = min(n, len(w))
	}
	return n
}
