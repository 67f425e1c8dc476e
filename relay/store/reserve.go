package store

import (
	"errors"
	"fmt"
	"os"

	"postern/internal/errno"
	"postern/relay/queue"
	"postern/relay/store/internal/db"
)

// reserve takes room on the disk before contents are promised any, so that a disk which others fill up never
// keeps mail that has left from leaving the queue as well: the pages of a committed message are only written
// to the file at the next checkpoint, which must not fail then, and taking out a message needs a little
// of the log. Blocks are reserved behind the ends of both files; their lengths do not change.
//
// It belongs to the writer's goroutine.
type reserve struct {
	file  *os.File // of the database; held open: closing it would drop the engine's locks
	taken int64    // octets of the file that have their blocks
	slack int64    // octets that may be added before it is looked at again
	off   bool     // the file system cannot reserve
}

const (
	reserveStep = 16 << 20 // blocks are taken in steps
	reserveLog  = 4 << 20  // of the log: enough to take out hundreds of messages
	// reserveEach is what a message needs beside its content, and reserveSpare what changes of others may need, in
	// octets. Both are generous.
	reserveEach  = 8 << 10
	reserveSpare = 1 << 20
)

func openReserve(path string) (*reserve, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	r := &reserve{file: f}
	log, err := os.OpenFile(path+"-wal", os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(allocate(log, reserveLog), log.Close())
	}
	if errors.Is(err, errors.ErrUnsupported) {
		r.off = true
		err = nil
	}
	if err != nil && !noRoom(err) { // a full disk takes no mail, but it may let mail go
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *reserve) close() error {
	if r == nil {
		return nil
	}
	return r.file.Close()
}

// claim makes sure that so many octets of contents can be added. queue.ErrFull: they cannot.
func (r *reserve) claim(conn db.Conn, messages int, octets int64) error {
	if r == nil || r.off {
		return nil
	}
	need := octets + octets/16 + int64(messages)*reserveEach
	if r.slack < need {
		if err := r.take(conn, need); err != nil {
			return err
		}
	}
	r.slack -= need
	return nil
}

func (r *reserve) take(conn db.Conn, need int64) error {
	pages, _, err := conn.Int("PRAGMA page_count")
	if err != nil {
		return err
	}
	free, _, err := conn.Int("PRAGMA freelist_count")
	if err != nil {
		return err
	}
	used := (pages-free)*pageSize + reserveSpare
	if want := max(used+need, pages*pageSize); want > r.taken {
		want = (want + reserveStep - 1) / reserveStep * reserveStep
		err := allocate(r.file, want)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			r.off = true
			return nil
		case noRoom(err):
			return fmt.Errorf("%w: the disk has no room for another %d octets: %w", queue.ErrFull, need, err)
		case err != nil:
			return fmt.Errorf("reserve room for mail: %w", err)
		}
		r.taken = want
	}
	r.slack = r.taken - used
	return nil
}

// noRoom reports that the disk is full, or a quota, or the bound of a file.
func noRoom(err error) bool {
	return errno.Full(err) || errors.Is(err, errno.TooLarge)
}
