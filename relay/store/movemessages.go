package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"

	"postern/relay/store/internal/db"
)

// movedMessage is a row of queued as it is moved: without its lease, with times by the clock of the destination.
type movedMessage struct {
	id, login                      string
	received, expires, size        int64
	chunk, chunks                  int64
	attempts, next                 int64
	waitingFor                     string
	held, bounce, warned           bool
	holdReason                     string
	lastReply, recipients, written []byte
}

func (m *movedMessage) scan(row db.Row, shift int64) {
	*m = movedMessage{row.Text(0), row.Text(1), later(row.Int(2), shift), later(row.Int(3), shift), row.Int(4),
		row.Int(5), row.Int(6), row.Int(7), later(row.Int(8), shift), row.Text(9), row.Bool(10), row.Bool(11),
		row.Bool(12), row.Text(13), row.Blob(14), row.Blob(15), row.Blob(16)}
}

const movedColumns = "id, login, received, expires, size, chunk, chunks, attempts, next, waiting_for, held, bounce, " +
	"warned, hold_reason, last_reply, recipients, fixed"

// eachMessage gives all messages of a store in order of their IDs.
func eachMessage(ctx context.Context, s *Store, shift int64, use func(m *movedMessage) error) error {
	after, limit := "", 16
	for query := "SELECT " + movedColumns + " FROM queued WHERE id >= ? ORDER BY id LIMIT ?"; ; {
		var page []movedMessage
		octets := 0
		err := s.readers.read(ctx, func(conn db.Conn) error {
			for row, err := range conn.Rows(query, after, limit) {
				if err != nil {
					return err
				}
				var m movedMessage
				m.scan(row, shift)
				page = append(page, m)
				octets += len(m.recipients) + len(m.written) + len(m.lastReply)
			}
			return nil
		})
		if err != nil || len(page) == 0 {
			return wrap(err, "read messages")
		}
		for i := range page {
			if err := use(&page[i]); err != nil {
				return err
			}
		}
		after, limit = page[len(page)-1].id, min(max(moveOctets/4/(octets/len(page)+1), 1), 2*limit, moveRows)
		query = "SELECT " + movedColumns + " FROM queued WHERE id > ? ORDER BY id LIMIT ?"
	}
}

// eachChunk gives the content of a message, chunk after chunk. One that is not complete is an error.
func (m *movedMessage) eachChunk(ctx context.Context, s *Store, use func(n int64, data []byte) error) error {
	left := m.size
	for n := range m.chunks {
		var data []byte
		found := false
		err := s.readers.read(ctx, func(conn db.Conn) error {
			for row, err := range conn.Rows(s.engine.layout().getChunk, m.chunk, n, m.id) {
				if err != nil {
					return err
				}
				data, found = row.Blob(0), true
			}
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("chunk %d of %d is not there", n+1, m.chunks)
		}
		if err == nil {
			err = use(n, data)
		}
		if err != nil {
			return fmt.Errorf("content of %s: %w", m.id, err)
		}
		left -= int64(len(data))
	}
	if left != 0 {
		return fmt.Errorf("content of %s at %s: %d of %d octets are stored; remove it there: postern queue delete %s",
			m.id, s.opts.Place(), m.size-left, m.size, m.id)
	}
	return nil
}

// insert puts the row of a message whose content is there already.
func (m *movedMessage) insert(t *tx, where int64) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	counts.messages++
	counts.bytes += m.size
	if m.held {
		counts.held++
	}
	return t.Run(t.layout.insert, m.id, m.login, m.received, m.expires, m.size, where, m.chunks, m.attempts, m.next, "",
		0, m.waitingFor, m.held, m.bounce, m.warned, m.holdReason, m.lastReply, m.recipients, m.written)
}

// moveBatch gathers writes to the destination until they are worth a transaction.
type moveBatch struct {
	to     *Store
	run    []func(*tx) error
	octets int
}

func (b *moveBatch) add(ctx context.Context, octets int, run func(*tx) error) error {
	b.run = append(b.run, run)
	if b.octets += octets; b.octets < moveOctets && len(b.run) < moveRows {
		return nil
	}
	return b.flush(ctx)
}

func (b *moveBatch) flush(ctx context.Context) error {
	all := b.run
	b.run, b.octets = nil, 0
	if len(all) == 0 {
		return nil
	}
	return b.to.writer.do(ctx, &op{run: func(t *tx) error {
		for _, run := range all {
			if err := run(t); err != nil {
				return err
			}
		}
		return nil
	}})
}

// copyMessages copies the queue. A content comes before its message, in as many transactions as it takes.
func (m *mover) copyMessages(ctx context.Context) error {
	b := &moveBatch{to: m.to}
	err := eachMessage(ctx, m.from, m.shift, func(msg *movedMessage) error {
		var where int64
		err := b.add(ctx, 0, func(t *tx) (err error) {
			where, err = t.engine.place(t.Conn, t.clock.time(msg.received))
			return err
		})
		if err != nil {
			return err
		}
		err = msg.eachChunk(ctx, m.from, func(n int64, data []byte) error {
			return b.add(ctx, len(data), func(t *tx) error {
				return t.Run(t.layout.putChunk, where, n, msg.id, data)
			})
		})
		if err != nil {
			return err
		}
		return b.add(ctx, len(msg.recipients)+len(msg.written), func(t *tx) error { return msg.insert(t, where) })
	})
	if err == nil {
		err = b.flush(ctx)
	}
	return wrap(err, "messages")
}

// sum is the checksum of a table, or of all messages with their contents.
type sum struct {
	name  string
	rows  int64
	value [sha256.Size]byte
}

// digest hashes values so that no two sequences of them are one.
type digest struct{ hash.Hash }

func (d digest) number(n uint64) { _ = binary.Write(d, binary.BigEndian, n) }

func (d digest) octets(b []byte) {
	d.number(uint64(len(b)))
	_, _ = d.Write(b)
}

func (d digest) values(values ...any) {
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			d.number(uint64(v))
		case bool:
			d.octets(appendBool(nil, v))
		case float64:
			d.number(math.Float64bits(v))
		case string:
			d.octets([]byte(v))
		case []byte:
			d.octets(v)
		default:
			panic(fmt.Sprintf("store: %T in a row", v))
		}
	}
}

// sums reads all that is moved, opens what is sealed, and returns a checksum of each table, the last that of messages.
// Times are taken as later by shift.
func (m *mover) sums(ctx context.Context, s *Store, shift int64) (all []sum, err error) {
	m.done.Tables, m.done.Messages, m.done.Octets = nil, 0, 0
	for _, t := range m.tables {
		m.Progress("read " + t.name + " of " + s.opts.Place())
		d := digest{sha256.New()}
		n, err := t.pages(ctx, s, func(rows [][]any) error {
			for _, values := range rows {
				if err := t.clearRow(s, values, shift); err != nil {
					return err
				}
				d.values(values...)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, sum{t.name, n, [sha256.Size]byte(d.Sum(nil))})
		m.done.Tables = append(m.done.Tables, MovedTable{t.name, n})
	}
	m.Progress("read messages of " + s.opts.Place())
	d := digest{sha256.New()}
	err = eachMessage(ctx, s, shift, func(msg *movedMessage) error {
		m.done.Messages++
		m.done.Octets += msg.size
		d.values(msg.id, msg.login, msg.received, msg.expires, msg.size, msg.chunks, msg.attempts, msg.next,
			msg.waitingFor, msg.held, msg.bounce, msg.warned, msg.holdReason, msg.lastReply, msg.recipients,
			msg.written)
		return msg.eachChunk(ctx, s, func(_ int64, data []byte) error { d.octets(data); return nil })
	})
	return append(all, sum{"message", m.done.Messages, [sha256.Size]byte(d.Sum(nil))}), err
}

// compare reads both stores and refuses a copy that is not the same.
func (m *mover) compare(ctx context.Context) error {
	ours, err := m.sums(ctx, m.from, m.shift)
	if err != nil {
		return err
	}
	theirs, err := m.sums(ctx, m.to, 0)
	if err != nil {
		return err
	}
	for i, s := range ours {
		if s != theirs[i] {
			return fmt.Errorf("the copy differs: %s has %d rows at %s and %d at %s, or others. A command that was at "+
				"work here may have changed it: run this again", s.name, s.rows, m.done.From, theirs[i].rows, m.done.To)
		}
	}
	return nil
}
