package spool

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"postern/mail"
)

// Initial sizes of a Buffer's memory, in octets. A declared size is trusted up to firstMost.
const (
	undeclared = 8 << 10
	firstMost  = 64 << 10
	pieceSize  = 32 << 10 // to which small writes to a file are gathered
)

// Buffer takes the octets of one message and returns them as mail.Content. Only one goroutine may use Write and
// Content; any number may read the Content.
type Buffer struct {
	spool *Spool
	hint  int64
	err   error // sticky

	memory []byte
	taken  int64 // from the memory budget

	file   *os.File
	size   int64 // octets in the file and the pending piece
	onDisk int64 // taken from the disk budget
	piece  []byte

	content *fileOrMemory
	holders atomic.Int32 // the writer until Close, and one for each Retain
	closed  atomic.Bool
}

// Buffer returns an empty Buffer. size is the declared size, 0 if there is none: a hint, not a limit.
func (s *Spool) Buffer(size int64) *Buffer {
	b := &Buffer{spool: s, hint: size}
	b.holders.Store(1)
	return b
}

// Size is the number of octets written so far.
func (b *Buffer) Size() int64 {
	if b.file != nil {
		return b.size
	}
	return int64(len(b.memory))
}

// Write implements io.Writer. Its error is a *mail.Error; after one, every Write and Content fails.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.err == nil && (b.content != nil || b.closed.Load()) {
		b.err = trouble(os.ErrClosed)
	}
	if b.err != nil {
		return 0, b.err
	}
	if b.file == nil && b.fits(len(p)) {
		b.memory = append(b.memory, p...)
		return len(p), nil
	}
	if err := b.toFile(p); err != nil {
		b.err = trouble(err)
		return 0, b.err
	}
	return len(p), nil
}

// fits grows the memory by n octets if the budgets allow it.
func (b *Buffer) fits(n int) bool {
	need := int64(len(b.memory) + n)
	if need <= int64(cap(b.memory)) {
		return true
	}
	most := b.spool.options.MemoryPerMessage
	if need > most || b.hint > most {
		return false
	}
	size := max(2*int64(cap(b.memory)), undeclared, need)
	if cap(b.memory) == 0 {
		size = undeclared
		if b.hint > 0 {
			size = min(b.hint+512, firstMost) // 512 in case the declared size is too small
		}
		size = max(need, size)
	} else if b.hint >= need {
		size = b.hint + 512
	}
	size = min(size, max(most, need))
	if !b.spool.memory.take(size) {
		return false
	}
	grown := make([]byte, len(b.memory), size)
	copy(grown, b.memory)
	b.dropMemory()
	b.memory, b.taken = grown, size
	return true
}

func (b *Buffer) dropMemory() {
	b.spool.memory.give(b.taken)
	b.memory, b.taken = nil, 0
}

// pieces may be reused: no Content ever shows them.
var pieces = sync.Pool{New: func() any { p := make([]byte, 0, pieceSize); return &p }}

func (b *Buffer) toFile(p []byte) error {
	if b.file == nil {
		f, err := b.spool.createFile()
		if err != nil {
			return fmt.Errorf("create a spool file: %w", err)
		}
		b.file, b.piece = f, *pieces.Get().(*[]byte)
		if err := b.put(b.memory); err != nil {
			return err
		}
		b.dropMemory()
	}
	return b.put(p)
}

// put gathers small writes into pieces.
func (b *Buffer) put(p []byte) error {
	if !b.spool.disk.take(int64(len(p))) {
		return errDiskBudget
	}
	b.onDisk += int64(len(p))
	b.size += int64(len(p))
	if len(b.piece)+len(p) <= cap(b.piece) {
		b.piece = append(b.piece, p...)
		return nil
	}
	if err := b.flush(); err != nil {
		return err
	}
	if len(p) < cap(b.piece) {
		b.piece = append(b.piece, p...)
		return nil
	}
	if _, err := b.file.Write(p); err != nil {
		return fmt.Errorf("write a spool file: %w", err)
	}
	return nil
}

func (b *Buffer) flush() error {
	if len(b.piece) == 0 {
		return nil
	}
	_, err := b.file.Write(b.piece)
	b.piece = b.piece[:0]
	if err != nil {
		return fmt.Errorf("write a spool file: %w", err)
	}
	return nil
}

func (b *Buffer) dropPiece() {
	if b.piece != nil {
		piece := b.piece[:0]
		pieces.Put(&piece)
		b.piece = nil
	}
}

// Content ends the writing and returns what was written. It is readable until Close; readers opened before then may
// read to the end.
func (b *Buffer) Content() (mail.Content, error) {
	if b.content != nil {
		return b.content, nil
	}
	if b.err != nil {
		return nil, b.err
	}
	if b.closed.Load() {
		return nil, trouble(os.ErrClosed)
	}
	if b.file != nil {
		err := b.flush()
		b.dropPiece()
		if err != nil {
			b.err = trouble(err)
			return nil, b.err
		}
	}
	b.content = &fileOrMemory{memory: b.memory, file: b.file, size: b.Size(), users: 1}
	return b.content, nil
}

// Retain keeps the Content readable beyond Close, until release is called. It must be called before Close; release may
// be called more than once.
func (b *Buffer) Retain() (release func()) {
	b.holders.Add(1)
	return sync.OnceFunc(b.leave)
}

// Close releases the Buffer. Its memory or file is freed once nobody retains it, a file once its last reader is closed.
// It may be called at any time and more than once.
func (b *Buffer) Close() error {
	if b.closed.CompareAndSwap(false, true) {
		b.leave()
	}
	return nil
}

func (b *Buffer) leave() {
	if b.holders.Add(-1) > 0 {
		return
	}
	b.dropMemory()
	b.dropPiece()
	b.spool.disk.give(b.onDisk)
	if b.content != nil {
		b.content.close()
	} else if b.file != nil {
		b.file.Close() // unnamed, so this deletes it
	}
}

// fileOrMemory is the Content of a Buffer.
type fileOrMemory struct {
	size   int64
	memory []byte
	file   *os.File

	mu     sync.Mutex // guards the fields below
	users  int        // readers, plus 1 until close
	closed bool
}

func (c *fileOrMemory) Size() int64 { return c.size }

func (c *fileOrMemory) Bytes() []byte {
	if c.file == nil && c.memory == nil {
		return []byte{}
	}
	return c.memory
}

// Open implements mail.Content. Readers share the file by ReadAt.
func (c *fileOrMemory) Open() (io.ReadCloser, error) {
	if c.file == nil {
		return io.NopCloser(bytes.NewReader(c.memory)), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("open a spooled message: %w", os.ErrClosed)
	}
	c.users++
	return &reader{SectionReader: io.NewSectionReader(c.file, 0, c.size), content: c}, nil
}

func (c *fileOrMemory) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.leaveLocked()
	}
}

func (c *fileOrMemory) leaveLocked() {
	if c.users--; c.users == 0 && c.file != nil {
		c.file.Close() // unnamed, so this deletes it
	}
}

// reader reads a spooled file. If the file has become shorter, that is an error, not the end.
type reader struct {
	*io.SectionReader
	content *fileOrMemory
	once    sync.Once
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	if err == io.EOF {
		if at, _ := r.Seek(0, io.SeekCurrent); at < r.Size() {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

func (r *reader) Close() error {
	r.once.Do(func() {
		r.content.mu.Lock()
		defer r.content.mu.Unlock()
		r.content.leaveLocked()
	})
	return nil
}
