package store

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"postern/relay/store/internal/db"
)

// candidates gives the numbers of events that probably have all of some words, the newest first, each once. Segments
// are opened when their time has come.
type candidates struct {
	conn        db.Conn
	hashes      []uint64
	since       int64
	before      int64      // those from here on were given
	late        []int64    // ascending: events that are in no segment
	closed      []*segment // the latest first
	open        []*openSegment
	segmentsHit int
}

// openSegment is a segment with the events of it that have all words.
type openSegment struct {
	*segment
	found []uint32 // ordinals, ascending; the last is the next
	block int      // which docs are of; -1: none
	docs  []int64
	next  int64 // number of the last found one
}

func newCandidates(conn db.Conn, terms []string, since, before int64) (*candidates, error) {
	c := &candidates{conn: conn, since: since, before: before}
	for _, t := range terms {
		c.hashes = append(c.hashes, termHash(t))
	}
	var err error
	c.late, err = list(conn, number, "SELECT n FROM search_late WHERE n >= ? AND n < ? ORDER BY n", since, before)
	if err != nil {
		return nil, err
	}
	c.closed, err = list(conn, scanSegment, "SELECT "+segmentColumns+
		" FROM search_segment WHERE last >= ? AND first < ? ORDER BY last DESC", since, before)
	return c, err
}

// some returns the next numbers, eventsAtOnce at most; none at the end.
func (c *candidates) some() (numbers []int64, err error) {
	for len(numbers) < eventsAtOnce && (len(numbers) == 0 || c.ready()) {
		n, ok, err := c.next()
		if err != nil || !ok {
			return numbers, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// ready reports whether there are candidates that no segment has to be opened for.
func (c *candidates) ready() bool {
	return len(c.late) > 0 || slices.ContainsFunc(c.open, func(s *openSegment) bool { return len(s.found) > 0 })
}

// next returns the next number; ok is false at the end.
func (c *candidates) next() (n int64, ok bool, err error) {
	n = math.MinInt64
	if len(c.late) > 0 {
		n, ok = c.late[len(c.late)-1], true
	}
	for _, s := range c.open {
		if len(s.found) > 0 && s.next >= n {
			n, ok = s.next, true
		}
	}
	for len(c.closed) > 0 && (!ok || c.closed[0].last >= n) {
		s, err := c.openNext()
		if err != nil {
			return 0, false, err
		}
		if s != nil && s.next >= n {
			n, ok = s.next, true
		}
	}
	if !ok {
		return 0, false, nil
	}
	return n, true, c.leave(n)
}

// leave steps behind a number.
func (c *candidates) leave(n int64) error {
	c.before = n
	for len(c.late) > 0 && c.late[len(c.late)-1] >= n {
		c.late = c.late[:len(c.late)-1]
	}
	for _, s := range c.open {
		if len(s.found) > 0 && s.next >= n {
			s.found = s.found[:len(s.found)-1]
			if err := c.settle(s); err != nil {
				return err
			}
		}
	}
	c.open = slices.DeleteFunc(c.open, func(s *openSegment) bool { return len(s.found) == 0 })
	return nil
}

// openNext looks up the words in the latest segment that is closed; nil: it has no event with all of them.
func (c *candidates) openNext() (*openSegment, error) {
	s := &openSegment{segment: c.closed[0], block: -1}
	c.closed = c.closed[1:]
	c.segmentsHit++
	var lists [][]uint32
	for _, hash := range c.hashes {
		row, err := readRow(c.conn, s.segment, s.part(hash))
		if err != nil {
			return nil, err
		}
		found, err := findWord(row, s.segment.docs, hash)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		lists = append(lists, found)
	}
	slices.SortFunc(lists, func(a, b []uint32) int { return cmp.Compare(len(a), len(b)) })
	s.found = lists[0]
	for _, l := range lists[1:] {
		s.found = intersect(s.found, l)
	}
	if err := c.cut(s); err != nil {
		return nil, err
	}
	if err := c.settle(s); err != nil || len(s.found) == 0 {
		return nil, err
	}
	c.open = append(c.open, s)
	return s, nil
}

// cut drops what is known to lie too late, without reading all of its numbers.
func (c *candidates) cut(s *openSegment) (err error) {
	if s.last < c.before {
		return nil
	}
	s.found = s.found[:sort.Search(len(s.found), func(i int) bool {
		var n int64
		if err == nil {
			n, err = c.numberOf(s, s.found[i])
		}
		return n >= c.before
	})]
	return err
}

// settle sets next, and ends a segment that has nothing more of the time.
func (c *candidates) settle(s *openSegment) (err error) {
	if len(s.found) == 0 {
		return nil
	}
	if s.next, err = c.numberOf(s, s.found[len(s.found)-1]); err != nil {
		return err
	}
	if s.next < c.since {
		s.found = nil
	}
	return nil
}

// numberOf returns the number of the event at a place of a segment.
func (c *candidates) numberOf(s *openSegment, ordinal uint32) (int64, error) {
	block := int(ordinal / docsInBlock)
	if block != s.block {
		s.block = -1
		for row, err := range c.conn.Rows("SELECT data FROM search_docs WHERE n = ?", s.key(block)) {
			if err != nil {
				return 0, err
			}
			if s.docs, err = decodeDocs(row.Blob(0)); err != nil {
				return 0, err
			}
			s.block = block
		}
	}
	at := int(ordinal % docsInBlock)
	if s.block < 0 || at >= len(s.docs) {
		return 0, errSearchIndex
	}
	return s.docs[at], nil
}
