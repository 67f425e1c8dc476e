package store

import (
	"errors"
	"slices"

	"postern/relay/store/internal/db"
)

// schemaSearch is the index of the trace: see docs/decisions/0023-search.md. Events from low up to done are in the
// index. What is inserted between floor and high, which may lie further apart while the index is worked at, is named
// in search_late. Events from done on, and those before low, are looked through.
const schemaSearch = `
CREATE TABLE search_state (
	k     INTEGER PRIMARY KEY CHECK (k = 1),
	epoch INTEGER NOT NULL, -- counts the times that it began anew: see epochs
	floor INTEGER NOT NULL,
	low   INTEGER NOT NULL,
	done  INTEGER NOT NULL,
	high  INTEGER NOT NULL
) STRICT;
INSERT INTO search_state SELECT 1, 1, m, m, m, m FROM (SELECT coalesce(max(n) + 1, 0) AS m FROM event);
CREATE TABLE search_segment (
	id      INTEGER PRIMARY KEY,
	first   INTEGER NOT NULL, -- event
	last    INTEGER NOT NULL, -- event
	docs    INTEGER NOT NULL, -- events
	dead    INTEGER NOT NULL, -- events that are gone, about
	rewrite INTEGER NOT NULL, -- counts what asks for it
	parts   INTEGER NOT NULL,
	octets  INTEGER NOT NULL
) STRICT;
CREATE TABLE search_docs (n INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT; -- n: segment << 8 | row
CREATE TABLE search_terms (n INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT; -- n: segment << 8 | row
CREATE TABLE search_late (n INTEGER PRIMARY KEY) STRICT; -- events
`

// searchState is the row of search_state.
type searchState struct {
	epoch                  int64
	floor, low, done, high int64
}

// epochs is how far apart epochs are: what is left of one by this is the node that keeps the index.
const epochs = nodeNumbers

func readSearchState(conn db.Conn) (searchState, error) {
	for row, err := range conn.Rows("SELECT epoch, floor, low, done, high FROM search_state WHERE k = 1") {
		if err != nil {
			return searchState{}, err
		}
		return searchState{row.Int(0), row.Int(1), row.Int(2), row.Int(3), row.Int(4)}, nil
	}
	return searchState{}, errSearchIndex
}

func (s searchState) save(t *tx) error {
	return t.Run("UPDATE search_state SET epoch = ?, floor = ?, low = ?, done = ?, high = ? WHERE k = 1",
		s.epoch, s.floor, s.low, s.done, s.high)
}

// late reports whether an event that is inserted now may be missed by the index.
func (s searchState) late(n int64) bool { return n >= s.floor && n < s.high }

// noteLate is told of the events that a transaction has inserted. An index that is damaged does not stop the trace: it
// is made anew.
func (t *tx) noteLate(rows []eventRow) error {
	state, err := readSearchState(t.Conn)
	if err != nil {
		return undamaged(err)
	}
	for i := range rows {
		if n := rows[i].n; state.late(n) {
			if err := t.Run("INSERT INTO search_late VALUES (?) ON CONFLICT DO NOTHING", n); err != nil {
				return err
			}
		}
	}
	return nil
}

// unindex is told of events that were removed or, if so, changed. What the index has of removed ones goes in time: a
// search looks at the events themselves. Where somebody's words were taken out of events, changed also makes the index
// forget them within seconds: the segments are written anew from the events as they are then.
func (t *tx) unindex(events []int64, changed bool) error {
	if len(events) == 0 {
		return nil
	}
	first, last := slices.Min(events), slices.Max(events)
	if changed {
		if err := t.discard(events); err != nil {
			return err
		}
	}
	return t.Run("UPDATE search_segment SET dead = min(docs, dead + ?), rewrite = rewrite + ? WHERE first <= ? AND "+
		"last >= ?", len(events), changed, last, first)
}

func undamaged(err error) error {
	if errors.Is(err, errSearchIndex) {
		return nil
	}
	return err
}

// discard ends what the indexer may have begun with events: it reads them again.
func (t *tx) discard(events []int64) error {
	state, err := readSearchState(t.Conn)
	if err != nil {
		return undamaged(err)
	}
	for _, n := range events {
		begun := n >= state.floor && n < state.low || n >= state.done && n < state.high
		if !begun && state.late(n) {
			if _, begun, err = t.Int("SELECT 1 FROM search_late WHERE n = ?", n); err != nil {
				return err
			}
		}
		if begun {
			state.epoch += epochs
			return state.save(t)
		}
	}
	return nil
}

const segmentColumns = "id, first, last, docs, dead, rewrite, parts, octets"

func scanSegment(row db.Row) (*segment, error) {
	s := &segment{row.Int(0), row.Int(1), row.Int(2), int(row.Int(3)), int(row.Int(4)), int(row.Int(5)),
		int(row.Int(6)), row.Int(7)}
	if s.docs < 1 || s.docs > maxDocs || s.parts < 1 || s.parts > maxParts || s.parts&(s.parts-1) != 0 {
		return nil, errSearchIndex
	}
	return s, nil
}

func readSegments(conn db.Conn) ([]*segment, error) {
	return list(conn, scanSegment, "SELECT "+segmentColumns+" FROM search_segment ORDER BY last DESC, id")
}

// searchOctets is about what the index takes of the file.
func searchOctets(conn db.Conn) (int64, error) {
	n, _, err := conn.Int("SELECT sum(octets) FROM search_segment")
	return n, err
}
