package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"postern/internal/periodic"
	"postern/relay/privacy"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// schemaPrivacy keeps how far addresses were taken out of the trace, and by which rules.
const schemaPrivacy = `
CREATE TABLE privacy_state (
	k     INTEGER PRIMARY KEY CHECK (k = 1),
	rules TEXT NOT NULL,
	done  INTEGER NOT NULL -- events up to this number are as the rules want them
) STRICT;
INSERT INTO privacy_state VALUES (1, '', 0);
`

// privacySecret is the key of hashed addresses. It is sealed like the others: a copy of the store without seal.key
// tries no address out.
const privacySecret = "privacy-addresses"

// privacyInForce is what UsePrivacy was told.
type privacyInForce struct {
	privacy.Rules
	after time.Duration
}

// UsePrivacy says what becomes of addresses in the trace, and at which age: 0, before they are written.
func (s *Store) UsePrivacy(ctx context.Context, rules privacy.Rules, after time.Duration) (err error) {
	if rules.Recipients == privacy.Hash || rules.Clients == privacy.Hash {
		if rules.Key, err = s.Secret(ctx, privacySecret, 32); err != nil {
			return err
		}
	}
	s.privacy.Store(&privacyInForce{rules, after})
	return nil
}

// beforeWriting takes addresses out of a new event, if that is to happen at once.
func (s *Store) beforeWriting(e *trace.Event) {
	p := s.privacy.Load()
	if p == nil {
		return
	}
	// Where an event is written that had to wait long, the pass of another node may have gone by.
	missed := s.Shared() && !e.Time.IsZero() && time.Since(e.Time) > max(p.after, privacyDelay)-privacyMargin
	if p.after == 0 || missed {
		p.Apply(e)
	}
}

// Bounds of the pass that takes addresses out of what is written.
const (
	privacyLook  = 500              // events that are read at once
	privacyBatch = 100              // events in one transaction
	privacyDelay = 10 * time.Minute // events may be written so late; later, see beforeWriting
	// privacyMargin is more than the time in which an event is written, or is not.
	privacyMargin = 5 * time.Minute
)

// HideAddresses takes addresses out of the events that are old enough, in small transactions with pauses. It goes on
// where it ended last; under other rules it begins anew, and what was hashed may then be cut. It returns how many
// events it changed.
func (s *Store) HideAddresses(ctx context.Context, now time.Time) (total int64, err error) {
	p := s.privacy.Load()
	if p == nil || p.Keeps() {
		return 0, nil
	}
	before := s.clock.nano(now.Add(-max(p.after, privacyDelay)))
	done, err := s.privacyDone(ctx, p.String())
	for err == nil {
		var found []numbered
		var last int64
		if found, last, err = s.toHide(ctx, p, done, before); err != nil || last == 0 {
			break
		}
		for batch := range slices.Chunk(found, privacyBatch) {
			began := time.Now()
			n, failed := s.hide(ctx, p, batch)
			if total += n; failed != nil {
				return total, wrap(failed, "take addresses out of the trace")
			}
			if err = periodic.Sleep(ctx, time.Since(began)); err != nil {
				return total, err
			}
		}
		done = last
		err = s.writer.do(ctx, &op{lazy: true, cost: 1, run: func(t *tx) error {
			return t.Run("UPDATE privacy_state SET rules = ?, done = ? WHERE k = 1", p.String(), done)
		}})
	}
	return total, wrap(err, "take addresses out of the trace")
}

func (s *Store) privacyDone(ctx context.Context, rules string) (done int64, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		done, _, err = conn.Int("SELECT done FROM privacy_state WHERE k = 1 AND rules = ?", rules)
		return err
	})
	return done, err
}

// numbered is an event with its number.
type numbered struct {
	n int64
	trace.Event
}

func scanNumbered(row db.Row) (numbered, error) {
	e, err := scanEvent(row)
	return numbered{row.Int(0), e}, err
}

const eventColumns = "SELECT n, kind, id, session, login, sender, rcpt, data FROM event "

// toHide returns those of the next events that the rules change, and the number of the last one that was looked at; 0:
// there are none.
func (s *Store) toHide(ctx context.Context, p *privacyInForce, done, before int64) (found []numbered, last int64,
	err error) {
	events, err := readAll(ctx, s.readers, scanNumbered, eventColumns+
		"NOT INDEXED WHERE n > ? AND n < ? ORDER BY n LIMIT ?", done, before, privacyLook)
	for _, e := range events {
		last = e.n
		if p.Apply(&e.Event) {
			found = append(found, e)
		}
	}
	return found, last, err
}

// hide changes events as they are now: they may be gone, or somebody was forgotten.
func (s *Store) hide(ctx context.Context, p *privacyInForce, events []numbered) (n int64, err error) {
	err = s.write(ctx, func(t *tx) error {
		n = 0
		return t.changeEvents(events, func(e *trace.Event) fate {
			if !p.Apply(e) {
				return stays
			}
			n++
			return rewritten
		})
	})
	return n, err
}

// fate is what becomes of an event that is looked at again.
type fate uint8

const (
	stays fate = iota
	rewritten
	removed
)

// changeEvents reads events again and writes or removes them as decide says, with the counters of the trace.
func (t *tx) changeEvents(events []numbered, decide func(*trace.Event) fate) error {
	var changed []int64
	for _, old := range events {
		now, err := list(t.Conn, scanNumbered, eventColumns+"WHERE n = ?", old.n)
		if err != nil || len(now) == 0 {
			if err != nil {
				return err
			}
			continue
		}
		e := now[0].Event
		what := decide(&e)
		if what == stays {
			continue
		}
		if err := t.changeEvent(old.n, e, what); err != nil {
			return err
		}
		changed = append(changed, old.n)
	}
	return t.eventsChanged(changed)
}

func (t *tx) changeEvent(n int64, e trace.Event, what fate) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	octets, _, err := t.Int("SELECT "+eventOctets+" FROM event WHERE n = ?", n)
	if err != nil {
		return err
	}
	by := -octets
	if what == removed {
		counts.events--
		err = t.Run("DELETE FROM event WHERE n = ?", n)
	} else {
		var r eventRow
		if r, err = newEventRow(e); err != nil {
			return err
		}
		by += r.octets()
		err = t.Run("UPDATE event SET login = ?, sender = ?, rcpt = ?, data = ? WHERE n = ?", r.Login, r.sender, r.rcpt,
			r.data, n)
	}
	counts.history += by
	if e.Kind.IsRefusal() {
		counts.refusals += by
	}
	return err
}

// eventsChanged is told, in the same transaction, of events whose words were changed or that were removed on behalf of
// a person: whatever else keeps words of events forgets them here.
func (t *tx) eventsChanged(events []int64) error { return t.unindex(events, true) }

// Pseudonym returns what may stand in the trace for an address of a recipient, or of a client, where addresses are
// hashed; "" if none ever was.
func (s *Store) Pseudonym(ctx context.Context, address string) (string, error) {
	key, err := s.secret(ctx, privacySecret, 32)
	if err != nil || key == nil {
		return "", err
	}
	rules := privacy.Rules{Recipients: privacy.Hash, Clients: privacy.Hash, Key: key}
	if strings.Contains(address, "@") {
		return rules.Recipient(address), nil
	}
	return rules.Client(address), nil
}

// withHashed adds to the events that a query found those in which the recipient's address is hashed.
func (s *Store) withHashed(ctx context.Context, q trace.Query, events []trace.Event) ([]trace.Event, error) {
	if at := strings.IndexByte(q.To, '@'); at <= 0 || strings.HasPrefix(q.To, "*@") {
		return events, nil
	}
	to, err := s.Pseudonym(ctx, q.To)
	if err != nil || to == "" || strings.EqualFold(to, q.To) {
		return events, err
	}
	q.To = to
	err = s.readers.read(ctx, func(conn db.Conn) error {
		more, err := selectEvents(conn, q)
		events = append(events, more...)
		return err
	})
	slices.SortStableFunc(events, func(a, b trace.Event) int {
		return a.Time.Compare(b.Time)
	})
	if over := len(events) - limitOf(q); over > 0 {
		events = events[over:]
	}
	return events, err
}
