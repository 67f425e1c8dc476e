package store

import (
	"context"
	"fmt"
	"io"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// content is a stored message's content. It reads one chunk at a time, each with a connection that it
// gives back at once, so that a slow upstream keeps neither memory nor a position in the log.
type content struct {
	s           *Store
	ctx         context.Context //nolint:containedctx // Content's readers have no other way to get one
	id          string
	size        int64
	where, many int64 // of its chunks
}

// Content implements queue.Store. The context bounds the reading too.
func (s *Store) Content(ctx context.Context, id string) (mail.Content, error) {
	c := &content{s: s, ctx: ctx, id: id}
	err := s.readers.read(ctx, func(conn db.Conn) error {
		p, err := find(conn, id)
		c.size, c.where, c.many = p.size, p.chunk, p.chunks
		return err
	})
	if r, ok := err.(refusal); ok {
		return nil, fmt.Errorf("%q: %w", id, r.error)
	}
	return c, wrap(err, "read %s", id)
}

func (c *content) Size() int64   { return c.size }
func (c *content) Bytes() []byte { return nil }

// Open implements mail.Content. The first chunk is read at once, so that a message that is gone shows
// before anything was sent of it.
func (c *content) Open() (io.ReadCloser, error) {
	r := &chunkReader{content: c}
	if c.many > 0 {
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// chunkReader reads chunk after chunk into one buffer.
type chunkReader struct {
	*content
	next int64 // chunk to be read
	buf  []byte
	rest []byte // of buf, to be given out
	read int64  // octets of the chunks so far
	err  error
}

func (r *chunkReader) fill() error {
	if r.err != nil {
		return r.err
	}
	if r.next == r.many {
		if r.read != r.size {
			r.err = fmt.Errorf("content of %s: %d octets of %d are stored", r.id, r.read, r.size)
			return r.err
		}
		r.err = io.EOF
		return r.err
	}
	found := false
	r.err = r.s.readers.read(r.ctx, func(conn db.Conn) error {
		for row, err := range conn.Rows(r.s.engine.layout().getChunk, r.where, r.next, r.id) {
			if err != nil {
				return err
			}
			r.buf, found = row.AppendBlob(r.buf[:0], 0), true
		}
		return nil
	})
	if r.err == nil && !found {
		r.err = queue.ErrNotFound
	}
	if r.err != nil {
		r.err = fmt.Errorf("content of %s: %w", r.id, r.err)
		return r.err
	}
	r.next++
	r.rest = r.buf
	r.read += int64(len(r.buf))
	return nil
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *chunkReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := w.Write(r.rest)
		total += int64(n)
		r.rest = r.rest[n:]
		if err != nil {
			return total, err
		}
		if err := r.fill(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return total, err
		}
	}
}

// Close implements io.Closer.
func (r *chunkReader) Close() error {
	r.buf, r.rest, r.err = nil, nil, io.ErrClosedPipe
	return nil
}
