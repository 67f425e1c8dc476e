package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"postern/internal/disk"
	"postern/relay/queue"
)

// space watches the room on the file system.
type space struct {
	dir   string
	floor int64

	mu    sync.Mutex
	asked time.Time
	err   error
}

// spaceAge is how old an answer about free space may be.
const spaceAge = 250 * time.Millisecond

// check returns queue.ErrFull when less than the floor is free. Pages that are free inside the database
// file count, so that a disk filled by a backlog opens again once the backlog is gone; but a quarter of
// the floor must be free outside, for the log.
func (s *space) check(inside func() (int64, error)) error {
	if s.floor < 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked.IsZero() && time.Since(s.asked) < spaceAge {
		return s.err
	}
	err := s.ask(inside)
	if err == nil || errors.Is(err, queue.ErrFull) { // other trouble may be of who asks: they went away
		s.asked, s.err = time.Now(), err
	}
	return err
}

// free is how many octets of the file system are.
func (s *space) free() (int64, error) {
	room, err := disk.Of(s.dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.dir, err)
	}
	return room.Free, nil
}

// lack is how many octets should become free before so little is that ask refuses.
func (s *space) lack(inside func() (int64, error)) (int64, error) {
	if s.floor < 0 {
		return 0, nil
	}
	free, err := s.free()
	missing := s.floor + s.floor/4 - free
	if err != nil || missing <= 0 {
		return 0, err
	}
	within, err := inside()
	return max(0, missing-within), err
}

func (s *space) ask(inside func() (int64, error)) error {
	free, err := s.free()
	if err != nil || free >= s.floor {
		return err
	}
	if free >= s.floor/4 {
		within, err := inside()
		if err != nil {
			return err
		}
		if free+within >= s.floor {
			return nil
		}
	}
	return fmt.Errorf("%w: %d MB free in %s, %d MB must stay free", queue.ErrFull, free/1e6, s.dir, s.floor/1e6)
}
