package mail

import (
	"bytes"
	"io"
)

// Content is the octets of a message: header, blank line, body, every line ended by CRLF. It can be
// read any number of times and by several readers at once.
type Content interface {
	// Size is the exact number of octets.
	Size() int64
	// Open returns a reader at the first octet. A read error means that the octets could not be
	// fetched, never that the message is at its end.
	Open() (io.ReadCloser, error)
	// Bytes returns all octets where memory holds them already, else nil. They must not be changed.
	Bytes() []byte
}

// BytesContent is Content in memory.
type BytesContent []byte

// Size implements Content.
func (b BytesContent) Size() int64 { return int64(len(b)) }

// Open implements Content.
func (b BytesContent) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// Bytes implements Content.
func (b BytesContent) Bytes() []byte { return b }
