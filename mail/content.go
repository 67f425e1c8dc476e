package mail

import (
	"bytes"
	"io"
)

// Content is the octets of a message: header, blank line and body, every line ended by CRLF. It can be read any number
// of times and by several readers at once.
type Content interface {
	// Size is the exact number of octets.
	Size() int64
	// Open returns a reader at the first octet. A read error means that octets could not be fetched, never the end of
	// the message.
	Open() (io.ReadCloser, error)
	// Bytes returns all octets if they are in memory, else nil. They must not be changed.
	Bytes() []byte
}

// FirstOctets returns at most n octets from the beginning of c.
func FirstOctets(c Content, n int) ([]byte, error) {
	if b := c.Bytes(); b != nil {
		return b[:min(len(b), n)], nil
	}
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, min(c.Size(), int64(n)))
	_, err = io.ReadFull(r, b)
	return b, err
}

// BytesContent is Content in memory.
type BytesContent []byte

// Size implements Content.
func (b BytesContent) Size() int64 { return int64(len(b)) }

// Open implements Content.
func (b BytesContent) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// Bytes implements Content.
func (b BytesContent) Bytes() []byte { return b }
