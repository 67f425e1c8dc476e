package spool

import (
	"bytes"
	"io"

	"postern/mail"
)

// joinCopy is the size in octets up to which a joined message is copied into one slice: it is cheaper to send, and its
// source may be closed.
const joinCopy = 64 << 10

// Join returns the message of header, with its blank line, and the octets of body from offset on. Up to 64 KiB in
// memory it is a copy. Larger ones are not copied: header must not change, and body must stay open while the result is
// in use.
func Join(header []byte, body mail.Content, offset int64) mail.Content {
	offset = min(max(offset, 0), body.Size())
	size := int64(len(header)) + body.Size() - offset
	if b := body.Bytes(); b != nil && size <= joinCopy {
		return mail.BytesContent(append(append(make([]byte, 0, size), header...), b[offset:]...))
	}
	return &joined{header: header, body: body, offset: offset, size: size}
}

type joined struct {
	header []byte
	body   mail.Content
	offset int64
	size   int64
}

func (j *joined) Size() int64 { return j.size }

// Bytes returns nil: the octets are not in one piece.
func (j *joined) Bytes() []byte { return nil }

// Pieces returns the octets as slices in order if they are in memory, else nil. They must not be changed.
func (j *joined) Pieces() [][]byte {
	if b := j.body.Bytes(); b != nil {
		return [][]byte{j.header, b[j.offset:]}
	}
	return nil
}

func (j *joined) Open() (io.ReadCloser, error) {
	if pieces := j.Pieces(); pieces != nil {
		return io.NopCloser(&piecesReader{bytes.NewReader(pieces[0]), bytes.NewReader(pieces[1])}), nil
	}
	r, err := j.body.Open()
	if err != nil {
		return nil, err
	}
	if err := skip(r, j.offset); err != nil {
		r.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(j.header), r), r}, nil
}

// skip skips the first n octets, by seeking if possible.
func skip(r io.Reader, n int64) error {
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// piecesReader reads two slices; io.Copy takes each whole.
type piecesReader struct{ first, second *bytes.Reader }

func (p *piecesReader) Read(b []byte) (int, error) {
	if p.first.Len() > 0 {
		return p.first.Read(b)
	}
	return p.second.Read(b)
}

// WriteTo implements io.WriterTo.
func (p *piecesReader) WriteTo(w io.Writer) (int64, error) {
	n, err := p.first.WriteTo(w)
	if err != nil {
		return n, err
	}
	m, err := p.second.WriteTo(w)
	return n + m, err
}
