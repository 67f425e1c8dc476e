package store

import (
	"context"
	"math"
	"slices"
	"time"

	"postern/relay/store/internal/db"
)

// Segments are merged, four of about the same size into one. From the last size on they stay as they are.
var mergeSizes = [...]int{1 << 10, 1 << 12, 1 << 14, 1 << 15}

const mergeOf = 4

// merge removes segments of which nothing is left, and merges others.
func (x *Indexer) merge(ctx context.Context, _ time.Time, _ bool) (bool, error) {
	var of []*segment
	var built *newSegment
	state, err := x.look(ctx, func(conn db.Conn, _ searchState) error {
		all, err := readSegments(conn)
		if err != nil {
			return err
		}
		oldest, ok, err := conn.Int("SELECT min(n) FROM event")
		if err != nil {
			return err
		}
		if !ok {
			oldest = math.MaxInt64
		}
		if of = gone(all, oldest); len(of) > 0 {
			return nil
		}
		if of = toMerge(all); len(of) > 0 {
			built, err = mergeSegments(conn, of)
		}
		return err
	})
	if err != nil || len(of) == 0 {
		return false, err
	}
	var news []*newSegment
	if built != nil {
		news = append(news, built)
	}
	return true, x.replace(ctx, state.epoch, news, of, nil)
}

// gone returns segments whose events were all trimmed.
func gone(all []*segment, oldest int64) (found []*segment) {
	for _, s := range all {
		if s.last < oldest && len(found) < mergeOf {
			found = append(found, s)
		}
	}
	return found
}

// toMerge chooses segments of one size, or one that is a third dead.
func toMerge(all []*segment) []*segment {
	var sizes [len(mergeSizes)][]*segment
	for _, s := range slices.Backward(all) { // the oldest first
		if s.rewrite > 0 {
			continue
		}
		if s.dead > s.docs/3 {
			return []*segment{s}
		}
		for i, size := range mergeSizes {
			if s.docs < size {
				sizes[i] = append(sizes[i], s)
				break
			}
		}
	}
	for _, same := range sizes {
		if len(same) < mergeOf {
			continue
		}
		docs := 0
		for i, s := range same[:mergeOf] {
			if docs += s.docs; docs > maxDocs {
				return same[:i]
			}
		}
		return same[:mergeOf]
	}
	return nil
}

// mergeSegments makes one segment of several, without events that are gone. nil: none is left.
func mergeSegments(conn db.Conn, of []*segment) (*newSegment, error) {
	docs, places, err := mergeDocs(conn, of)
	if err != nil || len(docs) == 0 {
		return nil, err
	}
	octets := int64(0)
	for _, s := range of {
		octets += s.octets
	}
	merged := newSegmentOf(docs, partsFor(octets))
	var words []posting
	for part := range merged.parts {
		words = words[:0]
		for i, s := range of {
			if words, err = appendPart(conn, words, s, places[i], part, merged.parts); err != nil {
				return nil, err
			}
		}
		slices.Sort(words) // events of several segments may interleave
		merged.addRow(words)
	}
	return merged, nil
}

// gonePlace is the place of an event that is not there any more.
const gonePlace = -1

// mergeDocs returns the events of segments that are still there, each once, and the new place of each.
func mergeDocs(conn db.Conn, of []*segment) (docs []int64, places [][]int, err error) {
	each := make([][]int64, len(of))
	for i, s := range of {
		if each[i], err = readDocs(conn, s); err != nil {
			return nil, nil, err
		}
		if s.dead == 0 {
			docs = append(docs, each[i]...)
			continue
		}
		for some := range slices.Chunk(each[i], eventsAtOnce) {
			there, err := list(conn, number, "SELECT n FROM event WHERE n IN "+marks(eventsAtOnce), filledUp(some)...)
			if err != nil {
				return nil, nil, err
			}
			docs = append(docs, there...)
		}
	}
	slices.Sort(docs)
	docs = slices.Compact(docs)
	for _, old := range each {
		place := make([]int, len(old))
		for i, n := range old {
			at, ok := slices.BinarySearch(docs, n)
			if place[i] = at; !ok {
				place[i] = gonePlace
			}
		}
		places = append(places, place)
	}
	return docs, places, nil
}

// appendPart appends what a segment has of a row of the new one.
func appendPart(conn db.Conn, words []posting, s *segment, places []int, part, parts int) ([]posting, error) {
	whole := segment{parts: parts}
	from, end := uint64(0), whole.end(part)>>ordinalBits
	if part > 0 {
		from = whole.end(part-1) >> ordinalBits
	}
	last := part+1 == parts
	rows := max(1, s.parts/parts)
	for row := part * s.parts / parts; rows > 0; row, rows = row+1, rows-1 {
		data, err := readRow(conn, s, row)
		if err != nil {
			return nil, err
		}
		r := postingReader{b: data, docs: s.docs}
		for {
			l, ok, err := r.next()
			if err != nil {
				return nil, err
			}
			if !ok || !last && l.hash >= end {
				break
			}
			if l.hash < from {
				continue
			}
			if words, err = appendWord(words, &l, s.docs, places); err != nil {
				return nil, err
			}
		}
	}
	return words, nil
}

func appendWord(words []posting, l *postingList, docs int, places []int) ([]posting, error) {
	ordinals, err := l.ordinals(docs)
	if err != nil {
		return nil, err
	}
	for _, o := range ordinals {
		if place := places[o]; place != gonePlace {
			words = append(words, newPosting(l.hash, place))
		}
	}
	return words, nil
}
