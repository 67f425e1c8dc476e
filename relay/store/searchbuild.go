package store

import (
	"context"
	"math/bits"
	"slices"

	"postern/relay/store/internal/db"
)

// newSegment is a segment with its rows, not yet written.
type newSegment struct {
	segment
	docRows, termRows [][]byte
}

// eventRows runs a query for events that need not be there for long.
func eventRows(conn db.Conn, query string, args ...any) events {
	return func(yield func(*indexedEvent, error) bool) {
		for row, err := range conn.Rows(query, args...) {
			var e indexedEvent
			if err == nil {
				e.n = row.Int(0)
				e.Event, err = scanEvent(row)
			}
			if !yield(&e, err) || err != nil {
				return
			}
		}
	}
}

// eventsAtOnce is how many events one query gives, or asks for by their numbers: a query for each costs PostgreSQL
// several times as much, and the more the more parts the trace has.
const eventsAtOnce = 64

// eventNumbers is the query for events by their numbers, eventsAtOnce of them.
var eventNumbers = "SELECT n, kind, id, session, login, sender, rcpt, data FROM event WHERE n IN " +
	marks(eventsAtOnce) + " ORDER BY n"

// eventsNumbered reads events by their numbers, a few at once and these in order; those that are gone are left out.
func eventsNumbered(conn db.Conn, numbers []int64) events {
	return func(yield func(*indexedEvent, error) bool) {
		for some := range slices.Chunk(numbers, eventsAtOnce) {
			for e, err := range eventRows(conn, eventNumbers, filledUp(some)...) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// filledUp makes eventsAtOnce arguments of numbers: the last one is there several times.
func filledUp(numbers []int64) []any {
	args := make([]any, eventsAtOnce)
	for i := range args {
		args[i] = numbers[min(i, len(numbers)-1)]
	}
	return args
}

// collect returns events, or the error that ends them.
func collect(from events) (all []*indexedEvent, err error) {
	for e, err := range from {
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// buildSegments indexes events, which come in ascending order: one segment, or as many as it takes.
func buildSegments(from events) (all []*newSegment, err error) {
	var docs []int64
	words := make([]posting, 0, 1<<16)
	for e, err := range from {
		if err != nil {
			return nil, err
		}
		if len(docs) == maxDocs {
			all = append(all, encodeSegment(docs, words))
			docs, words = nil, words[:0]
		}
		ordinal := len(docs)
		docs = append(docs, e.n)
		e.Terms(func(term string) { words = append(words, newPosting(termHash(term), ordinal)) })
	}
	if len(docs) > 0 {
		all = append(all, encodeSegment(docs, words))
	}
	return all, nil
}

func encodeSegment(docs []int64, words []posting) *newSegment {
	sortPostings(words)
	s := newSegmentOf(docs, partsFor(int64(len(words))*2))
	for part := range s.parts {
		n, _ := slices.BinarySearch(words, s.end(part))
		s.addRow(words[:n])
		words = words[n:]
	}
	return s
}

// newSegmentOf begins a segment with its events.
func newSegmentOf(docs []int64, parts int) *newSegment {
	s := &newSegment{segment: segment{first: docs[0], last: docs[len(docs)-1], docs: len(docs), parts: parts}}
	for block := range slices.Chunk(docs, docsInBlock) {
		row := encodeDocs(block)
		s.docRows = append(s.docRows, row)
		s.octets += int64(len(row))
	}
	return s
}

// end is the first posting behind a row.
func (s *segment) end(part int) posting {
	if part+1 == s.parts {
		return 1<<64 - 1 // no ordinal is as large
	}
	return uint64(part+1) << (64 - bits.TrailingZeros(uint(s.parts)))
}

func (s *newSegment) addRow(words []posting) {
	row := encodePostings(nil, words, s.docs)
	s.termRows = append(s.termRows, row)
	s.octets += int64(len(row))
}

// sortPostings is a radix sort: the ordinals ascend already within each hash, as they come in the order of events.
func sortPostings(all []posting) {
	if len(all) < 256 {
		slices.Sort(all)
		return
	}
	from, to := all, make([]posting, len(all))
	for shift := ordinalBits; shift < 64; shift += 8 {
		var at [257]int
		for _, p := range from {
			at[p>>shift&0xff+1]++
		}
		for i := range 256 {
			at[i+1] += at[i]
		}
		for _, p := range from {
			k := p >> shift & 0xff
			to[at[k]] = p
			at[k]++
		}
		from, to = to, from
	}
	copy(all, from)
}

// readDocs reads the numbers of all events of a segment.
func readDocs(conn db.Conn, s *segment) (docs []int64, err error) {
	for row, err := range conn.Rows("SELECT data FROM search_docs WHERE n >= ? AND n < ? ORDER BY n", s.key(0),
		s.key(1<<rowBits)) {
		if err != nil {
			return nil, err
		}
		block, err := decodeDocs(row.Blob(0))
		if err != nil {
			return nil, err
		}
		docs = append(docs, block...)
	}
	if len(docs) != s.docs {
		return nil, errSearchIndex
	}
	return docs, nil
}

// readRow reads one row with words.
func readRow(conn db.Conn, s *segment, part int) (data []byte, err error) {
	found := false
	for row, err := range conn.Rows("SELECT data FROM search_terms WHERE n = ?", s.key(part)) {
		if err != nil {
			return nil, err
		}
		data, found = row.Blob(0), true
	}
	if !found {
		return nil, errSearchIndex
	}
	return data, nil
}

// replace writes new segments and then puts them in the place of others, all at once.
func (x *Indexer) replace(ctx context.Context, epoch int64, news []*newSegment, old []*segment,
	then func(*tx, *searchState) error) error {
	if len(old) > 0 {
		x.swept = 0
	}
	if err := x.writeRows(ctx, epoch, news); err != nil {
		x.swept = 0
		return err
	}
	err := x.write(ctx, epoch, func(t *tx, state searchState) error {
		for _, s := range old { // a refusal must have changed nothing
			_, same, err := t.Int("SELECT 1 FROM search_segment WHERE id = ? AND rewrite = ?", s.id, s.rewrite)
			if err != nil {
				return err
			}
			if !same {
				return refuse(errStale)
			}
		}
		for _, s := range old {
			if err := t.Run("DELETE FROM search_segment WHERE id = ?", s.id); err != nil {
				return err
			}
		}
		for _, s := range news {
			if err := t.Run("INSERT INTO search_segment VALUES (?, ?, ?, ?, 0, 0, ?, ?)", s.id, s.first, s.last,
				s.docs, s.parts, s.octets); err != nil {
				return err
			}
		}
		if then == nil {
			return nil
		}
		if err := then(t, &state); err != nil {
			return err
		}
		return state.save(t)
	})
	if err != nil {
		x.swept = 0
	}
	return err
}

var (
	putSearchDocs  = upsert("search_docs", 1, "n", "data")
	putSearchTerms = upsert("search_terms", 1, "n", "data")
)

// searchRow is one row to be written.
type searchRow struct {
	insert string
	key    int64
	data   []byte
}

// writeRows writes the rows of segments that nobody knows yet, in small transactions.
func (x *Indexer) writeRows(ctx context.Context, epoch int64, news []*newSegment) error {
	if len(news) == 0 {
		return nil
	}
	next, err := x.nextID(ctx)
	if err != nil {
		return err
	}
	var rows []searchRow
	for _, s := range news {
		s.id = next
		next++
		for i, data := range s.docRows {
			rows = append(rows, searchRow{putSearchDocs, s.key(i), data})
		}
		for i, data := range s.termRows {
			rows = append(rows, searchRow{putSearchTerms, s.key(i), data})
		}
	}
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && (n == 0 || size+len(rows[n].data) <= writeOctets) {
			size += len(rows[n].data)
			n++
		}
		some := rows[:n]
		err := x.write(ctx, epoch, func(t *tx, _ searchState) error {
			for _, r := range some {
				if err := t.Run(r.insert, r.key, r.data); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// nextID returns a number that no row of any segment has.
func (x *Indexer) nextID(ctx context.Context) (next int64, err error) {
	err = x.s.readers.read(ctx, func(conn db.Conn) error {
		next, _, err = conn.Int(`SELECT 1 + max(coalesce((SELECT max(id) FROM search_segment), 0),
			coalesce((SELECT max(n) >> 8 FROM search_docs), 0), coalesce((SELECT max(n) >> 8 FROM search_terms), 0))`)
		return err
	})
	return next, err
}
