package relay

import (
	"io"
	"sync/atomic"

	"postern/mail"
	"postern/relay/spool"
)

// maxPiece is the size up to which a completed message is copied into one piece of memory, in octets:
// every reader behind us (signature, store, upstream) is then spared a copy of its own.
const maxPiece = 2 << 20

// completed joins our header and the client's body. The result is in one piece where memory holds the
// message anyway.
func completed(header []byte, raw mail.Content, body int) mail.Content {
	joined := spool.Join(header, raw, int64(body))
	if joined.Bytes() != nil || raw.Bytes() == nil || joined.Size() > maxPiece {
		return joined
	}
	whole := make([]byte, 0, joined.Size())
	whole = append(whole, header...)
	return mail.BytesContent(append(whole, raw.Bytes()[body:]...))
}

// holder frees the client's octets when the last of those who may read them has let go.
type holder struct {
	buffer  io.Closer
	holders atomic.Int32
}

func newHolder(buffer io.Closer) *holder {
	h := &holder{buffer: buffer}
	h.holders.Store(1)
	return h
}

// hold adds a reader, which must release in the end.
func (h *holder) hold() { h.holders.Add(1) }

func (h *holder) release() {
	if h.holders.Add(-1) > 0 {
		return
	}
	h.buffer.Close() // of memory or of a file without a name: nothing can be lost here
}
