package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// chunkSize is how contents are cut into rows, in octets: large enough that a row's own cost does not
// count, small enough that a reader needs little memory.
const chunkSize = 128 << 10

// row is a message ready to be inserted. It is made on the caller's goroutine, so that the writer's
// has little left to do.
type row struct {
	m          *queue.Message
	content    mail.Content
	fixed      []byte
	recipients []byte
	lastReply  []byte
}

func newRow(n queue.NewMessage) (*row, error) {
	if n.Message == nil || n.Message.ID == "" || n.Content == nil {
		return nil, errors.New("a message needs an ID and a content")
	}
	m := n.Message
	b := encodeFixed(make([]byte, 0, 512), m)
	cut := len(b)
	b = encodeRecipients(b, m.Recipients)
	return &row{m: m, content: n.Content, fixed: b[:cut], recipients: b[cut:], lastReply: encodeReply(m.LastReply)}, nil
}

func newRows(news []queue.NewMessage) (rows []*row, size int64, err error) {
	rows = make([]*row, 0, len(news))
	for _, n := range news {
		r, err := newRow(n)
		if err != nil {
			return nil, 0, err
		}
		rows = append(rows, r)
		size += n.Content.Size()
	}
	return rows, size, nil
}

// insert puts the message with its content into the transaction.
func (r *row) insert(t *tx) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	first, chunks, err := insertContent(t, r.m, r.content)
	if err != nil {
		return fmt.Errorf("store the content of %s: %w", r.m.ID, err)
	}
	if err := r.insertMessage(t, first, chunks); err != nil {
		return fmt.Errorf("store %s: %w", r.m.ID, err)
	}
	counts.messages++
	counts.bytes += r.content.Size()
	if r.m.Held {
		counts.held++
	}
	return nil
}

func (r *row) insertMessage(t *tx, first, chunks int64) error {
	m := r.m
	attempts, until := leaseOf(m, t.clock)
	return t.Run(t.layout.insert,
		m.ID, m.Login, t.clock.nano(m.Received), t.clock.nano(m.Expires), r.content.Size(), first, chunks, attempts,
		t.clock.nano(m.NextAttempt),
		m.LeaseOwner, until, m.WaitingFor, m.Held, m.Bounce, m.Warned, m.HoldReason, r.lastReply, r.recipients, r.fixed)
}

// leaseOf is how a message is stored that may be leased already.
func leaseOf(m *queue.Message, c *clock) (attempts int, until int64) {
	if m.LeaseOwner == "" {
		return m.Attempts, 0
	}
	return max(m.Attempts, 1), max(c.nano(m.LeaseUntil), 1)
}

// insertContent cuts the content into chunks and returns where they are and how many there are.
func insertContent(t *tx, m *queue.Message, c mail.Content) (where, chunks int64, err error) {
	if where, err = t.engine.place(t.Conn, m.Received); err != nil {
		return 0, 0, err
	}
	put := func(data []byte) error {
		chunks++
		return t.Run(t.layout.putChunk, where, chunks-1, m.ID, data)
	}
	if b := c.Bytes(); b != nil {
		for len(b) > 0 && err == nil {
			n := min(len(b), chunkSize)
			err = put(b[:n])
			b = b[n:]
		}
		return where, chunks, err
	}
	err = copyContent(c, put)
	return where, chunks, err
}

// copyContent reads a content that is not in memory. A reader that ends early, or late, is an error: a
// cut message must not be kept.
func copyContent(c mail.Content, put func([]byte) error) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, min(c.Size(), chunkSize))
	for left := c.Size(); left > 0; {
		b := buf[:min(left, chunkSize)]
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("%d octets before its end: %w", left, noEOF(err))
		}
		if err := put(b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 || err != io.EOF {
		return errors.Join(errors.New("it is longer than its size"), noEOF(err))
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// location is where a message and its content are, and what must be known before it is changed.
type location struct {
	size, chunk, chunks int64
	owner               string
	until               int64 // of the lease, 0: none
	next                int64
	attempts            int64
	held, bounce        bool
}

const findQuery = "SELECT size, chunk, chunks, lease_owner, lease_until, next, attempts, held, bounce FROM queued " +
	"WHERE id = ?"

// find locates a message, queue.ErrNotFound as a refusal where there is none.
func find(conn db.Conn, id string) (location, error) { return findBy(conn, findQuery, id) }

// find locates a message that is to be changed, so that nobody else changes it before.
func (t *tx) find(id string) (location, error) { return findBy(t.Conn, t.layout.find, id) }

func findBy(conn db.Conn, query, id string) (location, error) {
	for row, err := range conn.Rows(query, id) {
		if err != nil {
			return location{}, err
		}
		return location{
			size: row.Int(0), chunk: row.Int(1), chunks: row.Int(2),
			owner: row.Text(3), until: row.Int(4), next: row.Int(5), attempts: row.Int(6), held: row.Bool(7),
			bounce: row.Bool(8),
		}, nil
	}
	return location{}, refuse(queue.ErrNotFound)
}

// leased reports a lease that has not run out at now.
func (p location) leased(now int64) bool { return p.until > now }

// remove takes a message and its content out of the queue.
func (p location) remove(t *tx, id string) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	if err := t.Run(t.layout.remove, id); err != nil {
		return err
	}
	if t.layout.dropAll != "" {
		if err := t.Run(t.layout.dropAll, p.chunk, p.chunks); err != nil {
			return err
		}
	}
	counts.messages--
	counts.bytes -= p.size
	if p.held {
		counts.held--
	}
	return nil
}

// messageColumns are what scanMessage reads.
const messageColumns = "id, login, received, expires, size, attempts, next, lease_owner, lease_until, waiting_for, " +
	"held, bounce, warned, hold_reason, last_reply, recipients, fixed"

func (c *clock) scanMessage(s db.Row) (*queue.Message, error) {
	m := &queue.Message{
		ID: s.Text(0), Login: s.Text(1), Received: c.time(s.Int(2)), Expires: c.time(s.Int(3)), Size: s.Int(4),
		Attempts: int(s.Int(5)), NextAttempt: c.time(s.Int(6)), LeaseOwner: s.Text(7), LeaseUntil: c.time(s.Int(8)),
		WaitingFor: s.Text(9), Held: s.Bool(10), Bounce: s.Bool(11), Warned: s.Bool(12), HoldReason: s.Text(13),
	}
	var err error
	if m.LastReply, err = decodeReply(s.Blob(14)); err != nil {
		return nil, fmt.Errorf("%s: %w", m.ID, err)
	}
	if m.Recipients, err = decodeRecipients(s.Blob(15)); err != nil {
		return nil, fmt.Errorf("%s: %w", m.ID, err)
	}
	if err := decodeFixed(s.Blob(16), m); err != nil {
		return nil, fmt.Errorf("%s: %w", m.ID, err)
	}
	return m, nil
}

// getMessage reads a message, nil if there is none.
func (c *clock) getMessage(conn db.Conn, id string) (*queue.Message, error) {
	found, err := list(conn, c.scanMessage, "SELECT "+messageColumns+" FROM queued WHERE id = ?", id)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// Get implements queue.Store.
func (s *Store) Get(ctx context.Context, id string) (m *queue.Message, err error) {
	err = s.readers.read(ctx, func(conn db.Conn) error {
		m, err = s.clock.getMessage(conn, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	if m == nil {
		return nil, fmt.Errorf("%q: %w", id, queue.ErrNotFound)
	}
	return m, nil
}
